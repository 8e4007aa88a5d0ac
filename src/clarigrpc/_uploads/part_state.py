"""The state machine of an upload in parts. No I/O, no clock.

A driver reports what happens (a stream was opened, a response was received, the stream ended or
failed) and asks what to send next. Part ``n`` is always bytes ``(n - 1) * part_size`` to
``n * part_size``, on every stream, so that the service recognises a part that is sent again.

The number of unacknowledged parts is not limited here, because a service need not respond to every
part, and may wait for more parts before it does. gRPC's flow control limits the parts in flight.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SendConfig:
    """Send the config; a ``version_id`` continues the upload of that version."""

    version_id: str


@dataclass(frozen=True, slots=True)
class SendPart:
    """Send ``size`` bytes at offset ``start`` as part ``number``."""

    number: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class AwaitResponse:
    """Send nothing before ``responded`` or ``response_missing`` was called."""


@dataclass(frozen=True, slots=True)
class EndStream:
    """Send nothing more on this stream."""


PartStep = SendConfig | SendPart | AwaitResponse | EndStream


class ChunkedUpload:
    """What was sent, what the service has, and what to send next.

    Args:
        total: Bytes of the content, 1 or more.
        part_size: Bytes of every part except the last.
        stream_bytes: Maximum bytes of content per stream; one part is always sent. None sets no
            limit.
        version_id: Version of an earlier attempt to continue, or "".
        acknowledged: Bytes that the service has of it.
        verified: Bytes from the start that are known to be the same at the service; later bytes
            of an earlier attempt are sent again. None trusts all of them.
    """

    def __init__(
        self,
        total: int,
        part_size: int,
        *,
        stream_bytes: int | None = None,
        version_id: str = "",
        acknowledged: int = 0,
        verified: int | None = None,
    ) -> None:
        if total < 1 or part_size < 1 or not 0 <= acknowledged <= total:
            raise ValueError("total and part_size must be 1 or more, acknowledged 0 to total")
        self.total = total
        self.part_size = part_size
        self.version_id = version_id
        self.acknowledged = acknowledged
        self.finished = False
        """Whether the service sent its final status."""
        self.progressed = False
        """Whether the service has more bytes than before this stream."""
        self.responses = 0
        """Number of responses on this stream."""
        self._stream_bytes = stream_bytes
        self._most = acknowledged
        self._reached = total if version_id else 0
        self._verified = total if verified is None else verified
        self._open = False
        self._config_sent = self._progress_reported = self._waits_for_response = False
        self._position: int | None = None
        self._sent = 0

    def open(self) -> None:
        """A stream was opened."""
        self._open = True
        self._config_sent = False
        self.responses = 0
        self._progress_reported = False
        # Wait for the version id, without which the upload could not be continued; and for a
        # version that exists, the service says where to continue.
        self._waits_for_response = True
        self._position = None
        self._sent = 0
        self.progressed = False

    @property
    def may_be_done(self) -> bool:
        """Whether the whole content was sent, on any stream, including earlier attempts."""
        return self._reached == self.total

    @property
    def all_sent(self) -> bool:
        """Whether the end of the content was sent on this stream."""
        return self._position == self.total

    def next(self) -> PartStep:
        """What to send now. A part that was returned counts as sent."""
        if self.finished or not self._open:
            return EndStream()
        if not self._config_sent:
            self._config_sent = True
            return SendConfig(self.version_id)
        if self._waits_for_response:
            return AwaitResponse()
        if self._position is None:
            start = min(self.acknowledged, self._verified)
            self._position = start - start % self.part_size
        start = self._position
        # The service has all parts and no final status yet: it responds to the last part again.
        if start == self.total and not self._sent:
            start = (self.total - 1) // self.part_size * self.part_size
        size = min(self.part_size, self.total - start)
        if not size or (
            self._stream_bytes is not None and self._sent and self._sent + size > self._stream_bytes
        ):
            return EndStream()
        self._position = start + size
        self._reached = max(self._reached, self._position)
        self._verified = max(self._verified, self._position)
        self._sent += size
        return SendPart(start // self.part_size + 1, start, size)

    def responded(self, version_id: str, remaining: int | None, *, final: bool) -> None:
        """A response was received.

        Args:
            version_id: Id of the version, or "" if the response has none.
            remaining: Bytes that the service does not have yet; None if unknown.
            final: Whether this is the final, successful status.
        """
        if version_id:
            self.version_id = version_id
        if final:
            self.acknowledged = self.total
            self.finished = True
        elif remaining is not None:
            there = max(0, self.total - remaining)
            # The first response of a stream is authoritative, even if it is behind earlier ones.
            # Later, a response that is behind another one is out of date.
            if not self.responses:
                self.acknowledged = there
            else:
                self.acknowledged = max(self.acknowledged, there)
            self._progress_reported = True
        self.responses += 1
        self._waits_for_response = False
        self.progressed = self.progressed or self.finished or self.acknowledged > self._most
        self._most = max(self._most, self.acknowledged)

    def response_missing(self) -> None:
        """The service does not respond to the config: continue from what is known."""
        self._waits_for_response = False

    def ended(self) -> None:
        """The stream ended with OK. This alone does not mean success, see ``finished``."""
        if not self._progress_reported and self._position is not None and not self.finished:
            # A service that reports no progress has read everything.
            self.acknowledged = self._position
            self.progressed = self.acknowledged > self._most
            self._most = max(self._most, self.acknowledged)
        self._open = False

    def broken(self) -> None:
        """The stream failed: parts that were sent and not acknowledged may be lost."""
        self._open = False
