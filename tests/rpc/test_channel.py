"""The channels: deadlines, streams of all four kinds, closing, threads and event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from clarigrpc import AsyncClient, Client, errors, v2
from tests.both import Both, ClientKind
from tests.conftest import PAT, Connect
from tests.scripted import SUCCESS, THREADS, Answer, Fail, ScriptedServer, refuse, reply, when_ended
from tests.waiting import until

GET = v2.GetModelRequest(model_id="m")
PREDICT = v2.PostModelOutputsRequest(model_id="m")
DUPLEX, SERVER_STREAM = "StreamModelOutputs", "GenerateModelOutputs"
only_sync = pytest.mark.parametrize("client_kind", ["sync"])
only_async = pytest.mark.parametrize("client_kind", ["async"])


def outputs(method: str, count: int) -> list[Any]:
    return [reply(method, outputs=[v2.Output(id=str(number))]) for number in range(count)]


def threads() -> set[threading.Thread]:
    """The threads that are none of the server's or of the test's own pool."""
    pools = (THREADS, "asyncio_")
    return {one for one in threading.enumerate() if not one.name.startswith(pools)}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def settles(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether the condition comes true; gRPC's own threads end a moment after their call."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        gc.collect()
        time.sleep(0.01)
    return True


# Deadlines.


async def test_deadlines_are_finite_by_default(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base)
    scripted.on("GetModel", reply("GetModel"))
    scripted.on(SERVER_STREAM, outputs(SERVER_STREAM, 1))
    scripted.on(DUPLEX, outputs(DUPLEX, 1))
    await both.call("GetModel", GET)
    await both.collect(both.open(SERVER_STREAM, PREDICT))
    await both.collect(both.open(DUPLEX, [PREDICT]))
    unary, *streams = [seen.seconds_left for seen in scripted.seen]
    assert 55 < unary <= 61
    assert all(3500 < left <= 3660 for left in streams)


async def test_timeouts_of_client_and_call(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, timeout=70, stream_timeout=80)
    scripted.always("GetModel", reply("GetModel"))
    scripted.always(DUPLEX, [])
    await both.call("GetModel", GET)
    await both.call("GetModel", GET, timeout=30)
    await both.collect(both.open(DUPLEX, []))
    await both.collect(both.open(DUPLEX, [], timeout=40))
    assert [round(seen.seconds_left, -1) for seen in scripted.seen] == [70, 30, 80, 40]


@pytest.mark.parametrize("method", ["GetModel", SERVER_STREAM, DUPLEX])
@pytest.mark.measures
async def test_the_deadline_passes(both: Both, scripted: ScriptedServer, method: str) -> None:
    scripted.on(method, Answer(outputs(DUPLEX, 1), delay=20))
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError) as caught:
        if method == "GetModel":
            await both.call(method, GET, timeout=0.3)
        else:
            request = [PREDICT] if method == DUPLEX else PREDICT
            await both.collect(both.open(method, request, timeout=0.3))
    assert 0.25 < time.monotonic() - began < 1.5
    assert scripted.base in str(caught.value)
    assert "timeout=" in str(caught.value)
    assert caught.value.grpc_code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not caught.value.retryable


async def test_the_deadline_passes_in_the_middle_of_a_stream(
    both: Both, scripted: ScriptedServer
) -> None:
    def slow(requests: Any, context: Any) -> Iterator[Any]:
        yield from outputs(SERVER_STREAM, 2)
        while context.is_active():
            time.sleep(0.01)

    scripted.on(SERVER_STREAM, slow)
    got: list[Any] = []
    with pytest.raises(errors.DeadlineExceededError):
        await both.collect(both.open(SERVER_STREAM, PREDICT, timeout=2), into=got)
    assert len(got) == 2


# Streams.


async def test_a_server_stream(both: Both, scripted: ScriptedServer) -> None:
    scripted.on(SERVER_STREAM, outputs(SERVER_STREAM, 5))
    assert await both.collect(both.open(SERVER_STREAM, PREDICT)) == outputs(SERVER_STREAM, 5)
    assert scripted.seen[0].request == PREDICT


async def test_a_duplex_stream_in_turns(both: Both, scripted: ScriptedServer) -> None:
    def echo(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield reply(DUPLEX, outputs=[v2.Output(id=request.model_id)])

    scripted.on(DUPLEX, echo)
    requests = (v2.PostModelOutputsRequest(model_id=str(n)) for n in range(20))
    got = await both.collect(both.open(DUPLEX, requests))
    assert [one.outputs[0].id for one in got] == [str(n) for n in range(20)]


@only_async
async def test_a_duplex_stream_out_of_an_async_iterable(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer
) -> None:
    async def requests() -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
            yield PREDICT

    scripted.on(DUPLEX, outputs(DUPLEX, 2))
    assert len(await both.collect(both.open(DUPLEX, requests()))) == 2
    assert scripted.seen[0].requests == [PREDICT] * 3


@only_async
async def test_a_duplex_stream_that_is_written_to(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer
) -> None:
    def echo(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield reply(DUPLEX, outputs=[v2.Output(id=request.model_id)])

    scripted.on(DUPLEX, echo)
    stream = both.client.v2.StreamModelOutputs()
    for name in "ab":
        await stream.write(v2.PostModelOutputsRequest(model_id=name))
        assert (await stream.read()).outputs[0].id == name
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


@only_async
async def test_reading_and_writing_at_once_before_a_token_is_there(
    client_kind: ClientKind, connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, auth=lambda: [("authorization", "x")])
    scripted.on(DUPLEX, outputs(DUPLEX, 1))
    stream = both.client.v2.StreamModelOutputs()

    async def write() -> None:
        await stream.write(PREDICT)
        await stream.done_writing()

    got, _ = await asyncio.gather(stream.read(), write())
    assert got.outputs[0].id == "0"
    assert len(scripted.seen) == 1  # one call, not one for each


def joined(scripted: ScriptedServer, both: Both) -> Any:
    def join(requests: Iterator[bytes], context: Any) -> bytes:
        return b"+".join(requests)

    scripted.other("/test.Other/Join", grpc.stream_unary_rpc_method_handler(join))
    return both.client.channel.stream_unary(
        "/test.Other/Join", request_serializer=str.encode, response_deserializer=bytes.decode
    )


async def test_a_client_stream(both: Both, scripted: ScriptedServer) -> None:
    assert await both.run(joined(scripted, both), iter("abc")) == "a+b+c"


class ProducerError(Exception):
    pass


async def test_an_error_of_the_producer_is_raised_to_the_caller(
    both: Both, scripted: ScriptedServer
) -> None:
    def requests(kind: Any) -> Iterator[Any]:
        yield kind
        raise ProducerError

    begun: list[bool] = []
    cancelled: list[bool] = []

    def drain(requests: Iterator[Any], context: Any) -> list[Any]:
        begun.append(True)
        over = threading.Event()
        when_ended(context, over.set)
        try:
            # Ends, or raises, when the call is cancelled: which of them is a race in gRPC's server.
            list(requests)
        finally:
            cancelled.append(over.wait(10))
        return outputs(DUPLEX, 1)

    scripted.always(DUPLEX, drain)
    with pytest.raises(ProducerError):
        await both.collect(both.open(DUPLEX, requests(PREDICT)))
    with pytest.raises(ProducerError):
        await both.run(joined(scripted, both), requests("a"))
    await asyncio.sleep(0.3)
    assert await asyncio.to_thread(settles, lambda: len(cancelled) == len(begun))
    assert all(cancelled)  # a half-closed stream would look complete to the server


async def test_a_request_of_a_wrong_type_in_a_stream(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(DUPLEX, [])
    with pytest.raises(TypeError, match="takes a PostModelOutputsRequest, not GetModelRequest"):
        await both.collect(both.open(DUPLEX, [PREDICT, GET]))


async def test_the_server_fails_in_the_middle(both: Both, scripted: ScriptedServer) -> None:
    for method, request in ((SERVER_STREAM, PREDICT), (DUPLEX, [PREDICT])):
        items = outputs(method, 3)
        scripted.on(method, Answer(items, fail=Fail(grpc.StatusCode.INTERNAL, "it broke")))
        got: list[Any] = []
        with pytest.raises(errors.InternalError, match="it broke"):
            await both.collect(both.open(method, request), into=got)
        assert got == items


def endless(ended: list[float]) -> Any:
    """A script that answers until the client goes, and says when it did."""

    def script(requests: Any, context: Any) -> Iterator[Any]:
        when_ended(context, lambda: ended.append(time.monotonic()))
        while context.is_active():
            yield reply(SERVER_STREAM)
            time.sleep(0.001)

    return script


@pytest.mark.parametrize("method", [SERVER_STREAM, DUPLEX])
@pytest.mark.parametrize("how", ["cancel", "with"])
async def test_leaving_a_stream_ends_it(
    both: Both, scripted: ScriptedServer, method: str, how: str
) -> None:
    ended: list[float] = []
    scripted.on(method, endless(ended))
    stream = both.open(method, iter([PREDICT]) if method == DUPLEX else PREDICT)
    if how == "with" and both.is_sync:
        with stream:
            await asyncio.to_thread(next, stream)
    elif how == "with":
        async with stream:
            await stream.read()
    else:
        async for _ in both.items(stream):
            break
        assert stream.cancel()
    assert await asyncio.to_thread(settles, lambda: bool(ended))


@only_sync
async def test_reading_a_cancelled_stream(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer
) -> None:
    scripted.on(SERVER_STREAM, endless([]))
    stream = both.open(SERVER_STREAM, PREDICT)
    next(stream)
    stream.cancel()
    with pytest.raises(errors.CancelledError) as caught:
        while True:
            next(stream)
    assert caught.value.grpc_code is grpc.StatusCode.CANCELLED
    assert caught.value.method == SERVER_STREAM


@only_async
async def test_cancelling_a_task_ends_its_call(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer
) -> None:
    ended: list[float] = []
    scripted.on(SERVER_STREAM, endless(ended))
    task = asyncio.ensure_future(both.collect(both.open(SERVER_STREAM, PREDICT)))
    await asyncio.to_thread(until, lambda: scripted.seen)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(settles, lambda: bool(ended))


@only_sync
async def test_streams_that_are_dropped_leave_nothing(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer
) -> None:
    ended: list[float] = []
    scripted.always(SERVER_STREAM, endless(ended))
    scripted.always(DUPLEX, endless(ended))
    stub = both.client.v2

    def drop(rounds: int) -> None:
        for _ in range(rounds):
            next(stub.GenerateModelOutputs(PREDICT))
            next(stub.StreamModelOutputs(iter([PREDICT])))

    def all_gone(count: int) -> Callable[[], bool]:
        return lambda: len(ended) == count and threads() <= before

    before = threads()
    drop(5)
    assert settles(all_gone(10))
    files = descriptors()
    drop(500)  # 1,000 streams
    assert settles(all_gone(1010))
    assert descriptors() <= files + 2


@only_async
async def test_asyncio_streams_that_are_dropped_leave_nothing(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer
) -> None:
    ended: list[float] = []
    scripted.always(SERVER_STREAM, endless(ended))
    scripted.always(DUPLEX, endless(ended))
    stub = both.client.v2

    async def drop(rounds: int) -> None:
        for _ in range(rounds):
            await stub.GenerateModelOutputs(PREDICT).read()
            await stub.StreamModelOutputs(iter([PREDICT])).read()

    async def all_gone(count: int) -> bool:
        gone = await asyncio.to_thread(settles, lambda: len(ended) == count)
        async with asyncio.timeout(30):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        return gone

    await drop(5)
    assert await all_gone(10)
    files = descriptors()
    await drop(500)  # 1,000 streams
    assert await all_gone(1010)
    assert descriptors() <= files + 2


# Futures of the blocking client.


def test_futures(scripted: ScriptedServer) -> None:
    scripted.on(
        "GetModel",
        reply("GetModel"),
        refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST),
        Answer([reply("GetModel")], delay=20),
    )
    with Client(pat=PAT, base=scripted.base) as client:
        good: Any = client.v2.GetModel.future(GET)
        assert good.result().status.code == SUCCESS
        assert good.exception() is None
        assert good.done()
        bad: Any = client.v2.GetModel.future(GET)
        assert type(bad.exception()) is errors.NotFoundError
        with pytest.raises(errors.NotFoundError):
            bad.result()
        slow: Any = client.v2.GetModel.future(GET)
        with pytest.raises(grpc.FutureTimeoutError):
            slow.result(timeout=0.05)
        until(lambda: len(scripted.seen) == 3)
        assert slow.cancel()
        assert slow.cancelled()
        with pytest.raises(errors.CancelledError):
            slow.result()
        called = threading.Event()
        slow.add_done_callback(lambda _: called.set())
        assert called.wait(30)


def test_with_call_gives_the_trailers(scripted: ScriptedServer) -> None:
    scripted.on("GetModel", Answer([reply("GetModel")], trailing=(("x-a", "b"),)))
    with Client(pat=PAT, base=scripted.base) as client:
        _, call = client.v2.GetModel.with_call(GET)
        assert ("x-a", "b") in [tuple(pair) for pair in call.trailing_metadata()]


# Closing.


async def test_a_closed_client_says_so(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", reply("GetModel"))
    await both.call("GetModel", GET)
    await both.close()
    await both.close()
    for call in (
        lambda: both.call("GetModel", GET),
        lambda: both.collect(both.open(SERVER_STREAM, PREDICT)),
        lambda: both.collect(both.open(DUPLEX, [PREDICT])),
        lambda: both.call("ListModels", v2.ListModelsRequest()),
    ):
        with pytest.raises(errors.ClosedError, match="create a new one"):
            await call()


async def test_closing_an_unused_client(connect: Connect) -> None:
    both = connect("http://127.0.0.1:1")
    await both.close()
    with pytest.raises(errors.ClosedError):
        await both.call("GetModel", GET)


@pytest.mark.measures
async def test_closing_cancels_what_runs(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", Answer([reply("GetModel")], delay=20))
    call = asyncio.ensure_future(both.call("GetModel", GET))
    await asyncio.to_thread(until, lambda: scripted.seen)
    began = time.monotonic()
    await both.close()
    with pytest.raises(errors.CancelledError, match="the client was closed") as caught:
        await call
    assert caught.value.grpc_code is grpc.StatusCode.CANCELLED
    assert time.monotonic() - began < 2


async def test_closing_ends_streams_and_writes_with_an_error(
    both: Both, scripted: ScriptedServer
) -> None:
    ended: list[float] = []
    scripted.always(SERVER_STREAM, endless(ended))
    scripted.always(DUPLEX, endless(ended))

    async def endless_requests() -> AsyncIterator[Any]:
        while True:
            yield PREDICT
            await asyncio.sleep(0.01)

    silent = [PREDICT] if both.is_sync else endless_requests()
    reading = [
        asyncio.ensure_future(both.collect(both.open(SERVER_STREAM, PREDICT))),
        asyncio.ensure_future(both.collect(both.open(DUPLEX, silent))),
    ]
    await asyncio.to_thread(until, lambda: len(scripted.seen) >= 2)
    await both.close()
    # As results: a task group would take a cancellation for the end of a task that went well.
    for failure in await asyncio.gather(*reading, return_exceptions=True):
        assert isinstance(failure, errors.CancelledError)
        assert failure.method in (SERVER_STREAM, DUPLEX)
        assert failure.description == "the client was closed"
    assert await asyncio.to_thread(settles, lambda: len(ended) == 2)


@only_async
async def test_a_task_that_is_cancelled_while_the_client_closes_stays_cancelled(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer
) -> None:
    scripted.always("GetModel", Answer([reply("GetModel")], delay=20))
    call = asyncio.ensure_future(both.call("GetModel", GET))
    await asyncio.to_thread(until, lambda: scripted.seen)
    closing = asyncio.ensure_future(both.close())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    await closing


def use_sync(base: str) -> None:
    with Client(pat=PAT, base=base) as client:
        client.v2.GetModel(GET)
        assert len(list(client.v2.GenerateModelOutputs(PREDICT))) == 2
        assert len(list(client.v2.StreamModelOutputs(iter([PREDICT])))) == 2
        next(client.v2.GenerateModelOutputs(PREDICT))


async def use_async(base: str) -> None:
    before = asyncio.all_tasks()
    async with AsyncClient(pat=PAT, base=base) as client:
        await client.v2.GetModel(GET)
        assert len([one async for one in client.v2.GenerateModelOutputs(PREDICT)]) == 2
        assert len([one async for one in client.v2.StreamModelOutputs(iter([PREDICT]))]) == 2
        await client.v2.GenerateModelOutputs(PREDICT).read()
    async with asyncio.timeout(30):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.parametrize("use", [use_sync, lambda base: asyncio.run(use_async(base))])
def test_a_closed_client_leaves_nothing(
    scripted: ScriptedServer, use: Callable[[str], None]
) -> None:
    scripted.always("GetModel", reply("GetModel"))
    for method in (SERVER_STREAM, DUPLEX):
        scripted.always(method, outputs(method, 2))
    use(scripted.base)  # what gRPC and the event loop set up once stays
    gc.collect()
    before, files = threads(), descriptors()
    for _ in range(5):
        use(scripted.base)
    assert settles(lambda: threads() <= before), threads() - before
    assert settles(lambda: descriptors() <= files + 1), (files, descriptors())


def test_a_client_that_is_dropped_unclosed_leaves_nothing(scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))
    before = threads()
    for _ in range(3):
        Client(pat=PAT, base=scripted.base).v2.GetModel(GET)
    assert settles(lambda: threads() <= before)


# Threads and event loops.


def test_many_threads_share_a_client(scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))
    scripted.always(SERVER_STREAM, outputs(SERVER_STREAM, 3))
    barrier = threading.Barrier(16, timeout=60)

    def use(_: int) -> int:
        barrier.wait()
        for _ in range(10):
            client.v2.GetModel(GET)
        return len(list(client.v2.GenerateModelOutputs(PREDICT)))

    with Client(pat=PAT, base=scripted.base) as client, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(use, range(16))) == [3] * 16
    assert len(scripted.calls("GetModel")) == 160
    ids = {seen.metadata["x-clarifai-request-id-prefix"] for seen in scripted.seen}
    assert len(ids) == 176


def test_another_event_loop(scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))
    client = AsyncClient(pat=PAT, base=scripted.base)

    async def call() -> None:
        await client.v2.GetModel(GET)

    async def call_and_close() -> None:
        await call()
        errors_of_the_other = await asyncio.to_thread(from_another_loop)
        assert "another event loop" in errors_of_the_other
        await call()  # no harm done
        await client.close()

    def from_another_loop() -> str:
        with pytest.raises(errors.ConfigurationError) as caught:
            asyncio.run(call())
        return str(caught.value)

    asyncio.run(call_and_close())
    with pytest.raises(errors.ClosedError):
        asyncio.run(call())


async def test_two_clients_of_both_kinds_side_by_side(scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))
    with Client(pat=PAT, base=scripted.base) as blocking:
        async with AsyncClient(pat=PAT, base=scripted.base) as awaiting:
            calls = [asyncio.to_thread(blocking.v2.GetModel, GET) for _ in range(10)]
            calls += [awaiting.v2.GetModel(GET) for _ in range(10)]  # type: ignore[misc]
            assert len(await asyncio.gather(*calls)) == 20


async def test_a_proxy_is_not_asked_for_this_machine(
    connect: Connect, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    scripted.on("GetModel", reply("GetModel"))
    await connect(scripted.base, timeout=5).call("GetModel", GET)


async def test_connectivity(both: Both, scripted: ScriptedServer) -> None:
    if both.is_sync:
        states: list[grpc.ChannelConnectivity] = []
        both.client.channel.subscribe(states.append, try_to_connect=True)
        ready = grpc.ChannelConnectivity.READY
        assert await asyncio.to_thread(settles, lambda: ready in states)
        both.client.channel.unsubscribe(states.append)
    else:
        await asyncio.wait_for(both.client.channel.channel_ready(), 30)
        assert both.client.channel.get_state() is grpc.ChannelConnectivity.READY
