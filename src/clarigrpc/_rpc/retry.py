"""When to send a call again: deadlines, backoff, budget and the server's own wishes.

Pure decisions: no I/O, no clock and no source of randomness of their own. The algorithms are
those of the gRPC retry design (gRFC A6: token budget, pushback) with full jitter.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator

from clarigrpc import errors
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._config.timeouts import check_timeout
from clarigrpc._fork_lock import ForkLock


class RetryBudget:
    """Tokens that retries spend and calls earn, shared by all calls of a client.

    In an outage the service sees at most ``1 + ratio`` attempts a call once the reserve is used. A
    call that succeeds gives back half of what it spent, so that the reserve is there again soon
    after a short outage; where every second call fails, ``1 + 2 * ratio`` attempts remain the
    limit.

    Args:
        ratio: Tokens that a call earns. None: retries cost nothing.
        reserve: Tokens at the beginning, and most of them that can be saved.
    """

    def __init__(self, ratio: float | None = 0.1, reserve: float = 20.0) -> None:
        self._unlimited = ratio is None
        self._ratio = ratio or 0.0
        self._reserve = reserve
        self._tokens = reserve
        # Reentrant: a call that is dropped gives back, wherever the garbage collector runs.
        self._lock = ForkLock(threading.RLock)

    @property
    def tokens(self) -> float:
        """Retries that are allowed now."""
        return math.inf if self._unlimited else self._tokens

    def earn(self) -> None:
        """Count a call. Not locked: a lost update makes the budget smaller, never larger."""
        if self._tokens < self._reserve:
            self._tokens = min(self._reserve, self._tokens + self._ratio)

    def give_back(self, tokens: float) -> None:
        """Return tokens that a call spent."""
        if tokens:
            with self._lock.get():
                self._tokens = min(self._reserve, self._tokens + tokens)

    def spend(self) -> bool:
        """Take the token for a retry; False when there is none."""
        if self._unlimited:
            return True
        with self._lock.get():
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


_KEPT_ATTEMPTS = 20
_EMPTY_BUDGET = (
    "not sent again: the client's retry budget is empty, because more calls failed at the service "
    "than RetryPolicy(budget=...) allows retries for"
)


def retry_delays(
    retry: RetryPolicy,
    budget: RetryBudget,
    *,
    idempotent: bool,
    deadline: float,
    clock: Callable[[], float],
    random: Callable[[], float],
) -> Generator[float, errors.ApiError, None]:
    """The one retry loop: is sent each error of a call, yields the wait before the next attempt.

    Prime it with ``next()``. It raises the error it was sent when the call is not to be repeated:
    the error is not retryable, the service may have acted on a call that must not run twice,
    attempts or budget are used up, or the wait would outlast the deadline. The error then has the
    failures before it as ``attempts``.

    Args:
        retry: Limits of the repetition.
        budget: Tokens shared by the client's calls.
        idempotent: Whether the call may be repeated although the service may have seen it.
        deadline: When the whole call has to be over, by ``clock``.
        clock: Monotonic time in seconds.
        random: Draws from [0, 1).
    """
    error = yield 0.0
    tries = failures = spent = 0
    earlier: deque[errors.ApiError] = deque(maxlen=_KEPT_ATTEMPTS)
    while True:
        failures += 1
        told = error.retry_after
        free = _costs_nothing(error, retry)
        tries += not free
        error.attempts = tuple(earlier)
        if not error.retryable or retry.max_attempts == 1 or tries >= retry.max_attempts:
            raise error
        if not (idempotent or error.not_sent or error.refused):
            raise error
        if told is not None and told > retry.max_retry_after:
            raise error
        delay = retry.backoff(failures, random())
        left = deadline - clock()
        if told is not None:
            # Never earlier than told, and those who were told the same are spread out.
            delay = max(told, delay) + retry.backoff(1, random())
        elif free:
            # The last attempts are close to the deadline, not one long wait before it.
            delay = min(delay, left / 2)
            if left < retry.initial_backoff:
                raise error
        if delay >= left:
            raise error
        # A broken connection cannot multiply the load: the next one has to be made first.
        if not (free or error.connection_lost or retry.budget is None):
            if not budget.spend():
                error.details = "; ".join(filter(None, (error.details, _EMPTY_BUDGET)))
                raise error
            spent += 1
        # A traceback would keep the frames of each attempt alive.
        earlier.append(error.with_traceback(None))
        try:
            error = yield delay
        except GeneratorExit:
            budget.give_back(spent / 2)
            raise


def _costs_nothing(error: errors.ApiError, retry: RetryPolicy) -> bool:
    """Whether a failure did not reach the service, or was its way to say "wait"."""
    if isinstance(error, errors.NotReadyError):
        return retry.wait_until_ready
    if isinstance(error, errors.RateLimitError):
        return True
    return isinstance(error, errors.UnavailableError) and (
        error.not_reached or error.retry_after is not None
    )


def deadline_after(timeout: float, now: float) -> float:
    """The moment at which a call with this timeout has to be over.

    Raises:
        ConfigurationError: The timeout is not above 0, or over a year.
        TypeError: It is no number.
    """
    check_timeout(timeout)
    return now + timeout
