"""The multicallables of a sync channel with interceptors, which see a call with all its retries.

gRPC's own ``intercept_channel`` runs the interceptors, over a channel made for the one call, which
has the arguments that gRPC does not know. Between them requests and responses are messages, also
where the caller's are serialized, and failures are errors of gRPC (``FailedCall``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import grpc

from clarigrpc import errors
from clarigrpc._contract.methods import CallKind
from clarigrpc._rpc.call import CallCore, Deserializer, Serializer, message_codec, split_arguments
from clarigrpc._rpc.channel_methods import ChannelMethods
from clarigrpc._rpc.failed_call import FailedCall, as_api_error, as_grpc_error
from clarigrpc._rpc.sync_channel import (
    CallInfo,
    StreamStream,
    StreamUnary,
    SyncChannel,
    UnaryStream,
    UnaryUnary,
)
from clarigrpc._transports.transport import FutureBase

Convert = Callable[[Exception], Exception]


class ConvertedFuture(CallInfo, FutureBase):
    """A future with other errors.

    Args:
        future: The future.
        convert: What it raises -> what this raises.
    """

    def __init__(self, future: Any, convert: Convert) -> None:
        self._call = future
        self._convert = convert

    @property
    def request_id(self) -> str:
        return str(getattr(self._call, "request_id", ""))

    def result(self, timeout: float | None = None) -> Any:
        failure = self.exception(timeout)
        if failure is not None:
            raise failure
        return self._call.result(timeout)

    def exception(self, timeout: float | None = None) -> Exception | None:
        failure = self._call.exception(timeout)
        return None if failure is None else self._convert(failure)

    def traceback(self, timeout: float | None = None) -> Any:
        return self._call.traceback(timeout)

    def code(self) -> Any:
        failure = self.exception()
        return failure.code() if isinstance(failure, FailedCall) else super().code()

    def details(self) -> Any:
        failure = self.exception()
        return failure.details() if isinstance(failure, FailedCall) else super().details()

    def cancelled(self) -> bool:
        return bool(self._call.cancelled())

    def running(self) -> bool:
        return bool(self._call.running())

    def done(self) -> bool:
        return bool(self._call.done())

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self._call.add_done_callback(lambda _: fn(self))


class _SeenStream(CallInfo, grpc.Call, Iterator[Any]):
    """A stream as interceptors get it."""

    def __init__(self, stream: Any) -> None:
        self._call = stream
        self._failure: Exception | None = None

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except errors.ApiError as error:
            self._failure = as_grpc_error(error)
            raise self._failure from error

    def drop(self) -> None:
        self._call.drop()

    def code(self) -> Any:
        return self._failure.code() if isinstance(self._failure, FailedCall) else super().code()

    def details(self) -> Any:
        failure = self._failure
        return failure.details() if isinstance(failure, FailedCall) else super().details()


class InterceptedStream(CallInfo, grpc.Call, Iterator[Any]):
    """The responses of a stream as they come out of the interceptors.

    Interceptors often are generators: the call begins when the first response is asked for.
    """

    def __init__(self, convert: Convert) -> None:
        self._convert = convert
        self._responses: Iterator[Any] = iter(())
        self._started: Any = None
        self._callbacks: list[Callable[[], None]] = []
        self._cancelled = False
        self._lock = threading.Lock()

    def started(self, call: Any) -> None:
        """The call within the interceptors has begun, perhaps once more."""
        with self._lock:
            self._started = call
            cancelled, callbacks = self._cancelled, list(self._callbacks)
        for callback in callbacks:
            if not call.add_callback(callback):
                callback()
        if cancelled:
            call.cancel()

    def come_out(self, responses: Any) -> InterceptedStream:
        """What the interceptors returned."""
        if isinstance(responses, grpc.RpcError) and isinstance(responses, grpc.Future):
            raise self._convert(responses.exception() or responses)  # there is no stream
        self._responses = iter(responses)
        return self

    @property
    def _call(self) -> Any:
        if self._started is None:
            raise errors.ConfigurationError(
                "an interceptor has not begun the call yet; it begins with the first response"
            )
        return self._started

    @property
    def request_id(self) -> str:
        """Id of the call; empty before it has begun."""
        return "" if self._started is None else str(self._started.request_id)

    def __next__(self) -> Any:
        try:
            return next(self._responses)
        except StopIteration:
            raise
        except Exception as error:
            failure = self._convert(error)
            if failure is error:
                raise
            raise failure from failure.__cause__

    def cancel(self) -> bool:
        """Cancel the call, or keep it from beginning."""
        with self._lock:
            self._cancelled = True
            call = self._started
        return True if call is None else bool(call.cancel())

    def drop(self) -> None:
        with self._lock:
            self._cancelled = True
            call = self._started
        if call is not None:
            call.drop()

    def is_active(self) -> bool:
        """Whether the call is still running, or has not begun."""
        return not self._cancelled if self._started is None else super().is_active()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have ``callback`` called when the call ends; False when it has ended."""
        with self._lock:
            self._callbacks.append(callback)
            call = self._started
        return True if call is None else bool(call.add_callback(callback))

    def __enter__(self) -> InterceptedStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()


class _OneCall(ChannelMethods):
    """What the interceptors of one call have for a channel.

    Args:
        method: What is called.
        options: Arguments that gRPC does not know.
        stream: Is told of the call, or of each, as an interceptor may repeat it.
    """

    def __init__(
        self,
        method: _Intercepted,
        options: dict[str, Any],
        stream: InterceptedStream | None = None,
    ) -> None:
        self._method = method
        self._options = options
        self._stream = stream

    def multicallable(
        self,
        kind: CallKind,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> Any:
        return _Innermost(self._method.plain(path), self._options, self._stream)


class _Innermost:
    """The multicallable within the interceptors of one call."""

    def __init__(
        self, plain: Any, options: dict[str, Any], stream: InterceptedStream | None
    ) -> None:
        self._plain = plain
        self._options = options
        self._stream = stream

    def with_call(self, request: Any, **given: Any) -> tuple[Any, Any]:
        try:
            found: tuple[Any, Any] = self._plain.with_call(request, **given, **self._options)
        except errors.ApiError as error:
            raise as_grpc_error(error) from error
        return found

    def future(self, request: Any, **given: Any) -> Any:
        return ConvertedFuture(self._plain.future(request, **given), as_grpc_error)

    def __call__(self, request: Any, **given: Any) -> Any:
        if self._stream is None:
            return self.with_call(request, **given)[0]
        call = self._plain(request, **given, **self._options)
        self._stream.started(call)
        return _SeenStream(call)


class _Intercepted:
    """Stands before the class of a multicallable."""

    kind: ClassVar[Any]  # a CallKind
    core: CallCore
    path: str
    rpc_error: Callable[..., errors.ApiError]

    def __init__(
        self,
        channel: SyncChannel,
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

    def plain(self, path: str | bytes) -> Any:
        """The multicallable within the interceptors, which may have changed the path."""
        if isinstance(path, bytes):
            path = path.decode()
        return self._plain if path == self.path else self._make_plain(path)

    def _through(self, options: dict[str, Any], stream: InterceptedStream | None = None) -> Any:
        """The multicallable of one call, with the interceptors around it."""
        innermost: Any = _OneCall(self, options, stream)
        interceptors: Any = self.core.settings.interceptors
        channel = grpc.intercept_channel(innermost, *interceptors)
        return getattr(channel, self.kind)(self.path)

    def _in_messages(self, request: Any) -> Any:
        """The request, or the requests, as interceptors are to see them."""
        if self._parse is None:
            return request
        return map(self._parse, request) if self.kind.startswith("stream") else self._parse(request)

    def _convert(self, error: Exception) -> Exception:
        return as_api_error(error, lambda failure: self.rpc_error(failure, ""))


class _OneResponse(_Intercepted):
    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.with_call(*args, **options)[0]

    def with_call(self, *args: Any, **options: Any) -> tuple[Any, Any]:
        request, given, ours = split_arguments(args, options)
        try:
            found: tuple[Any, Any] = self._through(ours).with_call(
                self._in_messages(request), **given
            )
        except grpc.RpcError as error:
            failure = self._convert(error)
            raise failure from failure.__cause__
        return found

    def future(self, *args: Any, **options: Any) -> Any:
        request, given, ours = split_arguments(args, options)
        return ConvertedFuture(
            self._through(ours).future(self._in_messages(request), **given), self._convert
        )


class _ManyResponses(_Intercepted):
    def __call__(self, *args: Any, **options: Any) -> Any:
        request, given, ours = split_arguments(args, options)
        stream = InterceptedStream(self._convert)
        through = self._through(ours, stream)
        return stream.come_out(through(self._in_messages(request), **given))


class InterceptedUnaryUnary(_OneResponse, UnaryUnary):
    """One request, one response, with interceptors."""


class InterceptedUnaryStream(_ManyResponses, UnaryStream):
    """One request, many responses, with interceptors."""


class InterceptedStreamUnary(_OneResponse, StreamUnary):
    """Many requests, one response, with interceptors."""


class InterceptedStreamStream(_ManyResponses, StreamStream):
    """Many requests, many responses, with interceptors."""


INTERCEPTED: dict[CallKind, Any] = {
    "unary_unary": InterceptedUnaryUnary,
    "unary_stream": InterceptedUnaryStream,
    "stream_unary": InterceptedStreamUnary,
    "stream_stream": InterceptedStreamStream,
}
