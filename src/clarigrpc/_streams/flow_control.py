"""Flow control of a bidi stream: window, replay after a refusal, end. No I/O, no clock."""

from __future__ import annotations

import enum
import math
from collections import deque

from clarigrpc import errors

DEFAULT_WINDOW = 32
"""Maximum number of requests without a response."""

DEFAULT_PATIENCE = 10.0
"""Seconds without a response after which a full window is opened."""

MAX_KEPT_BYTES = 64 << 20
"""Maximum bytes of requests that are kept for a replay before the first response."""


class FlowStep(enum.Enum):
    """A step other than sending a request or waiting."""

    PULL = "pull"
    """Read a value of the source, then call ``pulled``, ``exhausted`` or ``failed``."""
    END = "end"
    """Nothing is left to send in this attempt."""


class FlowControl:
    """The requests of one stream, over all its attempts.

    Requests are kept until the first response. If the service refuses an attempt (the model is
    still being deployed), the next attempt sends them again and continues with the source. After
    the first response, or more than ``keep_bytes``, there is no further attempt.

    Each response makes room for one request. A window that is full for ``patience`` seconds
    without a response is opened permanently, because the server seems to read all requests before
    it responds.

    Args:
        window: Maximum number of requests without a response. None sets no limit.
        patience: Seconds; ``inf`` never opens the window.
        keep_bytes: Maximum bytes of requests that are kept.

    Attributes:
        stalled: Whether the window was opened because of ``patience``.
        error: The error of the source; None if it did not fail.

    Raises:
        InvalidArgumentError: ``window`` or ``patience`` is out of range.
    """

    def __init__(
        self,
        window: int | None = DEFAULT_WINDOW,
        patience: float = DEFAULT_PATIENCE,
        keep_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        if window is not None and window < 1:
            raise errors.InvalidArgumentError(f"window must be 1 or more, not {window}")
        if not patience > 0:
            raise errors.InvalidArgumentError(
                f"patience must be more than 0 seconds, not {patience}"
            )
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
        """Whether another attempt can send again everything that was sent."""
        return self._kept is not None and not self._closed

    def begin(self) -> int:
        """Start an attempt; returns its number."""
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
        """The stream has ended; no further attempt follows."""
        self._open = False
        self._closed = True
        self._queue.clear()
        self._kept = None

    def poll(self, attempt: int, now: float) -> bytes | float | FlowStep:
        """What to do next: send the bytes returned, wait the seconds returned, or a ``FlowStep``.

        After any other method was called, poll again without waiting.
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
        if self._pulling:  # by an earlier attempt; this one gets the value
            return math.inf
        self._pulling = True
        return FlowStep.PULL

    def _has_room(self) -> bool:
        return self._window is None or self._outstanding < self._window

    def pulled(self, request: bytes) -> None:
        """The source returned a value, which was encoded as this request."""
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
        """The source failed; it is not read any further."""
        self.error = error
        self.exhausted()

    def responded(self) -> None:
        """A response was received. Responses beyond the number of requests make no room."""
        self._kept = None
        self._full_since = None
        if self._outstanding:
            self._outstanding -= 1
