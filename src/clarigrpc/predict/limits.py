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


class Window:
    """The number of requests in flight. ``fixed`` turns the adaptation off."""

    def __init__(self, fixed: int | None = None, start: int = 4, top: int = MAX_WINDOW) -> None:
        self._fixed = fixed is not None
        self._limit = float(fixed if fixed is not None else start)
        self._top = top
        self._floor = math.inf

    @property
    def limit(self) -> int:
        """Most requests in flight at this moment, 1 at least."""
        return int(self._limit)

    def succeeded(self, seconds: float, inputs: int, in_flight: int) -> None:
        """A request with so many inputs took so long while so many were in flight."""
        if self._fixed:
            return
        latency = seconds / max(1, inputs)
        # The floor drifts up slowly, so that a service that has become slower is believed.
        self._floor = min(latency, self._floor * 1.01)
        if in_flight < self._limit / 2:
            return  # the source is the limit: nothing was learned about a larger window
        gradient = max(0.5, min(1.0, 2.0 * self._floor / latency))
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._limit = max(1.0, min(float(self._top), 0.8 * self._limit + 0.2 * wanted))

    def overloaded(self) -> None:
        """The server refused a request for want of capacity."""
        if not self._fixed:
            self._limit = max(1.0, self._limit / 2)


class BatchSize:
    """The number of inputs in a request. ``fixed`` turns the adaptation off."""

    def __init__(self, fixed: int | None = None, start: int = 16, top: int = MAX_BATCH) -> None:
        self._fixed = fixed is not None
        self._top = fixed if fixed is not None else top
        self._size = fixed if fixed is not None else min(start, top)
        self._settled = self._fixed
        self._best = 0.0
        self._samples: list[float] = []

    @property
    def size(self) -> int:
        """Most inputs of the next request, 1 at least."""
        return self._size

    def succeeded(self, seconds: float, inputs: int) -> None:
        """A request with so many inputs took so long."""
        if self._settled or inputs < self._size or seconds <= 0:
            return
        self._samples.append(inputs / seconds)
        if len(self._samples) < 3:
            return
        rate = sorted(self._samples)[1]
        self._samples.clear()
        if rate > self._best * 1.1 and self._size < self._top:
            self._best = rate
            self._size = min(self._top, self._size * 2)
        else:
            self._settled = True

    def too_large(self, inputs: int) -> None:
        """A request with so many inputs was refused for its size."""
        if not self._fixed:
            self._size = max(1, min(self._size, inputs // 2))
            self._top = self._size
            self._settled = True
