"""Which batch is sent when. No I/O, no clock: the time is passed to every method."""

from __future__ import annotations

import heapq
import itertools

from clarigrpc._bulk.input_batches import InputBatch

_ACCEPTED_PER_PROBE = 10
_FASTER = 0.9
_SLOWER = 1.25
_MIN_GAP = 0.001


class Pacing:
    """The time between requests to a service that throttles. Times in seconds.

    A throttled request reports when the next one will be accepted. Measured from the last accepted
    request, this is the gap between two. Requests are sent at this gap, and after every ten
    accepted ones the gap is reduced by a tenth: few requests are throttled, and few are delayed
    without need. All times are those at which requests were sent, so that the round trip does not
    count.
    """

    def __init__(self) -> None:
        self.opens = 0.0
        self.gap = 0.0
        self._last_accepted: float | None = None
        self._accepted = 0

    def sent(self, now: float) -> None:
        """A request is sent."""
        if self.gap:
            self.opens = now + self.gap

    def accepted(self, sent_at: float) -> None:
        """The service accepted a request."""
        self._last_accepted = max(self._last_accepted or 0.0, sent_at)
        self._accepted += 1
        if self.gap and self._accepted % _ACCEPTED_PER_PROBE == 0:
            self.gap *= _FASTER
            if self.gap < _MIN_GAP:
                self.gap = 0.0

    def throttled(self, sent_at: float, retry_after: float) -> None:
        """The service throttled a request and asked for a delay of ``retry_after`` seconds."""
        until = sent_at + retry_after
        self.opens = until
        if self._last_accepted is None:
            self.gap = max(self.gap, retry_after)
        else:
            # After a pause of the source, the last request is longer ago than the gap.
            self.gap = max(retry_after, min(self.gap * _SLOWER, until - self._last_accepted))
        # Measure once: requests that were throttled together would measure too long a gap.
        self._last_accepted = None
        self._accepted = 0


class Window:
    """The batches that were read from the source and have no outcome yet.

    At most ``size`` of them are in flight. A batch that waits for a retry keeps its place, so that
    an outage stops the source instead of filling the memory.

    Args:
        size: Maximum number of batches in the window.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pacing = Pacing()
        self._waiting: list[tuple[float, int, int, InputBatch]] = []
        self._ties = itertools.count()
        self._sent: dict[InputBatch, float] = {}

    @property
    def empty(self) -> bool:
        """Whether every batch has its outcome."""
        return not (self._waiting or self._sent)

    def wants_more(self, now: float) -> bool:
        """Whether a batch that is added now could be sent at once."""
        return self._may_send(now) and len(self._waiting) + len(self._sent) < self._size

    def put(self, batch: InputBatch, at: float = 0.0) -> None:
        """Add a batch that is to be sent at the time ``at`` or later."""
        heapq.heappush(self._waiting, (at, batch.place, next(self._ties), batch))

    def take(self, now: float) -> InputBatch | None:
        """The batch to send now, in flight from here on; None if there is none."""
        if not self._may_send(now) or not self._waiting or self._waiting[0][0] > now:
            return None
        batch = heapq.heappop(self._waiting)[-1]
        self._sent[batch] = now
        self._pacing.sent(now)
        return batch

    def accepted(self, batch: InputBatch) -> None:
        """The service accepted a batch, which is no longer in flight."""
        self._pacing.accepted(self._sent.pop(batch))

    def failed(self, batch: InputBatch) -> float:
        """A batch failed and is no longer in flight; returns the time it was sent."""
        return self._sent.pop(batch)

    def slow_down(self, sent_at: float, retry_after: float) -> None:
        """The service throttled a batch and asked for a delay of ``retry_after`` seconds."""
        self._pacing.throttled(sent_at, retry_after)

    def pause(self, now: float) -> float | None:
        """Seconds until ``take`` may return a batch; None: not before a response."""
        if len(self._sent) >= self._size:
            return None
        opens = self._pacing.opens
        if self._waiting:
            opens = max(opens, self._waiting[0][0])
        elif opens <= now:
            return None
        return max(0.0, opens - now)

    def clear(self) -> tuple[list[InputBatch], list[InputBatch]]:
        """Empty the window; returns the waiting batches and those in flight."""
        waiting = [entry[-1] for entry in self._waiting]
        sent = list(self._sent)
        self._waiting.clear()
        self._sent.clear()
        return waiting, sent

    def _may_send(self, now: float) -> bool:
        return len(self._sent) < self._size and now >= self._pacing.opens
