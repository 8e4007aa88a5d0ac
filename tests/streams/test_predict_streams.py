"""Bidi predictions, with both clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import errors, text, v2
from clarigrpc._rpc import sync_streams
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.faults.proxy import FaultProxy
from tests.scripted import Fail, ScriptedServer, refuse, reply, when_ended
from tests.waiting import join, until

Code = v2.StatusCode


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture
def local(connect: Connect, server: LocalServer) -> Both:
    return connect(server.base, pat=server.pat, timeout=10, stream_timeout=20)


def echo(both: Both) -> Any:
    """A model that gives its text back."""
    return both.client.model("text-stream", user_id="clarifai", app_id="main")


def words(count: int, start: int = 0) -> list[v2.Input]:
    return [text(f"w{number}", id=f"i{number}") for number in range(start, start + count)]


def said(outputs: list[Any]) -> list[str]:
    return [output.data.text.raw for output in outputs]


def output(raw: str) -> Any:
    status = v2.Status(code=Code.SUCCESS)
    return v2.Output(data=v2.Data(text=v2.Text(raw=raw)), status=status)


def answer(request: Any) -> Any:
    """The response that a server gives to one request."""
    return reply(
        "StreamModelOutputs", outputs=[output(one.data.text.raw) for one in request.inputs]
    )


async def open_stream(both: Both, model: Any, values: Any, **options: Any) -> Any:
    """A stream, opened where its client lives."""
    if both.is_sync:
        return await asyncio.to_thread(model.stream, values, **options)
    return model.stream(values, **options)


async def test_outputs_come_in_the_order_of_the_values(local: Both) -> None:
    stream = await open_stream(local, echo(local), words(500), window=7)
    assert said(await local.collect(stream)) == [f"w{number}" for number in range(500)]


async def test_an_empty_stream(local: Both) -> None:
    assert await local.collect(await open_stream(local, echo(local), [])) == []


async def test_both_directions_go_on_at_once(local: Both) -> None:
    """Each value is made out of the answer to the one before."""
    if local.is_sync:
        answers: queue.Queue[str] = queue.Queue()

        def values() -> Iterator[v2.Input]:
            word = "x"
            for _ in range(5):
                yield text(word)
                word = answers.get(timeout=20) + "x"

        def talk() -> list[str]:
            found = []
            for one in echo(local).stream(values()):
                found.append(one.data.text.raw)
                answers.put(found[-1])
            return found

        found = await asyncio.to_thread(talk)
    else:
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def avalues() -> AsyncIterator[v2.Input]:
            word = "x"
            for _ in range(5):
                yield text(word)
                word = await asyncio.wait_for(heard.get(), 20) + "x"

        found = []
        async for one in echo(local).stream(avalues()):
            found.append(one.data.text.raw)
            heard.put_nowait(found[-1])
    assert found == ["x" * count for count in range(1, 6)]


@pytest.mark.parametrize("burst", [2, 31])
async def test_the_last_request_before_a_pause_is_not_held_back(local: Both, burst: int) -> None:
    """Several values at once, then none until all of them are answered."""
    heard = threading.Semaphore(0)

    def bursts() -> Iterator[v2.Input]:
        for _ in range(3):
            yield from words(burst)
            for _ in range(burst):
                assert heard.acquire(timeout=20), "no answer"

    async def async_bursts() -> AsyncIterator[v2.Input]:
        source = bursts()
        while (value := await asyncio.to_thread(next, source, None)) is not None:
            yield value

    values = bursts() if local.is_sync else async_bursts()
    async for _ in local.items(await open_stream(local, echo(local), values)):
        heard.release()


async def test_the_window_bounds_what_is_unanswered(both: Both, scripted: ScriptedServer) -> None:
    taken = 0
    most = 0
    answered = 0

    def values() -> Iterator[v2.Input]:
        nonlocal taken, most
        for one in words(40):
            taken += 1
            most = max(most, taken - answered)
            yield one

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        nonlocal answered
        for request in requests:
            time.sleep(0.005)
            answered += 1
            yield answer(request)

    scripted.on("StreamModelOutputs", serve)
    stream = await open_stream(both, both.client.model("m"), values(), window=3)
    assert len(await both.collect(stream)) == 40
    assert most <= 4


@pytest.mark.parametrize("count", [10, 300])
async def test_a_server_that_drains_first(local: Both, server: LocalServer, count: int) -> None:
    server.faults.drain_first = True
    stream = await open_stream(local, echo(local), words(count), drain_first=True)
    assert len(await local.collect(stream)) == count


@pytest.mark.measures
async def test_a_server_that_drains_first_is_noticed(
    local: Both, server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.drain_first = True
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "clarigrpc"):
        stream = await open_stream(local, echo(local), words(100), window=5, patience=0.3)
        assert len(await local.collect(stream)) == 100
    assert 0.3 <= time.monotonic() - started < 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "drain_first=True" in caplog.text


async def test_a_window_that_never_opens_ends_at_the_deadline(
    local: Both, server: LocalServer
) -> None:
    server.faults.drain_first = True
    stream = await open_stream(
        local, echo(local), words(100), window=5, patience=math.inf, timeout=0.4
    )
    with pytest.raises(errors.DeadlineExceededError):
        await local.collect(stream)


async def test_a_failure_comes_after_the_items_before_it(local: Both, server: LocalServer) -> None:
    server.faults.stream_fail_after = 3
    found: list[Any] = []
    stream = await open_stream(local, echo(local), words(50))
    with pytest.raises(errors.UnavailableError):
        await local.collect(stream, found)
    assert said(found) == ["w0", "w1", "w2"]


async def test_an_input_that_fails(local: Both, server: LocalServer) -> None:
    server.faults.fail_inputs = {"i2"}
    found: list[Any] = []
    stream = await open_stream(local, echo(local), words(5))
    with pytest.raises(errors.ApiError) as caught:
        await local.collect(stream, found)
    assert caught.value.code == Code.MODEL_PREDICTION_FAILED
    assert said(found) == ["w0", "w1"]


async def test_an_input_that_fails_among_the_outputs(local: Both, server: LocalServer) -> None:
    server.faults.fail_inputs = {"i2"}
    stream = await open_stream(local, echo(local), words(5), raise_on_partial=False)
    found = await local.collect(stream)
    assert [one.status.code for one in found] == [
        Code.SUCCESS,
        Code.SUCCESS,
        Code.MODEL_PREDICTION_FAILED,
        Code.SUCCESS,
        Code.SUCCESS,
    ]


async def test_a_source_that_fails(local: Both) -> None:
    def values() -> Iterator[v2.Input]:
        yield from words(10)
        raise ValueError("no more")

    found: list[Any] = []
    stream = await open_stream(local, echo(local), values())
    with pytest.raises(ValueError, match="no more"):
        await local.collect(stream, found)
    assert len(found) == 10  # what was sent is answered


async def test_a_value_that_is_no_input(local: Both) -> None:
    found: list[Any] = []
    stream = await open_stream(local, echo(local), [*words(2), 5])
    with pytest.raises(TypeError):
        await local.collect(stream, found)
    assert len(found) == 2


@pytest.mark.parametrize("value", ["word", b"bytes", text("one")])
async def test_a_single_value_is_no_stream(local: Both, value: Any) -> None:
    with pytest.raises(TypeError, match="iterable of inputs"):
        await open_stream(local, echo(local), value)


async def test_the_server_ends_early(both: Both, scripted: ScriptedServer) -> None:
    """The client still has things to say; the source is left alone from then on."""

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        yield answer(next(requests))

    scripted.on("StreamModelOutputs", serve)
    endless = (one for number in range(10**9) for one in words(1, number))
    stream = await open_stream(both, both.client.model("m"), endless, window=4)
    assert said(await both.collect(stream)) == ["w0"]
    assert next(endless).data.text.raw in {f"w{number}" for number in range(1, 10)}


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (None, None),
        (refuse("StreamModelOutputs", Code.MODEL_DOES_NOT_EXIST), errors.NotFoundError),
        (Fail(grpc.StatusCode.INTERNAL), errors.InternalError),
    ],
)
async def test_requests_on_their_way_do_not_hide_how_it_ended(
    both: Both, scripted: ScriptedServer, end: Any, error: type[Exception] | None
) -> None:
    """A write that fails because the server has ended is not what the caller hears of."""

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in range(20):
            yield answer(next(requests))
        if end is not None:
            yield end

    scripted.always("StreamModelOutputs", serve)
    for _ in range(15):
        found: list[Any] = []
        endless = (text("a") for _ in range(10**9))
        stream = await open_stream(both, both.client.model("m"), endless, window=64)
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            await both.collect(stream, found)
        assert len(found) == 20


@pytest.mark.measures
async def test_the_deadline_holds_while_the_source_waits(local: Both) -> None:
    release = threading.Event()

    def values() -> Iterator[v2.Input]:
        yield text("one")
        release.wait(10)

    async def avalues() -> AsyncIterator[v2.Input]:
        yield text("one")
        await asyncio.sleep(10)

    found: list[Any] = []
    started = time.monotonic()
    source = values() if local.is_sync else avalues()
    stream = await open_stream(local, echo(local), source, timeout=0.5)
    with pytest.raises(errors.DeadlineExceededError):
        await local.collect(stream, found)
    release.set()
    assert time.monotonic() - started < 2
    assert said(found) == ["one"]


async def test_cancel_wakes_the_reader(both: Both, scripted: ScriptedServer) -> None:
    gone = threading.Event()

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        when_ended(context, gone.set)
        yield answer(next(requests))
        gone.wait(30)

    scripted.on("StreamModelOutputs", serve)
    stream = await open_stream(both, both.client.model("m"), words(10), window=2)
    found: list[Any] = []
    reading = asyncio.ensure_future(both.collect(stream, found))
    await asyncio.to_thread(until, lambda: found)
    stream.cancel()
    with pytest.raises(errors.CancelledError):
        await asyncio.wait_for(reading, 30)
    assert await asyncio.to_thread(gone.wait, 30)
    assert await both.collect(stream) == []


async def test_leaving_the_block_ends_the_call(both: Both, scripted: ScriptedServer) -> None:
    gone = threading.Event()

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        when_ended(context, gone.set)
        for request in requests:
            yield answer(request)

    scripted.on("StreamModelOutputs", serve)
    endless = (one for number in range(10**9) for one in words(1, number))
    stream = await open_stream(both, both.client.model("m"), endless)
    if both.is_sync:
        with stream:
            assert said([next(stream)]) == ["w0"]
    else:
        async with stream:
            assert said([await anext(stream)]) == ["w0"]
    assert await asyncio.to_thread(gone.wait, 30)


async def test_a_connection_that_is_cut(local: Both, connect: Connect, server: LocalServer) -> None:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        both = connect(proxy.base, pat=server.pat, stream_timeout=60)
        found: list[Any] = []

        async def read() -> None:
            stream = await open_stream(both, echo(both), endless(), window=3)
            async for one in both.items(stream):
                found.append(one)
                if len(found) == 20:
                    proxy.reset()

        def endless() -> Iterator[v2.Input]:
            for number in range(10**9):
                yield from words(1, number)

        with pytest.raises(errors.UnavailableError):
            await asyncio.wait_for(read(), 30)
        assert said(found) == [f"w{number}" for number in range(len(found))]
        assert len(found) >= 20


async def test_a_connection_that_is_cut_before_the_first_output(
    both: Both, scripted: ScriptedServer
) -> None:
    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        yield from map(answer, requests)

    def drop(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        next(requests)
        yield Fail(grpc.StatusCode.UNAVAILABLE)

    scripted.on("StreamModelOutputs", drop, serve)
    source = iter(words(50))
    stream = await open_stream(both, both.client.model("m"), source)
    assert said(await both.collect(stream)) == [f"w{number}" for number in range(50)]


async def test_a_failure_that_is_not_to_be_repeated(both: Both, scripted: ScriptedServer) -> None:
    refusal = refuse("StreamModelOutputs", Code.MODEL_DOES_NOT_EXIST)
    scripted.on("StreamModelOutputs", lambda requests, context: iter([refusal]))
    with pytest.raises(errors.NotFoundError):
        await both.collect(await open_stream(both, both.client.model("m"), words(3)))


async def test_rest_has_no_client_streams(connect: Connect) -> None:
    with LocalServer(rest_port=0) as server:
        both = connect(server.rest_base, pat=server.pat, transport="rest")
        stream = await open_stream(both, echo(both), words(3))
        with pytest.raises(errors.UnimplementedError):
            await both.collect(stream)


async def test_a_task_that_is_cancelled(server: LocalServer) -> None:
    async with server.async_client() as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")

        async def values() -> AsyncIterator[v2.Input]:
            yield text("one")
            await asyncio.sleep(60)

        found = []

        async def read() -> None:
            async for one in model.stream(values()):
                found.append(one)

        task = asyncio.create_task(read())
        await asyncio.to_thread(until, lambda: found)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            while asyncio.all_tasks() != {asyncio.current_task()}:
                await asyncio.sleep(0.01)


@pytest.mark.measures
def test_the_values_are_read_on_one_thread(server: LocalServer) -> None:
    readers = set()

    def values() -> Iterator[v2.Input]:
        for one in words(50):
            readers.add(threading.get_ident())
            yield one

    before = threading.active_count()
    with server.client() as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        for _ in model.stream(values(), window=2):
            mine = [t for t in threading.enumerate() if "clarigrpc-local" not in t.name]
            assert len(mine) <= before + 2  # gRPC's reader of requests, and its poller
    assert len(readers) == 1


def test_an_interrupt_while_a_stream_opens_leaves_no_thread_waiting(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    senders: list[threading.Thread] = []

    def values() -> Iterator[v2.Input]:
        for one in words(50):
            senders.append(threading.current_thread())
            yield one

    begin = sync_streams.begin

    def interrupted(*arguments: Any) -> Any:
        call = begin(*arguments)
        until(lambda: senders)
        signal.raise_signal(signal.SIGINT)
        return call

    monkeypatch.setattr(sync_streams, "begin", interrupted)
    with server.client() as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        with pytest.raises(KeyboardInterrupt):
            model.stream(values(), window=1, patience=600)
        join(senders[0])
