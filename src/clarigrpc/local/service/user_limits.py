"""Limits for each user: rates of calls and inputs, and calls at the same time.

The windows are those of the library ``limits``. All apps and keys of a user share them, as in the
service; they are forgotten when the server stops.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from clarigrpc._public_names import named_in
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

BUSY_SECONDS = 1.0
"""What a caller with too many calls at a time is told to wait: nobody knows when one ends."""

# The service has words for an hour and a month; what is longer than an hour is no mere pace.
_CODE_OF_WINDOW = {
    "second": StatusCode.CONN_THROTTLED,
    "minute": StatusCode.CONN_THROTTLED,
    "hour": StatusCode.CONN_EXCEED_HOURLY_LIMIT,
    "day": StatusCode.CONN_EXCEEDS_LIMITS,
    "month": StatusCode.CONN_EXCEED_MONTHLY_LIMIT,
    "year": StatusCode.CONN_EXCEEDS_LIMITS,
}
_PREDICTIONS = frozenset(
    {"PostModelOutputs", "GenerateModelOutputs", "StreamModelOutputs", "PostWorkflowResults"}
)


@named_in("clarigrpc.local")
@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for each user of a local server.

    A rate is written as ``10/second``, several ones as ``10/second; 1000/hour``. The units are
    second, minute, hour, day, month (30 days) and year. All apps and keys of a user share the
    limits. A window starts with its first call.

    Attributes:
        requests: Rates of calls; empty is no limit.
        inputs: Rates of inputs in predictions; each input of each prediction counts once. Empty
            is no limit.
        concurrent: Maximum number of calls at the same time. None is no limit.

    Raises:
        ValueError: A rate cannot be parsed, or ``concurrent`` is not an integer of at least 1.
    """

    requests: str = ""
    inputs: str = ""
    concurrent: int | None = None

    def __post_init__(self) -> None:
        for name, text in (("requests", self.requests), ("inputs", self.inputs)):
            if not isinstance(text, str):
                raise ValueError(f"limits: {name} must be a string like '10/second', not {text!r}")  # noqa: TRY004
            try:
                windows = _windows(text)
            except ValueError as error:
                raise ValueError(f"limits: {name}={text!r}: {error}") from error
            if any(window.amount < 1 for window in windows):
                raise ValueError(f"limits: {name}={text!r} allows nothing at all")
        if self.concurrent is not None and (
            type(self.concurrent) is not int or self.concurrent < 1
        ):
            raise ValueError(
                f"limits: concurrent must be an integer of at least 1, not {self.concurrent!r}"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Limits from a mapping of names to values.

        Raises:
            ValueError: A name or a value is not valid.
        """
        names = values if isinstance(values, Mapping) else [repr(values)]
        if unknown := [str(name) for name in names if name not in cls.__slots__]:
            raise ValueError(
                f"limits: unknown {', '.join(unknown)}; known are {', '.join(cls.__slots__)}"
            )
        return cls(**values)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Limits from strings such as ``requests=10/second``.

        Raises:
            ValueError: A string does not have this form, or a name or a value is not valid.
        """
        values: dict[str, Any] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"a limit must have the form name=value, not {text!r}")
            values[name] = int(value) if name == "concurrent" and value.isdecimal() else value
        return cls.of(values)


class Limiter:
    """Counts what users do, and refuses what is beyond the limits.

    Args:
        limits: The same for every user.
    """

    def __init__(self, limits: Limits) -> None:
        self._requests = _windows(limits.requests)
        self._inputs = _windows(limits.inputs)
        self._concurrent = limits.concurrent
        self._windows = FixedWindowRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def admit(self, user_id: str, call: ServedCall, request: Any = None) -> Callable[[], None]:
        """Counts a call; returns what has to be called when it has ended.

        Args:
            user_id: Who calls.
            call: Is told in ``trailing`` what is left, and how long to wait where it is refused.
            request: Counts with its inputs. None for a stream, whose requests ``count`` takes.

        Raises:
            ServiceError: It is beyond a limit and was not counted.
        """
        with self._lock:
            if self._concurrent is not None and self._running[user_id] >= self._concurrent:
                call.trailing["retry-after"] = f"{BUSY_SECONDS:g}"
                raise ServiceError(
                    StatusCode.CONN_THROTTLED,
                    f"{user_id} has {self._concurrent} calls running, the maximum",
                )
            self._take(user_id, call, "requests", self._requests, 1)
            self._take_inputs(user_id, call, request)
            self._running[user_id] += 1

        def release() -> None:
            with self._lock:
                self._running[user_id] -= 1
                if not self._running[user_id]:
                    del self._running[user_id]

        return release

    def count(self, user_id: str, call: ServedCall, request: Any) -> None:
        """Counts the inputs of one request of a stream.

        Raises:
            ServiceError: They are beyond a limit and were not counted.
        """
        with self._lock:
            self._take_inputs(user_id, call, request)

    def _take_inputs(self, user_id: str, call: ServedCall, request: Any) -> None:
        if request is not None and call.method in _PREDICTIONS:
            self._take(user_id, call, "inputs", self._inputs, len(request.inputs))

    def _take(
        self, user_id: str, call: ServedCall, what: str, windows: Sequence[RateLimitItem], cost: int
    ) -> None:
        """Takes the cost from all windows or from none."""
        for window in windows:
            if not self._windows.test(window, user_id, what, cost=cost):
                # What is more than a whole window holds is not let in by waiting.
                if cost <= window.amount:
                    reset = self._windows.get_window_stats(window, user_id, what).reset_time
                    call.trailing["retry-after"] = f"{max(0.001, reset - time.time()):.3f}"
                raise ServiceError(
                    _CODE_OF_WINDOW[window.GRANULARITY.name],
                    f"{user_id} has reached the limit of {what}: {window}",
                )
        left = []
        for window in windows:
            self._windows.hit(window, user_id, what, cost=cost)
            left.append(self._windows.get_window_stats(window, user_id, what).remaining)
        if left:
            tightest = left.index(min(left))
            call.trailing[f"x-ratelimit-limit-{what}"] = str(windows[tightest].amount)
            call.trailing[f"x-ratelimit-remaining-{what}"] = str(left[tightest])


def _windows(text: str) -> list[RateLimitItem]:
    return parse_many(text) if text.strip() else []
