"""Limits that adapt to the service: requests in flight and inputs per request. No I/O, no clock.

The concurrency limit follows the gradient algorithms of published concurrency limiters (TCP Vegas
and its successors): it grows while the latency stays near its minimum, shrinks when requests queue
at the server, and is halved when the server reports overload. Until one of that happens, it grows
several times over in each round trip, as in TCP's slow start. Where a whole window was answered at
once, it grows at once to what the service has shown it can do in good time: over a long way, each
further round trip would be most of the run. The batch size grows while larger batches increase the
number of inputs per second. The next run with the same model goes on from there (``recall``).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable
from typing import Any, NamedTuple, Self

from clarigrpc._contract.request_limits import MAX_ITEMS

MAX_IN_FLIGHT = 100
"""Largest adaptive number of requests in flight.

Source: RFC 9113, 6.5.2, asks servers to allow no fewer streams than this on a connection."""

_START_IN_FLIGHT = 4
_START_BATCH_SIZE = 32
# What each request adds to the limit in slow start: about five times as many in each round trip.
_SLOW_START_STEP = 4.0
# In slow start, no more is in flight than the service would do in this time at the rate that it has
# shown, nor in half of a request's timeout: where it has no more to give, no request fails for it.
_SHOWN_SECONDS = 30.0
# Requests that are answered within this time are not made smaller: at such latencies, the rate
# that a few of them show is mostly that of the client's own work.
_QUICK_SECONDS = 0.02
# Samples of a batch size before it is called no better than a smaller one.
_SAMPLES = 5
# The limit stops growing when the latency exceeds its minimum by this factor.
_TOLERANCE = 2.0
# Minimum latencies below this, in seconds, count as this: so short a wait is that of the client's
# own threads, and costs less than a window that is empty each time before they come to it.
_LEAST_LATENCY = 0.001
_SMOOTHING = 0.2
# The minimum is measured again, at a small limit, after this many requests, because the service may
# have become slower. A minimum that drifts upwards would count our own queue as the service's time.
_MEASURE_AGAIN = 2000

_MAX_KEPT = 64
# After this time, the service may have fewer servers for the model, or none that runs.
_KEPT_SECONDS = 60.0


class _Window:
    """What the answers to the requests that filled the limit say.

    Args:
        left: Number of those that have no answer yet.
    """

    def __init__(self, left: int = 0) -> None:
        self.left = left
        self._inputs = 0
        self._shortest, self._longest = math.inf, 0.0
        self._first_at = self._last_at = 0.0

    def answered(self, seconds: float, inputs: int, now: float) -> None:
        """One of them, with so many inputs, was answered in this time."""
        if not self._inputs:
            self._first_at = now
        self._last_at = now
        self.left -= 1
        self._inputs += inputs
        self._shortest = min(self._shortest, seconds)
        self._longest = max(self._longest, seconds)

    @property
    def came_at_once(self) -> bool:
        """Whether all were answered together, so that none had to wait for the others.

        Latencies do not show this: those of a full queue are all the same as well.
        """
        if self.left or not self._inputs:
            return False
        return self._last_at - self._first_at <= self._shortest / _TOLERANCE

    @property
    def rate(self) -> float:
        """Inputs per second that the service can do at least."""
        return self._inputs / self._longest


class ConcurrencyLimit:
    """Maximum number of requests in flight.

    Args:
        fixed: A constant limit. None adapts, up to ``MAX_IN_FLIGHT``.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed is not None
        self._limit = float(fixed if fixed is not None else _START_IN_FLIGHT)
        self._min_latency = math.inf
        self._samples = 0
        self._ignored_overloads = 0
        self._slow_start = True
        # Requests in flight that were sent when the window was full, for slow start.
        self._of_window = 0
        self._window = _Window()
        # Inputs per second that the service has done in slow start.
        self._shown_rate = 0.0
        self._was_tried = False
        # The most requests in flight of those that were answered since the limit was validated.
        self._most_used = self._unvalidated = 0

    @property
    def limit(self) -> int:
        """Maximum number of requests in flight now, at least 1."""
        return int(self._limit)

    @property
    def has_grown(self) -> bool:
        """Whether the limit is above the one that a run without knowledge starts with."""
        return not self._fixed and self._limit > _START_IN_FLIGHT

    @property
    def was_tried(self) -> bool:
        """Whether this run had enough requests in flight to tell whether the limit is right."""
        return self._was_tried

    def again(self) -> Self:
        """The same for another run, without the requests of this one."""
        copied = copy.copy(self)
        copied._ignored_overloads = copied._of_window = 0
        copied._window = _Window()
        copied._was_tried = False
        copied._most_used = copied._unvalidated = 0
        return copied

    def succeeded(
        self,
        seconds: float,
        in_flight: int,
        now: float,
        *,
        sent_in_flight: int,
        inputs: int = 1,
        size: int = 1,
        timeout: float = math.inf,
    ) -> None:
        """A full request completed.

        Args:
            seconds: Its latency.
            in_flight: Requests in flight at that time, including this one.
            now: Time in seconds.
            sent_in_flight: Those when it was sent, including it.
            inputs: Number of its inputs.
            size: Number of inputs that requests have now.
            timeout: Seconds that a request may take.
        """
        if self._fixed or seconds <= 0:
            return
        self._validate(sent_in_flight)
        if in_flight >= self._limit / 2:
            self._was_tried = True
            if self._slow_start:
                self._of_window = max(self._of_window, in_flight)
                if not self._window.left:
                    self._window = _Window(in_flight)
        if self._slow_start and self._window.left:
            self._window.answered(seconds, inputs, now)
            self._shown_rate = max(self._shown_rate, self._window.rate)
        if inputs != size:
            self._grow_fast(size, timeout)
            return
        self._ignored_overloads = max(0, self._ignored_overloads - 1)
        self._samples += 1
        if self._samples >= _MEASURE_AGAIN:
            self.resized()
        if math.isinf(self._min_latency) and sent_in_flight > self._limit:
            return  # it waited in the queue that the limit was made smaller for
        self._min_latency = max(_LEAST_LATENCY, min(seconds, self._min_latency))
        if self._slow_start and seconds <= _TOLERANCE * self._min_latency:
            self._grow_fast(size, timeout)
            return
        if in_flight < self._limit / 2:
            return  # limited by the source: this says nothing about a larger limit
        self._slow_start = False
        gradient = _TOLERANCE * self._min_latency / seconds
        # Its latency is that of the queue which it joined: of the limit then, not of the one now.
        wanted = self._limit if gradient >= 1 else min(self._limit, sent_in_flight * gradient)
        wanted += math.sqrt(self._limit)
        self._set_limit(self._limit + _SMOOTHING * (wanted - self._limit))

    def _validate(self, in_flight: int) -> None:
        """Take back what the limit allows in vain (TCP does so as well: RFC 7661).

        Args:
            in_flight: As many as were in flight when a request was sent.
        """
        self._most_used = max(self._most_used, in_flight)
        self._unvalidated += 1
        if self._unvalidated >= self._limit:
            used = max(_START_IN_FLIGHT, 2 * self._most_used)
            self._limit = min(self._limit, float(used))
            self._most_used = self._unvalidated = 0

    def _grow_fast(self, size: int, timeout: float) -> None:
        """Grow in slow start, if the request was one of a window that the source could fill."""
        if not (self._slow_start and self._of_window):
            return
        self._of_window -= 1
        shown = self._shown_rate * min(_SHOWN_SECONDS, timeout / 2) / size
        if self._window.came_at_once:
            self._window = _Window()
            self._set_limit(self._limit + shown)
        else:
            self._set_limit(max(self._limit, min(self._limit + _SLOW_START_STEP, shown)))

    def _set_limit(self, limit: float) -> None:
        self._limit = max(1.0, min(float(MAX_IN_FLIGHT), limit))

    def overloaded(self, in_flight: int) -> None:
        """The server rejected a request because of its load.

        The requests in flight at that time report the same overload, which counts once.
        """
        if self._fixed:
            return
        if self._ignored_overloads:
            self._ignored_overloads -= 1
            return
        self._slow_start = False
        self._was_tried = True
        self._set_limit(self._limit / 2)
        self._ignored_overloads = in_flight

    def resized(self) -> None:
        """Measure the minimum latency again: the request size changed, or the minimum is old."""
        self._samples = 0
        self._min_latency = math.inf
        if not (self._fixed or self._slow_start):
            self._limit = min(self._limit, max(float(_START_IN_FLIGHT), self._limit / 4))


class AdaptiveBatchSize:
    """Number of inputs per request.

    Args:
        fixed: A constant size. None adapts, up to ``MAX_ITEMS``.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.size = fixed if fixed is not None else _START_BATCH_SIZE
        self.settled = fixed is not None
        self._before = (self.size, 0.0)
        self._most = MAX_ITEMS
        self._samples: list[tuple[float, float]] = []  # rate, latency

    def again(self) -> Self:
        """The same for another run."""
        copied = copy.copy(self)
        copied._samples = []
        return copied

    def succeeded(self, seconds: float, inputs: int, in_flight: int) -> bool:
        """A request completed; returns whether the size has changed.

        The throughput is ``inputs * in_flight / seconds``, also where requests wait for those sent
        before them.

        Args:
            seconds: Latency of the request.
            inputs: Number of its inputs.
            in_flight: Requests in flight when it was sent, including it.
        """
        if self.settled or inputs != self.size or seconds <= 0:
            return False
        latest = inputs * in_flight / seconds
        self._samples.append((latest, seconds))
        smaller, best = self._before
        # One sample is enough to try the largest size, which is halved if its own are worse.
        if self.size < self._most and latest > best * 1.05:
            self._before = (self.size, latest)
            self.size = self._most
            self._samples.clear()
            return True
        if len(self._samples) < _SAMPLES:
            return False
        rate, latency = (
            sorted(values)[_SAMPLES // 2] for values in zip(*self._samples, strict=True)
        )
        self._samples.clear()
        if rate >= best * 1.05 or latency < _QUICK_SECONDS:
            self.settled = True
            return False
        self._most = self.size = self.size // 2
        self.settled = self.size <= smaller
        return True


class AdaptiveLimits(NamedTuple):
    """The limits of a run.

    Attributes:
        concurrency: Requests in flight.
        batch_size: Inputs per request.
    """

    concurrency: ConcurrencyLimit
    batch_size: AdaptiveBatchSize


def recall(kept: dict[Hashable, Any], model: Hashable, now: float) -> AdaptiveLimits:
    """The limits that a run with a model starts with.

    Args:
        kept: What ``keep`` was given, of all models.
        model: The model.
        now: Time in seconds.
    """
    limits, until = kept.get(model, (None, 0.0))
    if limits is None or now > until:
        return AdaptiveLimits(ConcurrencyLimit(), AdaptiveBatchSize())
    return AdaptiveLimits(limits.concurrency.again(), limits.batch_size.again())


def keep(kept: dict[Hashable, Any], model: Hashable, limits: AdaptiveLimits, now: float) -> None:
    """Keep what a run has found for the next one with the model, for a minute.

    Limits that have not grown are worth nothing: a service that was overloaded may have recovered.
    A run that was too short to try them neither keeps nor renews any.
    """
    if not limits.concurrency.was_tried:
        return
    if not limits.concurrency.has_grown:
        kept.pop(model, None)
        return
    if len(kept) >= _MAX_KEPT and model not in kept:
        kept.clear()
    kept[model] = limits, now + _KEPT_SECONDS
