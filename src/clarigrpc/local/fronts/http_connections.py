"""HTTP connections within bounds: unfinished heads, and what strangers make the log say."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""How long the head of a request may take, from its first byte or the connection on."""

MAX_UNFINISHED_HEADS = 256
"""Connections whose next request has no complete head yet. One more closes the oldest of them."""

LOG_LINES_PER_SECOND = 10
"""Lines of the log about malformed requests and the like."""

_logger = logging.getLogger(__name__)


class LinePace(logging.Filter):
    """Lets so many lines a second through, and says how many were left out.

    Args:
        lines: Of a second.
    """

    def __init__(self, lines: int = LOG_LINES_PER_SECOND) -> None:
        super().__init__()
        self._lines = lines
        self._second = 0
        self._said = 0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            if self._left_out:
                record.msg = f"{record.getMessage()} ({self._left_out} lines were left out)"
                record.args = None
            self._second, self._said, self._left_out = second, 0, 0
        self._said += 1
        if self._said <= self._lines:
            return True
        self._left_out += 1
        return False


class ConnectionBounds:
    """What the connections of one front share.

    Args:
        head_seconds: How long the head of a request may take.
        max_unfinished_heads: Connections without a complete head.
    """

    def __init__(
        self,
        head_seconds: float = HEAD_SECONDS,
        max_unfinished_heads: int = MAX_UNFINISHED_HEADS,
    ) -> None:
        self._head_seconds = head_seconds
        self._max = max_unfinished_heads
        # A dict keeps the order of insertion: the oldest first.
        self._waiting: dict[BoundedProtocol, asyncio.TimerHandle] = {}
        # Not among the loggers that others find, since the filter is this front's.
        self.logger = logging.Logger(f"{__name__}.requests")
        self.logger.parent = _logger
        self.logger.addFilter(LinePace())

    def protocol(self, *args: Any, **kwargs: Any) -> BoundedProtocol:
        """A protocol for a new connection, as uvicorn makes them."""
        return BoundedProtocol(self, *args, **kwargs)

    def begin(self, connection: BoundedProtocol) -> None:
        """The head of a request is awaited."""
        if connection in self._waiting:
            return
        if len(self._waiting) >= self._max:
            oldest = next(iter(self._waiting))
            self.end(oldest)
            oldest.give_up()
        timer = connection.loop.call_later(self._head_seconds, self._expire, connection)
        self._waiting[connection] = timer

    def end(self, connection: BoundedProtocol) -> None:
        """The head is complete, or will never be."""
        timer = self._waiting.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, connection: BoundedProtocol) -> None:
        self.end(connection)
        connection.give_up()


class BoundedProtocol(H11Protocol):
    """A connection whose heads of requests have to come in time."""

    def __init__(self, bounds: ConnectionBounds, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self.logger = bounds.logger

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._bounds.begin(self)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        if before is None or before.response_complete:
            self._bounds.begin(self)
        super().data_received(data)
        if self.cycle is not before:
            self._bounds.end(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.end(self)
        super().connection_lost(exc)

    def give_up(self) -> None:
        """Closes the connection without an answer: nobody has asked for anything."""
        self.transport.abort()
