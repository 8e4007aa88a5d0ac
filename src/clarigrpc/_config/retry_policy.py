"""How failed calls are repeated: what users may set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from clarigrpc import errors
from clarigrpc._config.option_types import check_types
from clarigrpc._public_names import named_in


@named_in("clarigrpc")
@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed call is sent again. Times in seconds.

    Three kinds of failures are told apart:

    * What did not reach the service (a refused connection), and what the service told to wait (a
      throttle, a full server, ``Retry-After``, a model that is being deployed), is sent again
      until the deadline of the call. It has cost the service nothing.
    * A connection that broke while the call ran: sent again up to ``max_attempts`` times, if the
      call is idempotent.
    * A call that reached the service and failed there for a passing reason (UNAVAILABLE): the
      same, as long as the ``budget`` allows it. The error says when the budget ended a call.

    All waits are random, from 0 to an upper end that grows from failure to failure ("full
    jitter"), and never shorter than the service asks for.

    Attributes:
        max_attempts: Most times that one call is sent when it reached the service or may have. 1
            turns all retries off.
        initial_backoff: Upper end of the first random wait.
        max_backoff: Upper end that the waits grow to.
        multiplier: Growth of the upper end from wait to wait, 1 to 100.
        budget: Retries allowed per call in the long run, over all calls of the client: 0.1 allows
            one retry for ten calls. A call that succeeds gives back half of its retries. It keeps
            a failing service from a multiple of its load. 0 leaves the reserve alone. None
            removes the budget.
        budget_reserve: Retries that are allowed before the budget holds, and the most that are
            saved up.
        max_retry_after: Longest wait that the service may ask for; beyond it the call fails at
            once with the error that says how long it would have been.
        wait_until_ready: Whether a call to a model that is being deployed waits, within its
            deadline, for as long as that takes.
    """

    max_attempts: int = 5
    initial_backoff: float = 0.1
    max_backoff: float = 5.0
    multiplier: float = 2.0
    budget: float | None = 0.1
    budget_reserve: float = 20.0
    max_retry_after: float = 60.0
    wait_until_ready: bool = True

    def __post_init__(self) -> None:
        check_types(self, "a RetryPolicy")
        if self.max_attempts < 1:
            raise errors.ConfigurationError("max_attempts of a RetryPolicy has to be 1 or more")
        if not 0 < self.initial_backoff <= self.max_backoff:
            raise errors.ConfigurationError(
                "RetryPolicy: 0 < initial_backoff <= max_backoff is needed"
            )
        if not 1 <= self.multiplier <= 100:
            raise errors.ConfigurationError("multiplier of a RetryPolicy has to be from 1 to 100")
        if self.budget is not None and not 0 <= self.budget <= 1:
            raise errors.ConfigurationError(
                "budget of a RetryPolicy has to be from 0 to 1 retries a call, or None"
            )
        if not 0 <= self.budget_reserve <= 1_000_000:
            raise errors.ConfigurationError(
                "budget_reserve of a RetryPolicy has to be from 0 to 1,000,000 retries"
            )
        if not self.max_retry_after >= 0:
            raise errors.ConfigurationError("max_retry_after of a RetryPolicy has to be 0 or more")

    def backoff(self, failures: int, draw: float) -> float:
        """The wait after the given number of failures (from 1); ``draw`` is in [0, 1)."""
        # The exponent is bounded so that a long wait for a deployment cannot overflow.
        top = self.initial_backoff * self.multiplier ** min(failures - 1, 64)
        return draw * min(self.max_backoff, top)


Retry: TypeAlias = RetryPolicy | Literal[False]
"""How failed calls are sent again; False sends every call once."""

_ONCE = RetryPolicy(max_attempts=1)


def as_policy(retry: Retry) -> RetryPolicy:
    """The policy that an option or an argument stands for.

    Raises:
        TypeError: It is neither a policy nor False.
    """
    if retry is False:
        return _ONCE
    if not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry has to be a RetryPolicy or False, not {type(retry).__name__}")
    return retry
