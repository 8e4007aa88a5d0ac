"""A connection to SQLite whose statements fail when a test says so."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


class Failure(enum.Enum):
    """What SQLite leaves behind when a statement fails."""

    STATEMENT = enum.auto()
    """The statement alone had no effect; the transaction goes on."""
    TRANSACTION = enum.auto()
    """SQLite has undone the whole transaction itself, as it may on a full disk."""
    STUCK = enum.auto()
    """The transaction goes on, and the first attempt to undo it fails, too."""


class FailingConnection(sqlite3.Connection):
    """Fails once, at the statement of a number."""

    fail_at = -1
    failure = Failure.STATEMENT
    count = 0
    _stuck = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._before(sql)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self._before(sql)
        return super().executemany(sql, parameters)

    def _before(self, sql: str) -> None:
        if sql == "ROLLBACK" and self._stuck:
            self._stuck = False
            raise sqlite3.OperationalError("disk I/O error")
        self.count += 1
        if self.count != self.fail_at:
            return
        if self.failure is Failure.TRANSACTION and self.in_transaction:
            super().execute("ROLLBACK")
        self._stuck = self.failure is Failure.STUCK and self.in_transaction
        raise sqlite3.OperationalError("database or disk is full")


@contextmanager
def connections() -> Iterator[list[FailingConnection]]:
    """Lets stores that are opened inside have such connections, and lists those."""
    made: list[FailingConnection] = []
    connect = sqlite3.connect

    def connected(*arguments: Any, **options: Any) -> FailingConnection:
        made.append(connect(*arguments, factory=FailingConnection, **options))
        return made[-1]

    with mock.patch.object(sqlite3, "connect", connected):
        yield made
