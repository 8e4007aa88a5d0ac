"""The async channel: what ``sync_channel`` is to threads, for one event loop.

A call starts when it is made, as those of ``grpc.aio`` do, and is driven by whoever awaits it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sequence,
)
from os import getpid
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from clarigrpc import errors
from clarigrpc._config.client_options import AsyncInterceptor
from clarigrpc._config.retry_policy import Retry, RetryPolicy, as_policy
from clarigrpc._config.settings import Settings
from clarigrpc._contract.methods import CallKind
from clarigrpc._rpc import (
    async_fast_path,
    async_streams,
    call_observer,
    grpc_failures,
    grpcio_internals,
)
from clarigrpc._rpc.call import (
    DOCUMENTATION,
    SUCCESS,
    BoundMethod,
    CallCore,
    Deserializer,
    RetryLoop,
    Serializer,
    check_interceptors,
    is_sent_once,
)
from clarigrpc._rpc.call_counts import CountedCall
from clarigrpc._rpc.channel_methods import ChannelMethods
from clarigrpc._rpc.shared_transport import AsyncSharedTransport
from clarigrpc._transports.transport import AsyncTransport, Metadata, unhedged

if TYPE_CHECKING:  # generic at run time in newer grpcio only
    _StreamUnaryBase = aio.StreamUnaryMultiCallable[Any, Any]
    _StreamStreamBase = aio.StreamStreamMultiCallable[Any, Any]
else:
    _StreamUnaryBase = aio.StreamUnaryMultiCallable
    _StreamStreamBase = aio.StreamStreamMultiCallable

Requests = AsyncIterable[Any] | Iterable[Any]

_FETCH_LATER = 0.1
"""Seconds for credentials to say first that they are late: they know what they wait for."""
_STATUS_SECONDS = 1.0
_STATUS_TRIES = 100
"""How long, and how often, the server's own status is looked for after a failed write."""


class AsyncChannel(ChannelMethods, aio.Channel):
    """A ``grpc.aio.Channel`` over a transport, which is opened at the first call.

    It belongs to the event loop of that call. Close it before the process forks: gRPC's asyncio
    side crashes or hangs in the child of a process that has one open.

    Attributes:
        observer: What is told of the calls, if anything.
        innermost: The multicallables within interceptors, by the kind of their calls.
    """

    def __init__(self, settings: Settings, shared: AsyncSharedTransport | None = None) -> None:
        self._owner = shared is None
        self.shared = shared or AsyncSharedTransport(settings)
        self.core = CallCore(settings, self.shared)
        self.observer = call_observer.installed()
        self.innermost: dict[CallKind, Any] = PLAIN
        if self.observer is not None:
            from clarigrpc._rpc.async_observed import OBSERVED

            self.innermost = OBSERVED
            self.observer.opened(self.core)
        self._kinds = self.innermost
        if settings.interceptors:
            from clarigrpc._rpc.async_interceptors import INTERCEPTED

            check_interceptors(settings, AsyncInterceptor, "AsyncClient", "grpc.aio")
            self._kinds = INTERCEPTED

    def view(self, settings: Settings) -> AsyncChannel:
        """A channel with other settings over the same transport, which closing it leaves open."""
        return AsyncChannel(settings, self.shared)

    def multicallable(
        self,
        kind: CallKind,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> Any:
        return self._kinds[kind](self, path, serialize, deserialize)

    async def pause(self, seconds: float) -> None:
        """Wait between calls.

        Raises:
            ClosedError: The client was closed meanwhile.
        """
        await self.shared.pause(seconds)
        if self.shared.closed:
            raise errors.ClosedError

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The connectivity, of several connections that of the first one.

        IDLE over HTTP, which connects as needed.
        """
        channels = self.shared.transport().channels
        return channels[0].get_state(try_to_connect) if channels else grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the connectivity is no longer ``last_observed_state``.

        Raises:
            NotImplementedError: The transport is HTTP, which connects as needed.
        """
        await self._watched()[0].wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return when every connection is there.

        Raises:
            NotImplementedError: The transport is HTTP, which connects as needed.
        """
        for channel in self._watched():
            await channel.channel_ready()

    def _watched(self) -> Sequence[aio.Channel]:
        channels = self.shared.transport().channels
        if not channels:
            raise NotImplementedError("HTTP connects as needed: there is no connectivity to watch")
        return channels

    async def close(self, grace: float | None = None) -> None:
        """Let running calls end for ``grace`` seconds, cancel the rest, close the connection."""
        if self._owner:
            await self.shared.close(grace)

    async def __aenter__(self) -> AsyncChannel:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Multicallable(BoundMethod):
    """A method of the service, bound to the transport when it is first called."""

    kind: ClassVar[CallKind]
    call_type: ClassVar[type[Any]]

    __slots__ = ("_owner", "_real", "_shared", "loop")

    def __init__(
        self,
        channel: AsyncChannel,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        super().__init__(channel.core, path, serialize, deserialize)
        self._shared = channel.shared
        self._owner: AsyncTransport | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._real: Any = None

    def unbind(self) -> None:
        """Let go of the transport."""
        self._owner = self._real = None
        self._rebound()

    def bound(self) -> Any:
        """The multicallable of the transport."""
        loop = asyncio.get_running_loop()
        shared = self._shared
        if (
            self._owner is None
            or self._owner is not shared.current
            or self.loop is not loop
            or shared.pid != getpid()
        ):
            self._owner = shared.transport()
            shared.bound.add(self)
            self.loop = loop
            self._real = self._owner.multicallable(self.kind, self.path)
            self._rebound()
        return self._real

    def pause(self, seconds: float) -> asyncio.Future[None]:
        """What is to be awaited before the next attempt."""
        return self._shared.pause(seconds)

    def _rebound(self) -> None:
        """There is another multicallable of a transport, or None."""


class _StreamMulticallable(_Multicallable):
    """A method with many responses."""

    __slots__ = ("direct",)

    direct: async_streams.StartAsyncStream | None

    def _rebound(self) -> None:
        self.direct = None
        shared = self._shared
        if self._owner is not None:
            if shared.streams is None:
                shared.streams = async_streams.RunningStreams()
            self.direct = async_streams.direct(self._owner, self.path, shared.streams)


def _options(*options: Any) -> tuple[Any, ...] | None:
    """Options that only the multicallable of the transport knows; None: there are none."""
    return None if all(option is None for option in options) else options


# One request, one response.
class UnaryUnary(_Multicallable, aio.UnaryUnaryMultiCallable[Any, Any]):
    __doc__ = DOCUMENTATION
    kind = "unary_unary"
    __slots__ = ("direct",)

    direct: async_fast_path.Start | None

    def _rebound(self) -> None:
        self.direct = async_fast_path.direct(self._real, self._shared.running)

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        idempotent: bool | None = None,
        raise_on_partial: bool | None = None,
        retry: Retry | None = None,
    ) -> Any:
        """Start the call; await the result for the response.

        A call that nobody holds any more is cancelled.

        Args:
            request: A message of the method's request type.
            timeout: Seconds, retries included. None uses the client's setting.
            metadata: Further (key, value) pairs, sent beside the client's.
            credentials: Call credentials of gRPC, beside the client's.
            wait_for_ready: Whether to wait, within the timeout, until there is a connection.
            compression: Compression of the request.
            idempotent: Whether the call may be sent twice. None uses the property of the method.
            raise_on_partial: Whether MIXED_STATUS is an error. None uses the client's setting.
            retry: When the call is sent again after a failure; False sends it once, as ``future``
                of the sync channel does. None uses the client's setting.
        """
        plain = credentials is None and wait_for_ready is None and compression is None
        return self.call_type(
            self,
            (self.serialize(request),),
            timeout,
            metadata,
            None if plain else (credentials, wait_for_ready, compression),
            idempotent,
            raise_on_partial,
            retry,
        )


# One request, a stream of responses.
class UnaryStream(_StreamMulticallable, aio.UnaryStreamMultiCallable[Any, Any]):
    __doc__ = DOCUMENTATION
    kind = "unary_stream"
    __slots__ = ()

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        idempotent: bool | None = None,
        retry: Retry | None = None,
    ) -> Any:
        """Open the stream. It is opened again after a failure only before its first response."""
        return self.call_type(
            self,
            (self.serialize(request),),
            timeout,
            metadata,
            _options(credentials, wait_for_ready, compression),
            idempotent,
            retry=retry,
        )


# A stream of requests, one response. Never repeated: the requests are gone.
class StreamUnary(_Multicallable, _StreamUnaryBase):
    __doc__ = DOCUMENTATION
    kind = "stream_unary"
    __slots__ = ()

    def __call__(
        self,
        request_iterator: Requests | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start the call with the requests, or ``write`` them to the result; await the response."""
        requests = RequestStream.of(request_iterator, self.serialize)
        return self.call_type(
            self,
            (requests,),
            timeout,
            metadata,
            (credentials, wait_for_ready, compression),
        )


# A stream of requests, a stream of responses. Never repeated: the requests are gone.
class StreamStream(_StreamMulticallable, _StreamStreamBase):
    __doc__ = DOCUMENTATION
    kind = "stream_stream"
    __slots__ = ()

    def __call__(
        self,
        request_iterator: Requests | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Open the stream with the requests, or ``write`` them to the result."""
        requests = RequestStream.of(request_iterator, self.serialize)
        return self.call_type(
            self,
            (requests,),
            timeout,
            metadata,
            _options(credentials, wait_for_ready, compression),
        )


PLAIN: dict[CallKind, type[_Multicallable]] = {
    made.kind: made for made in (UnaryUnary, UnaryStream, StreamUnary, StreamStream)
}


class RequestStream(AsyncIterator[bytes]):
    """Serialized requests out of the caller's iterable, consumed by a task of gRPC.

    gRPC cancels the call when this raises; the error is kept, to be raised to the caller.
    """

    def __init__(self, requests: Requests, serialize: Serializer) -> None:
        if isinstance(requests, AsyncIterable):
            self._next = aiter(requests).__anext__
        else:
            iterator = iter(requests)

            async def next_of_iterator() -> Any:
                # A plain iterable does not wait, so it is asked on the loop itself.
                try:
                    return next(iterator)
                except StopIteration:
                    raise StopAsyncIteration from None

            self._next = next_of_iterator
        self._serialize = serialize
        self.error: Exception | None = None

    @classmethod
    def of(cls, requests: Requests | None, serialize: Serializer) -> RequestStream | None:
        """The stream of an iterable, or None for a call that is written to."""
        return None if requests is None else cls(requests, serialize)

    async def __anext__(self) -> bytes:
        try:
            return self._serialize(await self._next())
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise


class _AsyncCall:
    """A call: starts at once where the credentials are at hand, otherwise when it is awaited."""

    streaming = True
    request_id = ""
    _metadata: Metadata
    _opening: asyncio.Lock
    _call: Any = None
    _pause: asyncio.Future[Any] | None = None  # until the next attempt
    _stopped = False
    _retry: RetryPolicy | None = None
    _retrying: RetryLoop | None = None
    _earlier: tuple[errors.ApiError, ...] | None = None  # of a call that has failed for good

    def __init__(
        self,
        method: _Multicallable,
        request: tuple[Any, ...],
        timeout: float | None,
        extra: Metadata | None,
        options: tuple[Any, ...] | None,
        idempotent: bool | None = None,
        raise_on_partial: bool | None = None,
        retry: Retry | None = None,
    ) -> None:
        core = method.core
        self._method = method
        self._request = request
        self._extra = extra
        self._options = options
        self._idempotent = idempotent
        self._raise_on_partial = raise_on_partial
        if retry is not None:
            self._retry = as_policy(retry)
        self._counted = CountedCall(method.counts)
        if timeout is None and not self.streaming:
            timeout = core.timeout
            self._deadline = time.monotonic() + timeout
        else:
            timeout, self._deadline = core.deadline(timeout, streaming=self.streaming)
        core.budget.earn()
        if (pairs := core.credentials.cached()) is not None:
            self.request_id, self._metadata = core.metadata(pairs, extra)
            self._attempt(timeout)
        else:
            method.bound()  # a closed client and a wrong loop are told at once all the same
            self._opening = asyncio.Lock()

    def _attempt(self, timeout: float) -> None:
        credentials, wait_for_ready, compression = self._options or (None, None, None)
        start = self._method.bound()
        if is_sent_once(self._idempotent, self._retry):
            start = unhedged(start)
        self._call = start(
            *self._request,
            timeout=timeout,
            metadata=self._metadata,
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )

    def __del__(self) -> None:
        # gRPC's own tasks keep a call alive that nobody waits for any more.
        call = self._call
        if call is not None and not call.done():
            self._counted.ended(asyncio.CancelledError())
            loop = self._method.loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(call.cancel)

    async def _opened(self) -> Any:
        if self._call is None:
            async with self._opening:  # a reader and a writer may come at once
                if self._call is None:
                    if self._stopped:
                        raise asyncio.CancelledError
                    core = self._method.core
                    remaining = self._deadline - time.monotonic()
                    fetching = asyncio.to_thread(core.credentials.fetch, remaining)
                    pause = self._pause = asyncio.ensure_future(fetching)
                    # The threads of the loop may all be busy, and for longer.
                    limit = asyncio.timeout(remaining + _FETCH_LATER)
                    try:
                        async with limit:
                            pairs = await pause
                    except Exception as error:
                        late = self._method.unidentified() if limit.expired() else None
                        self._counted.ended(late or error)
                        if late is None:
                            raise
                        raise late from None
                    finally:
                        self._pause = None
                    if self._stopped:
                        raise asyncio.CancelledError
                    self.request_id, self._metadata = core.metadata(pairs, self._extra)
                    self._attempt(self._deadline - time.monotonic())
        return self._call

    async def _again(self, failed: Any, error: errors.ApiError) -> None:
        """Wait, then make the next attempt, unless another task that waits for the call does.

        Args:
            failed: The latest attempt of which the task knows.
            error: How it failed.

        Raises:
            ApiError: The call has failed for good.
        """
        if self._call is not failed:
            return
        if self._earlier is not None:
            error.attempts = self._earlier
            raise error
        if self._pause is None:
            if self._stopped:
                raise error
            self._retrying = self._retrying or self._retries()
            try:
                delay = self._retrying.send(error)
            except errors.ApiError as last:
                self._earlier = last.attempts
                raise
            failed.cancel()
            self._pause = self._method.pause(delay)
        try:
            await self._pause
        except asyncio.CancelledError:
            self._stopped = True
            raise
        if self._call is failed:
            if self._stopped:
                raise asyncio.CancelledError
            self._pause = None
            self._attempt(self._deadline - time.monotonic())

    def _retries(self) -> Any:
        return self._method.retries(self._idempotent, self._deadline, self._retry)

    def _refuse(self, response: Any, trailing: Metadata | None) -> None:
        """Raise the failure that the status of a response stands for, if it is one."""
        failure = self._method.response_error(
            response, self.request_id, trailing, self._raise_on_partial
        )
        if failure is not None:
            raise failure

    def _rpc_error(self, error: Any) -> errors.ApiError:
        return self._method.rpc_error(error, self.request_id, self._call)

    def _ended_by(self, error: asyncio.CancelledError) -> BaseException:
        """What a cancelled call raises: ``error`` where its task, or who made it, cancelled it.

        Where the client was closed meanwhile it is an error like others. asyncio would take a
        cancellation that nobody asked for as the silent end of the task.
        """
        task = asyncio.current_task()
        if not self._method.core.shared.closed or task is None or task.cancelling():
            return error
        closed = self._method.closed(self.request_id)
        closed.__cause__ = error
        return closed

    def cancel(self) -> bool:
        """Cancel the call; awaiting it raises ``asyncio.CancelledError``."""
        if self._pause is not None:
            cancelled = not self._stopped
            self._pause.cancel()
        elif self._call is None:
            cancelled = not self._stopped
        else:
            cancelled = bool(self._call.cancel())
        self._stopped = True  # it is not sent again
        if cancelled:
            self._counted.ended(asyncio.CancelledError())
        return cancelled

    def cancelled(self) -> bool:
        """Whether the call was cancelled here."""
        if self._pause is not None or self._call is None:
            return self._stopped
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """Whether the current attempt has ended."""
        return self._stopped if self._call is None else bool(self._call.done())

    def time_remaining(self) -> float | None:
        """Seconds until the deadline."""
        return max(0.0, self._deadline - time.monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called with this object when the current attempt ends."""
        if self._call is None:
            raise errors.ConfigurationError("await the call before adding a callback to it")
        self._call.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> Any:
        """Metadata that the server sent before the first response."""
        return await (await self._opened()).initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Metadata that the server sent with the status."""
        return await (await self._opened()).trailing_metadata()

    async def code(self) -> Any:
        """The gRPC status code, at the end of the call."""
        return await (await self._opened()).code()

    async def details(self) -> Any:
        """The gRPC status text, at the end of the call."""
        return await (await self._opened()).details()

    async def wait_for_connection(self) -> None:
        """Return when the call has a connection."""
        await (await self._opened()).wait_for_connection()


class UnaryUnaryCall(_AsyncCall, aio.UnaryUnaryCall[Any, Any]):
    """A running call; await it for its response."""

    streaming = False
    _method: UnaryUnary

    def _attempt(self, timeout: float) -> None:
        method = self._method
        method.bound()
        if self._options is None and method.direct is not None:
            self._call = method.direct(self._request[0], timeout, self._metadata)
        else:
            super()._attempt(timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        # A generator, because each coroutine between a task and its call costs at every step.
        method = self._method
        repeated = False
        try:
            if self._call is None:
                yield from self._opened().__await__()
            while True:
                attempt = self._call
                try:
                    encoded = yield from attempt.__await__()
                    if encoded is None:
                        raise method.silent(self.request_id)
                    response = method.deserialize(encoded)
                    if not method.checked or response.status.code == SUCCESS:
                        if repeated and self._retrying is not None:
                            self._retrying.close()  # now: an error's traceback may keep this frame
                        self._counted.ended(None)
                        return response
                    trailing = yield from attempt.trailing_metadata().__await__()
                    failure = method.response_error(
                        response, self.request_id, tuple(trailing), self._raise_on_partial
                    )
                    if failure is None:
                        self._counted.ended(None)
                        return response
                except aio.AioRpcError as error:
                    failure = method.unary_error(error, self.request_id, attempt)
                    failure.__cause__ = error
                except errors.ApiError as error:
                    failure = error
                except DecodeError as error:
                    failure = method.garbled(error, self.request_id)
                yield from self._again(attempt, failure).__await__()
                repeated = True
        except errors.ApiError as error:
            self._counted.ended(error)
            raise
        except asyncio.CancelledError as error:
            self._counted.ended(ended := self._ended_by(error))
            raise ended  # noqa: B904 - it has its cause


class _Ending:
    """How the server ended a call, caught before a failed write is put in its place."""

    code: grpc.StatusCode | None = None
    details = ""

    def note(self, call: Any) -> None:
        """The call has a status, so that asking for it does not wait."""
        details = _result_of(call.details())
        if self.code is None and details != grpc_failures.WRITE_FAILED:
            self.code, self.details = _result_of(call.code()), details


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return None


class _ReadableCall(_AsyncCall):
    """A call whose responses are read one by one, or with ``async for``."""

    _method: _StreamMulticallable
    _ending: _Ending
    _direct: async_streams.DirectStream | None = None
    _requests: RequestStream | None = None
    _may_restart = False

    def _attempt(self, timeout: float) -> None:
        method = self._method
        method.bound()
        self._direct = None
        if self._options is None and method.direct is not None:
            self._direct = method.direct(self._request[0], timeout, self._metadata)
        if self._direct is None:
            super()._attempt(timeout)
        else:
            self._call = self._direct

    def received(self) -> Any:
        """The next response, if it is here already; None if it has to be awaited."""
        if self._direct is None or self._may_restart:
            return None
        encoded = self._direct.received()
        return None if encoded is None else self._checked(encoded)

    def arrival(self) -> asyncio.Future[None] | None:
        """What to wait for before ``received`` or ``read``; None if ``read`` is to be awaited.

        Saves the coroutines of ``read``, each of which costs at every step. Who is cancelled while
        waiting for it has to cancel the call.
        """
        return None if self._direct is None or self._may_restart else self._direct.arrival()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if (response := self.received()) is not None:
            return response
        if (arrival := self.arrival()) is not None:
            try:
                await arrival
            except asyncio.CancelledError:
                self.cancel()
                raise
            if (response := self.received()) is not None:
                return response
        response = await self.read()
        if response is aio.EOF:
            raise StopAsyncIteration
        return response

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF``."""
        if self._call is None:
            await self._opened()
        while True:
            try:
                response = await self._receive()
            except errors.ApiError as error:
                if not self._may_restart:
                    raise
                try:
                    await self._again(self._call, error)
                except errors.ApiError as last:
                    self._may_restart = False  # whoever reads on reads this call
                    raise self._failed(last)  # noqa: B904 - it is the same error
            else:
                self._may_restart = False  # what was delivered cannot be taken back
                if self._retrying is not None:
                    self._retrying.close()
                    self._retrying = None
                return response

    async def _receive(self) -> Any:
        try:
            try:
                encoded = await self._call.read()
            except aio.AioRpcError as error:
                if error.details() != grpc_failures.WRITE_FAILED:
                    raise
                encoded = await self._read_despite(error)
        except aio.AioRpcError as error:
            raise self._failed(self._rpc_error(error)) from error
        except asyncio.CancelledError as error:
            self._counted.ended(ended := self._ended_by(error))
            if self._requests is not None and self._requests.error is not None:
                raise self._requests.error from None
            raise ended  # noqa: B904 - it has its cause
        if encoded is aio.EOF:
            self._counted.ended(None)
            return encoded
        return self._checked(encoded)

    def _failed(self, error: errors.ApiError) -> errors.ApiError:
        """The failure of an attempt, which is that of the call unless it goes on.

        It may be opened again; and after a partial failure, the next response may be read.
        """
        if not self._may_restart and not isinstance(error, errors.PartialFailureError):
            self._counted.ended(error)
        return error

    def _checked(self, encoded: bytes) -> Any:
        """The response that was received."""
        method = self._method
        try:
            response = method.deserialize(encoded)
        except DecodeError as error:
            self._call.cancel()
            raise self._failed(method.garbled(error, self.request_id)) from error
        if method.checked and response.status.code != SUCCESS:
            try:
                self._refuse(response, None)
            except errors.ApiError as failure:
                raise self._failed(failure)  # noqa: B904 - it is the same error
        return response

    async def _read_despite(self, error: aio.AioRpcError) -> Any:
        """The next response after a failed write, or how the call really ended.

        A server may end a stream while requests are on their way. grpc.aio then reports the write
        that failed, and hides the responses that have arrived.
        """
        call = self._call
        try:
            reading = call._read()
        except (AttributeError, TypeError) as missing:  # its own report has to do
            grpcio_internals.log_public_way("reading after a failed write", str(missing))
            raise error from None
        encoded = await reading
        if encoded is not aio.EOF:
            return encoded
        for _ in range(_STATUS_TRIES):
            self._ending.note(call)
            if self._ending.code is not None:
                break
            await asyncio.sleep(_STATUS_SECONDS / _STATUS_TRIES)
        if self._ending.code is grpc.StatusCode.OK:
            return aio.EOF
        if self._ending.code is None:
            raise error
        trailing = await call.trailing_metadata()
        initial = await call.initial_metadata()
        raise aio.AioRpcError(self._ending.code, initial, trailing, self._ending.details) from error

    async def __aenter__(self) -> _ReadableCall:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()


class UnaryStreamCall(_ReadableCall, aio.UnaryStreamCall[Any, Any]):
    """The responses to one request."""

    _may_restart = True


class _WritableCall(_AsyncCall):
    """A call that requests are written to, unless it was given an iterable of them."""

    async def write(self, request: Any) -> None:
        """Send a request; returns when there is room for the next one."""
        await self.write_all((request,))

    async def write_all(self, requests: Iterable[Any]) -> None:
        """Send requests, which wait for their turn together; returns when there is room again.

        They are all in memory until then. That spares a wake-up of the event loop for each. Not
        public: calls with interceptors have no such method (see ``async_streams.write_all``).
        """
        call = await self._opened()
        encoded = [self._method.serialize(request) for request in requests]
        try:
            await async_streams.write_all(call, encoded)
        except aio.AioRpcError as error:
            raise self._rpc_error(error) from error
        except asyncio.CancelledError as error:
            raise self._ended_by(error)  # noqa: B904 - it has its cause

    async def done_writing(self) -> None:
        """Say that no further request comes."""
        await (await self._opened()).done_writing()


class StreamUnaryCall(_WritableCall, aio.StreamUnaryCall[Any, Any]):
    """A stream of requests; await it for the response."""

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            response = yield from self._response().__await__()
        except (errors.ApiError, asyncio.CancelledError) as error:
            self._counted.ended(error)
            raise
        self._counted.ended(None)
        return response

    async def _response(self) -> Any:
        requests: RequestStream | None = self._request[0]
        try:
            encoded = await (self._call or await self._opened())
        except aio.AioRpcError as error:
            raise self._rpc_error(error) from error
        except asyncio.CancelledError as error:
            if requests is not None and requests.error is not None:
                raise requests.error from None
            raise self._ended_by(error)  # noqa: B904 - it has its cause
        method = self._method
        try:
            response = method.parse(encoded, self.request_id)
        except errors.InternalError:
            self._call.cancel()
            raise
        if method.checked and response.status.code != SUCCESS:
            self._refuse(response, tuple(await self._call.trailing_metadata()))
        return response


class StreamStreamCall(_WritableCall, _ReadableCall, aio.StreamStreamCall[Any, Any]):
    """A stream of requests and a stream of responses."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._ending = _Ending()
        super().__init__(*args, **options)
        self._requests = self._request[0]

    def _attempt(self, timeout: float) -> None:
        super()._attempt(timeout)
        self._call.add_done_callback(self._ending.note)


UnaryUnary.call_type = UnaryUnaryCall
UnaryStream.call_type = UnaryStreamCall
StreamUnary.call_type = StreamUnaryCall
StreamStream.call_type = StreamStreamCall
