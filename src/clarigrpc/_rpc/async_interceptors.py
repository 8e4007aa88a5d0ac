"""The multicallables of an async channel with interceptors, which see a call with all its retries.

``grpc.aio`` runs interceptors in channels of its own only, so they are run here, in the same way:
in a task, one around the other, and what the first one returns is the call. Between them requests
and responses are messages, also where the caller's are serialized, and failures are errors of gRPC
(``FailedCall``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
)
from functools import partial
from typing import Any, ClassVar, NamedTuple

import grpc
from grpc import aio

from clarigrpc import errors
from clarigrpc._contract.methods import CallKind
from clarigrpc._rpc.async_channel import (
    AsyncChannel,
    StreamStream,
    StreamUnary,
    UnaryStream,
    UnaryUnary,
)
from clarigrpc._rpc.call import CallCore, Deserializer, Serializer, message_codec, split_arguments
from clarigrpc._rpc.failed_call import FailedCall, as_api_error, as_grpc_error

INTERFACES: dict[CallKind, type[Any]] = {
    "unary_unary": aio.UnaryUnaryClientInterceptor,
    "unary_stream": aio.UnaryStreamClientInterceptor,
    "stream_unary": aio.StreamUnaryClientInterceptor,
    "stream_stream": aio.StreamStreamClientInterceptor,
}
_SENTINEL: Any = object()


class _Started:
    """The call within the interceptors: the latest one, as an interceptor may repeat it."""

    call: Any = None

    @property
    def request_id(self) -> str:
        return "" if self.call is None else str(self.call.request_id)


def _code_of(failure: Exception) -> grpc.StatusCode:
    error = as_grpc_error(failure)
    return error.code() if isinstance(error, aio.AioRpcError) else grpc.StatusCode.UNKNOWN


class _CallView:
    """What is asked of the call within the interceptors, where there is one."""

    _started: _Started

    @property
    def request_id(self) -> str:
        """Id of the call; empty before it has begun."""
        return self._started.request_id

    async def _settled(self) -> None:
        """Return when there is a call, or will be none."""

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None before the call has begun."""
        call = self._started.call
        return None if call is None else call.time_remaining()

    async def initial_metadata(self) -> Any:
        """Metadata that the server sent before the first response."""
        await self._settled()
        call = self._started.call
        return aio.Metadata() if call is None else await call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Metadata that the server sent with the status."""
        await self._settled()
        call = self._started.call
        return aio.Metadata() if call is None else await call.trailing_metadata()

    async def wait_for_connection(self) -> None:
        """Return when the call has a connection."""
        await self._settled()
        if self._started.call is not None:
            await self._started.call.wait_for_connection()


class _Outcome(NamedTuple):
    response: Any
    failure: Exception | None = None


async def _outcome(
    found: Awaitable[Any], convert: Callable[[Exception], Exception], *, chained: bool
) -> _Outcome:
    """How a call ends: what it is awaited for, or, ``chained``, what the interceptors return."""
    try:
        response = await found
        if chained and isinstance(response, aio.Call):
            call: Any = response
            response = await call
    except Exception as error:  # noqa: BLE001 - raised to whoever awaits the call
        return _Outcome(None, convert(error))
    return _Outcome(response)


class _ResponseCall(_CallView, aio.UnaryUnaryCall[Any, Any], aio.StreamUnaryCall[Any, Any]):
    """A call with one response, as interceptors or callers get it."""

    def __init__(
        self,
        outcome: Coroutine[Any, Any, _Outcome],
        started: _Started,
        requests: _WrittenRequests | None = None,
    ) -> None:
        self._started = started
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(outcome)
        self._requests = requests

    def __await__(self) -> Generator[Any, None, Any]:
        response, failure = yield from self._task.__await__()
        if failure is not None:
            raise failure from failure.__cause__
        return response

    def __del__(self) -> None:
        if not self._task.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def _settled(self) -> None:
        await asyncio.wait([self._task])

    def cancel(self) -> bool:
        """Cancel the call; awaiting it raises ``asyncio.CancelledError``."""
        return self._task.cancel()

    def cancelled(self) -> bool:
        """Whether the call was cancelled here."""
        return self._task.cancelled()

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._task.done()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called with this object when the call ends."""
        self._task.add_done_callback(lambda _: callback(self))

    async def code(self) -> grpc.StatusCode:
        """The gRPC status code, at the end of the call."""
        await self._settled()
        if self._task.cancelled():
            return grpc.StatusCode.CANCELLED
        failure = self._task.result().failure
        return grpc.StatusCode.OK if failure is None else _code_of(failure)

    async def details(self) -> str:
        """The gRPC status text, at the end of the call."""
        await self._settled()
        failure = None if self._task.cancelled() else self._task.result().failure
        return "" if failure is None else str(getattr(failure, "details", lambda: failure)())

    async def write(self, request: Any) -> None:
        """Send a request; returns when there is room for the next one."""
        await _written(self._requests).write(request, self._task)

    async def done_writing(self) -> None:
        """Say that no further request comes."""
        await _written(self._requests).write(_SENTINEL, self._task)


class _WrittenRequests(AsyncIterator[Any]):
    """The requests of a call that is written to, for its interceptors."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(1)

    async def __anext__(self) -> Any:
        request = await self._queue.get()
        if request is _SENTINEL:
            raise StopAsyncIteration
        return request

    async def write(self, request: Any, call: asyncio.Future[Any]) -> None:
        """Hand a request on, unless and until the call has ended."""
        if not call.done():
            put = asyncio.ensure_future(self._queue.put(request))
            try:
                await asyncio.wait([put, call], return_when=asyncio.FIRST_COMPLETED)
            finally:
                put.cancel()
            if put.done() and not put.cancelled():
                return
        raise asyncio.InvalidStateError("the call has ended")


def _written(requests: _WrittenRequests | None) -> _WrittenRequests:
    if requests is None:
        raise aio.UsageError("the call was given an iterable of requests")
    return requests


class _SeenStream(_CallView, aio.UnaryStreamCall[Any, Any], aio.StreamStreamCall[Any, Any]):
    """A stream of responses as interceptors get it: that of a call, or what one of them yields."""

    def __init__(self, responses: AsyncIterable[Any], started: _Started) -> None:
        self._started = started
        self._responses = aiter(responses)
        self._failure: FailedCall | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._responses)
        except errors.ApiError as error:
            self._failure = FailedCall(error)
            raise self._failure from error

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF``."""
        return await anext(self, aio.EOF)

    def cancel(self) -> bool:
        """Cancel the call."""
        call = self._started.call
        return False if call is None else bool(call.cancel())

    def cancelled(self) -> bool:
        """Whether the call was cancelled here."""
        call = self._started.call
        return False if call is None else bool(call.cancelled())

    def done(self) -> bool:
        """Whether the call has ended."""
        call = self._started.call
        return True if call is None else bool(call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called with this object when the call ends."""
        call = self._started.call
        if call is None:
            callback(self)
        else:
            call.add_done_callback(lambda _: callback(self))

    async def code(self) -> Any:
        """The gRPC status code, at the end of the call."""
        if self._failure is not None:
            return self._failure.code()
        call = self._started.call
        return grpc.StatusCode.OK if call is None else await call.code()

    async def details(self) -> Any:
        """The gRPC status text, at the end of the call."""
        if self._failure is not None:
            return self._failure.details()
        call = self._started.call
        return "" if call is None else await call.details()

    async def write(self, request: Any) -> None:
        """Interceptors are given the requests, and return an iterable of those to send."""
        _written(None)

    async def done_writing(self) -> None:
        """As ``write``."""
        _written(None)


async def _end_with_call(
    chain: asyncio.Task[Any], started: _Started, ended: asyncio.Future[None]
) -> None:
    """End the writes of a stream with its call, also where nobody reads its responses."""
    await asyncio.wait([chain])
    failed = chain.cancelled() or chain.exception() is not None  # nobody asks for requests
    call = None
    while call is not started.call:
        call = started.call
        with contextlib.suppress(errors.ClarigrpcError):  # whoever reads is told
            await call.code()
    if (failed or call is not None) and not ended.done():
        ended.set_result(None)


class InterceptedStream(_CallView, aio.UnaryStreamCall[Any, Any], aio.StreamStreamCall[Any, Any]):
    """The responses of a stream as they come out of the interceptors."""

    def __init__(
        self,
        chain: Coroutine[Any, Any, Any],
        started: _Started,
        convert: Callable[[Exception], Exception],
        requests: _WrittenRequests | None = None,
    ) -> None:
        self._started = started
        self._convert = convert
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._chain = self._loop.create_task(chain)
        self._responses: AsyncIterator[Any] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # Holds no reference to this object, whose end ends it.
        self._watch = (
            None
            if requests is None
            else self._loop.create_task(_end_with_call(self._chain, started, self._ended))
        )

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            if self._responses is None:
                self._responses = aiter(await self._chain)
            return await anext(self._responses)
        except StopAsyncIteration:
            self._end()
            raise
        except BaseException as error:
            self._end()
            failure = self._convert(error) if isinstance(error, Exception) else error
            if failure is error:
                raise
            raise failure from failure.__cause__

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF``."""
        return await anext(self, aio.EOF)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _settled(self) -> None:
        await asyncio.wait([self._chain])

    def __del__(self) -> None:
        for task in (self._chain, self._watch):
            if task is not None and not task.done() and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(task.cancel)

    def cancel(self) -> bool:
        """Cancel the call."""
        self._end()
        call = self._started.call
        cancelled = call is not None and bool(call.cancel())
        return self._chain.cancel() or cancelled

    def cancelled(self) -> bool:
        """Whether the call was cancelled here."""
        call = self._started.call
        return self._chain.cancelled() or (call is not None and bool(call.cancelled()))

    def done(self) -> bool:
        """Whether the call has ended."""
        call = self._started.call
        return self._chain.done() and (call is None or bool(call.done()))

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called with this object when the call ends."""

        def chained(_: Any) -> None:
            call = self._started.call
            if call is None or call.done():
                callback(self)
            else:
                call.add_done_callback(lambda _: callback(self))

        self._chain.add_done_callback(chained)

    async def code(self) -> Any:
        """The gRPC status code, at the end of the call."""
        await self._settled()
        call = self._started.call
        return grpc.StatusCode.UNKNOWN if call is None else await call.code()

    async def details(self) -> Any:
        """The gRPC status text, at the end of the call."""
        await self._settled()
        call = self._started.call
        return "" if call is None else await call.details()

    async def write(self, request: Any) -> None:
        """Send a request; returns when there is room for the next one."""
        await _written(self._requests).write(request, self._ended)

    async def done_writing(self) -> None:
        """Say that no further request comes."""
        await _written(self._requests).write(_SENTINEL, self._ended)

    async def __aenter__(self) -> InterceptedStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()


class _Intercepted:
    """Stands before the class of a multicallable."""

    kind: ClassVar[Any]  # a CallKind
    core: CallCore
    path: str
    rpc_error: Callable[..., errors.ApiError]
    bound: Callable[[], Any]

    def __init__(
        self,
        channel: AsyncChannel,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        self._parse, serialize = message_codec(path, serialize)
        super().__init__(channel, path, serialize, deserialize)  # type: ignore[call-arg]

        def plain(path: str) -> Any:
            return channel.innermost[self.kind](channel, path, serialize, deserialize)

        self._make_plain = plain
        self._plain = plain(path)
        self._interceptors = [
            getattr(one, f"intercept_{self.kind}")
            for one in self.core.settings.interceptors
            if isinstance(one, INTERFACES[self.kind])
        ]

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.bound()  # a closed client and a wrong loop are told at once
        request, given, ours = split_arguments(args, options)
        ours["compression"] = given["compression"]
        requests = None
        if self.kind.startswith("stream"):
            if request is None:
                request = requests = _WrittenRequests()
            request = self._in_messages(request)
        elif self._parse is not None:
            request = self._parse(request)
        details = aio.ClientCallDetails(
            self.path.encode(),  # type: ignore[arg-type]  # the stubs are wrong
            given["timeout"],
            aio.Metadata(*(given["metadata"] or ())),
            given["credentials"],
            given["wait_for_ready"],
        )
        started = _Started()
        chain = self._run(0, started, ours, details, request)
        if self.kind.endswith("stream"):
            return InterceptedStream(chain, started, self._convert, requests)
        return _ResponseCall(_outcome(chain, self._convert, chained=True), started, requests)

    async def _run(
        self, index: int, started: _Started, options: dict[str, Any], details: Any, request: Any
    ) -> Any:
        """Run the interceptors from ``index`` on, and the call within them."""
        if index == len(self._interceptors):
            return self._begun(started, options, details, request)
        proceed = partial(self._run, index + 1, started, options)
        found = await self._interceptors[index](proceed, details, request)
        if isinstance(found, aio.Call):
            return found
        if self.kind.endswith("stream"):
            return _SeenStream(found, started)
        return _ResponseCall(_answered(found), started)

    def _begun(self, started: _Started, options: dict[str, Any], details: Any, request: Any) -> Any:
        """The call within the interceptors, which may have changed what is called."""
        path = details.method.decode() if isinstance(details.method, bytes) else details.method
        plain = self._plain if path == self.path else self._make_plain(path)
        call = started.call = plain(
            request,
            timeout=details.timeout,
            metadata=details.metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            **options,
        )
        if self.kind.endswith("stream"):
            return _SeenStream(call, started)
        return _ResponseCall(_outcome(call, as_grpc_error, chained=False), started)

    def _in_messages(self, requests: AsyncIterable[Any] | Iterable[Any]) -> Any:
        parse = self._parse
        if parse is None:
            return requests
        if isinstance(requests, AsyncIterable):
            return _mapped(parse, requests)
        return map(parse, requests)

    def _convert(self, error: Exception) -> Exception:
        return as_api_error(error, lambda failure: self.rpc_error(failure, ""))


async def _mapped(parse: Deserializer, requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield parse(request)


async def _answered(response: Any) -> _Outcome:
    return _Outcome(response)


class InterceptedUnaryUnary(_Intercepted, UnaryUnary):
    """One request, one response, with interceptors."""


class InterceptedUnaryStream(_Intercepted, UnaryStream):
    """One request, many responses, with interceptors."""


class InterceptedStreamUnary(_Intercepted, StreamUnary):
    """Many requests, one response, with interceptors."""


class InterceptedStreamStream(_Intercepted, StreamStream):
    """Many requests, many responses, with interceptors."""


INTERCEPTED: dict[CallKind, Any] = {
    "unary_unary": InterceptedUnaryUnary,
    "unary_stream": InterceptedUnaryStream,
    "stream_unary": InterceptedStreamUnary,
    "stream_stream": InterceptedStreamStream,
}
