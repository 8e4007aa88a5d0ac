"""A lock that a fork cannot leave locked."""

from __future__ import annotations

import os
import threading


class ForkLock:
    """A lock for each process: free in the child of a fork, whoever held it in the parent.

    The child of a fork has one thread, a copy of the one that forked. A plain lock that another
    thread held at that moment stays locked in it for ever.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def get(self) -> threading.Lock:
        """The lock of the running process."""
        # setdefault is atomic: threads of a child that come at once get the same lock.
        return self._locks.setdefault(os.getpid(), threading.Lock())
