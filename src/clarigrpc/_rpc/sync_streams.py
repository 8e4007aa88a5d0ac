"""Sync streams in both directions over ``core_streams``: one thread switch for a batch of messages.

A thread sends what the caller's iterable gives, as grpcio's does; it ends with the call, unless the
iterable never returns.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from grpc import aio

from clarigrpc._rpc.core_streams import (
    LOCALLY_CANCELLED,
    CoreStream,
    StartStream,
    StreamChange,
)
from clarigrpc._transports.sync_grpc_calls import GrpcCall
from clarigrpc._transports.transport import STATUS_CODES, Metadata

logger = logging.getLogger("clarigrpc")


def begin(
    start: StartStream, requests: Iterator[bytes], timeout: float, metadata: Metadata
) -> GrpcCall | None:
    """Start a stream; None: the core takes other arguments.

    Args:
        start: What starts it.
        requests: The serialized requests; read by a thread.
        timeout: Seconds.
        metadata: Of the call.
    """
    waits = _StreamWaits()
    core = start(None, timeout, metadata, waits.notify)
    if core is None:
        return None
    sender = threading.Thread(target=_send_all, args=(core, requests, waits.room), daemon=True)
    try:
        sender.start()
    except BaseException:  # no thread is left; the call would run until its deadline
        core.cancel()
        raise
    return GrpcCall(_BidiCall(core, waits, time.monotonic() + timeout))


def _send_all(core: CoreStream, requests: Iterator[bytes], room: queue.SimpleQueue[None]) -> None:
    for request in requests:
        if not core.send(request):
            while not core.has_room:
                room.get()
        if core.status is not None:
            return
    core.close_sending()


class EndCallbacks:
    """What to call at the end of a stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = []

    def add(self, callback: Callable[[], None]) -> bool:
        """Call it at the end; False when that has come."""
        with self._lock:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True

    def call(self) -> None:
        """The end has come."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks or [], None
        for callback in callbacks:
            try:
                callback()
            except Exception:  # what is left to do for the stream is done all the same
                logger.exception("a callback of a stream failed")


class _StreamWaits:
    """Where the threads of a stream wait. Apart from the call, which nobody else is to keep."""

    def __init__(self) -> None:
        self.received: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.changed = threading.Condition()
        self.callbacks = EndCallbacks()

    def notify(self, change: int) -> None:
        """Wake who waits for ``change``; called from gRPC's thread."""
        if change & StreamChange.RECEIVED:
            self.received.put(None)
        if change & StreamChange.ROOM:
            self.room.put(None)
        if change & ~(StreamChange.RECEIVED | StreamChange.ROOM):
            with self.changed:
                self.changed.notify_all()
            if change & StreamChange.ENDED:
                self.callbacks.call()


class CoreCall(ABC):
    """What can be asked of a stream as of a ``grpc.Call``.

    Args:
        deadline: By the monotonic clock.
        callbacks: Called by those who note the end.
    """

    def __init__(self, deadline: float, callbacks: EndCallbacks) -> None:
        self._deadline = deadline
        self._callbacks = callbacks
        self._cancelled = False

    @abstractmethod
    def _status(self) -> Any:
        """gRPC's operation with the status."""

    @abstractmethod
    def initial_metadata(self) -> Any:
        """What the server sent first; waits for it."""

    def _end(self) -> Exception:
        """What the iteration ends with."""
        if self.code() is grpc.StatusCode.OK:
            return StopIteration()
        return aio.AioRpcError(
            self.code(),
            aio.Metadata.from_tuple(self.initial_metadata() or ()),
            aio.Metadata.from_tuple(self.trailing_metadata() or ()),
            self.details(),
            self.debug_error_string(),
        )

    def time_remaining(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self._callbacks.add(callback)

    def trailing_metadata(self) -> Any:
        return self._status().trailing_metadata() or ()

    def _cut(self) -> bool:
        """Whether it ended well while it was cancelled: what had come was thrown away."""
        return STATUS_CODES.get(self._status().code()) is grpc.StatusCode.OK and self._cancelled

    def code(self) -> grpc.StatusCode:
        if self._cut():
            return grpc.StatusCode.CANCELLED
        return STATUS_CODES.get(self._status().code(), grpc.StatusCode.UNKNOWN)

    def details(self) -> str:
        return LOCALLY_CANCELLED if self._cut() else str(self._status().details())

    def debug_error_string(self) -> str:
        return str(self._status().error_string())


class _BidiCall(CoreCall):
    """A running stream: an iterator of messages, and what can be asked of a ``grpc.Call``."""

    def __init__(self, core: CoreStream, waits: _StreamWaits, deadline: float) -> None:
        super().__init__(deadline, waits.callbacks)
        self._core = core
        self._waits = waits
        self._ready: deque[bytes] = deque()

    def __del__(self) -> None:
        self._core.cancel()

    def received(self) -> bytes | None:
        """The next message, if it is here already."""
        ready = self._ready
        if not ready or self._cancelled:
            return None
        return ready.popleft()

    def __next__(self) -> bytes:
        core, ready = self._core, self._ready
        while not ready or self._cancelled:
            if self._cancelled or core.finished:
                raise self._end()
            if not core.await_message():
                self._waits.received.get()
            ready.extend(core.take())
        return ready.popleft()

    def cancel(self) -> bool:
        if self._core.status is not None:
            return False
        self._cancelled = True
        self._core.cancel()
        return True

    def is_active(self) -> bool:
        return self._core.status is None

    def _status(self) -> Any:
        core = self._core
        with self._waits.changed:
            self._waits.changed.wait_for(lambda: core.status is not None)
        return core.status

    def initial_metadata(self) -> Any:
        core = self._core
        with self._waits.changed:
            while core.initial_metadata is None and core.status is None:
                core.await_start()
                if core.initial_metadata is None and core.status is None:
                    self._waits.changed.wait()
        return core.initial_metadata or ()
