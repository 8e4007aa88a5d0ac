"""Counts and latencies of a client's calls, by method: what ``client.stats`` tells.

A call that ends appends its latency, or the name of its error, to a queue, and nothing else; the
queues are emptied where somebody asks, and now and then, which bounds them. The end of a call waits
for no lock: a call that is dropped ends in a finalizer, which Python may run in any method here.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from clarigrpc._fork_lock import ForkLock

if TYPE_CHECKING:
    from clarigrpc._rpc.call_stats import ClientStats, MethodStats
    from clarigrpc._rpc.retry import RetryBudget

_MOST_QUEUED = 4096
# Buckets of latencies grow by a factor of 2 ** (1 / 8): a quantile is off by 5 % at most.
_BUCKETS_PER_DOUBLING = 8


class CallCounts:
    """The calls of one method. Safe to use from any thread."""

    __slots__ = (
        *("_buckets", "_errors", "_failures", "_latencies", "_lock", "_longest", "_retries"),
        "_seconds",
    )

    def __init__(self) -> None:
        self._latencies: deque[float] = deque()
        self._buckets: Counter[int] = Counter()
        self._seconds = self._longest = 0.0
        self._failures: deque[str] = deque()
        self._errors: Counter[str] = Counter()
        self._retries = 0
        self._lock = ForkLock()

    def succeeded(self, seconds: float) -> None:
        """A call ended well after so many seconds."""
        latencies = self._latencies
        latencies.append(seconds)
        if len(latencies) >= _MOST_QUEUED:
            self._try_to_fold()

    def failed(self, failure: BaseException) -> None:
        """A call raised an error to its caller."""
        failures = self._failures
        failures.append(type(failure).__name__)
        if len(failures) >= _MOST_QUEUED:
            self._try_to_fold()

    def retried(self) -> None:
        """An attempt follows another."""
        with self._lock.get():
            self._retries += 1

    def _try_to_fold(self) -> None:
        lock = self._lock.get()
        if lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                lock.release()

    def _fold(self) -> None:
        failures = self._failures
        self._errors.update([failures.popleft() for _ in range(len(failures))])
        latencies = self._latencies
        # Others may append meanwhile, but only one thread takes.
        taken = [latencies.popleft() for _ in range(len(latencies))]
        if taken:
            self._seconds += sum(taken)
            self._longest = max(self._longest, *taken)
            self._buckets.update(map(_bucket, taken))

    def read(self, method: str) -> MethodStats:
        """What has been counted."""
        from clarigrpc._rpc.call_stats import MethodStats

        with self._lock.get():
            self._fold()
            buckets = sorted(self._buckets.items())
            succeeded = sum(self._buckets.values())
            seconds, longest, retries = self._seconds, self._longest, self._retries
            failures = dict(self._errors)
        p50, p90, p99 = (
            _quantile(buckets, succeeded, share, longest) for share in (0.5, 0.9, 0.99)
        )
        return MethodStats(
            method=method,
            succeeded=succeeded,
            failed=sum(failures.values()),
            retries=retries,
            errors=failures,
            mean=seconds / succeeded if succeeded else 0.0,
            p50=p50,
            p90=p90,
            p99=p99,
            max=longest,
        )


def _bucket(seconds: float) -> int:
    return round(math.log2(max(seconds, 1e-9)) * _BUCKETS_PER_DOUBLING)


def _quantile(buckets: list[tuple[int, int]], total: int, share: float, longest: float) -> float:
    rank = math.ceil(total * share)
    seen = 0
    for bucket, count in buckets:
        seen += count
        if seen >= rank:
            return min(longest, math.exp2(bucket / _BUCKETS_PER_DOUBLING))
    return 0.0


class CallTable:
    """The counts of a client's methods."""

    def __init__(self) -> None:
        self._methods: dict[str, CallCounts] = {}

    def of(self, method: str) -> CallCounts:
        """The counts of a method."""
        # setdefault is atomic: threads that come at once get the same object.
        return self._methods.setdefault(method, CallCounts())

    def read(self, budget: RetryBudget) -> ClientStats:
        """What has been counted, of methods with calls that have ended."""
        from clarigrpc._rpc.call_stats import ClientStats

        found = {name: counts.read(name) for name, counts in sorted(self._methods.items())}
        return ClientStats(
            {name: one for name, one in found.items() if one.succeeded or one.failed},
            budget.tokens,
        )


class CountedCall:
    """A call that may end in several ways, of which the first one counts.

    Args:
        counts: Those of its method.
    """

    __slots__ = ("_began", "_counts", "_ended_at")

    def __init__(self, counts: CallCounts) -> None:
        self._counts: CallCounts | None = counts
        self._began = time.monotonic()
        self._ended_at: float | None = None

    def note_end(self) -> None:
        """The call is over now; its outcome is told later."""
        self._ended_at = time.monotonic()

    def ended(self, failure: BaseException | None) -> None:
        """The call ended well, or with what its caller is raised."""
        counts, self._counts = self._counts, None
        if counts is None:
            return
        if failure is None:
            counts.succeeded((self._ended_at or time.monotonic()) - self._began)
        else:
            counts.failed(failure)
