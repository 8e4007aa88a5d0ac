"""What a duplex stream sends next: the window, the repetition, the end. No I/O, no clock."""

from __future__ import annotations

import enum
import math
from collections import deque

from clarigrpc import errors

DEFAULT_WINDOW = 32
"""Requests that may be unanswered, by default."""

DEFAULT_PATIENCE = 10.0
"""Seconds without an answer after which a full window is opened, by default."""

MAX_KEPT_BYTES = 64 << 20
"""Requests are kept up to this size, to be sent again while nothing has been answered."""


class FlowStep(enum.Enum):
    """What to do, where it is neither to send something nor to wait."""

    PULL = "pull"
    """Take a value of the source, then tell ``pulled``, ``exhausted`` or ``failed``."""
    END = "end"
    """Nothing is left to send in this attempt."""


class FlowControl:
    """The requests of one stream, over all its attempts.

    Until the first answer, requests are kept: an attempt that the service refuses (a model that
    is still being deployed) is followed by another that sends the same ones, and the source goes
    on where it was. The first answer ends that, and so do more than ``MAX_KEPT_BYTES``.

    Each answer makes room for one request. A window that stays full for ``patience`` seconds
    without an answer is opened for good: the server seems to read everything before it answers.

    Args:
        window: Most unanswered requests; None: no limit.
        patience: Seconds; ``inf`` never opens the window.
        keep_bytes: Bytes of requests that are kept at most.

    Attributes:
        stalled: Whether the window had to be opened.
        error: The failure of the source.
    """

    def __init__(
        self,
        window: int | None = DEFAULT_WINDOW,
        patience: float = DEFAULT_PATIENCE,
        keep_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        if window is not None and window < 1:
            raise errors.InvalidArgumentError(f"window is 1 or more, not {window}")
        if not patience > 0:
            raise errors.InvalidArgumentError(f"patience is more than 0 seconds, not {patience}")
        self._window = window
        self._patience = patience
        self._room_to_keep = keep_bytes
        self._attempt = 0
        self._open = False
        self._closed = False
        self._queue: deque[bytes] = deque()
        self._kept: list[bytes] | None = []
        self._outstanding = 0
        self._full_since: float | None = None
        self._pulling = False
        self._exhausted = False
        self.stalled = False
        self.error: Exception | None = None

    @property
    def resumable(self) -> bool:
        """Whether another attempt can send everything that was sent."""
        return self._kept is not None and not self._closed

    def begin(self) -> int:
        """Start an attempt; its number."""
        if self._kept is not None:
            self._queue = deque(self._kept)
        self._attempt += 1
        self._open = True
        self._outstanding = 0
        self._full_since = None
        return self._attempt

    def ended(self, attempt: int) -> None:
        """The call of an attempt has ended."""
        if attempt == self._attempt:
            self._open = False

    def close(self) -> None:
        """The stream has ended for good."""
        self._open = False
        self._closed = True
        self._queue.clear()
        self._kept = None

    def poll(self, attempt: int, now: float) -> bytes | float | FlowStep:
        """What an attempt is to do: send these bytes, or wait so many seconds, or a ``FlowStep``.

        A wait ends early whenever anything else of this object is called.
        """
        if attempt != self._attempt or not self._open:
            return FlowStep.END
        if not self._queue and self._exhausted:
            return FlowStep.END
        if not self._has_room():
            if self._full_since is None:
                self._full_since = now
            left = self._full_since + self._patience - now
            if left > 0:
                return left
            self._window = None
            self.stalled = True
        if self._queue:
            self._outstanding += 1
            return self._queue.popleft()
        if self._pulling:  # for an earlier attempt; this one gets what comes of it
            return math.inf
        self._pulling = True
        return FlowStep.PULL

    def _has_room(self) -> bool:
        return self._window is None or self._outstanding < self._window

    def pulled(self, request: bytes) -> None:
        """The source gave a value, which is this request."""
        self._pulling = False
        if self._closed:
            return
        self._queue.append(request)
        if self._kept is not None:
            self._kept.append(request)
            self._room_to_keep -= len(request)
            if self._room_to_keep < 0:
                self._kept = None

    def exhausted(self) -> None:
        """The source has no more values."""
        self._pulling = False
        self._exhausted = True

    def failed(self, error: Exception) -> None:
        """The source failed; nothing more is taken of it."""
        self.error = error
        self.exhausted()

    def responded(self) -> None:
        """A response came. More of them than requests do not add up to a credit."""
        self._kept = None
        self._full_since = None
        if self._outstanding:
            self._outstanding -= 1
