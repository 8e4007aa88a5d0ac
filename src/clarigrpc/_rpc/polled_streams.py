"""Sync streams of responses to one request, straight on gRPC's core, on the caller's thread.

grpcio's own (``SingleThreadedUnaryStream``) handles each message in a state with a condition that
others could watch, and nobody does. ``PolledStream`` takes the same events without it, which is
half of the client's CPU. One message is asked for ahead, so that it comes while the one before is
used.

Wherever grpcio's internals are not as expected, there is the multicallable (``grpcio_internals``).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._rpc import grpcio_internals
from clarigrpc._rpc.core_streams import LOCALLY_CANCELLED, OPERATIONS, try_out
from clarigrpc._rpc.sync_streams import CoreCall, EndCallbacks
from clarigrpc._transports.sync_grpc_calls import GrpcCall
from clarigrpc._transports.transport import Metadata

POLLED_USER = "streams on the caller's thread"

POLLED_INTERNALS: grpcio_internals.Names = {
    "grpc._channel": ("_SingleThreadedUnaryStreamMultiCallable",),
    "grpc._cython.cygrpc": (
        *OPERATIONS,
        "SegregatedCall.operate",
        "SegregatedCall.next_event",
        "SegregatedCall.cancel",
    ),
}
POLLED_ATTRIBUTES = ("_channel.segregated_call", "_method", "_context", "_registered_call_handle")
"""Of a multicallable."""

StartPolled: TypeAlias = Callable[[bytes, float, Metadata], "GrpcCall | None"]
"""(request, timeout, metadata) -> the call; None: the core takes other arguments."""


@cache
def _core() -> dict[str, Any] | None:
    return tried_out(grpcio_internals.load(POLLED_INTERNALS))


def tried_out(internals: grpcio_internals.Internals) -> dict[str, Any] | None:
    """The objects of ``POLLED_INTERNALS``; None where they are not as expected."""
    return grpcio_internals.tried_out(POLLED_USER, internals, try_out)


def polled(multicallable: Any) -> StartPolled | None:
    """A function that starts the calls of a multicallable; None: take the multicallable."""
    parts = grpcio_internals.parts_of(
        POLLED_USER,
        multicallable,
        _core,
        "_SingleThreadedUnaryStreamMultiCallable",
        POLLED_ATTRIBUTES,
    )
    if parts is None:
        return None
    core, (start, method, context, handle) = parts
    propagate = core["PropagationConstants.GRPC_PROPAGATE_DEFAULTS"]
    of_server = core["get_deadline_from_context"]

    def start_polled(request: bytes, timeout: float, metadata: Metadata) -> GrpcCall | None:
        deadline = grpcio_internals.deadline_of(timeout, of_server())
        arguments = (propagate, method, None, deadline, None, None)

        def begin(operations: Sequence[Sequence[Any]]) -> Any:
            return start(*arguments, [(each, None) for each in operations], context, handle)

        try:
            real = PolledStream(core, begin, request, metadata, time.monotonic() + timeout)
        except (AttributeError, TypeError) as error:  # nothing has been sent
            grpcio_internals.log_public_way(POLLED_USER, str(error))
            return None
        return GrpcCall(real)

    return start_polled


class PolledStream(CoreCall):
    """A running stream: an iterator of messages, and what can be asked of a ``grpc.Call``.

    Its events are taken by the threads that ask for something, one at a time.

    Args:
        core: The objects of ``POLLED_INTERNALS``.
        begin: Starts the call with operations.
        request: The request.
        metadata: Of the call.
        deadline: By the monotonic clock.
    """

    def __init__(
        self,
        core: dict[str, Any],
        begin: Callable[[Sequence[Sequence[Any]]], Any],
        request: bytes,
        metadata: Metadata,
        deadline: float,
    ) -> None:
        super().__init__(deadline, EndCallbacks())
        self._cancelled_code = core["StatusCode.cancelled"]
        self._receive_message = core["ReceiveMessageOperation"]
        self._receive_metadata = core["ReceiveInitialMetadataOperation"]
        self._receive_status = core["ReceiveStatusOnClientOperation"]
        # Held while an event is waited for.
        self._polling = threading.Lock()
        self._messages: deque[bytes] = deque()
        self._exhausted = False
        self._metadata: Any = None
        self._ended: Any = None
        operations = (
            (
                core["SendInitialMetadataOperation"](metadata, 0),
                core["SendMessageOperation"](request, 0),
                core["SendCloseFromClientOperation"](0),
            ),
            (self._receive_metadata(0),),
            (self._receive_status(0),),
            (self._receive_message(0),),
        )
        self._call = begin(operations)
        self._due = len(operations)

    def __del__(self) -> None:
        if getattr(self, "_due", 0) and self._ended is None:
            self._call.cancel(self._cancelled_code, LOCALLY_CANCELLED)

    # With ``_polling``.

    def _poll(self) -> None:
        """Wait for an event, and note what it says."""
        event = self._call.next_event()
        self._due -= 1
        for operation in event.batch_operations:
            kind = type(operation)
            if kind is self._receive_message:
                message = operation.message()
                if message is None:
                    self._exhausted = True
                else:
                    self._messages.append(message)
                    asked = self._call.operate((self._receive_message(0),), None)
                    self._due += asked
                    self._exhausted = not asked  # the call is over, and all was received
            elif kind is self._receive_metadata:
                self._metadata = operation.initial_metadata()
            elif kind is self._receive_status:
                self._ended = operation
                self._callbacks.call()

    # For those who read.

    def read(self) -> bytes:
        """The next message; what ``__next__`` of a ``GrpcCall`` would return or raise."""
        with HeldInterrupt(self.cancel), self._polling:
            while not self._cancelled:
                if self._messages:
                    return self._messages.popleft()
                if self._exhausted and self._ended is not None:
                    break
                self._poll()
            while self._ended is None:
                self._poll()
        raise self._end()

    __next__ = read

    def drain(self) -> None:
        """Take the last events of a call that is over, with which gRPC frees it.

        A thread that is reading does so itself.
        """
        if not self._polling.acquire(blocking=False):
            return
        try:
            while self._due:
                self._poll()
                self._messages.clear()
        finally:
            self._polling.release()

    def cancel(self) -> bool:
        # Without the lock: a thread that waits for an event has it.
        if self._ended is not None:
            return False
        self._cancelled = True
        self._call.cancel(self._cancelled_code, LOCALLY_CANCELLED)
        return True

    def is_active(self) -> bool:
        return self._ended is None and not self._cancelled

    def initial_metadata(self) -> Any:
        if self._metadata is None:
            with self._polling:
                while self._metadata is None and self._ended is None:
                    self._poll()
        return self._metadata or ()

    def _status(self) -> Any:
        if self._ended is None and self._cancelled:
            with self._polling:
                while self._ended is None:
                    self._poll()
        if self._ended is None:
            from grpc.experimental import UsageError  # takes time to import

            raise UsageError("not before the end of the stream: read it")
        return self._ended
