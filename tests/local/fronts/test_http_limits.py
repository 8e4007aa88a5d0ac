"""What strangers can do to the REST front: little, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from clarigrpc.local import LocalServer
from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.fronts import http_connections, http_messages
from clarigrpc.local.fronts.http_messages import BodiesFullError, BodyReader, BodyTooSlowError


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as server:
        yield server


def _connect(server: LocalServer) -> socket.socket:
    url = httpx.URL(server.rest_base or "")
    return socket.create_connection((url.host, url.port or 0), timeout=10)


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def _answers(server: LocalServer) -> float:
    """Seconds that a call of somebody else takes."""
    start = time.monotonic()
    with server.client(transport="rest") as client:
        assert client.inputs.status().processed == 0
    return time.monotonic() - start


@pytest.mark.measures
@pytest.mark.parametrize("sent", [b"", b"GET /v2/inputs HTTP/1.1\r\nx: "], ids=["none", "half"])
def test_a_head_has_to_come_in_time(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http_connections.ConnectionBounds.__init__, "__defaults__", (0.3, 256))
    with LocalServer(rest_port=0) as server:
        start = time.monotonic()
        with _connect(server) as connection:
            connection.sendall(sent)
            assert _is_closed(connection)
        assert 0.2 < time.monotonic() - start < 5


def test_a_head_in_drops_has_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections.ConnectionBounds.__init__, "__defaults__", (0.3, 256))
    with LocalServer(rest_port=0) as server, _connect(server) as connection:
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200:
                connection.sendall(b"G")
                sent += 1
                time.sleep(0.02)
        assert sent < 150


def test_idle_connections_between_requests_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections.ConnectionBounds.__init__, "__defaults__", (0.6, 256))
    with LocalServer(rest_port=0) as server, httpx.Client(base_url=server.rest_base or "") as web:
        ports = set()
        for pause in (0.9, 0.0):
            with web.stream("GET", "/v2/inputs") as response:
                ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
                response.read()
            time.sleep(pause)
        assert len(ports) == 1


def test_many_unfinished_heads_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections.ConnectionBounds.__init__, "__defaults__", (60.0, 8))
    with LocalServer(rest_port=0) as server:
        opened = [_connect(server) for _ in range(40)]
        for connection in opened:
            connection.sendall(b"POST /v2/inputs HTTP/1.1\r\n")
        assert _answers(server) < 5
        assert all(_is_closed(connection) for connection in opened[:31])
        for connection in opened:
            connection.close()


@pytest.mark.parametrize("path", ["/v2/inputs", "/v1/tag", "/v1/token"])
def test_bodies_of_strangers_are_short(server: LocalServer, path: str) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65_536
            yield b" " * 65_536

    try:
        response = httpx.post(f"{server.rest_base}{path}", content=chunks(), timeout=10)
    except httpx.WriteError:  # closed while it was sent
        pass
    else:
        assert response.status_code in (401, 413)
    assert sent < 60 * 65_536


def test_long_bodies_of_the_known_are_read(server: LocalServer) -> None:
    body = b'{"inputs":[{"id":"a","data":{"text":{"raw":"' + b"x" * 1_000_000 + b'"}}}]}'
    headers = {"authorization": f"Key {server.pat}"}
    response = httpx.post(f"{server.rest_base}/v2/inputs", content=body, headers=headers)
    assert response.status_code == 200


def test_all_bodies_together_are_limited() -> None:
    reader = BodyReader(100, ByteBudget(300))

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"x" * 100}

    async def scenario() -> None:
        async with reader.body(receive):
            with pytest.raises(BodiesFullError):
                async with reader.body(receive):
                    raise AssertionError("there was room")
        async with reader.body(receive) as body:  # the room of both is free again
            assert len(body) == 100

    asyncio.run(scenario())


def test_a_body_that_stops_is_given_up() -> None:
    reader = BodyReader(idle_seconds=0.05)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(60)
        raise AssertionError

    async def scenario() -> None:
        with pytest.raises(BodyTooSlowError):
            async with reader.body(receive):
                raise AssertionError("there was a body")

    asyncio.run(scenario())


def test_a_body_that_stops_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = (http_messages.MAX_BODY_BYTES, None, 0.2)
    monkeypatch.setattr(BodyReader.__init__, "__defaults__", defaults)
    with LocalServer(rest_port=0) as server, _connect(server) as connection:
        connection.sendall(b"POST /v2/inputs HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        answer = connection.makefile("rb").read()  # to the end of the connection
        assert b"504" in answer.splitlines()[0]
        assert b"nothing of the body arrived for 0.2 s" in answer


def test_malformed_requests_do_not_fill_the_log(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def send() -> None:
        for _ in range(30):
            with _connect(server) as connection:
                connection.sendall(b"\0\0\0\r\n\r\n")
                connection.recv(1)

    start = time.monotonic()
    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    seconds = int(time.monotonic() - start) + 2
    lines = [record.getMessage() for record in caplog.records]
    assert 0 < len(lines) <= seconds * http_connections.LOG_LINES_PER_SECOND


def test_lines_that_were_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5.0
    monkeypatch.setattr("clarigrpc.local.fronts.http_connections.time.monotonic", lambda: now)
    pace = http_connections.LinePace(2)

    def said() -> str | None:
        record = logging.LogRecord("x", logging.WARNING, "x", 1, "line %d", (7,), None)
        return record.getMessage() if pace.filter(record) else None

    assert [said() for _ in range(4)] == ["line 7", "line 7", None, None]
    now = 6.0
    assert said() == "line 7 (2 lines were left out)"
    assert said() == "line 7"


ORIGIN = "http://localhost:3000"


def test_web_pages_may_call_it_only_if_asked_for() -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "PATCH"}
    asked["access-control-request-headers"] = "authorization, content-type"
    with LocalServer(rest_port=0) as server:
        assert httpx.options(f"{server.rest_base}/v2/inputs", headers=asked).status_code == 405
        response = httpx.get(f"{server.rest_base}/v2/inputs", headers={"origin": ORIGIN})
        assert "access-control-allow-origin" not in response.headers
    with LocalServer(rest_port=0, cors=[ORIGIN]) as server:
        url = f"{server.rest_base}/v2/inputs"
        response = httpx.options(url, headers=asked)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "PATCH" in response.headers["access-control-allow-methods"]
        assert "authorization" in response.headers["access-control-allow-headers"].lower()
        headers = {"authorization": f"Key {server.pat}", "origin": ORIGIN}
        response = httpx.get(url, headers=headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == ORIGIN
        other = httpx.options(url, headers={**asked, "origin": "http://evil.example"})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "origin", ["localhost:3000", "http://localhost:3000/", "ftp://x", "http://", "HTTP://X", ""]
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        LocalServer(cors=[origin])
    with pytest.raises(TypeError, match="sequence of origins"):
        LocalServer(cors=ORIGIN)
