"""Which batch is sent when. No I/O, no clock: every method is told the time."""

from __future__ import annotations

import heapq
import itertools

from clarigrpc._bulk.input_batches import Batch

_TRIES_PER_PROBE = 10
_FASTER = 0.9
_SLOWER = 1.25
_SHORTEST_GAP = 0.001


class Pace:
    """How fast to send to a service that throttles. Times in seconds.

    What a refusal names is when the next request will be taken; seen from the last one that was
    taken, that is the gap between two. Requests leave at that gap, and after every ten that were
    taken it is tried a tenth shorter: few requests are refused, and hardly one is held back that
    would have been taken. All is reckoned from when requests left, so that the way to the service
    and back does not count.
    """

    def __init__(self) -> None:
        self.opens = 0.0
        self.gap = 0.0
        self._last_taken: float | None = None
        self._taken = 0

    def sent(self, now: float) -> None:
        """A request leaves."""
        if self.gap:
            self.opens = now + self.gap

    def taken(self, sent_at: float) -> None:
        """The service took a request."""
        self._last_taken = max(self._last_taken or 0.0, sent_at)
        self._taken += 1
        if self.gap and self._taken % _TRIES_PER_PROBE == 0:
            self.gap *= _FASTER
            if self.gap < _SHORTEST_GAP:
                self.gap = 0.0

    def refused(self, sent_at: float, told: float) -> None:
        """The service refused a request and named the seconds to wait."""
        until = sent_at + told
        self.opens = until
        if self._last_taken is None:
            self.gap = max(self.gap, told)
        else:
            # A source that was slow makes the last one look longer ago than the gap is.
            self.gap = max(told, min(self.gap * _SLOWER, until - self._last_taken))
        # The same gap is measured once: those refused together measure it too long.
        self._last_taken = None
        self._taken = 0


class Window:
    """The batches that have left the source and are not settled.

    At most ``size`` of them are on the way at once. A batch that waits for another try keeps its
    place, so that an outage stops the source instead of filling the memory.

    Args:
        size: Most batches on the way, and most that are taken from the source before the first
            of them is settled.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pace = Pace()
        self._waiting: list[tuple[float, int, int, Batch]] = []
        self._ties = itertools.count()
        self._sent: dict[Batch, float] = {}

    @property
    def empty(self) -> bool:
        """Whether every batch is settled."""
        return not (self._waiting or self._sent)

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
        self._sent[batch] = now
        self._pace.sent(now)
        return batch

    def answered(self, batch: Batch) -> None:
        """The service took a batch, which is no longer on its way."""
        self._pace.taken(self._sent.pop(batch))

    def failed(self, batch: Batch) -> float:
        """A batch is no longer on its way; returns when it was sent."""
        return self._sent.pop(batch)

    def slow_down(self, sent_at: float, told: float) -> None:
        """The service throttled a batch and named the seconds to wait."""
        self._pace.refused(sent_at, told)

    def pause(self, now: float) -> float | None:
        """Seconds until ``take`` may have a batch; None when an arrival has to come first."""
        if len(self._sent) >= self._size:
            return None
        opens = self._pace.opens
        if self._waiting:
            opens = max(opens, self._waiting[0][0])
        elif opens <= now:
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
        return len(self._sent) < self._size and now >= self._pace.opens
