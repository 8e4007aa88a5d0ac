"""One bound on the memory of all calls: bodies of requests, pictures, frames, files of archives."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

MAX_BYTES_IN_WORK = 1 << 30
"""Bytes that all calls and jobs of a server hold at the same time."""

MEMORY_WAIT_SECONDS = 20.0
"""How long work that needs memory waits for it."""


class BudgetFullError(Exception):
    """Other calls hold the memory that this one needs; it may be tried again."""


class Held:
    """Bytes of a budget. They are given back by ``release``, or with the object.

    Args:
        budget: Where they are from.
        size: How many they are.
    """

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self.size = size

    def release(self) -> None:
        """Gives the bytes back. Calling it again does nothing."""
        size, self.size = self.size, 0
        if size:
            self._budget.give_back(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    # A request whose call ended before it was served is only dropped.
    __del__ = release


class ByteBudget:
    """Hands out bytes, up to a total.

    Args:
        total: All that may be held at the same time.
    """

    def __init__(self, total: int = MAX_BYTES_IN_WORK) -> None:
        self.total = total
        self._free = total
        # Reentrant: an object that holds bytes may be dropped at any moment, here as well.
        self._changed = threading.Condition(threading.RLock())

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self._free

    def take(self, size: int, *, wait: float = MEMORY_WAIT_SECONDS) -> Held:
        """Takes bytes to unfold something, once they are free.

        Args:
            size: How many; more than the total counts as the total.
            wait: Longest time to wait, in seconds.

        Raises:
            BudgetFullError: They are not free in time.
        """
        return self._take(min(size, self.total), 0, wait)

    def take_for_body(self, size: int) -> Held:
        """Takes bytes for the body of a request, at once or never.

        Bodies have half of the budget, so that what they unfold to has the other half.

        Raises:
            BudgetFullError: They are not free.
        """
        return self._take(size, self.total // 2, 0.0)

    def _take(self, size: int, spare: int, wait: float) -> Held:
        end = time.monotonic() + wait
        with self._changed:
            while self._free - size < spare:
                left = end - time.monotonic()
                if left <= 0:
                    raise BudgetFullError(
                        f"the server has no {size} bytes of memory left for this; try again later"
                    )
                self._changed.wait(left)
            self._free -= size
        return Held(self, size)

    def give_back(self, size: int) -> None:
        """Frees bytes that were taken; ``Held.release`` does it."""
        with self._changed:
            self._free += size
            self._changed.notify_all()
