"""Concurrent single predicts that share requests."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import AsyncClient, Client, errors, text, v2
from clarigrpc._bulk.coalescing import CoalesceLimits, CoalesceQueue, PendingPredict
from tests.both import Both
from tests.bulk.service import METHOD, Hanging, outputs, poisoned, script
from tests.refused_threads import refused_threads
from tests.scripted import Fail, ScriptedServer, refuse
from tests.waiting import until

PAT = "x" * 20


def caller(now: float = 0.0, size: int = 1) -> PendingPredict:
    return PendingPredict(("", (bytes(size), b"")), Future(), now, now + 60)


def sizes(batches: Iterable[Any]) -> list[int]:
    return [len(batch) for batch in batches]


def test_an_idle_handle_waits_for_nobody() -> None:
    gathering = CoalesceQueue(CoalesceLimits())
    assert sizes(gathering.add(caller())) == [1]
    assert gathering.due_at() is None


def test_callers_gather_while_a_request_is_in_flight() -> None:
    gathering = CoalesceQueue(CoalesceLimits(max_delay=0.5))
    gathering.add(caller(0.0))
    assert not gathering.add(caller(1.0))
    assert not gathering.add(caller(1.4))
    assert gathering.due_at() == 1.5
    assert not gathering.due(1.4)
    assert sizes(gathering.due(1.5)) == [2]


def test_callers_go_when_the_handle_becomes_idle() -> None:
    gathering = CoalesceQueue(CoalesceLimits(max_delay=100))
    gathering.add(caller())
    for _ in range(5):
        assert not gathering.add(caller())
    assert sizes(gathering.ended(0.1)) == [5]
    assert not gathering.ended(0.2)


def test_halves_count_until_both_have_ended() -> None:
    gathering = CoalesceQueue(CoalesceLimits(max_delay=100))
    gathering.add(caller())
    gathering.add(caller())
    assert not gathering.ended(0.1, instead=2)
    assert not gathering.ended(0.2)
    assert sizes(gathering.ended(0.3)) == [1]


@given(
    limits=st.builds(
        CoalesceLimits,
        max_delay=st.sampled_from([0.0, 0.5, 100.0]),
        max_batch=st.integers(1, 128),
        max_bytes=st.integers(1, 50),
        max_in_flight=st.integers(1, 4),
    ),
    events=st.lists(st.sampled_from(["add", "add", "add", "end", "time", "leave"]), max_size=300),
    lengths=st.lists(st.integers(1, 30), min_size=1),
)
def test_everybody_goes_once_and_within_the_limits(
    limits: CoalesceLimits, events: list[str], lengths: list[int]
) -> None:
    gathering, now, in_flight = CoalesceQueue(limits), 0.0, 0
    waiting: list[PendingPredict] = []
    sent: list[PendingPredict] = []

    def went(batches: Iterable[Any]) -> int:
        batches = list(batches)
        for batch in batches:
            assert 1 <= len(batch) <= limits.max_batch
            assert len(batch) == 1 or sum(one.size for one in batch) <= limits.max_bytes
            assert batch == waiting[: len(batch)]  # first come, first served
            del waiting[: len(batch)]
            sent.extend(batch)
        return len(batches)

    for place, event in enumerate(events):
        now += 0.1
        if event == "add":
            waiting.append(caller(now, lengths[place % len(lengths)]))
            in_flight += went(gathering.add(waiting[-1]))
        elif event == "end" and in_flight:
            in_flight += went(gathering.ended(now)) - 1
        elif event == "leave" and waiting:
            gathering.leave(waiting.pop(len(waiting) // 2))
        elif event == "time":
            in_flight += went(gathering.due(now))
        assert in_flight <= limits.max_in_flight
        assert in_flight or not waiting
        at = gathering.due_at()
        assert at is None or at > now or event not in ("time", "add")
    while in_flight:
        in_flight += went(gathering.ended(now)) - 1
    assert not waiting
    assert len(set(map(id, sent))) == len(sent)


@pytest.mark.parametrize(
    "limits",
    [{"max_batch": 0}, {"max_batch": 129}, {"max_delay": -1}, {"max_bytes": 0}],
)
def test_limits_out_of_range(both: Both, limits: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError):
        both.client.model("m", **limits)


async def all_at_once(both: Both, predict: Callable[..., Any], values: list[Any]) -> list[Any]:
    """What each of concurrent callers gets: an output, or the exception."""
    if not both.is_sync:
        return await asyncio.gather(*map(predict, values), return_exceptions=True)
    start = threading.Barrier(len(values), timeout=60)

    def one(value: Any) -> Any:
        start.wait()
        try:
            return predict(value)
        except Exception as error:  # noqa: BLE001 - compared by the test
            return error

    with ThreadPoolExecutor(len(values)) as pool:
        return await asyncio.to_thread(lambda: list(pool.map(one, values)))


def inputs(scripted: ScriptedServer) -> list[int]:
    """How many inputs each request had."""
    return [len(seen.request.inputs) for seen in scripted.calls(METHOD)]


def slowly(answer: Callable[[Any], Any], seconds: float = 0.1) -> Callable[[Any], Any]:
    def slow(request: Any) -> Any:
        time.sleep(seconds)
        return answer(request)

    return slow


@pytest.mark.parametrize("options", [{"coalesce": True}, {"max_delay": 5}])
async def test_each_caller_gets_its_own_output(
    both: Both, scripted: ScriptedServer, options: dict[str, Any]
) -> None:
    scripted.always(METHOD, script(slowly(outputs)))
    model = both.client.model("m", **options)
    values = [text(str(number)) for number in range(100)]
    found = await all_at_once(both, model.predict, values)
    assert [output.data.text.raw for output in found] == [str(number) for number in range(100)]
    assert sum(inputs(scripted)) == 100
    if "max_delay" in options:  # how many come within a millisecond is chance
        assert len(scripted.seen) < 50


async def test_without_coalescing_each_has_its_request(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.always(METHOD, script(outputs))
    await all_at_once(both, both.client.model("m").predict, [text("a")] * 10)
    assert inputs(scripted) == [1] * 10


async def test_a_poisoned_input_fails_alone(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(slowly(poisoned("13"), 0.02)))
    model = both.client.model("m", max_delay=0.05)
    values = [text(str(number)) for number in range(40)]
    found = await all_at_once(both, model.predict, values)
    assert isinstance(found.pop(13), errors.InvalidArgumentError)
    assert [output.data.text.raw for output in found] == [str(n) for n in range(40) if n != 13]


async def test_an_output_with_a_bad_status_is_one_callers_error(
    both: Both, scripted: ScriptedServer
) -> None:
    def mixed(request: Any) -> Any:
        response = outputs(request)
        response.status.code = v2.StatusCode.MIXED_STATUS
        for output in response.outputs:
            if output.data.text.raw == "3":
                output.status.code = v2.StatusCode.MODEL_PREDICTION_FAILED
        return response

    scripted.always(METHOD, script(mixed))
    model = both.client.model("m", max_delay=0.1)
    found = await all_at_once(both, model.predict, [text(str(n)) for n in range(9)])
    assert [isinstance(one, errors.ApiError) for one in found] == [n == 3 for n in range(9)]


async def test_what_holds_for_all_is_an_error_for_each(
    both: Both, scripted: ScriptedServer
) -> None:
    refusal = refuse(METHOD, v2.StatusCode.MODEL_DOES_NOT_EXIST)
    scripted.always(METHOD, script(slowly(lambda request: refusal, 0.3)))
    model = both.client.model("m", max_delay=5)
    found = await all_at_once(both, model.predict, [text("a")] * 20)
    assert {type(one) for one in found} == {errors.NotFoundError}
    assert len({id(one) for one in found}) == 20  # each raises an error of its own
    assert len(scripted.seen) <= 4


async def test_a_value_that_is_no_input(both: Both, scripted: ScriptedServer) -> None:
    with pytest.raises(TypeError):
        await both.run(both.client.model("m", coalesce=True).predict, "text or path?")


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_shared_requests_are_retried(
    both: Both, scripted: ScriptedServer, code: grpc.StatusCode
) -> None:
    scripted.on(METHOD, Fail(code, details=code.name))
    scripted.always(METHOD, script(outputs))
    model = both.client.model("m", coalesce=True)
    found = await all_at_once(both, model.predict, [text("a")] * 5)
    assert [output.data.text.raw for output in found] == ["a"] * 5


async def test_requests_keep_within_the_limits(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(slowly(outputs)))
    model = both.client.model("m", max_batch=10, max_delay=0.2)
    await all_at_once(both, model.predict, [text("a")] * 60)
    assert max(inputs(scripted)) == 10


async def test_never_more_than_128(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(slowly(outputs)))
    model = both.client.model("m", max_delay=0.5)
    await all_at_once(both, model.predict, [text("a")] * 300)
    assert max(inputs(scripted)) <= 128
    assert sum(inputs(scripted)) == 300


async def test_bytes_of_a_request(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(slowly(outputs)))
    model = both.client.model("m", max_bytes=3_500, max_delay=0.2)
    await all_at_once(both, model.predict, [text("a" * 1000)] * 20)
    assert max(inputs(scripted)) == 3


@pytest.mark.measures
async def test_nobody_waits_longer_than_the_delay(both: Both, scripted: ScriptedServer) -> None:
    hanging = Hanging()
    scripted.on(METHOD, hanging)
    scripted.always(METHOD, script(outputs))
    model = both.client.model("m", max_delay=0.15)

    async def first() -> None:
        with pytest.raises(errors.ApiError):
            await both.run(model.predict, text("a"), timeout=1)

    task = asyncio.create_task(first())
    assert await asyncio.to_thread(hanging.began.wait, 30)
    began = time.monotonic()
    await both.run(model.predict, text("b"))
    assert 0.14 < time.monotonic() - began < 0.6
    await task


@pytest.mark.measures
async def test_an_idle_handle_adds_no_wait(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(outputs))
    model = both.client.model("m", max_delay=30)
    for _ in range(3):
        began = time.monotonic()
        await both.run(model.predict, text("a"))
        assert time.monotonic() - began < 1


@pytest.mark.measures
async def test_who_gathers_goes_when_the_handle_is_idle(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.always(METHOD, script(slowly(outputs)))
    model = both.client.model("m", max_delay=30)
    began = time.monotonic()
    await all_at_once(both, model.predict, [text("a")] * 10)
    assert time.monotonic() - began < 2


async def test_handles_never_share(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(slowly(outputs)))

    def config(concepts: int) -> v2.OutputConfig:
        return v2.OutputConfig(max_concepts=concepts)

    handles = [
        both.client.model("m", output_config=config(1), max_delay=5),
        both.client.model("m", output_config=config(2), max_delay=5),
        both.client.model("n", max_delay=5),
    ]

    def predict(value: Any) -> Any:
        return handles[int(value.data.text.raw)].predict(value)

    await all_at_once(both, predict, [text(str(n % 3)) for n in range(60)])
    for seen in scripted.seen:
        assert len({one.data.text.raw for one in seen.request.inputs}) == 1
    assert len(scripted.seen) < 60


@pytest.mark.measures
async def test_deadlines_are_each_callers_own(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(slowly(outputs, 0.5)))
    model = both.client.model("m", max_delay=0.05)
    patience = [5.0, 0.2, 5.0, 0.3, 5.0]

    def predict(seconds: float) -> Any:
        return model.predict(text("a"), timeout=seconds)

    began = time.monotonic()
    found = await all_at_once(both, predict, patience)
    assert time.monotonic() - began < 2.5
    for seconds, one in zip(patience, found, strict=True):
        assert isinstance(one, errors.DeadlineExceededError) == (seconds < 1)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_a_wrong_timeout(both: Both, timeout: float) -> None:
    with pytest.raises(errors.ConfigurationError):
        await both.run(both.client.model("m", coalesce=True).predict, text("a"), timeout=timeout)


@pytest.mark.measures
async def test_closing_ends_everything(both: Both, scripted: ScriptedServer) -> None:
    hanging = Hanging()
    scripted.always(METHOD, hanging)
    model = both.client.model("m", max_batch=2, max_delay=30)
    running = asyncio.ensure_future(all_at_once(both, model.predict, [text("a")] * 50))
    assert await asyncio.to_thread(until, lambda: hanging.running >= 10)
    began = time.monotonic()
    await both.close()
    found = await running
    assert time.monotonic() - began < 2
    assert {type(one) for one in found} == {errors.CancelledError}
    assert await asyncio.to_thread(until, lambda: hanging.running == 0)
    with pytest.raises(errors.ClosedError):
        await both.run(model.predict, text("a"))


def test_no_thread_is_left(scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(slowly(outputs, 0.02)))
    before = {thread for thread in threading.enumerate() if thread.name.startswith("clarigrpc")}
    with Client(pat=PAT, base=scripted.base) as client:
        model = client.model("m", coalesce=True)
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(model.predict, [text("a")] * 100))
    assert until(
        lambda: not {t for t in threading.enumerate() if t.name.startswith("clarigrpc")} - before
    )


def test_a_handle_works_on_after_threads_could_not_start(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def answer(request: Any) -> Any:
        if request.inputs[0].data.text.raw == "first":
            release.wait(30)
        return outputs(request)

    scripted.always(METHOD, script(answer))
    with Client(pat=PAT, base=scripted.base) as client, ThreadPoolExecutor(1) as pool:
        model = client.model("m", max_delay=0.01)
        first = pool.submit(model.predict, text("first"))
        try:
            assert until(lambda: scripted.calls(METHOD))
            with refused_threads(monkeypatch, "clarigrpc-coalesce"):
                for _ in range(5):
                    with pytest.raises(RuntimeError, match="new thread"):
                        model.predict(text("refused"), timeout=20)
            assert model.predict(text("next"), timeout=20).data.text.raw == "next"
        finally:
            release.set()
        first.result()
    assert inputs(scripted) == [1, 1]


async def test_cancellation_is_each_callers_own(scripted: ScriptedServer) -> None:
    arrived, go = threading.Event(), threading.Event()

    def held(request: Any) -> Any:
        arrived.set()
        go.wait(20)
        return outputs(request)

    scripted.always(METHOD, script(held))
    async with AsyncClient(pat=PAT, base=scripted.base) as client:
        model = client.model("m", coalesce=True)
        tasks = [asyncio.create_task(model.predict(text(str(n)))) for n in range(10)]
        assert await asyncio.to_thread(arrived.wait, 30)
        for task in tasks[::2]:
            task.cancel()
        go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, one in enumerate(found):
        if number % 2:
            assert not isinstance(one, BaseException)
            assert one.data.text.raw == str(number)
        else:
            assert isinstance(one, asyncio.CancelledError)


async def test_a_request_that_nobody_waits_for_is_cancelled(scripted: ScriptedServer) -> None:
    hanging = Hanging()
    scripted.on(METHOD, hanging)
    scripted.always(METHOD, script(outputs))
    async with AsyncClient(pat=PAT, base=scripted.base) as client:
        model = client.model("m", max_delay=30)
        task = asyncio.create_task(model.predict(text("a")))
        assert await asyncio.to_thread(hanging.began.wait, 30)
        task.cancel()
        assert await asyncio.to_thread(until, lambda: hanging.running == 0)
        # The handle is idle again.
        await asyncio.wait_for(model.predict(text("b")), 20)


async def test_a_caller_cancelled_before_its_request_began(scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(outputs))
    async with AsyncClient(pat=PAT, base=scripted.base) as client:
        model = client.model("m", max_delay=30)
        task = asyncio.create_task(model.predict(text("a")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(model.predict(text("b")), 20)
        assert len(asyncio.all_tasks()) == 1


class _InterruptAt:
    """Ctrl-C at the ``nth`` event in the module that shares requests."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self.place = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" or not frame.f_code.co_filename.endswith("coalescing.py"):
            return
        self._left -= 1
        if not self._left:
            self.place = f"{frame.f_code.co_name}:{frame.f_lineno} {event}"
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_at_any_moment_leaves_a_handle_that_works(scripted: ScriptedServer) -> None:
    """Nobody waits for a request that was never sent, and none is for who has given up."""
    scripted.always(METHOD, script(outputs))
    before = sys.getprofile()
    places = set()
    with Client(base=scripted.base, pat=PAT, timeout=10) as client:
        # Behind a request that is taken to be in flight, a predict would wait for its timeout.
        model = client.model("m", max_delay=60)
        for nth in range(1, 200):
            interrupt = _InterruptAt(nth)
            sys.setprofile(interrupt)
            try:
                model.predict(text("given up"))
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(before)
            if not interrupt.place:
                break
            places.add(interrupt.place)
            assert model.predict(text("next")).data.text.raw == "next"
    assert len(places) > 20
    assert {*inputs(scripted)} == {1}
