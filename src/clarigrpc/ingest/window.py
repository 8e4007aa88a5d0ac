"""Which batch is sent when. No I/O, no clock: every method is told the time."""

from __future__ import annotations

import heapq
import itertools

from clarigrpc.ingest.batches import Batch


class Window:
    """The batches that have left the source and are not settled.

    At most ``size`` of them are on the way at once, fewer while the service throttles: then the
    limit halves with every refusal and grows by one with every success, and nothing is sent
    before the time that the service named. A batch that waits for another try keeps its place, so
    that an outage stops the source instead of filling the memory.

    Args:
        size: Most batches on the way, and most that are taken from the source before the first
            of them is settled.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._limit = size
        self._closed_until = 0.0
        self._waiting: list[tuple[float, int, int, Batch]] = []
        self._ties = itertools.count()
        self._sent: set[Batch] = set()

    @property
    def empty(self) -> bool:
        """Whether every batch is settled."""
        return not (self._waiting or self._sent)

    @property
    def limit(self) -> int:
        """Most batches that may be on the way now."""
        return self._limit

    def wants_more(self, now: float) -> bool:
        """Whether a batch that was put in now could leave at once."""
        return self._may_send(now) and len(self._waiting) + len(self._sent) < self._size

    def put(self, batch: Batch, at: float = 0.0) -> None:
        """Have a batch wait until the time ``at``."""
        heapq.heappush(self._waiting, (at, batch.place, next(self._ties), batch))

    def take(self, now: float) -> Batch | None:
        """The batch to send now, which counts as on its way; None when there is none."""
        if not self._may_send(now) or not self._waiting or self._waiting[0][0] > now:
            return None
        batch = heapq.heappop(self._waiting)[-1]
        self._sent.add(batch)
        return batch

    def arrived(self, batch: Batch) -> None:
        """A batch is no longer on its way: its answer, or its failure, is there."""
        self._sent.remove(batch)

    def slow_down(self, until: float) -> None:
        """The service throttles and named a time."""
        self._closed_until = max(self._closed_until, until)
        self._limit = max(1, self._limit // 2)

    def speed_up(self) -> None:
        """The service took a request."""
        self._limit = min(self._size, self._limit + 1)

    def pause(self, now: float) -> float | None:
        """Seconds until ``take`` may have a batch; None when an arrival has to come first."""
        if len(self._sent) >= self._limit:
            return None
        opens = self._closed_until
        if self._waiting:
            opens = max(opens, self._waiting[0][0])
        elif self._closed_until <= now:
            return None
        return max(0.0, opens - now)

    def clear(self) -> tuple[list[Batch], list[Batch]]:
        """Empty the window; returns the batches that waited and those that are on their way."""
        waiting = [entry[-1] for entry in self._waiting]
        sent = list(self._sent)
        self._waiting.clear()
        self._sent.clear()
        return waiting, sent

    def _may_send(self, now: float) -> bool:
        return len(self._sent) < self._limit and now >= self._closed_until
