"""Threads for calls that run in the background."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from clarigrpc._interrupts import HeldInterrupt

ResultT = TypeVar("ResultT")


class _Shared:
    """What the threads know, so that they do not keep alive who started them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.count = 0
        self.idle = 0


class CallThreads:
    """Threads that are started as needed. The end of the process does not wait for them.

    It waits for those of a ``ThreadPoolExecutor``: a process that is interrupted would go on
    until the deadlines of its calls.

    Args:
        most: Maximum number of threads; further work waits for one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._shared = _Shared()

    def submit(self, function: Callable[[], ResultT]) -> Future[ResultT]:
        """Have a thread call ``function``."""
        future: Future[ResultT] = Future()

        def work() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - raised to whoever asks for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        shared = self._shared
        with HeldInterrupt():
            shared.work.put(work)
            with shared.lock:
                if shared.idle:
                    shared.idle -= 1
                    return future
                if shared.count == self._most:
                    return future
                shared.count += 1
            threading.Thread(
                target=_run, args=(shared,), name="clarigrpc-rest-call", daemon=True
            ).start()
        return future

    def close(self) -> None:
        """Let the threads end once the work is done that they have been given."""
        for _ in range(self._shared.count):
            self._shared.work.put(None)

    def __del__(self) -> None:
        self.close()


def _run(shared: _Shared) -> None:
    while (work := shared.work.get()) is not None:
        work()
        del work  # it holds the result
        with shared.lock:
            shared.idle += 1
