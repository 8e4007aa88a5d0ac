"""Streams straight on gRPC's core: nothing is lost, in order, bounded, as by grpcio's own way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import AsyncClient, Client, errors, v2
from clarigrpc._rpc import async_streams, core_streams, grpcio_internals, sync_streams
from clarigrpc._rpc.core_streams import INBOX_BYTES, INBOX_MESSAGES, CoreStream, StreamChange
from tests.both import Both
from tests.conftest import PAT
from tests.rpc.refused_starts import refuse_starts
from tests.rpc.test_grpcio_internals import Missing, listed, take_away
from tests.scripted import Answer, Fail, ScriptedServer, reply, when_ended

GENERATE = v2.PostModelOutputsRequest(model_id="m")
REQUEST = v2.PostModelOutputsRequest(model_id="m", inputs=[v2.Input(id="1")])


class Operation:
    """An operation of the core, and what it came to."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.result: bytes | None = None

    def message(self) -> bytes | None:
        return self.result

    def initial_metadata(self) -> tuple[()]:
        return ()

    trailing_metadata = initial_metadata

    def code(self) -> int:
        return 0

    def details(self) -> str:
        return ""

    error_string = details


KINDS = {
    name: type(name, (Operation,), {})
    for name in core_streams.STREAM_INTERNALS["grpc._cython.cygrpc"]
    if name.endswith("Operation")
}
HINT = 1
CORE: dict[str, Any] = KINDS | {
    "get_fork_epoch": lambda: 0,
    "StatusCode.cancelled": 1,
    "WriteFlag.buffer_hint": HINT,
}


class FakeCall:
    """The core: it runs one operation of a kind at a time, and its events come in any order."""

    def __init__(self, messages: list[bytes], request: bytes | None) -> None:
        self.messages = iter(messages)
        self.pending: list[list[Operation]] = []
        self.sent: list[Any] = []
        self.flags: list[int] = []
        self.told: list[int] = []
        self.over = False
        self.lasts = 0
        self.stream = CoreStream(CORE, self.begin, request, (), self.told.append)

    def begin(self, operations: Any, on_event: Callable[[Any], bool]) -> FakeCall:
        self.on_event = on_event
        self.pending += map(list, operations)
        return self

    def operate(self, operations: Any, on_event: Callable[[Any], bool]) -> bool:
        if self.over and not self.pending:
            return False
        kinds = {type(one) for batch in self.pending for one in batch}
        assert not kinds & {type(one) for one in operations}, "two operations of a kind at once"
        self.pending.append(list(operations))
        return True

    def cancel(self, code: int, details: str) -> None:
        self.messages = iter(())
        self.over = True

    def named(self, name: str) -> type[Operation]:
        return KINDS[f"{name}Operation"]

    def complete(self, index: int) -> bool:
        """Complete a batch that can be; False where none can."""
        status = self.named("ReceiveStatusOnClient")
        able = [batch for batch in self.pending if self.over or type(batch[0]) is not status]
        if not able:
            return False
        batch = able[index % len(able)]
        self.pending.remove(batch)
        for operation in batch:
            if type(operation) is self.named("ReceiveMessage"):
                operation.result = next(self.messages, None)
                self.over |= operation.result is None
            elif type(operation) is self.named("SendMessage"):
                self.sent.append(operation.arguments[0])
                self.flags.append(operation.arguments[1])
            elif type(operation) is self.named("SendCloseFromClient"):
                self.sent.append(None)
        event = type("Event", (), {"batch_operations": batch})
        self.lasts += self.on_event(event)
        assert self.lasts == (not self.pending)
        sending = any(type(batch[0]) is self.named("SendMessage") for batch in self.pending)
        held_back = self.flags[-1:] == [HINT] and self.stream.status is None
        assert sending or not held_back, "a request waits for one that may never come"
        return True


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 5, 5, 5, INBOX_BYTES // 3, INBOX_BYTES]), max_size=80),
    steps=st.lists(st.tuples(st.sampled_from("ecctws"), st.integers(0, 9)), max_size=300),
    streaming=st.booleans(),
    cancelled=st.booleans(),
)
def test_nothing_is_lost_or_out_of_order(
    sizes: list[int], steps: list[tuple[str, int]], streaming: bool, cancelled: bool
) -> None:
    messages = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    call = FakeCall(messages, None if streaming else b"request")
    stream = call.stream
    taken: list[bytes] = []
    written: list[bytes] = []
    for step, index in steps:
        if step in "ec":
            call.complete(index)
        elif step == "t":
            found = stream.take()
            assert len(found) <= INBOX_MESSAGES
            assert sum(map(len, found[:-1])) < INBOX_BYTES
            taken += found
        elif step == "w":
            call.told.clear()
            if not stream.await_message():
                count = len(call.told)
                while not any(told & StreamChange.RECEIVED for told in call.told):
                    assert call.complete(index), "whoever waits is told"
                assert len(call.told) > count
        elif streaming and stream.status is None:
            written.append(bytes([len(written) % 256]) * (index << 12))
            stream.send(written[-1])
    if cancelled:
        stream.cancel()
    stream.close_sending()
    while not stream.finished:
        call.complete(0)
        taken += stream.take()
    while call.pending:
        call.complete(0)
    assert call.lasts == 1
    assert taken == (messages[: len(taken)] if cancelled else messages)
    if streaming:
        sent = call.sent[:-1] if call.sent and call.sent[-1] is None else call.sent
        assert sent == written[: len(sent)]
    else:
        assert call.sent == [b"request", None]
    assert stream.send(b"late")
    assert stream.has_room


def test_the_core_is_told_which_requests_follow_at_once() -> None:
    call = FakeCall([b"answer"] * 2 * INBOX_MESSAGES, None)
    for request in (b"1", b"2", b"3", b"4"):
        call.stream.send(request)
    while call.complete(0):  # until there is no more room for answers
        pass
    assert call.flags == [0, HINT, HINT, 0]


@pytest.fixture(params=["direct", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a client makes its calls."""
    if request.param == "public":
        monkeypatch.setattr("clarigrpc._rpc.grpcio_internals.usable", lambda: False)
    elif not grpcio_internals.usable():
        pytest.skip(f"not with grpcio {grpc.__version__}")
    return str(request.param)


def requests_of(both: Both, count: int) -> Any:
    async def generator() -> AsyncIterator[Any]:
        for one in repeat(REQUEST, count):
            yield one

    return repeat(REQUEST, count) if both.is_sync else generator()


async def test_every_way_streams_the_same(both: Both, scripted: ScriptedServer, way: str) -> None:
    answers = [reply("GenerateModelOutputs", outputs=[v2.Output(id=str(n))]) for n in range(300)]
    scripted.always("GenerateModelOutputs", Answer(answers))
    scripted.always("StreamModelOutputs", Answer(answers))
    expected = [str(number) for number in range(300)]
    found = await both.collect(both.open("GenerateModelOutputs", GENERATE))
    assert [one.outputs[0].id for one in found] == expected
    stream = both.open("StreamModelOutputs", requests_of(both, 50))
    assert [one.outputs[0].id for one in await both.collect(stream)] == expected
    direct = sync_streams._BidiCall if both.is_sync else async_streams.DirectStream
    call = getattr(stream._call, "real", stream._call)
    assert (type(call) is direct) == (way == "direct")


async def test_a_failure_comes_after_what_was_received(
    both: Both, scripted: ScriptedServer, way: str
) -> None:
    failing = Answer([reply("StreamModelOutputs")] * 100 + [Fail(grpc.StatusCode.DATA_LOSS, "why")])
    scripted.always("StreamModelOutputs", failing)
    found: list[Any] = []
    with pytest.raises(errors.InternalError, match="why"):
        await both.collect(both.open("StreamModelOutputs", requests_of(both, 3)), found)
    assert len(found) == 100


@pytest.mark.parametrize("missing", listed(core_streams.STREAM_INTERNALS), ids="-".join)
@pytest.mark.parametrize("client_kind", ["async"])
async def test_a_name_of_the_core_is_missing(
    both: Both, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, missing: Missing
) -> None:
    with monkeypatch.context() as patch:
        take_away(patch, missing)
        internals = grpcio_internals.load(core_streams.STREAM_INTERNALS)
    monkeypatch.setattr(core_streams, "_core", lambda: core_streams.tried_out(internals))
    scripted.always("StreamModelOutputs", Answer([reply("StreamModelOutputs")] * 3))
    stream = both.open("StreamModelOutputs", requests_of(both, 3))
    assert len(await both.collect(stream)) == 3
    call = getattr(stream._call, "real", stream._call)
    assert type(call) not in (sync_streams._BidiCall, async_streams.DirectStream)


async def test_the_core_takes_other_arguments(
    both: Both, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_starts(monkeypatch, len(core_streams.STREAM_ATTRIBUTES))
    scripted.always("StreamModelOutputs", Answer([reply("StreamModelOutputs")] * 3))
    assert len(await both.collect(both.open("StreamModelOutputs", requests_of(both, 3)))) == 3


async def test_a_fast_stream_leaves_other_tasks_a_turn(scripted: ScriptedServer) -> None:
    scripted.always("GenerateModelOutputs", Answer([reply("GenerateModelOutputs")] * 2000))
    async with AsyncClient(base=scripted.base, pat=PAT) as client:
        turns, longest, seen = 0, 0, 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        before = turns
        async for _ in client.v2.GenerateModelOutputs(GENERATE):
            seen += 1
            if turns == before:
                longest = max(longest, seen)
            else:
                before, seen = turns, 0
        task.cancel()
    assert longest <= 2 * INBOX_MESSAGES


async def test_a_waiting_reader_is_cancelled(scripted: ScriptedServer) -> None:
    held = threading.Event()

    def hold(*_: Any) -> Iterator[Any]:
        held.wait(30)
        yield reply("GenerateModelOutputs")

    scripted.always("GenerateModelOutputs", hold)
    try:
        async with AsyncClient(base=scripted.base, pat=PAT) as client:
            call = client.v2.GenerateModelOutputs(GENERATE)
            reading = asyncio.create_task(call.read())
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert call.cancelled()
            assert call.done()
            assert await call.code() is grpc.StatusCode.CANCELLED
    finally:
        held.set()


async def test_giving_up_to_wait_for_the_end_leaves_the_call(scripted: ScriptedServer) -> None:
    held = threading.Event()

    def hold(*_: Any) -> Iterator[Any]:
        held.wait(30)
        yield reply("GenerateModelOutputs")

    scripted.always("GenerateModelOutputs", hold)
    async with AsyncClient(base=scripted.base, pat=PAT) as client:
        call = client.v2.GenerateModelOutputs(GENERATE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.code(), 0.05)
        held.set()
        assert len([response async for response in call]) == 1
        assert await call.code() is grpc.StatusCode.OK


async def test_what_nobody_reads_stays_bounded_while_requests_are_written() -> None:
    call = FakeCall([b"x"] * 1000, None)
    stream = async_streams.DirectStream(None, 10)
    running = async_streams.RunningStreams()

    def begin(request: Any, timeout: float, metadata: Any, notify: Any) -> CoreStream:
        call.stream = CoreStream(CORE, call.begin, request, metadata, notify)
        return call.stream

    call.pending.clear()
    assert stream.start(begin, 10, (), running)
    for _ in range(40):
        writing = asyncio.create_task(stream.write(bytes(1 << 17)))
        while not writing.done():
            call.complete(0)
            await asyncio.sleep(0)
    held = len(stream._ready) + len(call.stream.take())
    assert held <= 2 * INBOX_MESSAGES
    stream.cancel()
    while call.pending:
        call.complete(0)


@pytest.mark.parametrize("client_kind", ["async"])
async def test_requests_that_are_written_together(
    both: Both, scripted: ScriptedServer, way: str
) -> None:
    def echo(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield reply("StreamModelOutputs", outputs=[v2.Output(id=request.model_id)])

    scripted.on("StreamModelOutputs", echo)
    stream = both.client.v2.StreamModelOutputs()
    names = [str(number) * 100_000 for number in range(5)]  # each more than may wait
    await stream.write_all([v2.PostModelOutputsRequest(model_id=name) for name in names[:4]])
    await stream.write_all([])
    await stream.write_all([v2.PostModelOutputsRequest(model_id=names[4])])
    await stream.done_writing()
    assert [response.outputs[0].id async for response in stream] == names
    with pytest.raises(asyncio.InvalidStateError):
        await stream.write_all([v2.PostModelOutputsRequest()])


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.parametrize(
    "failure",
    [
        aio.AioRpcError(
            grpc.StatusCode.ABORTED, aio.Metadata(), aio.Metadata(), "of another stream"
        ),
        asyncio.InvalidStateError("of another stream"),
        asyncio.CancelledError("of another stream"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_requests_fail_with_the_errors_of_another_stream(
    both: Both, scripted: ScriptedServer, way: str, failure: BaseException
) -> None:
    async def piped() -> AsyncIterator[Any]:
        yield REQUEST
        raise failure

    def answer(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in requests:
            yield reply("StreamModelOutputs")

    scripted.always("StreamModelOutputs", answer)
    async with asyncio.timeout(20) as limit:
        with pytest.raises(type(failure)) as caught:
            await both.collect(both.open("StreamModelOutputs", piped()))
    assert not limit.expired()
    if isinstance(failure, Exception):
        assert caught.value is failure


def test_a_cancelled_stream_does_not_look_complete() -> None:
    call = FakeCall([b"x"], None)
    stream = sync_streams._BidiCall(call.stream, sync_streams._StreamWaits(), 0)
    assert stream.cancel()
    while call.pending:  # the status that has come meanwhile is OK
        call.complete(0)
    for _ in range(2):
        with pytest.raises(aio.AioRpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert stream.code() is grpc.StatusCode.CANCELLED
    assert stream.details() == core_streams.LOCALLY_CANCELLED


def test_no_thread_is_left_to_send(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            assert began.wait(30)
            raise RuntimeError("can't start new thread")

    began, over = threading.Event(), threading.Event()

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        when_ended(context, over.set)
        began.set()
        yield from (reply("StreamModelOutputs") for _ in requests)

    scripted.always("StreamModelOutputs", answer)
    with Client(base=scripted.base, pat=PAT) as client:
        monkeypatch.setattr(
            sync_streams,
            "threading",
            SimpleNamespace(Thread=Refused, Condition=threading.Condition, Lock=threading.Lock),
        )
        with pytest.raises(RuntimeError, match="new thread"):
            client.v2.StreamModelOutputs(iter([REQUEST]))
        assert over.wait(30)


def test_threads_end_with_their_stream(scripted: ScriptedServer) -> None:
    reached, blocked = threading.Event(), threading.Event()

    def endless() -> Iterator[Any]:
        yield REQUEST
        reached.set()
        blocked.wait(30)

    def answer(*_: Any) -> Iterator[Any]:
        reached.wait(30)
        yield reply("StreamModelOutputs")

    scripted.always("StreamModelOutputs", answer)
    with Client(base=scripted.base, pat=PAT) as client:
        assert len(list(client.v2.StreamModelOutputs(endless()))) == 1
        senders = [one for one in threading.enumerate() if "_send_all" in one.name]
        assert len(senders) == 1  # it is in the caller's iterable
        blocked.set()
        senders[0].join(30)
        assert not senders[0].is_alive()
