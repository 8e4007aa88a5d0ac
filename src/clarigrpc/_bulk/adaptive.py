"""How many requests to keep in flight, and how large to make them. Pure: no I/O, no clock.

The window follows the gradient algorithms of published concurrency limiters (TCP Vegas and its
successors): it grows while the latency stays near its floor, shrinks when requests queue up on
the other side, and is halved when the server says that it is overloaded. The batch size climbs
while larger batches raise the number of inputs a second.
"""

from __future__ import annotations

import math

MAX_BATCH = 128
MAX_WINDOW = 64

_START_WINDOW = 4
_START_BATCH = 32
# Latency may be this many times its floor before the window stops growing.
_TOLERANCE = 2.0
_SMOOTHING = 0.2
# The floor is measured anew, at a small window, after so many requests: a service may have become
# slower for good. Letting the floor drift instead would take our own queue for the service.
_MEASURE_AGAIN = 2000


class Window:
    """The number of requests in flight. ``fixed`` turns the adaptation off."""

    def __init__(self, fixed: int | None = None, top: int = MAX_WINDOW) -> None:
        self._fixed = fixed is not None
        self._limit = float(fixed if fixed is not None else min(_START_WINDOW, top))
        self._top = float(top)
        self._floor = math.inf
        self._measured = 0
        self._forgiven = 0

    @property
    def limit(self) -> int:
        """Most requests in flight at this moment, 1 at least."""
        return int(self._limit)

    def succeeded(self, seconds: float, in_flight: int) -> None:
        """A full request took so long while so many were in flight, itself included."""
        if self._fixed or seconds <= 0:
            return
        self._forgiven = max(0, self._forgiven - 1)
        self._measured += 1
        if self._measured >= _MEASURE_AGAIN:
            self.resized()
        self._floor = min(seconds, self._floor)
        if in_flight < self._limit / 2:
            return  # the source is the limit: nothing was learned about a larger window
        gradient = max(0.5, min(1.0, _TOLERANCE * self._floor / seconds))
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._limit += _SMOOTHING * (wanted - self._limit)
        self._limit = max(1.0, min(self._top, self._limit))

    def overloaded(self, in_flight: int) -> None:
        """The server refused a request for want of capacity.

        The requests that were in flight with it tell the same, and count once.
        """
        if self._fixed:
            return
        if self._forgiven:
            self._forgiven -= 1
            return
        self._limit = max(1.0, self._limit / 2)
        self._forgiven = in_flight

    def resized(self) -> None:
        """Measure the floor anew: requests have another size, or the floor is old."""
        self._measured = 0
        self._floor = math.inf
        if not self._fixed:
            self._limit = min(self._limit, max(float(_START_WINDOW), self._limit / 4))


class BatchSize:
    """The number of inputs in a request. ``fixed`` turns the adaptation off."""

    def __init__(self, fixed: int | None = None, top: int = MAX_BATCH) -> None:
        self._top = fixed if fixed is not None else top
        self.size = fixed if fixed is not None else min(_START_BATCH, top)
        self.settled = fixed is not None
        self._before = (self.size, 0.0)
        self._samples: list[float] = []

    def succeeded(self, seconds: float, inputs: int, in_flight: int) -> bool:
        """A request with so many inputs took so long; whether the size has changed.

        With ``in_flight`` others like it, inputs were done at ``inputs * in_flight / seconds``.
        """
        if self.settled or inputs != self.size or seconds <= 0:
            return False
        self._samples.append(inputs * in_flight / seconds)
        if len(self._samples) < 5:
            return False
        rate = sorted(self._samples)[2]
        self._samples.clear()
        smaller, best = self._before
        before = self.size
        if rate < best * 0.9:
            self.size = smaller
        elif rate > best * 1.05 and self.size < self._top:
            self._before = (self.size, rate)
            self.size = min(self._top, self.size * 2)
        self.settled = self.size <= before
        return self.size != before
