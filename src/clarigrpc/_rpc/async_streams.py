"""Async streams over ``core_streams``: the event loop is woken once for a batch of messages.

``grpc.aio`` wakes it for each message. For calls with further options, and where grpcio's
internals are not as expected, there is the multicallable of ``grpc.aio``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import grpc
from grpc import aio

from clarigrpc._rpc.core_streams import LOCALLY_CANCELLED, CoreStream, StartStream, direct_stream
from clarigrpc._transports.transport import STATUS_CODES, AsyncTransport, Metadata, note_transport

StartAsyncStream: TypeAlias = Callable[[Any, float, Metadata], "DirectStream | None"]
"""(request, iterator of requests, or None for ``write``; timeout; metadata) -> the stream; None:
the core takes other arguments."""

_FINISHED = "RPC already finished."
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'


class RunningStreams:
    """The streams of a client on its event loop, which one callback serves.

    However many streams something happened to, the loop is woken once.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams: weakref.WeakSet[DirectStream] = weakref.WeakSet()
        self._changed: deque[weakref.ref[DirectStream]] = deque()
        self._woken = False

    def add(self, stream: DirectStream) -> None:
        """Keep a stream in mind for ``close``."""
        self._streams.add(stream)

    def changed(self, stream: weakref.ref[DirectStream], _: int) -> None:
        """Something has happened to a stream; called from gRPC's thread."""
        self._changed.append(stream)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop was closed before the call ended
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # before the first is taken: what comes now wakes the loop again
        for _ in range(len(self._changed)):
            if (stream := self._changed.popleft()()) is not None:
                stream.deliver()

    async def close(self, grace: float | None) -> None:
        """Let streams end for ``grace`` seconds and cancel the rest."""
        streams = [stream for stream in self._streams if not stream.done()]
        if streams and grace:
            ends = [asyncio.ensure_future(stream.code()) for stream in streams]
            _, rest = await asyncio.wait(ends, timeout=grace)
            for one in rest:
                one.cancel()
        for stream in streams:
            stream.cancel()


async def write_all(call: Any, requests: Iterable[Any]) -> None:
    """Write requests to a call: together, or one after another where it can do no more."""
    together = getattr(call, "write_all", None)
    if together is not None:
        await together(requests)
        return
    for request in requests:
        await call.write(request)


def direct(
    transport: AsyncTransport, path: str, running: RunningStreams
) -> StartAsyncStream | None:
    """A function that starts the streams of a method; None: take the multicallable.

    Args:
        transport: That of the client.
        path: Path of the method.
        running: Where the streams are entered.
    """
    threaded = transport.for_streams()
    start = (
        None if threaded is None else direct_stream(threaded.multicallable("stream_stream", path))
    )
    if start is None:
        return None
    found, used = start, threaded

    def begin(requests: Any, timeout: float, metadata: Metadata) -> DirectStream | None:
        stream = DirectStream(requests, timeout)
        if not stream.start(found, timeout, metadata, running):
            return None
        note_transport(stream, used)
        running.add(stream)
        return stream

    return begin


class DirectStream:
    """A running stream. Its methods do what those of ``grpc.aio.StreamStreamCall`` do.

    Args:
        requests: A serialized request, an asynchronous iterator of them, or None for ``write``.
        timeout: Seconds.
    """

    _core: CoreStream

    def __init__(self, requests: Any, timeout: float) -> None:
        self._requests = requests
        self._deadline = time.monotonic() + timeout
        self._loop = asyncio.get_running_loop()
        self._ready: deque[bytes] = deque()
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[Any], None]] | None = []
        self._sender: asyncio.Task[None] | None = None
        self._half_closed = False
        self._locally_cancelled = False

    def start(
        self, begin: StartStream, timeout: float, metadata: Metadata, running: RunningStreams
    ) -> bool:
        """Start the call; False where the core takes other arguments."""
        requests, self._requests = self._requests, None
        one = requests if isinstance(requests, bytes) else None
        core = begin(one, timeout, metadata, partial(running.changed, weakref.ref(self)))
        if core is None:
            return False
        self._core = core
        if one is not None:
            self._half_closed = True
        elif requests is not None:
            self._sender = self._loop.create_task(self._send_all(requests))
        return True

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None:
            core.cancel()

    # Reading.

    def received(self) -> bytes | None:
        """The next message, if it is here already."""
        return self._ready.popleft() if self._ready else None

    def arrival(self) -> asyncio.Future[None] | None:
        """What to wait for before ``received`` or ``read``; None if ``read`` does not wait."""
        if self._ready or self._locally_cancelled:
            return None
        if self._core.await_message():
            if self._core.finished:
                return None
            # By way of the loop: other tasks have a turn, however fast the server sends.
            self._loop.call_soon(self.deliver)
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter

    async def read(self) -> Any:
        """The next message, or ``grpc.aio.EOF``."""
        while not self._ready:
            if self._locally_cancelled:
                raise asyncio.CancelledError
            if (waiter := self.arrival()) is None:
                self._raise_for_status()
                return aio.EOF
            try:
                await waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._ready.popleft()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is aio.EOF:
            raise StopAsyncIteration
        return message

    async def _change(self) -> None:
        """Wait until something has happened."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def _change_or_cancel(self) -> None:
        """The same; who gives up waiting to read or to write gives up the call."""
        try:
            await self._change()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def deliver(self) -> None:
        """Something has happened."""
        if not self._ready and not self._locally_cancelled:  # else more would pile up here
            self._ready.extend(self._core.take())
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._core.status is not None:
            self._end()

    def _end(self) -> None:
        self._stop_sending()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            self._loop.call_soon(callback, self)

    # Writing.

    async def write(self, request: bytes) -> None:
        """Send a request; returns when there is room for the next one."""
        await self.write_all((request,))

    async def write_all(self, requests: Iterable[bytes]) -> None:
        """Send requests, which wait for their turn together; returns when there is room again."""
        core = self._core
        if not core.connected:
            await self._start(lambda: core.connected)
        if self._locally_cancelled:
            raise asyncio.InvalidStateError(_FINISHED)
        if core.status is not None:
            self._raise_for_status()
            raise asyncio.InvalidStateError(_FINISHED)
        if self._half_closed:
            raise asyncio.InvalidStateError(_HALF_CLOSED)
        room = True
        for request in requests:
            room = core.send(request)
        if not room:
            while not (core.has_room or self._locally_cancelled):
                await self._change_or_cancel()

    async def done_writing(self) -> None:
        """Say that no further request comes."""
        self._half_closed = True
        self._core.close_sending()

    async def _send_all(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for request in requests:
                if not await self._was_written(request):
                    return
            await self.done_writing()
        except asyncio.CancelledError:  # of the iterable, or of this task: the call may go on
            self.cancel()
            raise
        except Exception:  # noqa: BLE001 - the iterable keeps it, and the reader raises it
            self.cancel()

    async def _was_written(self, request: bytes) -> bool:
        """Send a request; False where the call has ended, as whoever reads is told."""
        # Apart from the iterable, which may fail with the same errors: those of another call.
        try:
            await self.write_all((request,))
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    # The call.

    def cancel(self) -> bool:
        """Cancel the call; whether it was still running."""
        if self.done():
            return False
        self._locally_cancelled = True
        self._ready.clear()
        self._core.cancel()
        self._loop.call_soon(self.deliver)
        self._stop_sending()
        return True

    def _stop_sending(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None and sender is not asyncio.current_task(self._loop):
            sender.cancel()

    def cancelled(self) -> bool:
        """Whether the call was cancelled, here or by the server."""
        if self._locally_cancelled:
            return True
        return self._core.status is not None and self._code() is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._locally_cancelled or self._core.status is not None

    def time_remaining(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._deadline - time.monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called with this object when the call ends."""
        if self._callbacks is None:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> aio.Metadata:
        """Metadata that the server sent first."""
        core = self._core
        await self._start(lambda: core.initial_metadata is not None)
        return aio.Metadata.from_tuple(core.initial_metadata or ())

    async def _start(self, reached: Callable[[], bool]) -> None:
        while not self.done():
            self._core.await_start()
            if reached():  # asked last: what comes after it is told
                return
            await self._change()

    async def _ended(self) -> None:
        while not self.done():
            await self._change()

    async def trailing_metadata(self) -> aio.Metadata:
        """Metadata that the server sent with the status."""
        await self._ended()
        return self._trailing()

    async def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        await self._ended()
        return self._code()

    async def details(self) -> str:
        """The gRPC status text."""
        await self._ended()
        return self._details()

    async def wait_for_connection(self) -> None:
        """Return when the call has a connection."""
        core = self._core
        await self._start(lambda: core.connected)
        if self.done():
            self._raise_for_status()

    def _code(self) -> grpc.StatusCode:
        if self._locally_cancelled:
            return grpc.StatusCode.CANCELLED
        return STATUS_CODES.get(self._core.status.code(), grpc.StatusCode.UNKNOWN)

    def _details(self) -> str:
        return LOCALLY_CANCELLED if self._locally_cancelled else str(self._core.status.details())

    def _trailing(self) -> aio.Metadata:
        if self._locally_cancelled:
            return aio.Metadata()
        return aio.Metadata.from_tuple(self._core.status.trailing_metadata() or ())

    def _raise_for_status(self) -> None:
        if self._locally_cancelled:
            raise asyncio.CancelledError
        code = self._code()
        if code is not grpc.StatusCode.OK:
            raise aio.AioRpcError(
                code,
                aio.Metadata.from_tuple(self._core.initial_metadata or ()),
                self._trailing(),
                self._details(),
                self._core.status.error_string(),
            )
