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
        check_types(self, "a RetryPolicy")
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
