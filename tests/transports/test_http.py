"""The transports over HTTP/JSON: their calls behave like those of gRPC, sync and async alike."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import gzip
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._transports.async_http_transport import AsyncHttpTransport
from clarigrpc._transports.http_exchange import HttpOptions
from clarigrpc._transports.sync_http_transport import SyncHttpTransport
from clarigrpc._transports.transport import TransportError
from clarigrpc.local import LocalServer
from clarigrpc.local.fronts.rest_front import RestFront
from tests.backend import Backend, abort, outputs, respond
from tests.refused_threads import refused_threads
from tests.socket_server import drain, kept_port, receive, server_that
from tests.strategies import messages

GENERATE = v2.PostModelOutputsRequest(
    user_app_id=v2.UserAppIDSet(user_id="u", app_id="a"), model_id="m", inputs=[v2.Input(id="i")]
)


class Method:
    """The multicallable of a method, with messages for requests."""

    def __init__(self, transport: SyncHttpTransport | AsyncHttpTransport, name: str) -> None:
        row = methods.lookup(name)
        self._kind = row.kind
        self._real = transport.multicallable(row.kind, row.path)
        self.parse = row.response_class().FromString

    def _encoded(self, request: Any) -> Any:
        return request if self._kind.startswith("stream") else request.SerializeToString()

    def __call__(self, request: Any, **how: Any) -> Any:
        return self._real(self._encoded(request), **how)

    def with_call(self, request: Any, **how: Any) -> Any:
        return self._real.with_call(self._encoded(request), **how)

    def future(self, request: Any, **how: Any) -> Any:
        return self._real.future(self._encoded(request), **how)


@contextmanager
def opened(base: str, **options: Any) -> Iterator[SyncHttpTransport]:
    transport = SyncHttpTransport(HttpOptions(base, **options))
    try:
        yield transport
    finally:
        transport.close()


@asynccontextmanager
async def async_opened(base: str, **options: Any) -> AsyncIterator[AsyncHttpTransport]:
    transport = AsyncHttpTransport(HttpOptions(base, **options))
    try:
        yield transport
    finally:
        await transport.close(None)


class Caller:
    """Calls a method over one kind of transport and waits for the result."""

    def __init__(self, base: str, **options: Any) -> None:
        self.base = base
        self.options = options

    def unary(self, method: str, request: Any, **how: Any) -> Any:
        raise NotImplementedError

    def stream(self, method: str, request: Any, **how: Any) -> list[Any]:
        raise NotImplementedError


class Sync(Caller):
    def unary(self, method: str, request: Any, **how: Any) -> Any:
        with opened(self.base, **self.options) as transport:
            bound = Method(transport, method)
            return bound.parse(bound.with_call(request, **how)[0])

    def stream(self, method: str, request: Any, **how: Any) -> list[Any]:
        with opened(self.base, **self.options) as transport:
            bound = Method(transport, method)
            return [bound.parse(each) for each in bound(request, **how)]


class Async(Caller):
    def unary(self, method: str, request: Any, **how: Any) -> Any:
        async def run() -> Any:
            async with async_opened(self.base, **self.options) as transport:
                bound = Method(transport, method)
                return bound.parse(await bound(request, **how))

        return asyncio.run(run())

    def stream(self, method: str, request: Any, **how: Any) -> list[Any]:
        async def run() -> list[Any]:
            async with async_opened(self.base, **self.options) as transport:
                bound = Method(transport, method)
                return [bound.parse(each) async for each in bound(request, **how)]

        return asyncio.run(run())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Backend, RestFront]]:
    backend = Backend()
    front = RestFront(backend)
    front.start()
    yield backend, front
    front.close()


@pytest.fixture
def backend(served: tuple[Backend, RestFront]) -> Backend:
    served[0].reset()
    return served[0]


@pytest.fixture
def front(backend: Backend, served: tuple[Backend, RestFront]) -> RestFront:
    return served[1]


@pytest.fixture
def transport(front: RestFront) -> Iterator[SyncHttpTransport]:
    with opened(front.base) as transport:
        yield transport


@pytest.fixture(params=[Sync, Async])
def caller(request: pytest.FixtureRequest, front: RestFront) -> Caller:
    made: Caller = request.param(front.base)
    return made


def error_of(call: Callable[[], Any]) -> TransportError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, TransportError)
    return caught.value


@contextmanager
def http_server(body: bytes, status: int = 200, pause: float = 0, **headers: str) -> Iterator[str]:
    """A server that is not the service: it answers everything with the same bytes."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            for byte in body if pause else ():
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                time.sleep(pause)
            if not pause:
                self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_request_arrives_as_it_was(backend: Backend, caller: Caller) -> None:
    request = v2.PostInputsRequest(
        user_app_id=v2.UserAppIDSet(user_id="a/b", app_id="ü"),
        inputs=[v2.Input(id="x", data=v2.Data(image=v2.Image(base64=bytes(range(256)))))],
    )
    backend.handlers["PostInputs"] = lambda request, call: v2.MultiInputResponse(
        status=v2.Status(code=v2.StatusCode.SUCCESS), inputs=request.inputs
    )
    response = caller.unary("PostInputs", request)
    assert backend.calls[0][0] == request
    assert type(response) is v2.MultiInputResponse
    assert response.inputs == request.inputs


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(id=st.text(min_size=1), app=st.text(min_size=1), query=messages(v2.ListModelsRequest))
def test_any_id_and_any_query_arrive(
    backend: Backend, transport: SyncHttpTransport, id: str, app: str, query: v2.ListModelsRequest
) -> None:
    ids = v2.UserAppIDSet(user_id=".", app_id=app)
    # No other path begins like that of artifacts, so that every id is possible.
    artifact = v2.GetArtifactRequest(user_app_id=ids, artifact_id=id)
    Method(transport, "GetArtifact").with_call(artifact)
    Method(transport, "ListModels").with_call(query)
    assert [request for request, _ in backend.calls[-2:]] == [artifact, query]


def test_metadata_and_timeout_become_headers(backend: Backend, caller: Caller) -> None:
    metadata = (("authorization", "Key k"), ("x-clarifai-request-id-prefix", "p"), ("b-bin", b"\0"))
    caller.unary("ListApps", v2.ListAppsRequest(), metadata=metadata, timeout=7)
    call = backend.calls[0][1]
    assert call.metadata["authorization"] == "Key k"
    assert call.metadata["x-clarifai-request-id-prefix"] == "p"
    assert call.metadata["b-bin"] == "AA"
    assert 6000 < int(call.metadata["grpc-timeout"].removesuffix("m")) <= 7000
    remaining = call.remaining()
    assert remaining is not None
    assert remaining < 7


def test_a_failure_with_a_v2_status_is_a_response(backend: Backend, caller: Caller) -> None:
    missing = v2.StatusCode.MODEL_DOES_NOT_EXIST
    backend.handlers["GetModel"] = respond("GetModel", missing)
    response = caller.unary("GetModel", v2.GetModelRequest(model_id="m"))
    assert response.status.code == missing


def test_an_unknown_path_is_a_response_too(caller: Caller) -> None:
    caller.base += "/elsewhere"
    response = caller.unary("ListApps", v2.ListAppsRequest())
    assert response.status.code == v2.StatusCode.CONN_DOES_NOT_EXIST


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED])
def test_an_aborted_call_is_an_error(
    backend: Backend, caller: Caller, code: grpc.StatusCode
) -> None:
    backend.handlers["ListApps"] = abort(code)
    error = error_of(lambda: caller.unary("ListApps", v2.ListAppsRequest()))
    assert error.code() is code
    assert error.details() == "as told"
    backend.handlers["GenerateModelOutputs"] = abort(code)
    error = error_of(lambda: caller.stream("GenerateModelOutputs", GENERATE))
    assert error.code() is code
    assert error.details() == "as told"


def test_a_method_that_is_missing(backend: Backend, caller: Caller) -> None:
    backend.missing.add("ListApps")
    error = error_of(lambda: caller.unary("ListApps", v2.ListAppsRequest()))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_how_long_to_wait_is_in_the_trailing_metadata(backend: Backend, front: RestFront) -> None:
    throttled = v2.StatusCode.CONN_THROTTLED
    backend.handlers["ListApps"] = respond("ListApps", throttled, retry_after="0.25")
    with opened(front.base) as transport:
        bound = Method(transport, "ListApps")
        response, call = bound.with_call(v2.ListAppsRequest())
    assert bound.parse(response).status.code == throttled
    trailing = list(call.trailing_metadata())
    assert ("x-throttle-wait-seconds", "0.25") in trailing
    assert "retry-after" not in {key for key, _ in trailing}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"<html>", 200, grpc.StatusCode.INTERNAL),
        (b"[]", 200, grpc.StatusCode.INTERNAL),
        (b'{"models": 1}', 200, grpc.StatusCode.INTERNAL),
        (b"<html>", 401, grpc.StatusCode.UNAUTHENTICATED),
        (b"{}", 403, grpc.StatusCode.PERMISSION_DENIED),
        (b"not found", 404, grpc.StatusCode.UNIMPLEMENTED),
        (b"<html>", 418, grpc.StatusCode.UNKNOWN),
        (b"", 502, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_answers_of_others(caller: Caller, body: bytes, status: int, code: grpc.StatusCode) -> None:
    with http_server(body, status) as caller.base:
        error = error_of(lambda: caller.unary("ListModels", v2.ListModelsRequest()))
        assert error.code() is code
        if code is not grpc.StatusCode.INTERNAL:
            assert f"HTTP {status}" in (error.details() or "")
        error = error_of(lambda: caller.stream("GenerateModelOutputs", GENERATE))
        assert error.code() is code


def test_unknown_fields_of_a_newer_service_are_left_out(caller: Caller) -> None:
    with http_server(b'{"status": {"code": 10000, "new": {}}, "newer": [1]}') as caller.base:
        response = caller.unary("ListModels", v2.ListModelsRequest())
    assert response == v2.MultiModelResponse(status=v2.Status(code=v2.StatusCode.SUCCESS))


def test_compressed_answers(caller: Caller) -> None:
    body = gzip.compress(b'{"status": {"code": "SUCCESS", "description": "Ok"}}')
    with http_server(body, content_encoding="gzip") as caller.base:
        assert caller.unary("ListModels", v2.ListModelsRequest()).status.description == "Ok"


def test_nobody_listens(caller: Caller) -> None:
    calls = (
        lambda: caller.unary("ListModels", v2.ListModelsRequest()),
        lambda: caller.stream("GenerateModelOutputs", GENERATE),
    )
    with kept_port() as port:
        caller.base = f"http://127.0.0.1:{port}"
        found = [error_of(call) for call in calls]
    for error in found:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "refused" in (error.details() or "") or "connect" in (error.details() or "")
        assert error.not_sent


def test_a_name_that_does_not_exist(caller: Caller) -> None:
    caller.base = "http://no-such-host.invalid"
    error = error_of(lambda: caller.unary("ListModels", v2.ListModelsRequest()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "DNS resolution failed" in (error.details() or "")
    assert error.not_sent


def test_tls_where_there_is_none(caller: Caller, front: RestFront) -> None:
    caller.base = front.base.replace("http:", "https:")
    error = error_of(lambda: caller.unary("ListModels", v2.ListModelsRequest(), timeout=5))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "SSL" in (error.details() or "")


def test_a_server_that_hangs_up(caller: Caller) -> None:
    with server_that(lambda connection: receive(connection, 100)) as port:
        caller.base = f"http://127.0.0.1:{port}"
        error = error_of(lambda: caller.unary("ListModels", v2.ListModelsRequest(), timeout=5))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not error.not_sent


@pytest.mark.measures
def test_a_server_that_is_silent(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller.base = f"http://127.0.0.1:{server.getsockname()[1]}"
        for call in (
            lambda: caller.unary("ListModels", v2.ListModelsRequest(), timeout=0.2),
            lambda: caller.stream("GenerateModelOutputs", GENERATE, timeout=0.2),
        ):
            started = time.monotonic()
            error = error_of(call)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert not error.not_sent
            assert 0.1 < time.monotonic() - started < 2


@pytest.mark.measures
def test_the_deadline_holds_for_the_whole_call(caller: Caller) -> None:
    with http_server(b" " * 1000, pause=0.02) as caller.base:
        for call in (
            lambda: caller.unary("ListModels", v2.ListModelsRequest(), timeout=0.3),
            lambda: caller.stream("GenerateModelOutputs", GENERATE, timeout=0.3),
        ):
            started = time.monotonic()
            assert error_of(call).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - started < 2


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_left(backend: Backend, caller: Caller, timeout: float) -> None:
    error = error_of(lambda: caller.unary("ListModels", v2.ListModelsRequest(), timeout=timeout))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.not_sent
    assert backend.calls == []


def test_a_response_that_is_too_long(backend: Backend, caller: Caller) -> None:
    caller.options["max_response_bytes"] = 10_000
    long = v2.MultiOutputResponse(outputs=[v2.Output(id="x" * 20_000)])
    backend.handlers["PostModelOutputs"] = lambda request, call: long
    backend.handlers["GenerateModelOutputs"] = lambda request, call: iter([long])
    for call in (
        lambda: caller.unary("PostModelOutputs", GENERATE),
        lambda: caller.stream("GenerateModelOutputs", GENERATE),
    ):
        error = error_of(call)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in (error.details() or "")
    # The limit is for a message, not for a stream of them.
    backend.handlers["GenerateModelOutputs"] = lambda request, call: outputs(500)
    assert len(caller.stream("GenerateModelOutputs", GENERATE)) == 500


def test_requests_that_http_cannot_say(caller: Caller) -> None:
    error = error_of(lambda: caller.unary("GetInput", v2.GetInputRequest()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "input_id" in (error.details() or "")
    long = v2.ListModelsRequest(query="x" * 100_000)
    error = error_of(lambda: caller.unary("ListModels", long))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    newline = (("x-note", "a\r\nb: c"),)
    error = error_of(lambda: caller.unary("ListModels", v2.ListModelsRequest(), metadata=newline))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_call_credentials_are_refused(caller: Caller) -> None:
    credentials = grpc.access_token_call_credentials("token")
    request = v2.ListModelsRequest()
    error = error_of(lambda: caller.unary("ListModels", request, credentials=credentials))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "method", [name for name in methods.names() if methods.lookup(name).request_streaming]
)
def test_client_streams_are_refused(caller: Caller, method: str) -> None:
    request = methods.lookup(method).request_class()()
    error = error_of(lambda: caller.stream(method, iter([request])))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "use gRPC" in (error.details() or "")


def test_streams(backend: Backend, caller: Caller) -> None:
    backend.handlers["GenerateModelOutputs"] = lambda request, call: outputs(200)
    responses = caller.stream("GenerateModelOutputs", GENERATE, timeout=20)
    assert responses == list(outputs(200))
    assert backend.calls[0][0] == GENERATE
    backend.handlers["GenerateModelOutputs"] = lambda request, call: iter(())
    assert caller.stream("GenerateModelOutputs", GENERATE) == []


def test_a_stream_that_begins_with_a_failure(backend: Backend, caller: Caller) -> None:
    failure = respond("GenerateModelOutputs", v2.StatusCode.MODEL_DOES_NOT_EXIST)
    backend.handlers["GenerateModelOutputs"] = lambda request, call: iter([failure(request, call)])
    (response,) = caller.stream("GenerateModelOutputs", GENERATE)
    assert response.status.code == v2.StatusCode.MODEL_DOES_NOT_EXIST


def test_a_stream_that_breaks(backend: Backend, front: RestFront) -> None:
    def broken(request: Any, call: Any) -> Iterator[Any]:
        yield from outputs(2)
        abort(grpc.StatusCode.UNAVAILABLE)(request, call)

    backend.handlers["GenerateModelOutputs"] = broken
    with opened(front.base) as transport:
        bound = Method(transport, "GenerateModelOutputs")
        stream = bound(GENERATE)
        assert [bound.parse(next(stream)), bound.parse(next(stream))] == list(outputs(2))
        for _ in range(2):
            assert error_of(lambda: next(stream)).code() is grpc.StatusCode.UNAVAILABLE
        assert stream.code() is grpc.StatusCode.UNAVAILABLE
        assert stream.details() == "as told"
        assert not stream.is_active()


def test_a_connection_cut_in_the_middle_of_a_stream(caller: Caller) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked"

    def cut(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(head + b"\r\n\r\n" + b'd\r\n{"result":{}}\r\n')

    with server_that(cut) as port:
        caller.base = f"http://127.0.0.1:{port}"
        error = error_of(lambda: caller.stream("GenerateModelOutputs", GENERATE, timeout=5))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def endless(request: Any, call: Any) -> Iterator[Any]:
    while call.is_active():
        yield from outputs(1)
        time.sleep(0.01)


def silent(request: Any, call: Any) -> Iterator[Any]:
    yield from outputs(1)
    while call.is_active():
        time.sleep(0.01)


def test_the_garbage_collector_frees_streams_while_httpx_works(
    backend: Backend, front: RestFront
) -> None:
    """Streams in cycles are found inside any function of the pool, whatever lock it holds."""
    ended = threading.Semaphore(0)

    def noted(request: Any, call: Any) -> Iterator[Any]:
        yield from silent(request, call)
        ended.release()

    backend.handlers["GenerateModelOutputs"] = noted
    # So that a collection takes no part of a second, whatever the tests before have left.
    gc.freeze()
    try:
        with opened(front.base, max_connections=50) as transport:
            streams = [Method(transport, "GenerateModelOutputs")(GENERATE) for _ in range(30)]
            for stream in streams:
                next(stream)
            del stream

            def collect(frame: Any, event: str, argument: Any) -> None:
                if event == "call" and "connection_pool" in frame.f_code.co_filename and streams:
                    cycle: list[Any] = [streams.pop()]
                    cycle.append(cycle)
                    del cycle
                    gc.collect()

            def calls() -> None:
                sys.setprofile(collect)
                for _ in range(10):
                    Method(transport, "ListModels").with_call(v2.ListModelsRequest(), timeout=20)
                sys.setprofile(None)

            thread = threading.Thread(target=calls, daemon=True)
            thread.start()
            thread.join(60)
            assert not thread.is_alive()
            assert not streams
            Method(transport, "ListModels").with_call(v2.ListModelsRequest(), timeout=20)
            assert all(ended.acquire(timeout=20) for _ in range(30))
    finally:
        gc.unfreeze()


def test_a_stream_that_is_cancelled_between_reads_closes_its_response(
    backend: Backend, front: RestFront
) -> None:
    """And leaves nothing for a finalizer, which would come at any moment."""
    backend.handlers["GenerateModelOutputs"] = silent
    with opened(front.base, max_connections=1) as transport:
        stream = Method(transport, "GenerateModelOutputs")(GENERATE)
        next(stream)
        gc.disable()
        try:
            stream.cancel()
            assert error_of(lambda: next(stream)).code() is grpc.StatusCode.CANCELLED
            # The only connection is free again.
            Method(transport, "ListModels").with_call(v2.ListModelsRequest(), timeout=20)
        finally:
            gc.enable()


@pytest.mark.measures
def test_a_stream_cancelled_from_another_thread(backend: Backend, front: RestFront) -> None:
    backend.handlers["GenerateModelOutputs"] = silent
    ended = threading.Event()
    with opened(front.base) as transport:
        stream = Method(transport, "GenerateModelOutputs")(GENERATE, timeout=30)
        assert stream.add_callback(ended.set)
        next(stream)
        timer = threading.Timer(0.2, stream.cancel)
        timer.start()
        started = time.monotonic()
        assert error_of(lambda: next(stream)).code() is grpc.StatusCode.CANCELLED
        assert time.monotonic() - started < 5
        timer.join()
        assert ended.is_set()
        assert not stream.cancel()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"])
@pytest.mark.measures
def test_a_stream_cancelled_before_its_head_comes(answer: bytes) -> None:
    arrived, cancelled, closed = threading.Event(), threading.Event(), threading.Event()

    def late(connection: socket.socket) -> None:
        connection.recv(10_000)
        arrived.set()
        cancelled.wait(60)
        connection.sendall(answer)
        if answer:
            drain(connection)
        closed.set()

    with (
        server_that(late) as port,
        opened(f"http://127.0.0.1:{port}") as transport,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        stream = Method(transport, "GenerateModelOutputs")(GENERATE, timeout=30)
        reading = pool.submit(next, stream)
        assert arrived.wait(30)
        started = time.monotonic()
        assert stream.cancel()
        error = reading.exception(5)
        assert time.monotonic() - started < 5
        assert isinstance(error, TransportError)
        assert error.code() is grpc.StatusCode.CANCELLED
        assert stream.code() is grpc.StatusCode.CANCELLED
        # The response that comes late is closed, and its connection with it.
        cancelled.set()
        assert closed.wait(30)


def test_a_stream_that_is_dropped_frees_its_connection(backend: Backend, front: RestFront) -> None:
    backend.handlers["GenerateModelOutputs"] = endless
    with opened(front.base, max_connections=1) as transport:
        bound = Method(transport, "GenerateModelOutputs")
        for _ in range(3):
            stream = bound(GENERATE, timeout=5)
            next(stream)
            del stream


async def test_an_async_stream_can_be_cancelled(backend: Backend, front: RestFront) -> None:
    backend.handlers["GenerateModelOutputs"] = silent
    async with async_opened(front.base) as transport:
        bound = Method(transport, "GenerateModelOutputs")
        stream = bound(GENERATE)
        ended: list[Any] = []
        stream.add_done_callback(ended.append)
        await stream.read()
        reader = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0.1)
        assert stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert stream.cancelled()
        assert await stream.code() is grpc.StatusCode.CANCELLED
        assert ended == [stream]
        # Between two reads.
        stream = bound(GENERATE)
        await stream.read()
        assert stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream.read()


async def test_an_async_call(backend: Backend, front: RestFront) -> None:
    async with async_opened(front.base) as transport:
        bound = Method(transport, "ListModels")
        call = bound(v2.ListModelsRequest(), timeout=5)
        assert not call.done()
        assert 0 < call.time_remaining() <= 5
        assert bound.parse(await call).status.code == v2.StatusCode.SUCCESS
        assert bound.parse(await call).status.code == v2.StatusCode.SUCCESS
        assert call.done()
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""
        assert list(await call.trailing_metadata()) == []


async def test_an_async_call_can_be_cancelled(backend: Backend, front: RestFront) -> None:
    arrived, gone = threading.Event(), threading.Event()

    def wait(request: Any, call: Any) -> Any:
        arrived.set()
        while call.is_active():
            time.sleep(0.01)
        gone.set()
        return respond("ListModels", v2.StatusCode.SUCCESS)(request, call)

    backend.handlers["ListModels"] = wait
    async with async_opened(front.base) as transport:
        call = Method(transport, "ListModels")(v2.ListModelsRequest())
        assert await asyncio.to_thread(arrived.wait, 30)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert await asyncio.to_thread(gone.wait, 10)


async def test_closing_cancels_what_runs(backend: Backend, front: RestFront) -> None:
    backend.handlers["GenerateModelOutputs"] = silent
    transport = AsyncHttpTransport(HttpOptions(front.base))
    stream = Method(transport, "GenerateModelOutputs")(GENERATE)
    between = Method(transport, "GenerateModelOutputs")(GENERATE)
    await between.read()
    await stream.read()
    reader = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0.1)
    await transport.close(None)
    for reading in (reader, between.read()):
        with pytest.raises(asyncio.CancelledError):
            await reading
    with pytest.raises(aio.UsageError, match="closed"):
        Method(transport, "ListModels")(v2.ListModelsRequest())


async def test_closing_with_grace_lets_calls_end(backend: Backend, front: RestFront) -> None:
    def slow(request: Any, call: Any) -> Any:
        time.sleep(0.3)
        return respond("ListModels", v2.StatusCode.SUCCESS)(request, call)

    backend.handlers["ListModels"] = slow
    transport = AsyncHttpTransport(HttpOptions(front.base))
    bound = Method(transport, "ListModels")
    call = bound(v2.ListModelsRequest())
    await asyncio.sleep(0.1)
    await transport.close(5)
    assert bound.parse(await call).status.code == v2.StatusCode.SUCCESS


def test_a_closed_transport_says_so(front: RestFront) -> None:
    transport = SyncHttpTransport(HttpOptions(front.base))
    unary = Method(transport, "ListModels")
    stream = Method(transport, "GenerateModelOutputs")
    transport.close()
    transport.close()
    calls: list[Any] = [unary.with_call, unary.future, stream]
    for call in calls:
        with pytest.raises(ValueError, match="closed channel"):
            call(v2.ListModelsRequest())


def test_futures(backend: Backend, front: RestFront) -> None:
    release = threading.Event()

    def wait(request: Any, call: Any) -> Any:
        release.wait(10)
        return respond("ListModels", v2.StatusCode.SUCCESS)(request, call)

    backend.handlers["ListModels"] = wait
    backend.handlers["ListApps"] = abort(grpc.StatusCode.UNAVAILABLE)
    with opened(front.base) as transport:
        bound = Method(transport, "ListModels")
        future = bound.future(v2.ListModelsRequest(), timeout=20)
        done: list[Any] = []
        future.add_done_callback(done.append)
        assert future.running()
        with pytest.raises(grpc.FutureTimeoutError):
            future.result(0.05)
        cancelled = bound.future(v2.ListModelsRequest())
        assert cancelled.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            cancelled.result()
        assert cancelled.code() is grpc.StatusCode.CANCELLED
        release.set()
        assert bound.parse(future.result()).status.code == v2.StatusCode.SUCCESS
        assert future.exception() is None
        assert future.traceback() is None
        assert future.code() is grpc.StatusCode.OK
        assert future.done()
        assert done == [future]
        failed = Method(transport, "ListApps").future(v2.ListAppsRequest())
        assert error_of(failed.result).code() is grpc.StatusCode.UNAVAILABLE
        assert failed.exception().code() is grpc.StatusCode.UNAVAILABLE
        assert failed.details() == "as told"


def test_no_thread_is_left(backend: Backend, front: RestFront) -> None:
    with opened(front.base) as transport:
        Method(transport, "ListModels").future(v2.ListModelsRequest()).result()
    deadline = time.monotonic() + 60
    while any("clarigrpc-rest-call" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thread_that_cannot_be_started_holds_up_no_later_call(
    backend: Backend, front: RestFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(front.base, max_connections=1) as transport:
        bound = Method(transport, "ListModels")
        with (
            refused_threads(monkeypatch, "clarigrpc-rest-call"),
            pytest.raises(RuntimeError, match="new thread"),
        ):
            bound.future(v2.ListModelsRequest())
        assert bound.future(v2.ListModelsRequest()).result(30) is not None


def test_a_call_that_begins_while_its_transport_is_closed_is_refused(front: RestFront) -> None:
    with opened(front.base) as transport:
        threads = transport.threads()
        threads.submit(int).result(30)
        transport.close()
        with pytest.raises(ValueError, match="closed channel"):
            threads.submit(int)


def test_threads_share_a_transport(backend: Backend, front: RestFront) -> None:
    with opened(front.base) as transport, concurrent.futures.ThreadPoolExecutor(16) as pool:
        bound = Method(transport, "ListModels")

        def call() -> int:
            response = bound.parse(bound.with_call(v2.ListModelsRequest(), timeout=20)[0])
            return int(response.status.code)

        calls = [pool.submit(call) for _ in range(200)]
        assert {call.result() for call in calls} == {v2.StatusCode.SUCCESS}


@pytest.mark.parametrize("kind", [SyncHttpTransport, AsyncHttpTransport])
def test_what_a_transport_cannot_do_it_refuses(kind: Any, front: RestFront) -> None:
    transport = kind(HttpOptions(front.base))
    assert list(transport.channels) == []
    with pytest.raises(NotImplementedError, match="use gRPC"):
        transport.multicallable("stream_unary", "/clarifai.api.V2/GetModel")
    with pytest.raises(KeyError):
        transport.multicallable("unary_unary", "/clarifai.api.V2/NoSuchMethod")


def test_verification_of_tls_can_be_set(front: RestFront) -> None:
    with opened(front.base, verify=ssl.create_default_context()) as transport:
        bound = Method(transport, "ListModels")
        response, _ = bound.with_call(v2.ListModelsRequest())
        assert bound.parse(response).status.code == 10000


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as server:
        yield server


def test_the_client_over_rest(server: LocalServer) -> None:
    with server.client(transport="rest") as client:
        model = client.v2.GetModel(
            v2.GetModelRequest(
                user_app_id=v2.UserAppIDSet(user_id="clarifai", app_id="main"),
                model_id="color-recognition",
            )
        )
        assert model.model.id == "color-recognition"
        with pytest.raises(NotImplementedError, match="connectivity"):
            client.channel.subscribe(print)


async def test_the_async_client_over_rest(server: LocalServer) -> None:
    async with server.async_client(transport="rest") as client:
        response = await client.v2.ListInputs(v2.ListInputsRequest(page=1, per_page=3))
        assert response.status.code == v2.StatusCode.SUCCESS
        assert client.channel.get_state() is grpc.ChannelConnectivity.IDLE
        with pytest.raises(NotImplementedError, match="connectivity"):
            await client.channel.channel_ready()
