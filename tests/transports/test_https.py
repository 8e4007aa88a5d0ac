"""TLS below ``transport="rest"``: roots of one's own and client certificates."""

from __future__ import annotations

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
