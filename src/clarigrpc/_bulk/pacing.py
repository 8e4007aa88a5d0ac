"""The pace of requests to a service that throttles. No I/O, no clock."""

from __future__ import annotations

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
