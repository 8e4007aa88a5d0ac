"""Streams straight on gRPC's core, received and sent in batches.

grpcio wakes the one who waits for each message that is received or sent: a switch of threads (sync)
or a future, a task step and a byte through a socket (``grpc.aio``). Here gRPC's own thread, which
serves all streams of a channel, asks the core for the next message itself and puts those that come
before somebody looks into one list: whoever waits is woken once for all of them. Memory is bounded:
no further message is asked for while ``INBOX_MESSAGES`` or ``INBOX_BYTES`` wait to be taken.

Wherever grpcio's internals are not as expected, there is the multicallable (``grpcio_internals``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

from clarigrpc._rpc import grpcio_internals
from clarigrpc._transports.transport import Metadata

INBOX_MESSAGES = 64
"""Messages of a stream that may wait to be taken."""

INBOX_BYTES = 1 << 20
"""Bytes of them, beyond which a single message may go."""

OUTBOX_BYTES = 64 << 10
"""Bytes of requests that may wait to be sent, after which a writer has to wait."""

STREAM_USER = "streams in batches"

OPERATIONS = (
    "PropagationConstants.GRPC_PROPAGATE_DEFAULTS",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendCloseFromClientOperation",
    "ReceiveInitialMetadataOperation",
    "ReceiveInitialMetadataOperation.initial_metadata",
    "ReceiveMessageOperation",
    "ReceiveMessageOperation.message",
    "ReceiveStatusOnClientOperation",
    "ReceiveStatusOnClientOperation.code",
    "ReceiveStatusOnClientOperation.details",
    "ReceiveStatusOnClientOperation.error_string",
    "ReceiveStatusOnClientOperation.trailing_metadata",
    "StatusCode.cancelled",
    "WriteFlag.buffer_hint",
    "BatchOperationEvent.batch_operations",
    "get_deadline_from_context",
    "get_fork_epoch",
)
"""Of gRPC's core, for any stream."""

STREAM_INTERNALS: grpcio_internals.Names = {
    "grpc._channel": ("_StreamStreamMultiCallable",),
    "grpc._cython.cygrpc": (
        *OPERATIONS,
        "IntegratedCall.operate",
        "IntegratedCall.cancel",
    ),
}
STREAM_ATTRIBUTES = ("_managed_call", "_method", "_context", "_registered_call_handle")
"""Of a multicallable."""

LOCALLY_CANCELLED = "Locally cancelled by application!"
"""The text of calls that were cancelled on this side."""


class StreamChange:
    """What happened to a stream that somebody waits for, as flags."""

    STARTED = 1
    """The call has a connection, or metadata came."""
    RECEIVED = 2
    """There is something to take, or nothing comes any more."""
    ROOM = 4
    """There is room to send."""
    ENDED = 8
    """The call has ended, whether or not somebody waits for that."""
    ALL = STARTED | RECEIVED | ROOM | ENDED


Notify: TypeAlias = Callable[[int], None]
"""Is told a ``StreamChange``."""

StartStream: TypeAlias = Callable[[bytes | None, float, Metadata, Notify], "CoreStream | None"]
"""(request or None for those that are sent later, timeout, metadata, notify) -> the stream; None:
the core takes other arguments."""


def try_out(core: dict[str, Any]) -> None:
    """Do what can be done without a call; raises when something is not as expected."""
    core["SendInitialMetadataOperation"]((), 0)
    core["SendMessageOperation"](b"", core["WriteFlag.buffer_hint"])
    core["SendCloseFromClientOperation"](0)
    core["ReceiveInitialMetadataOperation"](0)
    core["ReceiveMessageOperation"](0)
    core["ReceiveStatusOnClientOperation"](0)
    for name in ("get_fork_epoch", "get_deadline_from_context"):
        if not isinstance(found := core[name](), float | int | None):
            raise TypeError(f"{name}() is {found!r}")


@cache
def _core() -> dict[str, Any] | None:
    return tried_out(grpcio_internals.load(STREAM_INTERNALS))


def tried_out(internals: grpcio_internals.Internals) -> dict[str, Any] | None:
    """The objects of ``STREAM_INTERNALS``; None where they are not as expected."""
    return grpcio_internals.tried_out(STREAM_USER, internals, try_out)


def direct_stream(multicallable: Any) -> StartStream | None:
    """A function that starts streams; None: take the multicallable.

    Args:
        multicallable: Of a sync channel of grpcio, for requests and responses as streams. It is
            also for methods that take one request: the bytes on the wire are the same.
    """
    parts = grpcio_internals.parts_of(
        STREAM_USER, multicallable, _core, "_StreamStreamMultiCallable", STREAM_ATTRIBUTES
    )
    if parts is None:
        return None
    core, (start, method, context, handle) = parts
    propagate = core["PropagationConstants.GRPC_PROPAGATE_DEFAULTS"]
    of_server = core["get_deadline_from_context"]

    def start_stream(
        request: bytes | None, timeout: float, metadata: Metadata, notify: Notify
    ) -> CoreStream | None:
        deadline = grpcio_internals.deadline_of(timeout, of_server())

        def begin(operations: Sequence[Sequence[Any]], on_event: Callable[[Any], bool]) -> Any:
            arguments = (propagate, method, None, deadline, metadata, None)
            return start(*arguments, operations, on_event, context, handle)

        try:
            return CoreStream(core, begin, request, metadata, notify)
        except (AttributeError, TypeError) as error:  # nothing has been sent
            grpcio_internals.log_public_way(STREAM_USER, str(error))
            return None

    return start_stream


class CoreStream:
    """A running stream. Any thread may use it.

    Args:
        core: The objects of ``STREAM_INTERNALS``.
        begin: Starts the call with operations; their events go to the function given.
        request: The only request, or None for ``send`` and ``close_sending``.
        metadata: Of the call.
        notify: Is told what happens, from gRPC's thread: once each time that somebody waits for
            it, and the end of the call.

    Attributes:
        connected: Whether the call has a connection.
        initial_metadata: What the server sent first; None before.
        status: gRPC's operation with the status; None before the call has ended.
    """

    def __init__(
        self,
        core: dict[str, Any],
        begin: Callable[[Sequence[Sequence[Any]], Callable[[Any], bool]], Any],
        request: bytes | None,
        metadata: Metadata,
        notify: Notify,
    ) -> None:
        # Entered again where a signal's handler cancels the call that its thread is busy with.
        self._lock = threading.RLock()
        self._notify = notify
        self._epoch = core["get_fork_epoch"]
        self._began = self._epoch()
        self._cancelled = core["StatusCode.cancelled"]
        self._send_message = core["SendMessageOperation"]
        self._send_close = core["SendCloseFromClientOperation"]
        self._buffer_hint = core["WriteFlag.buffer_hint"]
        self._receive_message = core["ReceiveMessageOperation"]
        self._receive_metadata = core["ReceiveInitialMetadataOperation"]
        self._receive_status = core["ReceiveStatusOnClientOperation"]
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        self._receiving = True
        self._exhausted = False
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._sending = False
        self._closing, self._closed = False, request is not None
        self._awaited = 0
        self.connected = False
        self.initial_metadata: Any = None
        self.status: Any = None
        sent = [core["SendInitialMetadataOperation"](metadata, 0)]
        if request is not None:
            sent += [self._send_message(request, 0), self._send_close(0)]
        self._start_of = type(sent[0])
        operations = (
            sent,
            (self._receive_metadata(0),),
            (self._receive_status(0),),
            (self._receive_message(0),),
        )
        self._due = len(operations)
        with self._lock:  # events may come before the call is known
            self._call = begin(operations, self._on_event)

    # On gRPC's thread.

    def _on_event(self, event: Any) -> bool:
        """Take an event; returns whether it is the last one."""
        with self._lock:
            self._due -= 1
            told = 0
            for operation in event.batch_operations:
                if type(operation) is self._receive_message:
                    told |= self._arrived(operation.message())
                else:
                    told |= self._settle(operation)
            last = not self._due
        if told:
            self._notify(told)
        return last and self._began >= self._epoch()

    def _arrived(self, message: bytes | None) -> int:
        """Keep a message, or note the end of them; returns what those who wait are to be told."""
        self._receiving = False
        if message is None:
            self._exhausted = True
        else:
            self._inbox.append(message)
            self._inbox_bytes += len(message)
            self._receive()
        told = self._awaited & StreamChange.RECEIVED
        self._awaited ^= told
        return told

    def _settle(self, operation: Any) -> int:
        """Note what another operation came to; returns what those who wait are to be told."""
        kind = type(operation)
        if kind is self._send_message and self._sending:
            self._sending = False
            self._send_next()
            return self._was_awaited(StreamChange.ROOM) if self._has_room() else 0
        if kind is self._start_of:
            self.connected = True
        elif kind is self._receive_metadata:
            self.initial_metadata = operation.initial_metadata()
        elif kind is self._receive_status:
            self.status = operation
            self._outbox.clear()
            self._outbox_bytes = 0
            self._awaited = 0
            return StreamChange.ALL
        else:
            return 0
        return self._was_awaited(StreamChange.STARTED)

    def _was_awaited(self, change: int) -> int:
        awaited = self._awaited & change
        self._awaited &= ~change
        return awaited

    # With the lock.

    def _operate(self, operation: Any) -> bool:
        started: bool = self._call.operate((operation,), self._on_event)
        self._due += started
        return started

    def _receive(self) -> None:
        """Ask for the next message, if none is asked for and there is room for one."""
        if self._exhausted:
            return
        if len(self._inbox) < INBOX_MESSAGES and self._inbox_bytes < INBOX_BYTES:
            self._receiving = self._call.operate((self._receive_message(0),), self._on_event)
            self._due += self._receiving
            self._exhausted = not self._receiving  # the call is over, and all was received

    def _send_next(self) -> None:
        if self._sending or self.status is not None:
            return
        if self._outbox:
            request = self._outbox.popleft()
            self._outbox_bytes -= len(request)
            # The core may keep a request back if the next one follows at once.
            flags = self._buffer_hint if self._outbox else 0
            self._sending = self._operate(self._send_message(request, flags))
        elif self._closing and not self._closed:
            self._closed = True
            self._operate(self._send_close(0))

    def _has_room(self) -> bool:
        return not self._outbox or self._outbox_bytes < OUTBOX_BYTES

    # For those who read and write.

    def take(self) -> list[bytes]:
        """The messages that have come."""
        with self._lock:
            taken, self._inbox, self._inbox_bytes = self._inbox, [], 0
            if not self._receiving:
                self._receive()
        return taken

    def await_message(self) -> bool:
        """Whether there is something to take or nothing comes any more; else ``notify`` tells."""
        with self._lock:
            if self._inbox:
                return True
            if not self._receiving:
                self._receive()
            self._awaited |= StreamChange.RECEIVED
            return self._exhausted and self.status is not None

    def await_start(self) -> None:
        """Have ``notify`` told of the connection, and of metadata."""
        with self._lock:
            self._awaited |= StreamChange.STARTED

    def _finished(self) -> bool:
        return self._exhausted and self.status is not None

    @property
    def finished(self) -> bool:
        """Whether the call has ended and all its messages were taken."""
        with self._lock:
            return self._finished() and not self._inbox

    def send(self, request: bytes) -> bool:
        """Send a request, after those before it; returns whether there is room for another.

        If not, ``notify`` tells when there is. Nothing is sent on a call that has ended.
        """
        with self._lock:
            if self.status is not None:
                return True
            self._outbox.append(request)
            self._outbox_bytes += len(request)
            self._send_next()
            room = self._has_room()
            if not room:
                self._awaited |= StreamChange.ROOM
            return room

    @property
    def has_room(self) -> bool:
        """Whether a writer need not wait: there is room, or the call has ended."""
        with self._lock:
            return self.status is not None or self._has_room()

    def close_sending(self) -> None:
        """Say that no further request comes."""
        with self._lock:
            if not self._closed:
                self._closing = True
                self._send_next()

    def cancel(self) -> None:
        """Cancel the call.

        Takes no lock, as finalizers come here: Python may run one inside gRPC's own lock, for which
        another thread waits that has the lock of this stream.
        """
        if self.status is None:
            self._call.cancel(self._cancelled, LOCALLY_CANCELLED)
