"""The concurrency limit and the batch size adapt to a service that is simulated here."""

from __future__ import annotations

import heapq
import random
from collections.abc import Hashable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc._bulk.adaptive import (
    MAX_IN_FLIGHT,
    AdaptiveBatchSize,
    ConcurrencyLimit,
    keep,
    recall,
)
from clarigrpc._contract.request_limits import MAX_ITEMS


def serve(
    concurrency: ConcurrencyLimit,
    requests: int,
    latency: float,
    parallel: int,
    noise: float = 0.0,
    limits: list[int] | None = None,
) -> float:
    """Send at the limit to a service with ``parallel`` workers; returns the requests per second.

    The limit after each response is added to ``limits``.
    """
    draw = random.Random(1).uniform
    now, sent = 0.0, 0
    workers = [0.0] * parallel
    running: list[tuple[float, float, int]] = []
    while sent < requests or running:
        while sent < requests and len(running) < concurrency.limit:
            free = heapq.heappop(workers)
            end = max(now, free) + latency * (1 + draw(0, noise))
            heapq.heappush(workers, end)
            heapq.heappush(running, (end, now, len(running) + 1))
            sent += 1
        now, began, place = heapq.heappop(running)
        concurrency.succeeded(now - began, len(running) + 1, now, sent_in_flight=place)
        if limits is not None:
            limits.append(concurrency.limit)
    return requests / now


class Run(NamedTuple):
    """A simulated run: seconds until the last answer, and of the slowest request."""

    seconds: float
    slowest: float


def run(
    inputs: int,
    *,
    round_trip: float = 0.001,
    per_request: float = 0.0,
    per_input: float = 0.0,
    parallel: int = 1,
    in_flight: int | None = None,
    timeout: float = 60.0,
) -> Run:
    """Send inputs, adapting both limits, to a service with ``parallel`` workers.

    Args:
        inputs: Their number.
        round_trip: Seconds on the way.
        per_request, per_input: Seconds of work.
        parallel: Requests that the service works on at a time.
        in_flight: A fixed limit, with full requests.
        timeout: Of a request.
    """
    concurrency = ConcurrencyLimit(in_flight)
    batch_size = AdaptiveBatchSize(None if in_flight is None else MAX_ITEMS)
    now, slowest, number, left = 0.0, 0.0, 0, inputs
    workers = [0.0] * parallel
    running: list[tuple[float, int, float, int, int]] = []
    while left or running:
        while left and len(running) < concurrency.limit:
            count = min(batch_size.size, left)
            left -= count
            number += 1
            begins = max(now + round_trip / 2, heapq.heappop(workers))
            ends = begins + per_request + per_input * count
            heapq.heappush(workers, ends)
            heapq.heappush(running, (ends + round_trip / 2, number, now, count, len(running) + 1))
        now, _, sent_at, count, place = heapq.heappop(running)
        seconds = now - sent_at
        slowest = max(slowest, seconds)
        if batch_size.succeeded(seconds, count, place):
            concurrency.resized()
        concurrency.succeeded(
            seconds,
            len(running) + 1,
            now,
            sent_in_flight=place,
            inputs=count,
            size=batch_size.size,
            timeout=timeout,
        )
    return Run(now, slowest)


@pytest.mark.parametrize("parallel", [1, 4, 16, 32, 48])
def test_a_service_is_used_to_its_capacity(parallel: int) -> None:
    concurrency = ConcurrencyLimit()
    serve(concurrency, 300, 0.1, parallel, noise=0.3)
    assert serve(concurrency, 300, 0.1, parallel, noise=0.3) > 0.8 * parallel / 0.115
    assert serve(concurrency, 6000, 0.1, parallel, noise=0.3) > 0.95 * parallel / 0.115


@pytest.mark.parametrize("parallel", [16, 32])
def test_the_limit_is_steady_where_the_service_is(parallel: int) -> None:
    limits: list[int] = []
    serve(ConcurrencyLimit(), 1900, 0.1, parallel, limits=limits)  # before the minimum is too old
    later = limits[500:-100]  # and while there is more to send
    assert parallel <= min(later)
    assert sum(later) / len(later) <= 2.5 * parallel


def test_over_a_long_way_the_first_run_needs_no_more_round_trips_than_a_wide_fixed_limit() -> None:
    far = {"round_trip": 0.2, "per_request": 0.0001, "parallel": 64}
    adaptive, fixed = run(10_000, **far), run(10_000, in_flight=64, **far)  # type: ignore[arg-type]
    assert adaptive.seconds < 1.1 * fixed.seconds


@given(
    st.sampled_from([1, 2, 4, 8, 16, 32, 64]),
    st.floats(0.001, 0.3),
    st.floats(0.0001, 3.0),
    st.floats(0.0, 0.03),
)
def test_no_request_times_out_for_those_before_it(
    parallel: int, round_trip: float, per_request: float, per_input: float
) -> None:
    found = run(
        10_000,
        round_trip=round_trip,
        per_request=per_request,
        per_input=per_input,
        parallel=parallel,
    )
    assert found.slowest < 60


def test_a_short_timeout_keeps_the_limit_small() -> None:
    found = run(20_000, round_trip=0.2, per_input=0.001, parallel=2, timeout=4.0)
    assert found.slowest < 4


@pytest.mark.parametrize("per_request", [0.05, 1.0, 6.0])
def test_requests_are_full_where_a_service_does_one_at_a_time(per_request: float) -> None:
    adaptive = run(20_000, per_request=per_request)
    assert adaptive.seconds < 1.2 * run(20_000, per_request=per_request, in_flight=4).seconds


def test_a_queue_does_not_grow_for_ever() -> None:
    concurrency = ConcurrencyLimit()
    serve(concurrency, 20_000, 0.1, 1)
    assert concurrency.limit <= 16


def test_a_service_that_became_slower_is_believed_in_the_end() -> None:
    concurrency = ConcurrencyLimit()
    serve(concurrency, 500, 0.1, 32)
    serve(concurrency, 6000, 0.5, 32)
    assert concurrency.limit >= 32


def test_overload_halves_once_for_what_was_in_flight() -> None:
    concurrency = ConcurrencyLimit()
    serve(concurrency, 500, 0.1, 64)
    before = concurrency.limit
    for left in range(before, 0, -1):
        concurrency.overloaded(left)
    assert before // 4 <= concurrency.limit <= before // 2
    for _ in range(1000):
        concurrency.overloaded(1)
    assert concurrency.limit == 1


def test_it_recovers_from_overload() -> None:
    concurrency = ConcurrencyLimit()
    for _ in range(100):
        concurrency.overloaded(1)
    serve(concurrency, 300, 0.1, 32)
    assert concurrency.limit >= 32


def test_a_slow_source_teaches_nothing_about_the_window() -> None:
    concurrency = ConcurrencyLimit()
    for number in range(500):
        concurrency.succeeded(0.1, 1, number * 0.1, sent_in_flight=1)
    assert concurrency.limit <= 4


def test_a_limit_that_the_source_does_not_fill_is_taken_back() -> None:
    concurrency = ConcurrencyLimit()
    serve(concurrency, 500, 0.1, 64)
    assert concurrency.limit == MAX_IN_FLIGHT
    for number in range(500):
        concurrency.succeeded(0.1, 5, 100 + number * 0.1, sent_in_flight=5)
    assert concurrency.limit == 10


def test_few_round_trips_fill_the_window_whether_answers_come_together_or_not() -> None:
    for together in (True, False):
        concurrency = ConcurrencyLimit()
        for number in range(3):  # round trips
            sent = concurrency.limit
            for left in range(sent, 0, -1):
                at_once = left if together else max(left, concurrency.limit)
                now = number * 0.2 if together else number * 0.2 - left * 0.2 / sent
                concurrency.succeeded(0.2, at_once, now, sent_in_flight=at_once)
        assert concurrency.limit == MAX_IN_FLIGHT


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ok"), st.floats(0, 1e6), st.integers(1, 100)),
            st.tuples(st.just("overload"), st.just(0.0), st.integers(1, 100)),
            st.tuples(st.just("resize"), st.just(0.0), st.just(1)),
        ),
        max_size=200,
    )
)
def test_the_window_stays_within_its_bounds(events: list[tuple[str, float, int]]) -> None:
    adaptive, fixed = ConcurrencyLimit(), ConcurrencyLimit(7)
    for concurrency in (adaptive, fixed):
        for kind, seconds, in_flight in events:
            if kind == "ok":
                concurrency.succeeded(seconds, in_flight, seconds, sent_in_flight=in_flight)
            elif kind == "overload":
                concurrency.overloaded(in_flight)
            else:
                concurrency.resized()
            assert 1 <= concurrency.limit <= MAX_IN_FLIGHT
    assert fixed.limit == 7


def settle(size: AdaptiveBatchSize, per_request: float, per_input: float) -> int:
    for _ in range(200):
        size.succeeded(per_request + per_input * size.size, size.size, 4)
    assert size.settled
    return size.size


def test_batches_grow_while_a_request_costs_more_than_its_inputs() -> None:
    assert settle(AdaptiveBatchSize(), per_request=0.1, per_input=0.0001) == MAX_ITEMS


def test_batches_stay_small_where_only_inputs_cost() -> None:
    assert settle(AdaptiveBatchSize(), per_request=0.0, per_input=0.01) <= 64


def test_a_larger_size_that_is_slower_is_taken_back() -> None:
    size = AdaptiveBatchSize()
    for _ in range(200):
        slow = 10.0 if size.size > 64 else 1.0
        size.succeeded(slow * (0.1 + 0.001 * size.size), size.size, 4)
    assert size.size == 64
    assert size.settled


def test_batches_stay_large_where_the_client_is_the_limit() -> None:
    size = AdaptiveBatchSize()
    assert size.succeeded(0.0003, size.size, 4)  # the first of a burst, which nothing holds up
    for _ in range(200):
        size.succeeded(0.002, size.size, 3)
    assert size.size == MAX_ITEMS
    assert size.settled


def test_a_run_goes_on_from_the_limits_of_the_last_for_a_minute() -> None:
    kept: dict[Hashable, Any] = {}
    first = recall(kept, "a", 0.0)
    serve(first.concurrency, 500, 0.1, 64)
    settle(first.batch_size, per_request=0.1, per_input=0.0001)
    keep(kept, "a", first, 0.0)
    other, second, late = recall(kept, "b", 1.0), recall(kept, "a", 1.0), recall(kept, "a", 61.0)
    assert second.concurrency.limit == first.concurrency.limit == MAX_IN_FLIGHT
    assert second.batch_size.size == first.batch_size.size == MAX_ITEMS
    for unknown in (other, late):
        assert unknown.concurrency.limit < MAX_IN_FLIGHT
        assert unknown.batch_size.size < MAX_ITEMS
    second.concurrency.overloaded(64)
    assert recall(kept, "a", 1.0).concurrency.limit == MAX_IN_FLIGHT, "runs do not share"


def kept_by_a_wide_run() -> dict[Hashable, Any]:
    kept: dict[Hashable, Any] = {}
    first = recall(kept, "a", 0.0)
    serve(first.concurrency, 500, 0.1, 64)
    keep(kept, "a", first, 0.0)
    return kept


def test_a_window_that_an_overload_has_closed_is_not_kept() -> None:
    kept = kept_by_a_wide_run()
    second = recall(kept, "a", 1.0)
    for _ in range(1000):
        second.concurrency.overloaded(1)
    keep(kept, "a", second, 2.0)
    assert recall(kept, "a", 3.0).concurrency.limit > second.concurrency.limit == 1


def test_short_runs_do_not_renew_what_a_wide_one_found() -> None:
    kept = kept_by_a_wide_run()
    for now in (30.0, 50.0):
        short = recall(kept, "a", now)
        assert short.concurrency.limit == MAX_IN_FLIGHT
        short.concurrency.succeeded(0.1, 1, now, sent_in_flight=1)
        keep(kept, "a", short, now)
    assert recall(kept, "a", 61.0).concurrency.limit < MAX_IN_FLIGHT


def test_a_run_that_starts_wide_finds_that_the_service_has_become_smaller() -> None:
    kept = kept_by_a_wide_run()
    second = recall(kept, "a", 1.0)
    serve(second.concurrency, 300, 0.1, 2)
    assert second.concurrency.limit <= 16


def test_what_is_kept_of_many_models_stays_bounded() -> None:
    kept: dict[Hashable, Any] = {}
    for model in range(1000):
        limits = recall(kept, model, 0.0)
        serve(limits.concurrency, 20, 0.1, 64)
        keep(kept, model, limits, 0.0)
        assert recall(kept, model, 0.0).concurrency.limit > recall(kept, "", 0.0).concurrency.limit
    assert len(kept) <= 64


def test_a_fixed_size_stays_and_other_sizes_are_no_samples() -> None:
    fixed, adaptive = AdaptiveBatchSize(5), AdaptiveBatchSize()
    start = adaptive.size
    for _ in range(50):
        fixed.succeeded(0.1, 5, 1)
        adaptive.succeeded(0.1, start - 1, 1)
    assert fixed.size == 5
    assert adaptive.size == start
    assert not adaptive.settled
