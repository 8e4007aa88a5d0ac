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
        # Entered again where the garbage collector drops the threads while one of them has it.
        self.lock = threading.RLock()
        self.work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.count = 0
        self.idle = 0
        self.closed = False


class CallThreads:
    """Threads that are started as needed. The end of the process does not wait for them.

    It waits for those of a ``ThreadPoolExecutor``: a process that is interrupted would go on
    until the deadlines of its calls.

    Args:
        most: Maximum number of threads; further work waits for one.
        name: Of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._shared = _Shared()

    def submit(self, function: Callable[[], ResultT]) -> Future[ResultT]:
        """Have a thread call ``function``, unless the result is cancelled before.

        Raises:
            RuntimeError: There is no thread, and none can be started.
            ValueError: The threads were closed (as a channel of gRPC says it).
        """
        future: Future[ResultT] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - raised to whoever asks for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        shared = self._shared
        with HeldInterrupt(), shared.lock:
            if shared.idle:
                shared.idle -= 1
            elif shared.count < self._most and not shared.closed:
                self._start()
            # Asked last: a signal's handler, too, may close the threads until here.
            if shared.closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
            shared.work.put(work)
        return future

    def _start(self) -> None:
        """Start a thread; with the lock."""
        shared = self._shared
        thread = threading.Thread(target=_run, args=(shared,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not shared.count:
                raise
        else:
            shared.count += 1

    def close(self) -> None:
        """Let the threads end once the work is done that they have been given."""
        shared = self._shared
        with shared.lock:
            shared.closed = True
            for _ in range(shared.count):
                shared.work.put(None)
            shared.count = 0

    def __del__(self) -> None:
        self.close()


def _run(shared: _Shared) -> None:
    while (work := shared.work.get()) is not None:
        work()
        del work  # it holds the result
        with shared.lock:
            shared.idle += 1
