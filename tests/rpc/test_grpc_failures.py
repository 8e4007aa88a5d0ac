"""Whether a request was sent: grpcio says it in the text of its errors only.

The texts are those of the grpcio that is installed, over real sockets, so that a version that words
them differently is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import aio

from clarigrpc import RetryPolicy, errors, v2
from clarigrpc._rpc import grpc_failures
from clarigrpc._transports.transport import transport_error
from tests.both import Both, ClientKind
from tests.conftest import Connect
from tests.scripted import Fail, ScriptedServer
from tests.socket_server import drain, kept_port, receive, server_that

GET = v2.GetModelRequest(model_id="m")
GENERATE = v2.PostModelOutputsRequest(
    user_app_id=v2.UserAppIDSet(user_id="u", app_id="a"), model_id="m"
)


async def unary(both: Both) -> Any:
    return await both.call("GetModel", GET, timeout=10)


async def stream(both: Both) -> Any:
    return await both.collect(both.open("GenerateModelOutputs", GENERATE, timeout=10))


calls = pytest.mark.parametrize("call", [unary, stream])


async def failure(
    connect: Connect, call: Callable[[Both], Any], base: Any, **options: Any
) -> errors.ApiError:
    both = connect(base, retry=RetryPolicy(max_attempts=1), **options)
    with pytest.raises(errors.ApiError) as caught:
        await call(both)
    assert caught.value.grpc_code is grpc.StatusCode.UNAVAILABLE
    return caught.value


@calls
async def test_nobody_listens(connect: Connect, call: Callable[[Both], Any]) -> None:
    with kept_port() as port:
        error = await failure(connect, call, f"http://127.0.0.1:{port}")
    assert error.not_sent
    assert "nothing listens" in error.description


async def test_nobody_listens_at_several_addresses(connect: Connect) -> None:
    with kept_port() as one, kept_port() as other:
        bases = [f"http://127.0.0.1:{port}" for port in (one, other)]
        assert (await failure(connect, unary, bases)).not_sent


async def test_a_name_that_does_not_exist(connect: Connect) -> None:
    error = await failure(connect, unary, "https://no-such-host.invalid:1")
    assert error.not_sent


@calls
async def test_a_server_that_closes_at_once(connect: Connect, call: Callable[[Both], Any]) -> None:
    with server_that(lambda connection: None) as port:
        error = await failure(connect, call, f"http://127.0.0.1:{port}")
    assert error.not_sent


@calls
async def test_a_server_that_speaks_no_tls(connect: Connect, call: Callable[[Both], Any]) -> None:
    def plaintext(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with server_that(plaintext) as port:
        error = await failure(connect, call, f"https://127.0.0.1:{port}")
    assert error.not_sent


@calls
async def test_a_server_that_takes_the_request_and_goes(
    connect: Connect, call: Callable[[Both], Any]
) -> None:
    def take(connection: socket.socket) -> None:
        # Settings of the server and their acknowledgement, as HTTP/2 has them.
        connection.sendall(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0")
        # The path of the request, which HPACK leaves as it is or compresses, comes after the key.
        receive(connection, 200)

    with server_that(take) as port:
        error = await failure(connect, call, f"http://127.0.0.1:{port}")
    assert not error.not_sent


@calls
@pytest.mark.parametrize(
    "text",
    [
        "no healthy upstream",
        "upstream connect error: Connection refused",
        "certificate_verify_failed at the database",
        "DNS resolution failed for backend",
    ],
)
async def test_what_a_server_says_of_its_own_connections(
    connect: Connect, scripted: ScriptedServer, call: Callable[[Both], Any], text: str
) -> None:
    """It is no reason to look for the mistake in base=, or for another certificate."""
    for method in ("GetModel", "GenerateModelOutputs"):
        scripted.always(method, Fail(grpc.StatusCode.UNAVAILABLE, text))
    error = await failure(connect, call, scripted.base)
    assert error.description == f"{scripted.base} says that it is unavailable"
    assert error.details == text
    assert not error.not_sent


@calls
async def test_what_a_proxy_says_over_http(connect: Connect, call: Callable[[Both], Any]) -> None:
    def unavailable(connection: socket.socket) -> None:
        connection.recv(1000)
        head = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 7\r\n\r\n"
        connection.sendall(head + b"refused")
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    with server_that(unavailable) as port:
        base = f"http://127.0.0.1:{port}"
        error = await failure(connect, call, base, transport="rest", user_id="u", app_id="a")
    assert error.description == f"{base} says that it is unavailable"
    assert "HTTP 503" in error.details


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1"], ids=["head", "chunk"]
)
async def test_an_answer_over_http_that_comes_byte_by_byte_ends_at_the_deadline(
    client_kind: ClientKind, connect: Connect, head: bytes
) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(head or b"HTTP/1.1 200 OK\r\nx: ")
        while not over.wait(0.05):
            connection.sendall(b";" if head else b"a")

    with server_that(drip) as port:
        base = f"http://127.0.0.1:{port}"
        both = connect(base, transport="rest", timeout=0.5)
        try:
            with pytest.raises(errors.DeadlineExceededError):
                await asyncio.wait_for(both.call("GetModel", GET), 10)
        finally:
            over.set()


async def test_a_request_over_http_that_is_taken_in_sips_ends_at_the_deadline(
    connect: Connect,
) -> None:
    over = threading.Event()

    def sip(connection: socket.socket) -> None:
        while not over.wait(0.02) and connection.recv(65_536):
            pass

    image = v2.Image(base64=bytes(32 << 20))
    request = v2.PostInputsRequest(inputs=[v2.Input(data=v2.Data(image=image))])
    with server_that(sip) as port:
        both = connect(f"http://127.0.0.1:{port}", transport="rest", timeout=2)
        try:
            with pytest.raises(errors.DeadlineExceededError):
                await asyncio.wait_for(both.call("PostInputs", request), 10)
        finally:
            over.set()


@pytest.mark.measures
async def test_addresses_that_do_not_answer_share_the_deadline_over_http(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def addresses(host: Any, *where: Any, **hints: Any) -> list[Any]:
        if host not in ("localhost", b"localhost"):
            return resolve(host, *where, **hints)
        return resolve("127.0.0.1", *where, **hints) * 5

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # more than it lets wait: it answers nobody else
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        both = connect(f"http://localhost:{server.getsockname()[1]}", transport="rest", timeout=1)
        began = time.monotonic()
        with pytest.raises(errors.DeadlineExceededError):
            await both.call("GetModel", GET)
        assert time.monotonic() - began < 3


@calls
@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"])
async def test_closing_ends_calls_over_http(
    connect: Connect, call: Callable[[Both], Any], head: bytes
) -> None:
    arrived = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(head)
        arrived.set()
        while connection.recv(1000):
            pass

    with server_that(hold) as port:
        both = connect(f"http://127.0.0.1:{port}", transport="rest", user_id="u", app_id="a")
        running = asyncio.ensure_future(call(both))
        assert await asyncio.to_thread(arrived.wait, 30)
        await both.close()
        with pytest.raises(errors.CancelledError, match="the client was closed"):
            await running


@pytest.mark.parametrize("told", [True, False])
def test_a_transport_says_it_itself(told: bool) -> None:
    text = "failed to connect to all addresses"
    error = transport_error(grpc.StatusCode.UNAVAILABLE, text, not_sent=told)
    assert grpc_failures.was_not_sent(error) is told


def test_the_text_counts_with_unavailable_only() -> None:
    def not_sent(code: grpc.StatusCode, text: str) -> bool:
        empty = aio.Metadata()
        return grpc_failures.was_not_sent(aio.AioRpcError(code, empty, empty, text))

    text = "failed to connect to all addresses; last error: Connection refused"
    assert not_sent(grpc.StatusCode.UNAVAILABLE, text)
    assert not not_sent(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    assert not not_sent(grpc.StatusCode.INTERNAL, text)
