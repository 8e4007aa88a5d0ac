"""When to send a call again: deadlines, backoff, budget and the server's own wishes.

Pure decisions: no I/O, no clock and no source of randomness of their own. The algorithms are
those of the gRPC retry design (gRFC A6: token budget, pushback) with full jitter.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from clarigrpc import errors
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._config.timeouts import check_timeout
from clarigrpc._fork_lock import ForkLock


class RetryBudget:
    """Tokens that retries spend and calls earn, shared by all calls of a client.

    In an outage the service sees at most ``1 + ratio`` attempts a call once the reserve is used.
    """

    def __init__(self, ratio: float = 0.1, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._tokens = reserve
        self._lock = ForkLock()

    def earn(self) -> None:
        """Count a call. Not locked: a lost update makes the budget smaller, never larger."""
        if self._tokens < self._reserve:
            self._tokens = min(self._reserve, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Take the token for a retry; False when there is none."""
        with self._lock.get():
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def retry_delays(
    retry: RetryPolicy,
    budget: RetryBudget,
    *,
    idempotent: bool,
    deadline: float,
    clock: Callable[[], float],
    random: Callable[[], float],
) -> Generator[float, errors.ApiError, None]:
    """The one retry loop: is sent each error of a call, yields the wait before the next try.

    Prime it with ``next()``. It raises the error it was sent when the call is not to be repeated:
    the error is not retryable, the server may have acted on a call that must not run twice, tries
    or budget are used up, or the wait would outlast the deadline.

    Args:
        retry: Limits of the repetition.
        budget: Tokens shared by the client's calls.
        idempotent: Whether the call may be repeated although the server may have seen it.
        deadline: When the whole call has to be over, by ``clock``.
        clock: Monotonic time in seconds.
        random: Draws from [0, 1).
    """
    error = yield 0.0
    tries = failures = 0
    while True:
        failures += 1
        told = error.retry_after
        # A model on its way, or a throttle that says for how long, is not an outage: only the
        # deadline limits the wait.
        patient = (isinstance(error, errors.NotReadyError) and retry.wait_until_ready) or (
            isinstance(error, errors.RateLimitError) and told is not None
        )
        tries += not patient
        if not error.retryable or retry.max_attempts == 1 or tries >= retry.max_attempts:
            raise error
        if not idempotent and not error.not_sent:
            raise error
        if told is not None and told > retry.max_retry_after:
            raise error
        delay = retry.backoff(failures, random())
        if told is not None:
            # Never earlier than told, and those who were told the same are spread out.
            delay = max(told, delay) + retry.backoff(1, random())
        if clock() + delay >= deadline:
            raise error
        if not patient and not budget.spend():
            raise error
        error = yield delay


def deadline_after(timeout: float, now: float) -> float:
    """The moment at which a call with this timeout has to be over.

    Raises:
        ConfigurationError: The timeout is not above 0, or over a year.
        TypeError: It is no number.
    """
    check_timeout(timeout)
    return now + timeout
