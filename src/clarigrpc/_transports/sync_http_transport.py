"""The sync transport over HTTP/JSON."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import queue
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import httpx
from grpc import aio

from clarigrpc._config.http_deadlines import DeadlineHttpTransport
from clarigrpc._contract.methods import CallKind
from clarigrpc._fork_lock import ForkLock
from clarigrpc._interrupts import Ended, HeldInterrupt
from clarigrpc._transports.call_threads import CallThreads
from clarigrpc._transports.http_exchange import (
    Deadline,
    Exchange,
    HttpMethod,
    HttpOptions,
    StreamState,
    cancellation,
)
from clarigrpc._transports.transport import (
    CHANNEL_CLOSED,
    SyncTransport,
    TransportError,
    transport_error,
)


class SyncHttpTransport(SyncTransport):
    """Calls over HTTP/JSON with a pool of connections."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        transport = DeadlineHttpTransport(options.base, options.verify, options.limits())
        self._client = httpx.Client(transport=transport)
        self._threads: CallThreads | None = None
        # Reentrant: a signal's handler may close the client while its thread begins a call.
        self._lock = ForkLock(threading.RLock)
        self.streams: weakref.WeakSet[_StreamCall] = weakref.WeakSet()
        self.unread = _UnreadResponses()
        self._closed = False

    def client(self) -> httpx.Client:
        """The HTTP client.

        Raises:
            ValueError: The transport is closed (as a channel of gRPC does).
        """
        if self._client.is_closed:
            raise ValueError("Cannot invoke RPC on closed channel!")
        return self._client

    def ended(self, error: TransportError) -> TransportError:
        """How a call ended that failed, or was cancelled, on this side."""
        if not self._closed:
            return error
        return transport_error(grpc.StatusCode.CANCELLED, CHANNEL_CLOSED)

    def threads(self) -> CallThreads:
        """Threads for calls that run in the background."""
        with self._lock.get():
            self.client()
            if self._threads is None:
                self._threads = CallThreads(self._options.max_connections, "clarigrpc-rest-call")
            return self._threads

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request; returns its response when the head is there. Not to be interrupted."""
        self.unread.close_dropped()
        return self.client().send(request, stream=True)

    def multicallable(self, kind: CallKind, path: str) -> Any:
        method = HttpMethod(self._options, kind, path)
        return (_StreamMethod if method.response_streaming else _UnaryMethod)(self, method)

    def close(self) -> None:
        with self._lock.get():
            threads, self._threads = self._threads, None
            self._closed = True
            for stream in list(self.streams):
                stream.cancel()
            self._client.close()
        if threads is not None:
            threads.close()


class _UnreadResponses:
    """What is left to read of streams, kept alive here and not by their calls.

    httpx frees the connection of a response under a lock of its pool, in a finalizer, too. Python's
    garbage collector runs finalizers at any moment, inside that lock as well, where one would wait
    for itself. So a call that is dropped only leaves a note, and the next call closes its response.
    """

    def __init__(self) -> None:
        self._open: dict[object, Iterator[bytes]] = {}
        self._dropped: queue.SimpleQueue[object] = queue.SimpleQueue()

    def keep(self, key: object, responses: Iterator[bytes]) -> None:
        """Keep ``responses`` until ``release`` or ``drop``."""
        self._open[key] = responses

    def release(self, key: object) -> None:
        """Forget what has been read to its end."""
        self._open.pop(key, None)

    def drop(self, key: object) -> None:
        """Note that nobody will read on. Takes no lock."""
        if key in self._open:
            self._dropped.put(key)

    def close_dropped(self) -> None:
        """Free the connections of streams that were dropped."""
        while not self._dropped.empty():
            with contextlib.suppress(queue.Empty, KeyError):  # another thread was faster
                close_quietly(self._open.pop(self._dropped.get_nowait()))


def close_quietly(responses: Any) -> None:
    """Free the connection of what nobody reads on; that it broke meanwhile concerns nobody."""
    with contextlib.suppress(TransportError):
        responses.close()


def _read(exchange: Exchange, opened: Callable[[], httpx.Response]) -> Iterator[bytes]:
    """Open the response and yield what it holds as it comes."""
    with exchange.errors(), contextlib.closing(opened()) as response:
        exchange.opened(response)
        for chunk in response.iter_raw():
            yield from exchange.feed(chunk)
        yield from exchange.end()


class _UnaryMethod:
    """Multicallable with one response."""

    def __init__(self, transport: SyncHttpTransport, method: HttpMethod) -> None:
        self._transport = transport
        self._method = method

    def with_call(
        self,
        request: bytes,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        *hints: Any,
    ) -> tuple[bytes, grpc.Call]:
        if not HeldInterrupt.needed():
            return self._call(request, Deadline(timeout), metadata, credentials)
        # An interrupt inside of httpx's client could leave it locked.
        call = self.future(request, timeout, metadata, credentials)
        try:
            return call.outcome()
        except BaseException:
            call.cancel()
            raise

    def _call(
        self,
        request: bytes,
        deadline: Deadline,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
    ) -> tuple[bytes, grpc.Call]:
        self._transport.client()  # refuses calls on a closed transport
        exchange = self._method.exchange(request, deadline, metadata, credentials)
        try:
            (response,) = _read(exchange, lambda: self._transport.send(exchange.request))
        except TransportError as error:
            raise self._transport.ended(error) from error.__cause__
        return response, _EndedCall(exchange.metadata)

    def future(
        self,
        request: bytes,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        *hints: Any,
    ) -> _FutureCall:
        deadline = Deadline(timeout)

        def run() -> tuple[bytes, grpc.Call]:
            return self._call(request, deadline, metadata, credentials)

        return _FutureCall(self._transport.threads(), run, deadline)


class _EndedCall(grpc.Call):
    """A call that has ended well."""

    def __init__(self, metadata: aio.Metadata) -> None:
        self._metadata: Any = metadata

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return ""

    def initial_metadata(self) -> Any:
        return self._metadata

    def trailing_metadata(self) -> Any:
        return self._metadata

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


class _FutureCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call that runs in a thread of the transport.

    To cancel it frees the caller at once; its thread reads on until the response or the deadline.
    """

    def __init__(
        self,
        threads: CallThreads,
        run: Callable[[], tuple[bytes, grpc.Call]],
        deadline: Deadline,
    ) -> None:
        self._deadline = deadline
        self._future: concurrent.futures.Future[tuple[bytes, grpc.Call]]
        self._future = concurrent.futures.Future()
        threads.submit(partial(self._run, run))

    def _run(self, run: Callable[[], tuple[bytes, grpc.Call]]) -> None:
        if self._future.cancelled():
            return
        try:
            result = run()
        except Exception as error:  # noqa: BLE001 - raised to whoever asks for the result
            if self._future.set_running_or_notify_cancel():
                self._future.set_exception(error)
        else:
            if self._future.set_running_or_notify_cancel():
                self._future.set_result(result)

    def outcome(self, timeout: float | None = None) -> tuple[bytes, grpc.Call]:
        """The response, and the call it came from."""
        if not Ended(self._future.add_done_callback).wait(timeout):
            raise grpc.FutureTimeoutError
        with HeldInterrupt():
            try:
                return self._future.result(0)
            except concurrent.futures.CancelledError as error:
                raise grpc.FutureCancelledError from error

    def _end(self) -> Any:
        """What knows code, details and metadata: the call, or the error."""
        try:
            return self.outcome()[1]
        except grpc.RpcError as error:
            return error
        except grpc.FutureCancelledError:
            return cancellation()

    def result(self, timeout: float | None = None) -> Any:
        return self.outcome(timeout)[0]

    def exception(self, timeout: float | None = None) -> Exception | None:
        try:
            self.outcome(timeout)
        except grpc.RpcError as error:
            return error
        return None

    def traceback(self, timeout: float | None = None) -> Any:
        failure = self.exception(timeout)
        return None if failure is None else failure.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        with HeldInterrupt():
            self._future.add_done_callback(lambda _: fn(self))

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with HeldInterrupt():
            if self._future.done():
                return False
            self._future.add_done_callback(lambda _: callback())
            return True

    def cancel(self) -> bool:
        with HeldInterrupt():
            return self._future.cancel()

    def cancelled(self) -> bool:
        with HeldInterrupt():
            return self._future.cancelled()

    def done(self) -> bool:
        with HeldInterrupt():
            return self._future.done()

    def running(self) -> bool:
        return not self.done()

    def is_active(self) -> bool:
        return not self.done()

    def time_remaining(self) -> Any:
        return self._deadline.remaining()

    def code(self) -> Any:
        return self._end().code()

    def details(self) -> Any:
        return self._end().details()

    def initial_metadata(self) -> Any:
        return self._end().initial_metadata()

    def trailing_metadata(self) -> Any:
        return self._end().trailing_metadata()


class _StreamMethod:
    """Multicallable with a stream of responses; for a stream of requests too, which is refused."""

    def __init__(self, transport: SyncHttpTransport, method: HttpMethod) -> None:
        self._transport = transport
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        *hints: Any,
    ) -> Any:
        def prepare(deadline: Deadline) -> Exchange:
            return self._method.exchange(request, deadline, metadata, credentials)

        self._transport.client()  # refuses calls on a closed transport
        call = _StreamCall(self._transport, prepare, timeout)
        self._transport.streams.add(call)
        return call


class _HeadWait:
    """Waits for the head of a response. The wait can be cancelled, by any thread.

    httpx has no way to end it. So it is done in a thread of the transport, which goes on until the
    head comes or the deadline passes, and then closes the response that nobody wants any more.
    """

    def __init__(self, transport: SyncHttpTransport) -> None:
        self._transport = transport
        self._events: queue.SimpleQueue[concurrent.futures.Future[httpx.Response] | None]
        self._events = queue.SimpleQueue()

    def cancel(self) -> None:
        """End the wait with CANCELLED."""
        self._events.put(None)

    def wait(self, request: httpx.Request) -> httpx.Response:
        """Send the request; returns the response when its head is there."""
        head = self._transport.threads().submit(partial(self._transport.send, request))
        head.add_done_callback(self._events.put)
        if self._events.get() is None:
            head.add_done_callback(_close_response)
            raise cancellation()
        return head.result()


def _close_response(head: concurrent.futures.Future[httpx.Response]) -> None:
    if not head.cancelled() and head.exception() is None:
        head.result().close()


class _StreamCall(StreamState, grpc.Call, Iterator[bytes]):
    """The responses of a server stream, for one reader; any thread may cancel it."""

    def __init__(
        self,
        transport: SyncHttpTransport,
        prepare: Callable[[Deadline], Exchange],
        timeout: float | None,
    ) -> None:
        super().__init__(timeout)
        self._transport = transport
        self._opening = _HeadWait(transport)
        self._prepare = prepare
        self._responses: Iterator[bytes] | None = None
        self._unread = transport.unread
        self._key = object()
        self._process = os.getpid()

    def __next__(self) -> bytes:
        with HeldInterrupt(self.cancel):
            return self._next()

    def _next(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._cancelled:
            if self._responses is not None:
                close_quietly(self._responses)  # here, and not in a finalizer
            failure = self._transport.ended(cancellation())
            self._end(failure)
            raise failure
        try:
            if self._responses is None:
                self.exchange = self._prepare(self._deadline)
                self.exchange.cancelled = self._cancelled
                self._responses = _read(
                    self.exchange, partial(self._opening.wait, self.exchange.request)
                )
                self._unread.keep(self._key, self._responses)
            return next(self._responses)
        except StopIteration:
            self._end()
            raise
        except TransportError as error:
            if not self._cancelled:
                self._end(error)
                raise
            # Another thread has broken the connection.
            self._end(failure := self._transport.ended(cancellation()))
            raise failure from error

    def _end(self, failure: TransportError | None = None) -> None:
        self._unread.release(self._key)
        super()._end(failure)

    def __del__(self) -> None:
        self.cancel()
        self._unread.drop(self._key)

    def cancel(self) -> bool:
        if self._ended or self._cancelled:
            return False
        self._cancelled = True
        self._opening.cancel()
        if self.exchange is None or os.getpid() != self._process:
            return True
        self.exchange.cancelled = True
        http = self.exchange.http
        # Of a response that was read to its end, the connection may serve another call by now.
        if http is not None and not http.is_closed:
            connection: socket.socket = http.extensions["network_stream"].get_extra_info("socket")
            # Wakes the reader. The socket may be gone by now, which is what is wanted.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return True

    def is_active(self) -> bool:
        return not (self._ended or self._cancelled)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._ended:
            return False
        self._callbacks.append(callback)
        return True

    def time_remaining(self) -> Any:
        return self._deadline.remaining()

    def code(self) -> grpc.StatusCode:
        return self._code()

    def details(self) -> str:
        return self._details()

    def initial_metadata(self) -> Any:
        return self._metadata()

    def trailing_metadata(self) -> Any:
        return self._metadata()
