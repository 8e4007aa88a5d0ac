"""Sync streams that are read on the caller's thread, straight on gRPC's core and the public way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc.experimental import UsageError

from clarigrpc import Client, errors, v2
from clarigrpc._rpc import grpcio_internals, polled_streams
from clarigrpc._rpc.polled_streams import PolledStream
from tests.conftest import PAT
from tests.rpc.refused_starts import refuse_starts
from tests.rpc.test_grpcio_internals import Missing, listed, take_away
from tests.scripted import Answer, Fail, ScriptedServer, reply, when_ended

GENERATE = v2.PostModelOutputsRequest(model_id="m")


@pytest.fixture(params=["direct", "public"])
def client(
    scripted: ScriptedServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """A client that goes straight to the core, and one that does not."""
    if request.param == "public":
        monkeypatch.setattr("clarigrpc._rpc.grpcio_internals.usable", lambda: False)
    elif not grpcio_internals.usable():
        pytest.skip(f"not with grpcio {grpc.__version__}")
    with Client(base=scripted.base, pat=PAT) as client:
        yield client
        stream = client.v2.GenerateModelOutputs(GENERATE)
        assert is_direct(stream) == (request.param == "direct")
        stream.cancel()


def is_direct(stream: Any) -> bool:
    return isinstance(stream._call.real, PolledStream)


def numbered(count: int) -> list[v2.MultiOutputResponse]:
    return [reply("GenerateModelOutputs", outputs=[v2.Output(id=str(n))]) for n in range(count)]


def ids(responses: Any) -> list[str]:
    return [response.outputs[0].id for response in responses]


def waiting(messages: list[Any], left: threading.Event) -> Any:
    """Sends messages and then waits for the end of the call."""

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        when_ended(context, left.set)
        yield from messages
        left.wait(30)

    return answer


def test_all_comes_in_order_and_then_the_status(client: Client, scripted: ScriptedServer) -> None:
    scripted.always("GenerateModelOutputs", Answer(numbered(300), trailing=(("last", "one"),)))
    ended = []
    stream = client.v2.GenerateModelOutputs(GENERATE, timeout=20)
    assert stream.is_active()
    assert stream.add_callback(lambda: ended.append(True))
    assert 0 < stream.time_remaining() <= 20
    assert ids(stream) == [str(number) for number in range(300)]
    assert list(stream) == []
    assert ended == [True]
    assert stream.code() is grpc.StatusCode.OK
    assert ("last", "one") in [(key, value) for key, value in stream.trailing_metadata()]
    assert not stream.is_active()
    assert not stream.cancel()
    assert not stream.add_callback(lambda: ended.append(False))


def test_a_failure_comes_after_what_was_received(client: Client, scripted: ScriptedServer) -> None:
    failing = Answer([*numbered(100), Fail(grpc.StatusCode.DATA_LOSS, "why")])
    scripted.always("GenerateModelOutputs", failing)
    stream = client.v2.GenerateModelOutputs(GENERATE)
    found: list[Any] = []
    with pytest.raises(errors.InternalError, match="why"):
        for response in stream:
            found.append(response)
    assert len(found) == 100
    assert stream.code() is grpc.StatusCode.DATA_LOSS
    assert stream.details() == "why"
    with pytest.raises(errors.InternalError, match="why"):
        next(stream)


def test_metadata_can_be_asked_for_before_the_first_message_and_the_status_cannot(
    client: Client, scripted: ScriptedServer
) -> None:
    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        context.send_initial_metadata((("first", "one"),))
        yield from numbered(3)

    scripted.always("GenerateModelOutputs", answer)
    stream = client.v2.GenerateModelOutputs(GENERATE)
    assert ("first", "one") in [(key, value) for key, value in stream.initial_metadata()]
    for ask in (stream.code, stream.details, stream.trailing_metadata):
        with pytest.raises(UsageError):
            ask()
    assert ids(stream) == ["0", "1", "2"], "asking loses nothing"


def test_another_thread_ends_the_wait_for_a_message(
    client: Client, scripted: ScriptedServer
) -> None:
    left = threading.Event()
    scripted.always("GenerateModelOutputs", waiting(numbered(1), left))
    stream = client.v2.GenerateModelOutputs(GENERATE)
    next(stream)
    threading.Timer(0.2, stream.cancel).start()
    with pytest.raises(errors.CancelledError):
        next(stream)
    assert left.wait(30)
    with pytest.raises(errors.CancelledError):
        next(stream)
    assert stream.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("end", ["cancel", "drop", "leave"])
def test_a_stream_that_is_not_read_to_its_end_leaves_nothing_in_the_core(
    client: Client, scripted: ScriptedServer, end: str
) -> None:
    left = threading.Event()
    scripted.always("GenerateModelOutputs", waiting(numbered(5), left))
    stream: Any = client.v2.GenerateModelOutputs(GENERATE)
    next(stream)
    real = stream._call.real
    if end == "cancel":
        assert stream.cancel()
    elif end == "leave":
        with stream:
            pass
    else:
        del stream
    assert left.wait(30), "the server is told"
    if isinstance(real, PolledStream):
        assert real._due == 0


def test_messages_that_had_come_are_not_given_out_after_cancel(
    client: Client, scripted: ScriptedServer
) -> None:
    scripted.always("GenerateModelOutputs", Answer(numbered(5)))
    stream = client.v2.GenerateModelOutputs(GENERATE)
    next(stream)
    time.sleep(0.05)  # the others come
    stream.cancel()
    with pytest.raises(errors.CancelledError):
        next(stream)


def test_the_deadline_ends_it(client: Client, scripted: ScriptedServer) -> None:
    left = threading.Event()
    scripted.always("GenerateModelOutputs", waiting(numbered(2), left))
    stream = client.v2.GenerateModelOutputs(GENERATE, timeout=2)
    found = []
    with pytest.raises(errors.DeadlineExceededError):
        for response in stream:
            found.append(response)
    assert len(found) == 2
    assert left.wait(30)


def test_what_nobody_reads_stays_bounded(client: Client, scripted: ScriptedServer) -> None:
    """A message is asked for ahead, and no more."""
    sent: list[int] = []

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        large = reply("GenerateModelOutputs", outputs=[v2.Output(id="x" * 1_000_000)])
        for number in range(200):
            sent.append(number)
            yield large

    scripted.always("GenerateModelOutputs", answer)
    stream = client.v2.GenerateModelOutputs(GENERATE)
    next(stream)
    quiet_since, before = time.monotonic(), len(sent)
    while time.monotonic() < quiet_since + 0.5:
        time.sleep(0.05)
        if len(sent) != before:
            quiet_since, before = time.monotonic(), len(sent)
        assert before < 100
    stream.cancel()


def test_a_callback_that_fails_ends_nothing(
    scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> None:
        raise ValueError("of the callback")

    scripted.always("GenerateModelOutputs", Answer(numbered(3)))
    with Client(base=scripted.base, pat=PAT) as client:
        stream = client.v2.GenerateModelOutputs(GENERATE)
        if not is_direct(stream):
            pytest.skip(f"grpcio's own callbacks, with {grpc.__version__}")
        stream.add_callback(failing)
        assert len(list(stream)) == 3
        assert "a callback of a stream failed" in caplog.text


@pytest.mark.parametrize("missing", listed(polled_streams.POLLED_INTERNALS), ids="-".join)
def test_a_name_of_grpcio_is_missing(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, missing: Missing
) -> None:
    with monkeypatch.context() as patch:
        take_away(patch, missing)
        internals = grpcio_internals.load(polled_streams.POLLED_INTERNALS)
    monkeypatch.setattr(polled_streams, "_core", lambda: polled_streams.tried_out(internals))
    scripted.always("GenerateModelOutputs", Answer(numbered(3)))
    with Client(base=scripted.base, pat=PAT) as client:
        stream = client.v2.GenerateModelOutputs(GENERATE)
        assert not is_direct(stream)
        assert len(list(stream)) == 3


def test_the_core_takes_other_arguments(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_starts(monkeypatch, len(polled_streams.POLLED_ATTRIBUTES))
    scripted.always("GenerateModelOutputs", Answer(numbered(3)))
    with Client(base=scripted.base, pat=PAT) as client:
        stream = client.v2.GenerateModelOutputs(GENERATE)
        assert not is_direct(stream)
        assert len(list(stream)) == 3
