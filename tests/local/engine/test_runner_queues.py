"""The queues of runners under workers that do whatever comes to their mind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local.engine import runner_queues
from clarigrpc.local.engine.runner_queues import RunnerPlace, RunnerQueues, WorkerCall
from clarigrpc.local.service_errors import ServiceError
from tests.waiting import join

Code = v2.StatusCode
Kind = v2.RunnerMethodType

RUNNER = ("user", "runner")
PLACE = RunnerPlace(RUNNER, RUNNER)
PIECES = 3

# What a worker does with an item, and whether the item can go on to another worker then.
GOOD = "answers"
LOSES = ("leaves", "ends without an answer", "asks for another")
HALF = ("leaves after a piece", "fails after a piece")
TWICE = "answers twice"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers come back, however busy the machine is."""
    monkeypatch.setattr(runner_queues, "ARRIVAL_SECONDS", 15.0)


def message(
    item: v2.RunnerItem, text: str = "", code: int = Code.SUCCESS
) -> v2.PostRunnerItemOutputsRequest:
    made = v2.PostRunnerItemOutputsRequest(runner_item_id=item.id)
    made.status.code = code  # type: ignore[assignment]
    if text:
        output = made.runner_item_outputs.add().multi_output_response.outputs.add()
        output.data.text.raw = text
    return made


class RestlessWorker:
    """Takes items, one call each, and does with each the next thing of a list."""

    def __init__(self, queues: RunnerQueues, deeds: Iterator[str], name: str) -> None:
        self._queues = queues
        self._deeds = deeds
        self._name = name
        self.stop = False

    def serve(self) -> None:
        while not self.stop:
            call = self._queues.open_call(RUNNER, self._name, is_control=False)
            self._queues.ask(call)
            item = None
            while item is None and not self.stop:
                response = self._queues.next_response(call)
                if response is not None:
                    (item,) = response.runner_items
            if item is not None:
                self._do(call, item, next(self._deeds))
            self._queues.close_call(call)

    def _answer(self, call: WorkerCall, item: v2.RunnerItem, text: str) -> None:
        self._queues.answer(RUNNER, message(item, text), call)

    def _do(self, call: WorkerCall, item: v2.RunnerItem, deed: str) -> None:
        queues = self._queues
        given = item.post_model_outputs_request.inputs[0].data.text.raw
        streams = item.processing_info.runner_method_type == Kind.UNARY_STREAMING
        pieces = [f"{given}{number}" for number in range(PIECES)] if streams else [given]
        if deed in HALF:
            self._answer(call, item, pieces[0])
            if deed == "leaves after a piece":
                queues.break_call(call)
            else:
                queues.answer(RUNNER, message(item, code=Code.RUNNER_PROCESSING_FAILED), call)
        elif deed == "asks for another":
            queues.answer(RUNNER, message(item, code=Code.RUNNER_NEEDS_RETRY), call)
        elif deed == "ends without an answer" and not streams:  # of a stream it would be the end
            queues.end_messages(call)
        elif deed in ("leaves", "ends without an answer"):
            queues.break_call(call)
        elif deed in (GOOD, TWICE):
            for piece in pieces:
                self._answer(call, item, piece)
            if streams:
                queues.answer(RUNNER, message(item, code=Code.RUNNER_STREAM_END), call)
            if deed == TWICE:
                self._answer(call, item, "twice")
                queues.answer(RUNNER, message(item, "twice"))
        # Nobody has the item any more.
        self._answer(call, item, "late")


def ask(queues: RunnerQueues, text: str, kind: Kind.ValueType) -> tuple[list[str], int]:
    """What comes of an item: its pieces, and the code of its failure or 0."""
    item = v2.RunnerItem()
    item.processing_info.runner_method_type = kind
    item.post_model_outputs_request.inputs.add().data.text.raw = text
    pieces: list[str] = []
    try:
        for response in queues.run([PLACE], item, lambda: True, 20):
            pieces += [output.data.text.raw for output in response.outputs]
    except ServiceError as error:
        return pieces, error.code
    return pieces, 0


@given(
    deeds=st.lists(st.sampled_from([GOOD, GOOD, *LOSES, *HALF, TWICE]), max_size=12),
    kinds=st.lists(
        st.sampled_from([Kind.UNARY_UNARY, Kind.UNARY_STREAMING]), min_size=1, max_size=6
    ),
    workers=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_each_item_is_answered_once(
    deeds: list[str], kinds: list[Kind.ValueType], workers: int
) -> None:
    queues = RunnerQueues()
    lock = threading.Lock()
    rest = iter([*deeds])

    def each() -> Iterator[str]:
        while True:
            with lock:
                deed = next(rest, GOOD)
            yield deed

    names = count()
    crew = [RestlessWorker(queues, each(), str(next(names))) for _ in range(workers)]
    threads = [threading.Thread(target=worker.serve) for worker in crew]
    for thread in threads:
        thread.start()
    try:
        with ThreadPoolExecutor(len(kinds)) as callers:
            texts = [f"item {number}:" for number in range(len(kinds))]
            results = list(callers.map(ask, [queues] * len(kinds), texts, kinds))
    finally:
        for worker in crew:
            worker.stop = True
        queues.close()
        for thread in threads:
            thread.join(20)
    for text, kind, (pieces, code) in zip(texts, kinds, results, strict=True):
        streams = kind == Kind.UNARY_STREAMING
        whole = [f"{text}{number}" for number in range(PIECES)] if streams else [text]
        # In order, of one worker, none twice, none of another item.
        assert pieces == whole[: len(pieces)]
        if code == 0:
            assert pieces == whole
        else:
            assert code == Code.RUNNER_PROCESSING_FAILED
            # A failure has a cause.
            assert set(deeds) & {*LOSES, *HALF}
    if not set(deeds) & {*LOSES, *HALF}:
        assert all(code == 0 for _, code in results)
    assert not queues._items
    assert not queues._in_pool
    assert queues._open_calls == 0


@pytest.mark.measures
def test_an_item_without_workers_fails_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_queues, "ARRIVAL_SECONDS", 0.2)
    began = time.monotonic()
    assert ask(RunnerQueues(), "x", Kind.UNARY_UNARY) == ([], Code.MODEL_DEPLOYING)
    assert time.monotonic() - began < 10


def test_a_caller_that_is_dropped_inside_the_queues_holds_up_nobody() -> None:
    queues = RunnerQueues()
    call = queues.open_call(RUNNER, "worker", is_control=False)
    queues.ask(call)
    dropped = queues.run([PLACE], v2.RunnerItem(), lambda: True, 60)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, dropped)
        response = None
        while response is None:
            response = queues.next_response(call)
        queues.answer(RUNNER, message(response.runner_items[0], "output"), call)
        assert first.result(30).outputs

    def is_active() -> bool:
        dropped.close()  # the garbage collector may do so at any moment, with the lock held, too
        return False

    ended: list[ServiceError] = []

    def other() -> None:
        with pytest.raises(ServiceError) as raised:
            next(queues.run([PLACE], v2.RunnerItem(), is_active, 60))
        ended.append(raised.value)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    join(thread, 30)
    assert [error.code for error in ended] == [Code.MODEL_BUSY_PLEASE_RETRY]
