"""Rows of arguments that wait for a batched method. No I/O, no clock, no locks."""

from __future__ import annotations

from collections import deque
from typing import Any

from clarigrpc import v2


class BatchRow:
    """The arguments of one caller, and what came of them.

    Attributes:
        arguments: The arguments.
        result: The result, or the exception; None as long as there is neither.
    """

    __slots__ = ("arguments", "result", "since")

    def __init__(self, arguments: dict[str, Any], since: float) -> None:
        self.arguments: dict[str, Any] = arguments
        self.since: float = since
        self.result: v2.Data | Exception | None = None


class BatchQueue:
    """The rows of one method. One batch runs at a time; rows that come meanwhile wait.

    Args:
        max_batch: Most rows of a batch.
        max_delay: Most seconds that a row waits for others while nothing runs.
    """

    def __init__(self, max_batch: int, max_delay: float) -> None:
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._waiting: deque[BatchRow] = deque()
        self._running = False

    def add(self, row: BatchRow) -> None:
        """A row has come."""
        self._waiting.append(row)

    def take(self, now: float) -> list[BatchRow]:
        """The batch to run now; empty where it is too early, or one runs. Call ``ended`` after."""
        due = self.due_at()
        if due is None or now < due:
            return []
        self._running = True
        count = min(self._max_batch, len(self._waiting))
        return [self._waiting.popleft() for _ in range(count)]

    def due_at(self) -> float | None:
        """When to call ``take``; None: not before something changes."""
        if self._running or not self._waiting:
            return None
        first = self._waiting[0].since
        return first if len(self._waiting) >= self._max_batch else first + self._max_delay

    def ended(self) -> None:
        """The batch that was taken is done."""
        self._running = False

    def withdraw(self, rows: list[BatchRow]) -> None:
        """Nobody waits for these rows any more; those that were not taken are not run."""
        for row in rows:
            if row in self._waiting:
                self._waiting.remove(row)
