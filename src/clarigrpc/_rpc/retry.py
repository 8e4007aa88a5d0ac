"""When to send a call again: deadlines, backoff, budget and the server's own wishes.

Pure decisions: no I/O, no clock and no source of randomness of their own. The algorithms are
those of the gRPC retry design (gRFC A6: token budget, pushback) with full jitter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

from clarigrpc import errors
from clarigrpc._transports.fork_lock import ForkLock


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a failed call is repeated. Times in seconds.

    Attributes:
        max_attempts: Most times that one call is sent when the service is unavailable or
            throttles without saying for how long. 1 turns retries off.
        initial_backoff: Upper end of the first random wait.
        max_backoff: Upper end that the waits grow to.
        multiplier: Growth of the upper end from wait to wait, 1 to 100.
        max_retry_after: Longest wait that the service may ask for; beyond it the call fails at
            once with the error that says how long it would have been.
        wait_until_ready: Whether a call to a model that is being deployed waits, within its
            deadline, for as long as that takes.
    """

    max_attempts: int = 5
    initial_backoff: float = 0.1
    max_backoff: float = 10.0
    multiplier: float = 2.0
    max_retry_after: float = 60.0
    wait_until_ready: bool = True

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise errors.ConfigurationError("max_attempts of a RetryPolicy has to be 1 or more")
        if not 0 < self.initial_backoff <= self.max_backoff:
            raise errors.ConfigurationError(
                "RetryPolicy: 0 < initial_backoff <= max_backoff is needed"
            )
        if not 1 <= self.multiplier <= 100:
            raise errors.ConfigurationError("multiplier of a RetryPolicy has to be from 1 to 100")
        if not self.max_retry_after >= 0:
            raise errors.ConfigurationError("max_retry_after of a RetryPolicy has to be 0 or more")

    def backoff(self, failures: int, draw: float) -> float:
        """The wait after the given number of failures (from 1); ``draw`` is in [0, 1)."""
        # The exponent is bounded so that a long wait for a deployment cannot overflow.
        top = self.initial_backoff * self.multiplier ** min(failures - 1, 64)
        return draw * min(self.max_backoff, top)


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
    policy: RetryPolicy,
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
        policy: Limits of the repetition.
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
        patient = (isinstance(error, errors.NotReadyError) and policy.wait_until_ready) or (
            isinstance(error, errors.RateLimitError) and told is not None
        )
        tries += not patient
        if not error.retryable or policy.max_attempts == 1 or tries >= policy.max_attempts:
            raise error
        if not idempotent and not errors.was_not_sent(error):
            raise error
        if told is not None and told > policy.max_retry_after:
            raise error
        delay = policy.backoff(failures, random())
        if told is not None:
            # Never earlier than told, and those who were told the same are spread out.
            delay = max(told, delay) + policy.backoff(1, random())
        if clock() + delay >= deadline:
            raise error
        if not patient and not budget.spend():
            raise error
        error = yield delay


def deadline_after(timeout: float, now: float) -> float:
    """The moment at which a call with this timeout has to be over.

    Raises:
        ConfigurationError: The timeout is not a positive, finite number of seconds.
    """
    if not (math.isfinite(timeout) and timeout > 0):
        raise errors.ConfigurationError(
            f"timeout has to be a positive, finite number of seconds, not {timeout!r}"
        )
    return now + timeout
