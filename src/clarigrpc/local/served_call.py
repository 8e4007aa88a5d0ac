"""The call that a front hands to the service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_WAITING = 16


class WaitingShare:
    """How many calls of a front may wait in its workers for what only other calls bring.

    It leaves workers to those: it is a quarter of all, and at most MAX_WAITING.

    Args:
        workers: Calls that the front serves at the same time. None sets no limit.
    """

    def __init__(self, workers: int | None) -> None:
        self.workers = workers
        self.most: int = MAX_WAITING if workers is None else min(MAX_WAITING, workers // 4)
        self._free = None if workers is None else threading.BoundedSemaphore(self.most)

    def take(self) -> bool:
        """Takes a worker, to be given back; False where none is left."""
        return self._free is None or self._free.acquire(blocking=False)

    def give_back(self) -> None:
        """Ends the wait of a call."""
        if self._free is not None:
            self._free.release()


@dataclass(frozen=True, slots=True)
class ServedCall:
    """What a handler may know of the call it serves.

    Attributes:
        method: Name of the method, ``PostInputs`` say.
        metadata: Request metadata with lower-case keys.
        is_active: False once the client has gone.
        remaining: Seconds left until the client's deadline, None without one.
        trailing: Filled by the service: what to send after the response (gRPC trailing
            metadata, HTTP headers), such as ``retry-after`` in seconds.
        waiting: How many calls may wait in the workers of its front.
    """

    method: str
    metadata: Mapping[str, str]
    is_active: Callable[[], bool]
    remaining: Callable[[], float | None]
    trailing: dict[str, str] = field(default_factory=dict)
    waiting: WaitingShare = field(default_factory=lambda: WaitingShare(None))


def close_iterator(iterator: Iterator[Any]) -> None:
    """Ends a generator before its end; other iterators need no closing."""
    if isinstance(iterator, Generator):
        iterator.close()
