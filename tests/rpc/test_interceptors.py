"""Interceptors of gRPC around the calls of a client, over gRPC and REST, sync and async."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from clarigrpc import Client, RetryPolicy, errors, image, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.local.fronts.rest_front import RestFront
from tests.backend import Backend, outputs, respond
from tests.both import Both, ClientKind
from tests.conftest import Connect
from tests.scripted import Answer, Fail, ScriptedServer, refuse, reply, when_ended
from tests.waiting import until

Code = grpc.StatusCode
GET = v2.GetModelRequest(model_id="m")
QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)


class Log:
    """What interceptors saw, in order."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.details: list[Any] = []

    def begin(self, name: str, details: Any, request: Any) -> None:
        self.details.append(details)
        self.lines.append((name, "begins", request))

    def end(self, name: str, code: Any) -> None:
        self.lines.append((name, "ends", code))


def _with(details: Any, **changes: Any) -> Any:
    """The details of a call, changed; those of sync calls and of async ones are named tuples."""
    return details._replace(**changes)


class SyncSpy(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Writes down what it sees, and adds metadata."""

    def __init__(self, log: Log, name: str = "spy") -> None:
        self.log, self.name = log, name

    def _proceed(self, continuation: Any, details: Any, request: Any) -> Any:
        self.log.begin(self.name, details, request)
        pairs = [*(details.metadata or ()), (f"x-{self.name}", "1")]
        return continuation(_with(details, metadata=pairs), request)

    def _one(self, continuation: Any, details: Any, request: Any) -> Any:
        call = self._proceed(continuation, details, request)
        call.add_done_callback(lambda done: self.log.end(self.name, done.code()))
        return call

    def _many(self, continuation: Any, details: Any, request: Any) -> Iterator[Any]:
        call = self._proceed(continuation, details, request)
        try:
            yield from call
        except grpc.RpcError as error:
            self.log.end(self.name, error.code())
            raise
        self.log.end(self.name, call.code())

    intercept_unary_unary: Any = _one
    intercept_stream_unary: Any = _one
    intercept_unary_stream: Any = _many
    intercept_stream_stream: Any = _many


class _AsyncBase:
    def __init__(self, log: Log, name: str = "spy") -> None:
        self.log, self.name = log, name

    async def _proceed(self, continuation: Any, details: Any, request: Any) -> Any:
        self.log.begin(self.name, details, request)
        metadata = aio.Metadata(*details.metadata, (f"x-{self.name}", "1"))
        return await continuation(_with(details, metadata=metadata), request)


class AsyncUnarySpy(_AsyncBase, aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await self._proceed(continuation, details, request)
        self.log.end(self.name, await call.code())
        return call


class AsyncRequestsSpy(_AsyncBase, aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self._proceed(continuation, details, request)


class _AsyncMany(_AsyncBase):
    async def _many(self, continuation: Any, details: Any, request: Any) -> AsyncIterator[Any]:
        call = await self._proceed(continuation, details, request)

        async def responses() -> AsyncIterator[Any]:
            try:
                async for response in call:
                    yield response
            except aio.AioRpcError as error:
                self.log.end(self.name, error.code())
                raise
            self.log.end(self.name, await call.code())

        return responses()


class AsyncStreamSpy(_AsyncMany, aio.UnaryStreamClientInterceptor):
    intercept_unary_stream: Any = _AsyncMany._many


class AsyncBidiSpy(_AsyncMany, aio.StreamStreamClientInterceptor):
    intercept_stream_stream: Any = _AsyncMany._many


def spies(kind: ClientKind, log: Log, name: str = "spy") -> list[Any]:
    """Interceptors of all kinds of calls, which write into a log."""
    if kind == "sync":
        return [SyncSpy(log, name)]
    every: tuple[Any, ...] = (AsyncUnarySpy, AsyncRequestsSpy, AsyncStreamSpy, AsyncBidiSpy)
    return [made(log, name) for made in every]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def seen(connect: Connect, client_kind: ClientKind, scripted: ScriptedServer, log: Log) -> Both:
    """A client with a spy, connected to the scripted server."""
    return connect(
        scripted.base,
        timeout=10,
        stream_timeout=20,
        user_id="u",
        app_id="a",
        retry=QUICK,
        interceptors=spies(client_kind, log),
    )


async def test_a_call_with_its_retries_is_one_call(
    seen: Both, scripted: ScriptedServer, log: Log
) -> None:
    scripted.on("GetModel", Fail(Code.UNAVAILABLE), Fail(Code.UNAVAILABLE), reply("GetModel"))
    answer = await seen.call("GetModel", GET)
    assert answer == reply("GetModel")
    assert log.lines == [("spy", "begins", GET), ("spy", "ends", Code.OK)]
    assert len(scripted.seen) == 3
    (details,) = log.details
    assert details.method in ("/clarifai.api.V2/GetModel", b"/clarifai.api.V2/GetModel")
    for call in scripted.seen:
        assert call.metadata["x-spy"] == "1"
        assert call.metadata["authorization"].startswith("Key ")
    # Credentials are added within: an interceptor that logs metadata logs no secret.
    assert "authorization" not in dict(details.metadata or ())


async def test_a_failure_is_an_error_of_grpc_within_and_ours_outside(
    seen: Both, scripted: ScriptedServer, log: Log
) -> None:
    scripted.on(
        "GetModel",
        refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST, "none"),
        Fail(Code.PERMISSION_DENIED, "not yours", (("x-why", "because"),)),
    )
    with pytest.raises(errors.NotFoundError, match="none") as caught:
        await seen.call("GetModel", GET)
    assert caught.value.code == v2.StatusCode.MODEL_DOES_NOT_EXIST
    assert caught.value.request_id
    with pytest.raises(errors.PermissionDeniedError, match="not yours"):
        await seen.call("GetModel", GET)
    ends = [line[2] for line in log.lines if line[1] == "ends"]
    assert ends == [Code.NOT_FOUND, Code.PERMISSION_DENIED]


async def test_the_first_interceptor_is_the_outermost(
    connect: Connect, client_kind: ClientKind, scripted: ScriptedServer, log: Log
) -> None:
    interceptors = [*spies(client_kind, log, "outer"), *spies(client_kind, log, "inner")]
    both = connect(scripted.base, timeout=10, interceptors=interceptors)
    scripted.on("GetModel", Fail(Code.NOT_FOUND), reply("GetModel"))
    with pytest.raises(errors.NotFoundError):
        await both.call("GetModel", GET)
    await both.call("GetModel", GET)
    names = [line[:2] for line in log.lines]
    one = [("outer", "begins"), ("inner", "begins"), ("inner", "ends"), ("outer", "ends")]
    assert names == one * 2
    assert [line[2] for line in log.lines if line[1] == "ends"] == [Code.NOT_FOUND] * 2 + [
        Code.OK
    ] * 2
    assert scripted.seen[1].metadata.keys() >= {"x-inner", "x-outer"}


async def test_predictions_are_seen_as_messages(
    seen: Both, scripted: ScriptedServer, log: Log
) -> None:
    output = v2.Output(status=v2.Status(code=v2.StatusCode.SUCCESS), id="o")
    scripted.always("PostModelOutputs", reply("PostModelOutputs", outputs=[output]))
    model = seen.client.model("m")
    assert (await seen.run(model.predict, image(b"bytes of an image"))).id == "o"
    found = await seen.collect(model.predict_many([text("a"), text("b")], batch_size=1))
    assert [one.output.id for one in found] == ["o", "o"]
    requests = [line[2] for line in log.lines if line[1] == "begins"]
    assert [type(one).__name__ for one in requests] == ["PostModelOutputsRequest"] * 3
    assert requests[0].inputs[0].data.image.base64 == b"bytes of an image"
    assert requests[0].user_app_id.user_id == "u"
    assert scripted.seen[0].request == requests[0]


async def test_requests_can_be_changed(
    connect: Connect, client_kind: ClientKind, scripted: ScriptedServer
) -> None:
    def changed(request: Any) -> Any:
        request.model_id = "another"
        return request

    class Sync(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(_with(details, timeout=3.0), changed(request))

    class Async(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(_with(details, timeout=3.0), changed(request))

    made: Any = Sync() if client_kind == "sync" else Async()
    both = connect(scripted.base, interceptors=[made])
    scripted.on("GetModel", reply("GetModel"))
    scripted.on("PostModelOutputs", reply("PostModelOutputs", outputs=[v2.Output()]))
    await both.call("GetModel", v2.GetModelRequest(model_id="m"))
    await both.call("PostModelOutputs", v2.PostModelOutputsRequest(model_id="m"))
    assert [call.request.model_id for call in scripted.seen] == ["another"] * 2
    assert all(1 < call.seconds_left < 4 for call in scripted.seen)


async def test_a_call_can_be_answered_without_the_server(
    connect: Connect, client_kind: ClientKind, scripted: ScriptedServer
) -> None:
    answer = reply("GetModel", model=v2.Model(id="cached"))

    class Sync(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            class Cached(grpc.Future, grpc.Call):  # type: ignore[type-arg]
                def result(self, timeout: float | None = None) -> Any:
                    return answer

            Cached.__abstractmethods__ = frozenset()
            return Cached()  # type: ignore[abstract]

    class Async(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return answer

    made: Any = Sync() if client_kind == "sync" else Async()
    outer = spies(client_kind, Log()) if client_kind == "async" else []
    both = connect(scripted.base, interceptors=[*outer, made])
    assert await both.call("GetModel", GET) == answer
    assert scripted.seen == []


async def test_an_error_of_an_interceptor_reaches_the_caller(
    connect: Connect, client_kind: ClientKind, scripted: ScriptedServer
) -> None:
    class Sync(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            raise KeyError("of mine")

        intercept_unary_stream: Any = intercept_unary_unary

    class Unary(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            raise KeyError("of mine")

    class Stream(aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(
            self, continuation: Any, details: Any, request: Any
        ) -> Any:
            raise KeyError("of mine")

    made: list[Any] = [Sync()] if client_kind == "sync" else [Unary(), Stream()]
    both = connect(scripted.base, interceptors=made)
    with pytest.raises(KeyError, match="of mine"):
        await both.call("GetModel", GET)
    with pytest.raises(KeyError, match="of mine"):
        await both.collect(both.open("GenerateModelOutputs", v2.PostModelOutputsRequest()))


async def test_an_error_of_grpc_that_an_interceptor_makes_is_one_of_ours_outside(
    connect: Connect, client_kind: ClientKind, scripted: ScriptedServer
) -> None:
    failure = aio.AioRpcError(Code.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "circuit is open")

    class Sync(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            raise failure

    class Async(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            raise failure

    made: Any = Sync() if client_kind == "sync" else Async()
    both = connect(scripted.base, interceptors=[made])
    with pytest.raises(errors.UnavailableError, match="circuit is open"):
        await both.call("GetModel", GET)


async def test_an_interceptor_may_repeat_a_call(
    connect: Connect, client_kind: ClientKind, scripted: ScriptedServer
) -> None:
    class Sync(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            call = continuation(details, request)
            if isinstance(call, grpc.RpcError) and call.code() is Code.NOT_FOUND:
                return continuation(details, request)
            return call

    class Async(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            try:
                call = await continuation(details, request)
                await call
            except aio.AioRpcError as error:
                if error.code() is not Code.NOT_FOUND:
                    raise
                return await continuation(details, request)
            return call

    made: Any = Sync() if client_kind == "sync" else Async()
    both = connect(scripted.base, interceptors=[made])
    scripted.on(
        "GetModel", refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST), reply("GetModel")
    )
    assert await both.call("GetModel", GET) == reply("GetModel")
    assert len(scripted.seen) == 2


async def test_arguments_that_grpc_does_not_know(seen: Both, scripted: ScriptedServer) -> None:
    mixed = refuse("PostInputs", v2.StatusCode.MIXED_STATUS)
    scripted.on("PostInputs", mixed, mixed)
    request = v2.PostInputsRequest(inputs=[v2.Input(id="i")])
    with pytest.raises(errors.PartialFailureError):
        await seen.call("PostInputs", request)
    assert await seen.call("PostInputs", request, raise_on_partial=False) == mixed
    scripted.on("GetModel", Fail(Code.UNAVAILABLE))
    with pytest.raises(errors.UnavailableError):
        await seen.call("GetModel", GET, retry=False)
    with pytest.raises(TypeError, match="takes a GetModelRequest"):
        await seen.call("GetModel", v2.GetInputRequest())
    with pytest.raises(TypeError, match="tiemout"):
        await seen.call("GetModel", GET, tiemout=3)
    with pytest.raises(errors.ConfigurationError, match="timeout"):
        await seen.call("GetModel", GET, timeout=-1)


async def test_a_stream_of_responses(seen: Both, scripted: ScriptedServer, log: Log) -> None:
    answers = list(outputs(3))
    scripted.on(
        "GenerateModelOutputs",
        answers,
        Answer(answers[:2], fail=Fail(Code.INTERNAL, "broke")),
        [answers[0], refuse("GenerateModelOutputs", v2.StatusCode.MODEL_DOES_NOT_EXIST)],
    )
    request = v2.PostModelOutputsRequest(model_id="m")
    assert await seen.collect(seen.open("GenerateModelOutputs", request)) == answers
    for error, count, _ in (
        (errors.InternalError, 2, Code.INTERNAL),
        (errors.NotFoundError, 1, Code.NOT_FOUND),
    ):
        found: list[Any] = []
        with pytest.raises(error):
            await seen.collect(seen.open("GenerateModelOutputs", request), found)
        assert len(found) == count
    ends = [line[2] for line in log.lines if line[1] == "ends"]
    assert ends == [Code.OK, Code.INTERNAL, Code.NOT_FOUND]
    assert [call.metadata["x-spy"] for call in scripted.seen] == ["1"] * 3


async def test_generate_and_stream_of_a_model(
    seen: Both, scripted: ScriptedServer, log: Log
) -> None:
    answers = list(outputs(3))
    scripted.on("GenerateModelOutputs", answers)

    def echo(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            yield reply("StreamModelOutputs", outputs=[v2.Output(input=request.inputs[0])])

    scripted.on("StreamModelOutputs", echo)
    model = seen.client.model("m")
    found = await seen.collect(model.generate(text("hey")))
    assert [one.data.text.raw for one in found] == [a.outputs[0].data.text.raw for a in answers]
    found = await seen.collect(model.stream([text("a"), text("b")]))
    assert [one.input.data.text.raw for one in found] == ["a", "b"]
    assert [line[1] for line in log.lines] == ["begins", "ends"] * 2
    assert type(log.lines[0][2]).__name__ == "PostModelOutputsRequest"
    assert scripted.calls("StreamModelOutputs")[0].metadata["x-spy"] == "1"


async def test_cancelling_a_stream_that_is_being_read(seen: Both, scripted: ScriptedServer) -> None:
    gone: list[bool] = []

    def endless(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        list(requests)
        when_ended(context, lambda: gone.append(True))
        yield next(outputs(1))
        while context.is_active():
            time.sleep(0.005)
        yield next(outputs(1))

    scripted.on("GenerateModelOutputs", endless)
    stream = seen.client.model("m").generate(text("hey"))
    items = seen.items(stream)
    await anext(items)
    stream.cancel()
    async with asyncio.timeout(10):
        while not gone:
            await asyncio.sleep(0.01)
    with pytest.raises(errors.CancelledError):
        await anext(items)


async def test_a_stream_that_is_dropped_ends(seen: Both, scripted: ScriptedServer) -> None:
    gone: list[bool] = []

    def endless(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        list(requests)
        when_ended(context, lambda: gone.append(True))
        yield next(outputs(1))
        while context.is_active():
            time.sleep(0.005)

    scripted.on("GenerateModelOutputs", endless)
    stream = seen.open("GenerateModelOutputs", v2.PostModelOutputsRequest())
    items = seen.items(stream)
    await anext(items)
    await items.aclose()  # type: ignore[attr-defined]
    del stream, items
    async with asyncio.timeout(10):
        while not gone:
            gc.collect()  # each time: the thread that has read may hold the stream a moment longer
            await asyncio.sleep(0.05)


async def test_requests_that_are_written(
    connect: Connect, scripted: ScriptedServer, client_kind: ClientKind, log: Log
) -> None:
    if client_kind == "sync":
        pytest.skip("sync calls are given their requests")
    both = connect(scripted.base, interceptors=spies(client_kind, log))

    def echo(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            yield reply("StreamModelOutputs", outputs=[v2.Output(id=request.model_id)])

    scripted.on("StreamModelOutputs", echo)
    call = both.client.v2.StreamModelOutputs()
    for name in ("a", "b"):
        await call.write(v2.PostModelOutputsRequest(model_id=name))
        assert (await call.read()).outputs[0].id == name
    await call.done_writing()
    assert await call.read() is aio.EOF
    assert await call.code() is Code.OK
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(v2.PostModelOutputsRequest())


@pytest.mark.parametrize("client_kind", ["async"])
async def test_writing_ends_where_an_interceptor_fails(
    connect: Connect, scripted: ScriptedServer, client_kind: ClientKind
) -> None:
    class Refusing(aio.StreamStreamClientInterceptor):
        async def intercept_stream_stream(self, *_: Any) -> Any:
            raise PermissionError("not today")

    call = connect(scripted.base, interceptors=[Refusing()]).client.v2.StreamModelOutputs()

    async def write() -> None:
        while True:
            await call.write(v2.PostModelOutputsRequest())

    with pytest.raises(asyncio.InvalidStateError):
        await asyncio.wait_for(write(), 30)
    with pytest.raises(PermissionError):
        await call.read()


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.parametrize("how", ["deadline", "server", "close"])
@pytest.mark.parametrize("seen", [True, False])
async def test_writing_ends_with_the_call_when_nobody_reads(
    connect: Connect, scripted: ScriptedServer, client_kind: ClientKind, how: str, seen: bool
) -> None:
    log = Log()
    made = spies(client_kind, log) if seen else spies(client_kind, log)[:1]
    both = connect(scripted.base, interceptors=made)
    leave = threading.Event()

    def first_alone(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        next(requests)
        while how != "server" and context.is_active() and not leave.wait(0.01):
            pass
        yield from ()

    scripted.on("StreamModelOutputs", first_alone)
    call = both.client.v2.StreamModelOutputs(timeout=1 if how == "deadline" else 60)
    large = v2.PostModelOutputsRequest(model_id="m" * 100_000)

    async def write() -> None:
        while True:
            await call.write(large)

    writing = asyncio.ensure_future(write())
    try:
        await asyncio.to_thread(until, lambda: scripted.seen)
        if how == "close":
            await both.close()
        with pytest.raises((asyncio.InvalidStateError, errors.ApiError)):
            await asyncio.wait_for(writing, 20)
    finally:
        leave.set()
        call.cancel()


async def test_cancelling_an_async_call(
    connect: Connect, scripted: ScriptedServer, client_kind: ClientKind, log: Log
) -> None:
    if client_kind == "sync":
        pytest.skip("sync calls are cancelled as futures")
    both = connect(scripted.base, interceptors=spies(client_kind, log))
    scripted.on("GetModel", Answer([reply("GetModel")], delay=20))
    call = both.client.v2.GetModel(GET)
    await asyncio.to_thread(until, lambda: scripted.seen)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert call.done()
    assert await call.code() is Code.CANCELLED


def test_futures(scripted: ScriptedServer, log: Log) -> None:
    with Client(base=scripted.base, pat="p", interceptors=spies("sync", log)) as client:
        scripted.on(
            "GetModel", reply("GetModel"), refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST)
        )
        get: Any = client.v2.GetModel
        future = get.future(GET)
        assert future.result(10) == reply("GetModel")
        assert future.code() is Code.OK
        assert future.request_id
        failed = get.future(GET)
        assert isinstance(failed.exception(10), errors.NotFoundError)
        with pytest.raises(errors.NotFoundError):
            failed.result()
        assert future.done()
        assert not future.cancelled()
        scripted.on("GetModel", Answer([reply("GetModel")], delay=20))
        slow = get.future(GET)
        with pytest.raises(grpc.FutureTimeoutError):
            slow.result(0.1)
        until(lambda: len(scripted.seen) == 3)
        assert slow.cancel()
        with pytest.raises(errors.CancelledError):
            slow.result(10)


@pytest.fixture
def rest() -> Iterator[tuple[Backend, str]]:
    backend = Backend()
    front = RestFront(backend)
    front.start()
    yield backend, front.base
    front.close()


async def test_over_rest(
    connect: Connect, client_kind: ClientKind, rest: tuple[Backend, str], log: Log
) -> None:
    backend, base = rest
    both = connect(base, transport="rest", retry=False, interceptors=spies(client_kind, log))
    await both.call("GetModel", GET)
    backend.handlers["GetModel"] = respond("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST)
    with pytest.raises(errors.NotFoundError):
        await both.call("GetModel", GET)
    backend.handlers["GenerateModelOutputs"] = lambda request, call: outputs(2)
    request = v2.PostModelOutputsRequest(
        user_app_id=v2.UserAppIDSet(user_id="u", app_id="a"), model_id="m"
    )
    assert len(await both.collect(both.open("GenerateModelOutputs", request))) == 2
    ends = [line[2] for line in log.lines if line[1] == "ends"]
    assert ends == [Code.OK, Code.NOT_FOUND, Code.OK]


async def test_interceptors_of_other_calls_leave_a_call_alone(
    connect: Connect, client_kind: ClientKind, scripted: ScriptedServer
) -> None:
    class Sync(grpc.StreamStreamClientInterceptor):
        def intercept_stream_stream(self, *args: Any) -> Any:
            raise NotImplementedError

    class Async(aio.StreamStreamClientInterceptor):
        async def intercept_stream_stream(self, *args: Any) -> Any:
            raise NotImplementedError

    made: Any = Sync() if client_kind == "sync" else Async()
    both = connect(scripted.base, interceptors=[made])
    scripted.on("GetModel", reply("GetModel"), Fail(Code.NOT_FOUND))
    assert await both.call("GetModel", GET) == reply("GetModel")
    with pytest.raises(errors.NotFoundError):
        await both.call("GetModel", GET)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
async def test_everything_that_calls_works_with_interceptors(
    connect: Connect, client_kind: ClientKind, transport: str, log: Log, tmp_path: Path
) -> None:
    with LocalServer(rest_port=0, models={"echo": lambda text: text}) as server:
        both = connect(
            str(server.base if transport == "grpc" else server.rest_base),
            transport=transport,
            pat=server.pat,
            user_id=server.user_id,
            app_id=server.app_id,
            timeout=30,
            interceptors=spies(client_kind, log),
        )
        client = both.client
        model = client.model("echo")

        def said(output: Any) -> str:
            return str(output.data.parts[0].data.string_value)

        assert said(await both.run(model.predict, text("a"))) == "a"
        assert await both.run(model.call, "predict", text="b") == "b"
        many = await both.collect(model.predict_many([text(str(n)) for n in range(50)]))
        assert [said(one.output) for one in many] == [str(n) for n in range(50)]
        shared = client.model("echo", coalesce=True)
        found = await asyncio.gather(
            *(both.run(shared.predict, text(str(number))) for number in range(20))
        )
        assert [said(one) for one in found] == [str(number) for number in range(20)]
        report = await both.run(
            client.inputs.upload, [text(str(n), id=f"i{n}") for n in range(300)]
        )
        assert report.taken == 300
        assert len(await both.collect(client.inputs.list(per_page=64))) == 300
        if transport == "grpc":
            path = tmp_path / "model.tar"
            path.write_bytes(bytes(3_000_000))
            await both.run(client.models.create, "mine")
            result = await both.run(client.model("mine").upload_version, path)
            assert result.size == 3_000_000
    begun = [line[2] for line in log.lines if line[1] == "begins"]
    assert len(begun) > 10
    assert not any(isinstance(one, bytes) for one in begun)
