"""The state of an upload in parts, without I/O.

A driver reports what happens (a stream was opened, an answer came, the stream ended or broke) and
asks what to send next. Parts lie on a grid: part ``n`` is always bytes ``(n - 1) * part_size`` up
to ``n * part_size``, whichever stream carries it, so a part that is sent again is the same part
again and the service can recognise it.

There is no window of unacknowledged parts: a service need not answer every part, and one that
waits for more would wait for ever. What is in flight is bounded by gRPC, which asks for a part
when the one before has left.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SendConfig:
    """Send the config; a ``version_id`` goes on with that version."""

    version_id: str


@dataclass(frozen=True, slots=True)
class SendPart:
    """Send ``size`` bytes from offset ``start`` on as part ``number``."""

    number: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class AwaitAnswer:
    """Send nothing until an answer came (``answered``) or is given up (``unanswered``)."""


@dataclass(frozen=True, slots=True)
class EndStream:
    """Send nothing more on this stream."""


Step = SendConfig | SendPart | AwaitAnswer | EndStream


class ChunkedUpload:
    """What was sent, what arrived, and what comes next.

    Args:
        total: Bytes of the content, 1 or more.
        part_size: Bytes of every part but the last.
        stream_bytes: Most bytes of content on one stream, at least one part all the same; None:
            no limit.
        version_id: Version of an earlier attempt to go on with, or "".
        acknowledged: Bytes that the service is known to have from it.
        verified: Bytes from the start that are known to be equal here and there; beyond them,
            what the service has from an earlier attempt is sent again. None: all.
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
            raise ValueError("an upload has content, parts of at least a byte, and ends at total")
        self.total = total
        self.part_size = part_size
        self.version_id = version_id
        self.acknowledged = acknowledged
        self.finished = False
        """Whether the service gave its final status."""
        self.progressed = False
        """Whether this stream brought the service more than it ever had."""
        self.answers = 0
        """Answers on this stream."""
        self._stream_bytes = stream_bytes
        self._most = acknowledged
        self._reached = total if version_id else 0
        self._verified = total if verified is None else verified
        self._open = False
        self._config_sent = self._told = self._waits = False
        self._position: int | None = None
        self._sent = 0

    def open(self) -> None:
        """A stream was opened."""
        self._open = True
        self._config_sent = False
        self.answers = 0
        self._told = False
        # The id first: without it, what is sent could not be gone on with. And content of a
        # version that exists already goes on where the service says.
        self._waits = True
        self._position = None
        self._sent = 0
        self.progressed = False

    @property
    def may_be_done(self) -> bool:
        """Whether any stream so far, those of an earlier attempt included, can have ended it."""
        return self._reached == self.total

    @property
    def all_sent(self) -> bool:
        """Whether this stream carried the content to its end."""
        return self._position == self.total

    def next(self) -> Step:
        """What to send now. Parts count as sent once they were returned here."""
        if self.finished or not self._open:
            return EndStream()
        if not self._config_sent:
            self._config_sent = True
            return SendConfig(self.version_id)
        if self._waits:
            return AwaitAnswer()
        if self._position is None:
            start = min(self.acknowledged, self._verified)
            self._position = start - start % self.part_size
        start = self._position
        # The service has everything and has yet to say so: the last part again makes it answer.
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

    def answered(self, version_id: str, remaining: int | None, *, final: bool) -> None:
        """The service answered.

        Args:
            version_id: The version it fills, "" where it does not say.
            remaining: Bytes that it misses, None where it does not say.
            final: Whether this is its final, good status.
        """
        if version_id:
            self.version_id = version_id
        if final:
            self.acknowledged = self.total
            self.finished = True
        elif remaining is not None:
            there = max(0, self.total - remaining)
            # The first answer tells where the service stands, be it behind what it had told
            # before. After that, an answer that is behind was overtaken by another.
            if not self.answers:
                self.acknowledged = there
            else:
                self.acknowledged = max(self.acknowledged, there)
            self._told = True
        self.answers += 1
        self._waits = False
        self.progressed = self.progressed or self.finished or self.acknowledged > self._most
        self._most = max(self._most, self.acknowledged)

    def unanswered(self) -> None:
        """The service leaves a config without an answer: go on from what is known."""
        self._waits = False

    def ended(self) -> None:
        """The stream ended well. That alone is no success, see ``finished``."""
        if not self._told and self._position is not None and not self.finished:
            # All was read to the end by a service that reports no progress.
            self.acknowledged = self._position
            self.progressed = self.acknowledged > self._most
            self._most = max(self._most, self.acknowledged)
        self._open = False

    def broken(self) -> None:
        """The stream broke: what was sent and not acknowledged may be lost."""
        self._open = False
