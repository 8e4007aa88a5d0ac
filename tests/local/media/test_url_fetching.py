"""What the server fetches for its users, and what it refuses to."""

from __future__ import annotations

import gzip
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clarigrpc import v2
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.service_errors import ServiceError
from tests.local.conftest import Raw, png, settled

Code = v2.StatusCode


class _Pages(BaseHTTPRequestHandler):
    """Answers as its paths say."""

    def do_GET(self) -> None:
        what, _, argument = self.path.removeprefix("/").partition("/")
        if what == "to":
            self._answer(302, b"", location=argument)
        elif what == "lost":
            self._answer(302, b"")
        elif what == "loop":
            self._answer(302, b"", location="/loop")
        elif what == "picture":
            self._answer(200, png("red"))
        elif what == "host":
            self._answer(200, self.headers["host"].encode())
        elif what == "zipped":
            self._answer(200, gzip.compress(bytes(3_000_000)), content_encoding="gzip")
        elif what == "twice":
            body = gzip.compress(gzip.compress(bytes(3_000_000)))
            self._answer(200, body, content_encoding="gzip, gzip")
        elif what == "brotli":
            self._answer(200, b"x", content_encoding="br")
        elif what == "broken":
            self._answer(200, b"no gzip", content_encoding="gzip")
        elif what == "endless":
            self._answer(200, b"", content_length="999999999")
            self._trickle()
        else:
            self._answer(200, bytes(int(argument)))

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _trickle(self) -> None:
        try:
            for _ in range(1000):
                self.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            pass  # nobody reads on

    def log_message(self, *args: object) -> None:
        """Says nothing."""


class _SlowHead(socketserver.BaseRequestHandler):
    """Never comes to the end of its head, and is never silent for long."""

    def handle(self) -> None:
        try:
            self.request.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            for _ in range(1000):
                self.request.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            pass


def _serve(server: socketserver.TCPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    yield from _serve(ThreadingHTTPServer(("127.0.0.1", 0), _Pages))


@pytest.fixture(scope="module")
def slow() -> Iterator[str]:
    yield from _serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _SlowHead))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A resolver of the test's own: name -> addresses."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, **options: object) -> list[object]:
        found: list[object] = []
        for address in table.get(host, [host]):
            found += real(address, port, type=socket.SOCK_STREAM)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return table


def refused(fetcher: Fetcher, url: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        fetcher.get(url)
    return caught.value


def test_what_is_allowed(web: str) -> None:
    fetcher = Fetcher(max_bytes=1000)
    assert fetcher.get(f"{web}/size/1000") == bytes(1000)
    assert fetcher.get(f"{web}/to//size/5") == bytes(5)
    assert fetcher.get(f"{web}/host").decode() == web.removeprefix("http://")


@pytest.mark.parametrize("path", ["size/1001", "zipped"])
def test_size(web: str, path: str) -> None:
    error = refused(Fetcher(max_bytes=1000), f"{web}/{path}")
    assert error.code == Code.INPUT_OVER_LIMIT


@pytest.mark.parametrize("path", ["twice", "brotli", "broken"])
def test_content_codings_that_nobody_asked_for(web: str, path: str) -> None:
    error = refused(Fetcher(), f"{web}/{path}")
    assert error.code == Code.INPUT_FAILED
    assert "content" in error.details


@pytest.mark.measures
def test_time_is_limited_as_a_whole(web: str, slow: str) -> None:
    fetcher = Fetcher(timeout=0.3)
    for url in (f"{web}/endless", slow):
        start = time.monotonic()
        error = refused(fetcher, url)
        assert (error.code, time.monotonic() - start < 5) == (Code.INPUT_FAILED, True)
        assert "longer than 0.3 s" in error.details


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://x/", "gopher://x", "http://", "//x", "", "http://x:0/", "\x00"],
)
def test_other_schemes(web: str, url: str) -> None:
    assert refused(Fetcher(), url).code == Code.INPUT_INVALID_URL


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/", "http://10.0.0.1/", "http://["]
)
def test_redirects_are_checked_too(web: str, target: str) -> None:
    assert refused(Fetcher(), f"{web}/to/{target}").code == Code.INPUT_INVALID_URL


def test_redirects_end(web: str) -> None:
    assert "redirects" in refused(Fetcher(), f"{web}/loop").details
    assert "HTTP 302" in refused(Fetcher(), f"{web}/lost").details


@pytest.mark.parametrize(
    "host",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "[::]",
        "[fd00::1]",
        "[fe80::1]",
        "[::ffff:10.0.0.1]",
    ],
)
def test_private_addresses(host: str) -> None:
    error = refused(Fetcher(), f"http://{host}/x")
    assert error.code == Code.INPUT_INVALID_URL
    assert "private address" in error.details


def test_this_machine_only_where_it_is_allowed(web: str) -> None:
    error = refused(Fetcher(allow_loopback=False), f"{web}/size/1")
    assert "private address" in error.details


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["93.184.215.14", "192.168.0.1"], ["::1"]])
def test_names_of_private_addresses(names: dict[str, list[str]], addresses: list[str]) -> None:
    names["inside.example"] = addresses
    error = refused(Fetcher(allow_loopback=False), "http://inside.example/")
    assert (error.code, "private address" in error.details) == (Code.INPUT_INVALID_URL, True)


def test_redirect_to_a_name_of_a_private_address(web: str, names: dict[str, list[str]]) -> None:
    names["inside.example"] = ["10.0.0.1"]
    assert "private" in refused(Fetcher(), f"{web}/to/http://inside.example/").details


def test_names_in_other_scripts(web: str, names: dict[str, list[str]]) -> None:
    names["xn--bcher-kva.example"] = ["127.0.0.1"]
    port = web.rpartition(":")[2]
    host = Fetcher().get(f"http://bücher.example:{port}/host").decode()
    assert host == f"xn--bcher-kva.example:{port}"


def test_names_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    error = refused(Fetcher(), "http://none.example/")
    assert (error.code, "cannot resolve" in error.details) == (Code.INPUT_INVALID_URL, True)


@pytest.mark.parametrize(
    ("allowed", "code"), [(False, Code.INPUT_FAILED), (True, Code.INPUT_SUCCESS)]
)
def test_the_option_of_the_server(
    web: str, serve: Callable[..., Raw], allowed: bool, code: int
) -> None:
    raw = serve(allow_private_urls=allowed)
    request = v2.PostInputsRequest()
    # An address that leads to this machine and is not one of loopback.
    url = web.replace("127.0.0.1", "0.0.0.0")
    request.inputs.add(id="in").data.image.url = f"{url}/picture"
    assert raw("PostInputs", request).status.code == Code.SUCCESS
    status = settled(raw, "in").status
    assert status.code == code
    assert ("private address" in status.details) is not allowed
