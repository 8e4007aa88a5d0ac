"""Work that goes on after its call was answered.

What is to be done stands in the store, as resources with the status that waits for it, so a
restart goes on where the last process stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from clarigrpc.local.engine.context import State
from clarigrpc.local.service_errors import StatusCodeValue
from clarigrpc.local.store.resource_store import Row, StoredCollection, StoreError

BackgroundTask = Callable[[State, StoredCollection, Row], None]
"""Takes a resource on; afterwards its status is another one."""

_AHEAD = 16  # more than the threads of a kind

DATABASE_PAUSE_SECONDS = 1.0
"""Time between two tries of work while the database fails, for example on a full disk."""

_logger = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """What waits for work: resources of a kind with a status."""

    kind: str
    status: StatusCodeValue


class BackgroundWorker:
    """Threads that do the work: of each kind some, so that one kind does not hold up another.

    Args:
        work: What to do for what.
        threads: How many threads a kind has where it is more than one: resources of the kind
            are then taken on at the same time.
    """

    def __init__(
        self, work: Mapping[Waiting, BackgroundTask], threads: Mapping[str, int] | None = None
    ) -> None:
        self._lanes = [
            _Lane({w: task for w, task in work.items() if w.kind == kind})
            for kind in dict.fromkeys(waiting.kind for waiting in work)
        ]
        self._threads_of = threads or {}
        self._closing = False
        self._threads: list[threading.Thread] = []

    def start(self, state: State) -> None:
        """Starts the threads."""
        for lane in self._lanes:
            for number in range(self._threads_of.get(lane.kind, 1)):
                thread = threading.Thread(
                    target=self._run,
                    args=(state, lane),
                    name=f"clarigrpc-local-{lane.kind}-{number}",
                    daemon=True,
                )
                self._threads.append(thread)
                thread.start()

    def wake(self) -> None:
        """Says that there is something to do."""
        for lane in self._lanes:
            lane.wake()

    @property
    def closing(self) -> bool:
        """Whether work that can go on after a restart is to stop."""
        return self._closing

    def close(self) -> None:
        """Stops after what is in work."""
        self._closing = True
        self.wake()
        for thread in self._threads:
            thread.join()

    def _run(self, state: State, lane: _Lane) -> None:
        pause: float | None = None
        news = 0
        while not self._closing:
            try:
                while not self._closing and lane.do_one(state):
                    pass
                pause = None
            except StoreError as error:
                if pause is None:
                    _logger.warning("background work is tried again: %s", error)
                pause = DATABASE_PAUSE_SECONDS
            if not self._closing:
                news = lane.wait(news, pause)


class _Lane:
    """What waits of one kind, and what the threads have taken on of it."""

    def __init__(self, work: Mapping[Waiting, BackgroundTask]) -> None:
        self.kind: str = next(iter(work)).kind
        self._work = work
        self._condition = threading.Condition()
        self._news = 0
        self._taken: set[int] = set()
        self._failed: set[int] = set()

    def wake(self) -> None:
        with self._condition:
            self._news += 1
            self._condition.notify_all()

    def wait(self, seen: int, seconds: float | None) -> int:
        """Waits for news beyond those that a thread has seen; returns what it has seen then."""
        with self._condition:
            self._condition.wait_for(lambda: self._news != seen, seconds)
            return self._news

    def do_one(self, state: State) -> bool:
        """Takes on one resource; False where none waits."""
        for waiting, work in self._work.items():
            with self._condition:
                # Others may have these in hand.
                limit = len(self._taken) + len(self._failed) + _AHEAD
            for where, seq, resource_id in state.store.waiting(waiting.kind, waiting.status, limit):
                with self._condition:
                    if seq in self._taken or seq in self._failed:
                        continue
                    self._taken.add(seq)
                try:
                    row = state.store.by_seq(seq)
                    if row is not None and row.status == waiting.status:  # nobody was faster
                        work(state, where, row)
                except StoreError:
                    raise
                except Exception:
                    # The thread must outlive one bad resource, which is left as it is.
                    _logger.exception("background work on %s %r failed", where.kind, resource_id)
                    with self._condition:
                        self._failed.add(seq)
                finally:
                    with self._condition:
                        self._taken.discard(seq)
                return True
        return False
