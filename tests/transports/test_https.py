"""TLS below ``transport="rest"``: roots of one's own and client certificates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import RetryPolicy, errors, v2
from tests.both import Both
from tests.conftest import Connect
from tests.transports.test_tls import Authority

GET = v2.GetModelRequest(model_id="m")
HEAD = b"HTTP/1.1 200 OK\r\n"
ANSWER = b'{"status": {"code": "SUCCESS"}, "model": {"id": "m"}}'


class Handler(BaseHTTPRequestHandler):
    """Answers every GET like the service."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


class Server(ThreadingHTTPServer):
    """Does not tell of clients that refuse its certificate."""

    def handle_error(self, request: Any, address: Any) -> None:
        """Nothing is said."""


@contextmanager
def secured(authority: Authority, folder: Path, *, clients: bool = False) -> Iterator[str]:
    """The base of an HTTPS server; ``clients``: that asks for a client certificate."""
    pem = folder / "server.pem"
    pem.write_bytes(authority.key + authority.chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority.roots.decode())
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def rest(connect: Connect) -> Any:
    """Makes a client over HTTP that tries once."""

    def make(base: str, **settings: Any) -> Both:
        once = RetryPolicy(max_attempts=1)
        return connect(base, transport="rest", timeout=20, retry=once, **settings)

    return make


async def test_own_roots(rest: Any, authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "roots.pem"
    path.write_bytes(authority.roots)
    with secured(authority, tmp_path) as base:
        for roots in (authority.roots, path):
            response = await rest(base, root_certificates=roots).call("GetModel", GET)
            assert response.model.id == "m"


async def test_client_certificates(rest: Any, authority: Authority, tmp_path: Path) -> None:
    with secured(authority, tmp_path, clients=True) as base:
        both = rest(base, root_certificates=authority.roots, **authority.client())
        assert (await both.call("GetModel", GET)).model.id == "m"
        without = rest(base, root_certificates=authority.roots)
        with pytest.raises(errors.UnavailableError):
            await without.call("GetModel", GET)


@pytest.mark.parametrize("given", ["none", "others"])
async def test_wrong_roots(rest: Any, authority: Authority, tmp_path: Path, given: str) -> None:
    roots = {} if given == "none" else {"root_certificates": Authority().roots}
    with secured(authority, tmp_path) as base:
        with pytest.raises(errors.UnavailableError) as caught:
            await rest(base, **roots).call("GetModel", GET)
        assert "root_certificates=" in str(caught.value)
        assert base in str(caught.value)


class Tunnel:
    """An HTTP proxy, and the HTTPS server of the host that it is asked for.

    Args:
        context: The server's.
        proxy_says: The answer to CONNECT.
        server_says: The answer to the request within the tunnel. Either answer goes on with one
            byte after the other where it lacks its end.
    """

    def __init__(self, context: ssl.SSLContext, proxy_says: bytes, server_says: bytes) -> None:
        self._context = context
        self._says = proxy_says, server_says
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._over = threading.Event()
        self.asked: list[bytes] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(20)
                    proxy_says, server_says = self._says
                    self.asked.append(connection.recv(65536))
                    self._answer(connection, proxy_says)
                    with self._context.wrap_socket(connection, server_side=True) as secured:
                        self.asked.append(secured.recv(65536))
                        self._answer(secured, server_says)

    def _answer(self, connection: socket.socket, answer: bytes) -> None:
        connection.sendall(answer)
        if b"\r\n\r\n" not in answer:
            while not self._over.wait(0.05):
                connection.sendall(b"a")

    def __enter__(self) -> Tunnel:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def through(
    connect: Connect, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Opens a tunnel to ``https://h.example``, and a client that the environment tells of it."""
    issued = authority.ca.issue_cert("h.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(context)
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)

    @contextmanager
    def make(timeout: float, *says: bytes) -> Iterator[tuple[Tunnel, Both]]:
        with Tunnel(context, *says) as tunnel:
            monkeypatch.setenv("https_proxy", tunnel.address.replace("//", "//user:secret@"))
            yield (
                tunnel,
                connect(
                    "https://h.example",
                    transport="rest",
                    timeout=timeout,
                    root_certificates=authority.roots,
                    retry=RetryPolicy(max_attempts=1),
                ),
            )

    return make


async def test_through_a_proxy(through: Any) -> None:
    answer = HEAD + b"content-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
    with through(20, HEAD + b"\r\n", answer) as (tunnel, both):
        assert (await both.call("GetModel", GET)).model.id == "m"
        await both.close()
    connected, called = tunnel.asked
    assert connected.startswith(b"CONNECT h.example:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in connected
    assert called.startswith(b"GET /v2/")


@pytest.mark.parametrize("says", [[HEAD + b"x: ", b""], [HEAD + b"\r\n", HEAD + b"x: "]])
async def test_what_comes_byte_by_byte_ends_at_the_deadline_through_a_proxy_too(
    through: Any, says: list[bytes]
) -> None:
    with through(1, *says) as (_, both), pytest.raises(errors.DeadlineExceededError):
        await asyncio.wait_for(both.call("GetModel", GET), 10)
