"""A lock that a fork cannot leave locked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any


class ForkLock:
    """A lock for each process: free in the child of a fork, whoever held it in the parent.

    The child of a fork has one thread, a copy of the one that forked. A plain lock that another
    thread held at that moment stays locked in it for ever.

    Args:
        make: Makes a lock. What finalizers or handlers of signals take has to be a
            ``threading.RLock``: Python may run them in the thread that holds it.
    """

    __slots__ = ("_locks", "_make")

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._locks: dict[int, threading.Lock] = {}
        self._make = make

    def get(self) -> threading.Lock:
        """The lock of the running process."""
        # setdefault is atomic: threads of a child that come at once get the same lock.
        return self._locks.setdefault(os.getpid(), self._make())
