"""Deadlines, backoff, budget and pushback, with a clock that is simulated."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import RetryPolicy, errors
from clarigrpc._rpc.retry import RetryBudget, deadline_after, retry_delays


@dataclass
class Failure:
    """How an attempt fails, and how long that takes."""

    error: errors.ApiError
    seconds: float


@dataclass
class Run:
    """What became of a simulated call."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    error: errors.ApiError | None = None


def simulate(
    failures: Sequence[Failure],
    policy: RetryPolicy,
    *,
    timeout: float,
    idempotent: bool = True,
    budget: RetryBudget | None = None,
    draws: Sequence[float] = (0.5,),
) -> Run:
    """A call as the drivers make it: it succeeds when the failures are used up."""
    now = 1000.0
    deadline = now + timeout
    random = iter(draws[index % len(draws)] for index in range(10_000))
    loop = retry_delays(
        policy,
        budget or RetryBudget(reserve=1e9),
        idempotent=idempotent,
        deadline=deadline,
        clock=lambda: now,
        random=lambda: next(random),
    )
    next(loop)
    run = Run()
    for failure in failures:
        run.starts.append(now)
        now = min(deadline, now + failure.seconds)  # gRPC ends the attempt at the deadline
        run.ends.append(now)
        try:
            wait = loop.send(failure.error)
        except errors.ApiError as error:
            run.error = error
            return run
        run.waits.append(wait)
        now += wait
    run.starts.append(now)
    return run


def failing(
    kind: type[errors.ApiError] = errors.UnavailableError,
    *,
    told: float | None = None,
    not_sent: bool = False,
    refused: bool = False,
    retryable: bool = True,
) -> errors.ApiError:
    # The service answers with the other kinds, so that the request has been sent.
    not_sent = not_sent and kind is errors.UnavailableError
    error = kind("no", retryable=retryable, retry_after=told, not_sent=not_sent)
    error.refused = refused and kind is errors.UnavailableError
    return error


KINDS = (errors.UnavailableError, errors.RateLimitError, errors.NotReadyError, errors.InternalError)
FAILURES = st.builds(
    Failure,
    st.builds(
        failing,
        st.sampled_from(KINDS),
        told=st.none() | st.floats(0, 100) | st.just(math.inf),
        not_sent=st.booleans(),
        refused=st.booleans(),
        retryable=st.booleans(),
    ),
    st.floats(0, 20),
)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 8),
    initial_backoff=st.floats(0.001, 1),
    max_backoff=st.floats(1, 100),
    multiplier=st.floats(1, 10),
    max_retry_after=st.floats(0, 100) | st.just(math.inf),
    wait_until_ready=st.booleans(),
)
DRAWS = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=8)
quick = settings(deadline=None, database=None, max_examples=200)


@quick
@given(st.lists(FAILURES, max_size=30), POLICIES, st.floats(0.01, 200), DRAWS, st.booleans())
def test_a_call_never_outlives_its_deadline(
    failures: list[Failure],
    policy: RetryPolicy,
    timeout: float,
    draws: list[float],
    idempotent: bool,
) -> None:
    run = simulate(failures, policy, timeout=timeout, draws=draws, idempotent=idempotent)
    assert all(start < 1000 + timeout for start in run.starts)
    assert all(end <= 1000 + timeout for end in run.ends)
    spent = sum(e - s for s, e in zip(run.starts, run.ends, strict=False)) + sum(run.waits)
    assert spent <= timeout + 1e-9
    assert all(wait >= 0 and math.isfinite(wait) for wait in run.waits)


@quick
@given(st.lists(FAILURES, max_size=30), POLICIES, st.floats(0.01, 1e6), DRAWS)
def test_a_call_that_must_not_run_twice_is_sent_once(
    failures: list[Failure], policy: RetryPolicy, timeout: float, draws: list[float]
) -> None:
    run = simulate(failures, policy, timeout=timeout, draws=draws, idempotent=False)
    for failure in failures[: len(run.waits)]:
        assert failure.error.not_sent or failure.error.refused


@quick
@given(st.lists(FAILURES, max_size=30), POLICIES, st.floats(0.01, 1e6), DRAWS)
def test_the_service_s_wish_is_obeyed(
    failures: list[Failure], policy: RetryPolicy, timeout: float, draws: list[float]
) -> None:
    run = simulate(failures, policy, timeout=timeout, draws=draws)
    for failure, wait in zip(failures, run.waits, strict=False):
        told = failure.error.retry_after
        if told is not None:
            assert told <= wait <= told + policy.max_backoff + policy.initial_backoff
            assert told <= policy.max_retry_after
    if run.error is not None:
        assert run.error is failures[len(run.waits)].error


@quick
@given(st.lists(FAILURES, max_size=30), POLICIES, DRAWS)
def test_waits_without_a_wish_stay_within_the_jitter(
    failures: list[Failure], policy: RetryPolicy, draws: list[float]
) -> None:
    run = simulate(failures, policy, timeout=1e9, draws=draws)
    for number, (failure, wait) in enumerate(zip(failures, run.waits, strict=False), 1):
        if failure.error.retry_after is None:
            top = policy.initial_backoff * policy.multiplier ** (number - 1)
            assert 0 <= wait <= min(policy.max_backoff, top)


@quick
@given(st.lists(FAILURES, max_size=30), POLICIES, DRAWS)
def test_no_more_attempts_than_allowed(
    failures: list[Failure], policy: RetryPolicy, draws: list[float]
) -> None:
    run = simulate(failures, policy, timeout=1e9, draws=draws)
    outages = [
        failure
        for failure in failures[: len(run.waits)]
        if not (
            costs_nothing(failure.error)
            and (policy.wait_until_ready or not isinstance(failure.error, errors.NotReadyError))
        )
    ]
    assert len(outages) <= policy.max_attempts - 1
    assert all(failure.error.retryable for failure in failures[: len(run.waits)])


def repeated(error: errors.ApiError, times: int = 50, seconds: float = 0.0) -> list[Failure]:
    return [Failure(error, seconds)] * times


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_max_attempts(attempts: int) -> None:
    run = simulate(repeated(failing()), RetryPolicy(max_attempts=attempts), timeout=1e6)
    assert len(run.starts) == attempts
    assert run.error is not None


def test_the_wait_grows_to_its_top() -> None:
    policy = RetryPolicy(max_attempts=100, initial_backoff=1, max_backoff=30, multiplier=2)
    run = simulate(repeated(failing(), 10), policy, timeout=1e6, draws=[0.5])
    assert run.waits == [0.5, 1, 2, 4, 8, 15, 15, 15, 15, 15]


def test_a_wish_beyond_the_limit_fails_at_once() -> None:
    policy = RetryPolicy(max_retry_after=60)
    assert simulate(repeated(failing(told=59)), policy, timeout=1e6).waits
    for told in (60.1, math.inf):
        run = simulate(repeated(failing(errors.RateLimitError, told=told)), policy, timeout=1e9)
        assert run.waits == []
        assert run.error is not None
        assert run.error.retry_after == told


def test_a_wish_beyond_the_deadline_fails_at_once() -> None:
    run = simulate(repeated(failing(errors.RateLimitError, told=5)), RetryPolicy(), timeout=4)
    assert len(run.starts) == 1


def test_a_throttle_with_a_wish_is_waited_for_as_long_as_there_is_time() -> None:
    policy = RetryPolicy(max_attempts=2)
    told = failing(errors.RateLimitError, told=1.0)
    assert len(simulate(repeated(told, 20), policy, timeout=1e6).waits) == 20
    silent = failing(errors.RateLimitError)
    assert len(simulate(repeated(silent, 20), policy, timeout=1e6).waits) == 20
    once = RetryPolicy(max_attempts=1)
    assert simulate(repeated(told), once, timeout=1e6).waits == []


def costs_nothing(error: errors.ApiError) -> bool:
    return isinstance(error, errors.NotReadyError | errors.RateLimitError) or (
        isinstance(error, errors.UnavailableError)
        and (error.not_reached or error.retry_after is not None)
    )


def test_what_did_not_reach_the_service_is_sent_again_until_the_deadline() -> None:
    refused = failing(not_sent=True)
    refused.not_reached = True
    budget = RetryBudget(reserve=1)
    run = simulate(repeated(refused, 5000, 0.001), RetryPolicy(), timeout=60, budget=budget)
    assert run.error is refused
    assert run.ends[-1] > 1059.5
    assert len(run.starts) < 100  # at a pace that falls
    assert budget.spend()


def test_a_lost_connection_costs_attempts_and_no_budget() -> None:
    lost = failing()
    lost.connection_lost = True
    budget = RetryBudget(reserve=1)
    run = simulate(repeated(lost), RetryPolicy(max_attempts=4), timeout=1e6, budget=budget)
    assert len(run.starts) == 4
    assert budget.spend()


def test_a_call_dropped_while_another_one_gives_back_waits_for_nothing() -> None:
    budget = RetryBudget(reserve=2)
    clock: dict[str, Any] = {"deadline": 60.0, "clock": lambda: 0.0, "random": lambda: 0.0}
    dropped = retry_delays(RetryPolicy(), budget, idempotent=True, **clock)
    next(dropped)
    dropped.send(failing())

    class Tokens(float):
        # Stands for the garbage collector, which from Python 3.12 on runs between any two calls.
        def __radd__(self, other: float) -> float:
            dropped.close()
            return other + float(self)

    giving = threading.Thread(target=budget.give_back, args=(Tokens(0.5),), daemon=True)
    giving.start()
    giving.join(30)
    assert not giving.is_alive()
    assert budget.spend()


def test_an_empty_budget_is_named_by_the_error() -> None:
    budget = RetryBudget(reserve=1)
    run = simulate(
        [Failure(failing(), 0) for _ in range(9)], RetryPolicy(), timeout=9, budget=budget
    )
    assert len(run.starts) == 2
    assert "budget" in str(run.error)
    without = RetryPolicy(budget=None)
    run = simulate([Failure(failing(), 0) for _ in range(9)], without, timeout=9, budget=budget)
    assert len(run.starts) == 5
    assert "budget" not in str(run.error)


def test_a_call_that_succeeds_gives_back_half_of_its_retries() -> None:
    budget = RetryBudget(ratio=0.0, reserve=10)
    simulate([Failure(failing(), 0)] * 4, RetryPolicy(), timeout=1e6, budget=budget)
    assert budget.tokens == 8
    simulate([Failure(failing(), 0)] * 9, RetryPolicy(), timeout=1e6, budget=budget)
    assert budget.tokens == 4


def test_an_error_has_the_failures_before_it() -> None:
    failures = [Failure(failing(), 0) for _ in range(5)]
    run = simulate(failures, RetryPolicy(), timeout=1e6)
    assert run.error is not None
    assert run.error.attempts == tuple(failure.error for failure in failures[:4])


def test_a_model_on_its_way_is_waited_for_until_the_deadline() -> None:
    failures = repeated(failing(errors.NotReadyError), 5000, seconds=0.01)
    budget = RetryBudget(reserve=1)
    run = simulate(failures, RetryPolicy(), timeout=300, budget=budget)
    assert run.error is not None
    assert len(run.starts) > 5
    assert run.ends[-1] > 1290  # within one wait of the deadline
    assert budget.spend()  # waiting for a deployment costs no budget


def test_waiting_for_a_model_can_be_turned_off() -> None:
    failures = repeated(failing(errors.NotReadyError))
    policy = RetryPolicy(wait_until_ready=False, max_attempts=3)
    assert len(simulate(failures, policy, timeout=1e6).starts) == 3
    off = simulate(failures, RetryPolicy(max_attempts=1), timeout=1e6)
    assert len(off.starts) == 1


def test_a_long_wait_does_not_overflow() -> None:
    policy = RetryPolicy(multiplier=100, max_backoff=1)
    run = simulate(repeated(failing(errors.NotReadyError), 2000), policy, timeout=1e9)
    assert len(run.waits) == 2000


@quick
@given(
    st.floats(0.01, 0.5),
    st.integers(1, 50),
    st.lists(st.integers(0, 6), max_size=300),
)
def test_retries_never_exceed_reserve_and_share(
    ratio: float, reserve: int, wanted: list[int]
) -> None:
    budget = RetryBudget(ratio, reserve)
    granted = 0
    for retries in wanted:
        budget.earn()
        granted += sum(budget.spend() for _ in range(retries))
    assert granted <= reserve + ratio * len(wanted) + 1e-6


def test_an_outage_is_amplified_by_a_tenth() -> None:
    clients = [RetryBudget() for _ in range(10)]

    def attempts_of_a_round() -> int:
        return sum(_attempts(budget) for budget in clients)

    for _ in range(20):  # the reserve goes
        attempts_of_a_round()
    rounds = 200
    attempts = sum(attempts_of_a_round() for _ in range(rounds))
    assert 1.0 < attempts / (rounds * len(clients)) <= 1.2


def _attempts(budget: RetryBudget) -> int:
    budget.earn()
    run = simulate(repeated(failing()), RetryPolicy(), timeout=1e6, budget=budget)
    return len(run.starts)


def test_the_budget_comes_back() -> None:
    budget = RetryBudget(ratio=0.5, reserve=2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    "settings_of_a_policy",
    [
        {"max_attempts": 0},
        {"initial_backoff": 0},
        {"initial_backoff": 5, "max_backoff": 1},
        {"multiplier": 0.5},
        {"multiplier": 101},
        {"initial_backoff": math.nan},
        {"multiplier": math.nan},
        {"max_backoff": math.nan},
        {"max_retry_after": -1},
        {"max_retry_after": math.nan},
        {"budget": -0.1},
        {"budget": 1.1},
        {"budget": math.nan},
        {"budget_reserve": -1},
        {"budget_reserve": math.inf},
    ],
)
def test_policies_that_make_no_sense(settings_of_a_policy: dict[str, float]) -> None:
    with pytest.raises(errors.ConfigurationError, match="RetryPolicy"):
        RetryPolicy(**settings_of_a_policy)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan, -math.inf])
def test_timeouts_that_make_no_sense(timeout: float) -> None:
    with pytest.raises(errors.ConfigurationError, match="timeout"):
        deadline_after(timeout, 0)


def test_a_timeout_counts_from_now() -> None:
    assert deadline_after(2.5, 10) == 12.5
