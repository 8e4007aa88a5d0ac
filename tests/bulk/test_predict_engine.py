"""The state machine of ``predict_many`` against a service that does anything at any time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import RetryPolicy, errors, v2
from clarigrpc._bulk.adaptive import MAX_IN_FLIGHT
from clarigrpc._bulk.engine import BulkBatch
from clarigrpc._bulk.predict_engine import LINGER, MAX_BATCH_BYTES, PredictEngine
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._rpc.encoding import EncodedInputs
from clarigrpc.types import PredictBatch, PredictFailure, PredictResult, PredictSuccess

SUCCESS = v2.StatusCode.SUCCESS


class Encoder:
    """Values are bytes; a string cannot be encoded."""

    constant = b"constant"

    def batch(self, values: Sequence[Any]) -> EncodedInputs:
        good = [place for place, value in enumerate(values) if not isinstance(value, str)]
        items = [values[place] for place in good]
        wrong: dict[int, Exception] = {
            p: TypeError(one) for p, one in enumerate(values) if isinstance(one, str)
        }
        return EncodedInputs(good, [""] * len(items), items, [*map(len, items)], wrong)

    def request(self, items: Sequence[Any], ids: Sequence[str]) -> bytes:
        return b"".join(items)


def make(**options: Any) -> PredictEngine:
    defaults: dict[str, Any] = {
        "batch_size": None,
        "in_flight": None,
        "ordered": True,
        "max_bytes": 1 << 20,
        "timeout": 60.0,
        "policy": RetryPolicy(),
        "random": random.Random(1).random,
    }
    return PredictEngine(Encoder(), **(defaults | options))


def outputs(codes: Iterable[int]) -> v2.MultiOutputResponse:
    response = v2.MultiOutputResponse()
    response.status.code = SUCCESS
    for code in codes:
        response.outputs.add().status.code = code  # type: ignore[assignment]
    return response


def unavailable() -> errors.ApiError:
    return errors.UnavailableError("away", grpc_code=grpc.StatusCode.UNAVAILABLE, retryable=True)


def throttled(after: float | None) -> errors.ApiError:
    return errors.RateLimitError("slowly", retryable=True, retry_after=after)


@dataclass
class Run:
    """A engine with its source, its results and its time."""

    engine: PredictEngine
    values: list[Any]
    now: float = 0.0
    read: int = 0
    most: int = 0
    in_flight: list[BulkBatch] = field(default_factory=list)
    found: list[PredictResult] = field(default_factory=list)

    def feed(self, limit: int | None = None) -> None:
        """Read what is wanted, ``limit`` values at a time."""
        while room := self.engine.room:
            values = self.values[self.read : self.read + min(room, limit or room)]
            if not values:
                self.engine.exhausted()
                return
            self.engine.offer(values, self.now)
            self.read += len(values)
            if limit is not None:
                break
        self.most = max(self.most, self.read - len(self.found))

    def send(self) -> None:
        while (batch := self.engine.take(self.now)) is not None:
            self.in_flight.append(batch)

    def collect(self) -> None:
        for result in self.engine.results():
            if not isinstance(result, PredictBatch):
                self.found.append(result)
                continue
            assert 1 <= len(result) <= MAX_ITEMS
            assert len(result.indexes) == len(result.outputs)
            successes = map(PredictSuccess, result.indexes, result.outputs)
            failures = (PredictFailure(index, None, one) for index, one in result.errors.items())
            self.found += sorted([*successes, *failures], key=lambda one: one.index)

    def wait(self) -> None:
        """Let the time pass that has to pass when nothing is in flight."""
        seconds = self.engine.wait(self.now)
        assert seconds is not None, "nothing in flight, and nothing to wait for"
        self.now += seconds + 1e-6


def check_all_answered_once(run: Run, *, ordered: bool) -> None:
    indexes = [result.index for result in run.found]
    assert sorted(indexes) == list(range(len(run.values)))
    if ordered:
        assert indexes == sorted(indexes)
    for result in run.found:
        assert (result.output is None) != (result.error is None)


POISON, WRONG, GOOD = b"poison", "wrong", b"good"
REFUSALS = [
    lambda: errors.InvalidArgumentError("bad"),
    lambda: errors.InternalError("crash"),
    lambda: errors.ApiError("failed"),
    lambda: errors.NotFoundError("gone", code=v2.StatusCode.INPUT_DOES_NOT_EXIST),
]


def is_poisoned(batch: BulkBatch) -> bool:
    return POISON in batch.items


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.sampled_from([GOOD, GOOD, GOOD, POISON, WRONG]), max_size=150),
    batch_size=st.none() | st.integers(1, MAX_ITEMS),
    in_flight=st.none() | st.integers(1, 8),
    ordered=st.booleans(),
    batches=st.booleans(),
    refusal=st.sampled_from(REFUSALS),
    trouble=st.floats(0, 0.5),
    slow=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_order_of_answers_and_passing_failures(
    values: list[Any],
    batch_size: int | None,
    in_flight: int | None,
    ordered: bool,
    batches: bool,
    refusal: Any,
    trouble: float,
    slow: bool,
    seed: int,
) -> None:
    """Good inputs succeed, poisoned ones fail alone, whatever happens on the way."""
    draw = random.Random(seed)
    engine = make(
        batch_size=batch_size,
        in_flight=in_flight,
        ordered=ordered,
        batches=batches,
        timeout=1e6,
        random=draw.random,
    )
    run = Run(engine, values)
    while True:
        run.feed(draw.randint(1, 9) if slow else None)
        run.send()
        assert len({index for batch in run.in_flight for index in batch.indexes}) == sum(
            map(len, run.in_flight)
        )
        assert all(1 <= len(batch) <= (batch_size or MAX_ITEMS) for batch in run.in_flight)
        assert len(run.in_flight) <= (in_flight or MAX_IN_FLIGHT)
        run.collect()
        if engine.finished:
            break
        if not run.in_flight:
            if not engine.room:
                run.wait()
            continue
        batch = run.in_flight.pop(draw.randrange(len(run.in_flight)))
        run.now += draw.random()
        if draw.random() < trouble:
            error = draw.choice([unavailable(), throttled(None), throttled(draw.random() * 5)])
            engine.failed(batch, error, run.now)
        elif draw.random() < 0.1 and not is_poisoned(batch):
            code = draw.choice([SUCCESS, v2.StatusCode.MODEL_BUSY_PLEASE_RETRY])
            engine.responded(batch, outputs([code] + [SUCCESS] * (len(batch) - 1)), run.now)
        elif is_poisoned(batch):
            engine.failed(batch, refusal(), run.now)
        else:
            engine.responded(batch, outputs([SUCCESS] * len(batch)), run.now)
    check_all_answered_once(run, ordered=ordered)
    bad = [index for index, value in enumerate(values) if value is not GOOD]
    assert [r.index for r in sorted(run.found, key=lambda r: r.index) if r.error] == bad


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(0, 200),
    batch_size=st.none() | st.integers(1, 20),
    in_flight=st.none() | st.integers(1, 6),
    ordered=st.booleans(),
    batches=st.booleans(),
    policy=st.sampled_from([RetryPolicy(), RetryPolicy(max_attempts=1)]),
    seed=st.integers(0, 2**32),
)
def test_anything_may_fail_at_any_time(
    count: int,
    batch_size: int | None,
    in_flight: int | None,
    ordered: bool,
    batches: bool,
    policy: RetryPolicy,
    seed: int,
) -> None:
    """Every input has exactly one result, and the run ends."""
    draw = random.Random(seed)
    engine = make(
        batch_size=batch_size,
        in_flight=in_flight,
        ordered=ordered,
        batches=batches,
        timeout=5.0,
        policy=policy,
        random=draw.random,
    )
    run = Run(engine, [GOOD] * count)
    codes = [
        SUCCESS,
        v2.StatusCode.MODEL_BUSY_PLEASE_RETRY,
        v2.StatusCode.MODEL_PREDICTION_FAILED,
    ]
    while True:
        run.feed()
        run.send()
        run.collect()
        if engine.finished:
            break
        if not run.in_flight:
            if not engine.room:
                run.wait()
            continue
        batch = run.in_flight.pop(draw.randrange(len(run.in_flight)))
        run.now += draw.random()
        event = draw.randrange(8)
        if event < 2:
            engine.responded(batch, outputs(draw.choices(codes, k=len(batch))), run.now)
        elif event == 2:
            engine.responded(batch, outputs([SUCCESS] * (len(batch) + 1)), run.now)
        else:
            error = draw.choice(
                [
                    unavailable(),
                    throttled(draw.choice([None, 0.5, 1000.0])),
                    errors.NotReadyError("soon", retryable=True),
                    errors.DeadlineExceededError("silence"),
                    errors.AuthenticationError("who"),
                    errors.InternalError("crash"),
                    errors.CancelledError("no"),
                    RuntimeError("a bug"),
                ]
            )
            engine.failed(batch, error, run.now)
    check_all_answered_once(run, ordered=ordered)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("value", [GOOD, WRONG])
def test_memory_is_bounded_over_an_endless_source(ordered: bool, value: Any) -> None:
    """Even if the first batch is never answered, or nothing can be encoded."""
    engine = make(batch_size=10, in_flight=4, ordered=ordered)
    run = Run(engine, [value] * 100_000)
    first: BulkBatch | None = None
    for _ in range(300):
        run.feed()
        run.send()
        run.collect()
        first = first or (run.in_flight.pop(0) if run.in_flight else None)
        if run.in_flight:
            batch = run.in_flight.pop(0)
            engine.responded(batch, outputs([SUCCESS] * len(batch)), run.now)
    assert run.most <= 2 * 4 * 10 + 10
    if ordered and value is GOOD:
        assert not run.found
    else:
        assert len(run.found) > 250


def test_bytes_in_flight_are_bounded() -> None:
    engine = make(batch_size=128, in_flight=64, max_bytes=1 << 30)
    run = Run(engine, [bytes(6 << 20)] * 200)
    run.feed()
    run.send()
    for _ in range(100):
        run.feed()
        run.send()
    assert all(batch.size <= MAX_BATCH_BYTES for batch in run.in_flight)
    assert sum(batch.size for batch in run.in_flight) <= (128 + 16) << 20


def test_a_large_input_goes_alone_and_one_too_large_is_its_own_failure() -> None:
    engine = make(max_bytes=1000)
    run = Run(engine, [GOOD, bytes(990), GOOD, bytes(2000), GOOD])
    while len(run.in_flight) < 3:
        run.feed()
        run.send()
    assert [[*batch.indexes] for batch in run.in_flight] == [[0], [1], [2, 4]]
    for batch in run.in_flight:
        engine.responded(batch, outputs([SUCCESS] * len(batch)), 0.1)
    run.collect()
    assert [result.index for result in run.found if result.error] == [3]


def drain(run: Run, answer: Any) -> int:
    """Answer everything by a function of batch and time; the number of requests it took."""
    requests = 0
    while not run.engine.finished:
        run.feed()
        run.send()
        run.collect()
        if run.engine.finished:
            break
        if not run.in_flight:
            if not run.engine.room:
                run.wait()
            continue
        requests += 1
        batch = run.in_flight.pop(0)
        outcome = answer(batch, run.now)
        if isinstance(outcome, Exception):
            run.engine.failed(batch, outcome, run.now)
        else:
            run.engine.responded(batch, outcome, run.now)
    return requests


def test_one_poisoned_input_among_128_costs_fifteen_requests() -> None:
    run = Run(make(batch_size=128, in_flight=4), [GOOD] * 77 + [POISON] + [GOOD] * 50)

    def answer(batch: BulkBatch, now: float) -> Any:
        if is_poisoned(batch):
            return errors.InvalidArgumentError("bad")
        return outputs([SUCCESS] * len(batch))

    assert drain(run, answer) == 15
    assert [result.index for result in run.found if result.error] == [77]


@pytest.mark.parametrize(
    "error",
    [
        errors.AuthenticationError("who"),
        errors.NotFoundError("no such model", code=v2.StatusCode.MODEL_DOES_NOT_EXIST),
        errors.PermissionDeniedError("no"),
        errors.UnimplementedError("no"),
        errors.QuotaExceededError("used up"),
    ],
)
def test_what_holds_for_every_input_is_not_divided(error: errors.ApiError) -> None:
    run = Run(make(batch_size=10), [GOOD] * 100)
    assert drain(run, lambda batch, now: error) == 10
    assert all(result.error is error for result in run.found)


def test_a_service_that_never_answers_is_not_asked_about_each_input() -> None:
    run = Run(make(batch_size=128, in_flight=1), [GOOD] * 128)

    def answer(batch: BulkBatch, now: float) -> Any:
        run.now += run.engine.timeout
        return errors.DeadlineExceededError("silence")

    assert drain(run, answer) == 1 + 2 + 4
    assert all(isinstance(result.error, errors.DeadlineExceededError) for result in run.found)


@pytest.mark.parametrize(("in_flight", "rest"), [(1, 0), (1, 10), (2, 90)])
def test_an_input_that_hangs_is_found_while_others_are_answered(in_flight: int, rest: int) -> None:
    values = [GOOD] * 5 + [POISON] + [GOOD] * rest
    run = Run(make(batch_size=16, in_flight=in_flight), values)

    def answer(batch: BulkBatch, now: float) -> Any:
        if is_poisoned(batch):
            run.now += run.engine.timeout
            return errors.DeadlineExceededError("silence")
        return outputs([SUCCESS] * len(batch))

    drain(run, answer)
    assert [result.index for result in run.found if result.error] == [5]


def test_throttling_is_waited_for_and_shrinks_the_window() -> None:
    engine = make(batch_size=1)
    run = Run(engine, [GOOD] * 50)
    before = engine.concurrency.limit
    while len(run.in_flight) < before:
        run.feed()
        run.send()
    for batch in run.in_flight:
        engine.failed(batch, throttled(7.0), run.now)
    run.in_flight.clear()
    assert engine.concurrency.limit == before // 2
    run.now = 6.9
    run.send()
    assert not run.in_flight
    assert 0 < (engine.wait(run.now) or 0) < 1
    drain(run, lambda batch, now: outputs([SUCCESS] * len(batch)))
    assert not any(result.error for result in run.found)
    assert run.now >= 7.0


@pytest.mark.parametrize("in_flight", [None, 8])
def test_an_outage_shorter_than_the_timeout_costs_nothing(in_flight: int | None) -> None:
    run = Run(make(batch_size=4, in_flight=in_flight, timeout=30.0), [GOOD] * 400)

    def answer(batch: BulkBatch, now: float) -> Any:
        run.now += 0.01
        if 0.1 < now < 20.0:
            return unavailable()
        return outputs([SUCCESS] * len(batch))

    requests = drain(run, answer)
    assert not any(result.error for result in run.found)
    assert requests < 400  # the service was spared meanwhile


def test_an_outage_longer_than_the_timeout_ends_with_its_error() -> None:
    run = Run(make(batch_size=4, in_flight=2, timeout=10.0), [GOOD] * 40)
    drain(run, lambda batch, now: unavailable())
    assert all(isinstance(result.error, errors.UnavailableError) for result in run.found)
    assert run.now < 30.0  # not the whole timeout again for every batch


def test_an_input_that_always_asks_for_another_try_ends() -> None:
    run = Run(make(batch_size=4), [POISON] + [GOOD] * 30)
    busy = v2.StatusCode.MODEL_BUSY_PLEASE_RETRY

    def answer(batch: BulkBatch, now: float) -> Any:
        run.now += 0.1
        return outputs(busy if item is POISON else SUCCESS for item in batch.items)

    drain(run, answer)
    (failed,) = (result for result in run.found if result.error)
    assert failed.index == 0
    assert isinstance(failed.error, errors.NotReadyError)


def test_batches_shrink_to_what_the_service_takes() -> None:
    run = Run(make(batch_size=64, in_flight=1), [bytes(100)] * 1000)

    def answer(batch: BulkBatch, now: float) -> Any:
        if batch.size > 2000:
            return errors.InvalidArgumentError(
                "too large", grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED
            )
        return outputs([SUCCESS] * len(batch))

    requests = drain(run, answer)
    assert not any(result.error for result in run.found)
    assert requests < 100


def test_a_value_waits_for_its_batch_for_a_moment_only() -> None:
    engine = make(batch_size=8)
    engine.offer([GOOD], 1.0)
    assert engine.take(1.0) is None
    assert engine.wait(1.0) == pytest.approx(LINGER)
    batch = engine.take(1.0 + LINGER)
    assert batch is not None
    assert [*batch.indexes] == [0]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 129}, {"in_flight": 0}])
def test_limits_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(errors.InvalidArgumentError):
        make(**options)
