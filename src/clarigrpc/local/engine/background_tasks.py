"""Work that goes on after its call was answered.

What is to be done stands in the store, as resources with the status that waits for it, so a
restart goes on where the last process stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from clarigrpc.local.engine.context import State
from clarigrpc.local.service_errors import StatusCodeValue
from clarigrpc.local.store.resource_store import Row, StoredCollection, StoreError

BackgroundTask = Callable[[State, StoredCollection, Row], None]
"""Takes a resource on; afterwards its status is another one."""

_TASKS_PER_ROUND = 16
DATABASE_PAUSE_SECONDS = 1.0
"""Time between two tries of work while the database fails, for example on a full disk."""

_logger = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """What waits for work: resources of a kind with a status."""

    kind: str
    status: StatusCodeValue


class BackgroundWorker:
    """One thread that does the work.

    Args:
        work: What to do for what.
    """

    def __init__(self, work: Mapping[Waiting, BackgroundTask]) -> None:
        self._work = work
        self._news = threading.Event()
        self._news.set()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self, state: State) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(
            target=self._run, args=(state,), name="clarigrpc-local-background", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something to do."""
        self._news.set()

    @property
    def closing(self) -> bool:
        """Whether work that can go on after a restart is to stop."""
        return self._closing

    def close(self) -> None:
        """Stops after what is in work."""
        self._closing = True
        self._news.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, state: State) -> None:
        failed: set[Any] = set()
        pause: float | None = None
        while not self._closing:
            self._news.wait(pause)
            self._news.clear()
            try:
                while not self._closing and self._round(state, failed):
                    pass
                pause = None
            except StoreError as error:
                if pause is None:
                    _logger.warning("background work is tried again: %s", error)
                pause = DATABASE_PAUSE_SECONDS

    def _round(self, state: State, failed: set[Any]) -> bool:
        """Does what waits; False where nothing did."""
        done = False
        for waiting, work in self._work.items():
            for where, row in state.store.waiting(waiting.kind, waiting.status, _TASKS_PER_ROUND):
                if self._closing or row.seq in failed:
                    continue
                try:
                    work(state, where, row)
                except StoreError:
                    raise
                except Exception:
                    # The thread must outlive one bad resource, which is left as it is.
                    _logger.exception("background work on %s %r failed", where.kind, row.id)
                    failed.add(row.seq)
                done = True
        return done
