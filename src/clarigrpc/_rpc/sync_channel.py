"""The sync channel: a ``grpc.Channel`` whose calls carry everything that a call needs.

Any generated stub of the service binds to it. Its multicallables add metadata, deadline, retries,
the check of the V2 status and the mapping of errors, and look their method up by its path. A
transport below moves bytes: messages are serialized here, so that a message of a wrong type is an
ordinary ``TypeError`` and a retry does not serialize again.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from os import getpid
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from clarigrpc import errors
from clarigrpc._config.client_options import SyncInterceptor
from clarigrpc._config.retry_policy import Retry, as_policy
from clarigrpc._config.settings import Settings
from clarigrpc._contract.methods import CallKind
from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._rpc import call_observer, grpcio_internals
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
from clarigrpc._rpc.retry import deadline_after
from clarigrpc._rpc.shared_transport import SyncSharedTransport
from clarigrpc._rpc.sync_fast_path import DirectCall, DirectStart, direct
from clarigrpc._transports.sync_grpc_calls import GrpcCall
from clarigrpc._transports.transport import FutureBase, Metadata, SyncTransport, unhedged

if TYPE_CHECKING:  # generic in the type stubs only
    from clarigrpc._rpc.core_streams import StartStream
    from clarigrpc._rpc.polled_streams import StartPolled

    _UnaryUnaryBase = grpc.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStreamBase = grpc.UnaryStreamMultiCallable[Any, Any]
    _StreamUnaryBase = grpc.StreamUnaryMultiCallable[Any, Any]
    _StreamStreamBase = grpc.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnaryBase = grpc.UnaryUnaryMultiCallable
    _UnaryStreamBase = grpc.UnaryStreamMultiCallable
    _StreamUnaryBase = grpc.StreamUnaryMultiCallable
    _StreamStreamBase = grpc.StreamStreamMultiCallable


class SyncChannel(ChannelMethods, grpc.Channel):
    """A ``grpc.Channel`` over a transport, which is opened at the first call.

    Safe to share between threads. After a fork the child opens a transport of its own.

    Attributes:
        observer: What is told of the calls, if anything.
        innermost: The multicallables within interceptors, by the kind of their calls.
    """

    def __init__(self, settings: Settings, shared: SyncSharedTransport | None = None) -> None:
        self._owner = shared is None
        self.shared = shared or SyncSharedTransport(settings)
        self.core = CallCore(settings, self.shared)
        self.observer = call_observer.installed()
        self.innermost: dict[CallKind, Any] = PLAIN
        if self.observer is not None:
            from clarigrpc._rpc.sync_observed import OBSERVED

            self.innermost = OBSERVED
            self.observer.opened(self.core)
        self._kinds = self.innermost
        if settings.interceptors:
            from clarigrpc._rpc.sync_interceptors import INTERCEPTED

            check_interceptors(settings, SyncInterceptor, "Client", "grpc")
            self._kinds = INTERCEPTED

    def view(self, settings: Settings) -> SyncChannel:
        """A channel with other settings over the same transport, which closing it leaves open."""
        return SyncChannel(settings, self.shared)

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        """Have ``callback`` called with every change of the connectivity (over gRPC).

        Of several connections, the first one tells.

        Raises:
            NotImplementedError: The transport is HTTP, which connects as needed.
        """
        self._watched().subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Undo ``subscribe``."""
        self._watched().unsubscribe(callback)

    def _watched(self) -> grpc.Channel:
        channels = self.shared.transport().channels
        if not channels:
            raise NotImplementedError("HTTP connects as needed: there is no connectivity to watch")
        return channels[0]

    def multicallable(
        self,
        kind: CallKind,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> Any:
        return self._kinds[kind](self, path, serialize, deserialize)

    def pause(self, seconds: float) -> None:
        """Wait between calls.

        Raises:
            ClosedError: The client was closed meanwhile.
        """
        self.shared.pause(seconds)

    def close(self) -> None:
        """Cancel what is running and close the connection; later calls raise ``ClosedError``."""
        if self._owner:
            self.shared.close()

    def __enter__(self) -> SyncChannel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Multicallable(BoundMethod):
    """A method of the service, bound to the transport when it is first called."""

    kind: ClassVar[CallKind]

    __slots__ = ("_owner", "_real", "_shared")

    def __init__(
        self,
        channel: SyncChannel,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        super().__init__(channel.core, path, serialize, deserialize)
        self._shared = channel.shared
        self._owner: SyncTransport | None = None
        self._real: Any = None

    def _bound(self) -> Any:
        """The multicallable of the transport, made anew after a fork."""
        shared = self._shared
        if self._owner is not shared.current or shared.pid != getpid() or not self._real:
            owner = shared.transport()
            self._bind(owner.multicallable(self.kind, self.path))
            self._owner = owner  # last: another thread does not call what is half bound
        return self._real

    def _bind(self, real: Any) -> None:
        """Take another multicallable of a transport."""
        self._real = real

    def pause(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Wait before the next attempt, or until the event; whether it is set.

        Raises:
            ClosedError: The client was closed meanwhile.
        """
        return self._shared.pause(seconds, until)

    def _fetched(self, timeout: float) -> Metadata:
        """What identifies the caller. A call that gets none counts as failed."""
        try:
            return self.core.credentials.fetch(timeout)
        except Exception as error:
            self.counts.failed(error)
            raise

    def _metadata(self, extra: Metadata | None, timeout: float) -> tuple[str, Metadata, float]:
        """Id and metadata of a new call, and the rest of the timeout after fetching credentials.

        The call counts for the retry budget.
        """
        self._bound()  # notices a fork, after which ids start anew
        core = self.core
        pairs: Metadata | None = core.credentials.cached()
        if pairs is None:
            began = time.monotonic()
            pairs = self._fetched(timeout)
            timeout = max(0.0, timeout - (time.monotonic() - began))
        core.budget.earn()
        return *core.metadata(pairs, extra), timeout


_Options: TypeAlias = tuple[grpc.CallCredentials | None, bool | None, grpc.Compression | None]


class Cancellation:
    """Cancels sync calls from another thread; they are given it when they start.

    Attributes:
        cancelled: Set when they are.
    """

    def __init__(self) -> None:
        self._calls: set[Any] = set()
        self._lock = threading.Lock()
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Cancel running and later calls: they end with ``CancelledError``."""
        self.cancelled.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    @contextmanager
    def of(self, call: Any) -> Iterator[None]:
        """Have ``cancel`` reach ``call`` while the block runs."""
        with self._lock:
            self._calls.add(call)
        try:
            if self.cancelled.is_set():
                call.cancel()
            yield
        finally:
            with self._lock:
                self._calls.discard(call)


# One request, one response.
class UnaryUnary(_Multicallable, _UnaryUnaryBase):
    __doc__ = DOCUMENTATION
    kind = "unary_unary"
    __slots__ = ("_direct", "_start")

    _direct: DirectCall | None
    _start: DirectStart | None

    def _bind(self, real: Any) -> None:
        self._direct, self._start = direct(real) or (None, None)
        super()._bind(real)

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        *,
        idempotent: bool | None = None,
        raise_on_partial: bool | None = None,
        retry: Retry | None = None,
    ) -> Any:
        plain = credentials is None and wait_for_ready is None and compression is None
        return self._run(
            request,
            timeout,
            metadata,
            None if plain else (credentials, wait_for_ready, compression),
            idempotent,
            raise_on_partial,
            retry,
        )[0]

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        *,
        idempotent: bool | None = None,
        raise_on_partial: bool | None = None,
        retry: Retry | None = None,
        cancellation: Cancellation | None = None,
    ) -> tuple[Any, Any]:
        """The response, and the call it came from.

        Args:
            request: A message of the method's request type.
            timeout: Seconds, retries included. None uses the client's setting.
            metadata: Further (key, value) pairs, sent beside the client's.
            credentials: Call credentials of gRPC, beside the client's.
            wait_for_ready: Whether to wait, within the timeout, until there is a connection.
            compression: Compression of the request.
            idempotent: Whether the call may be sent twice. None uses the property of the method.
            raise_on_partial: Whether MIXED_STATUS is an error. None uses the client's setting.
            retry: When the call is sent again after a failure; False sends it once. None uses the
                client's setting.
            cancellation: What another thread can end this call with.
        """
        options = (credentials, wait_for_ready, compression)
        return self._run(
            request, timeout, metadata, options, idempotent, raise_on_partial, retry, cancellation
        )

    def _run(
        self,
        request: Any,
        timeout: float | None,
        metadata: Metadata | None,
        options: _Options | None,
        idempotent: bool | None,
        raise_on_partial: bool | None,
        retry: Retry | None,
        cancellation: Cancellation | None = None,
    ) -> tuple[Any, Any]:
        """The response, and the call it came from; ``options`` None: nobody looks at the call."""
        # The path of nearly every call: what could be a method of its own is written out.
        core = self.core
        clock = time.monotonic
        began = clock()
        if timeout is None:
            timeout = core.timeout
            deadline = began + timeout
        else:
            deadline = deadline_after(timeout, began)
        policy = None if retry is None else as_policy(retry)
        payload = self.serialize(request)
        self._bound()
        pairs: Metadata | None = core.credentials.cached()
        if pairs is None:
            pairs = self._fetched(timeout)
            timeout = max(0.0, deadline - time.monotonic())
        request_id, pairs = core.metadata(pairs, metadata)
        core.budget.earn()
        retries = None
        while True:
            try:
                if options is None and self._direct is not None:
                    encoded, call = self._direct(payload, timeout, pairs)
                else:
                    encoded, call = self._send(
                        payload,
                        timeout,
                        pairs,
                        options or (),
                        request_id,
                        cancellation,
                        once=is_sent_once(idempotent, policy),
                    )
                if encoded is None:
                    raise self.silent(request_id)
                response = self.deserialize(encoded)
                if not self.checked or response.status.code == SUCCESS:
                    if retries is not None:
                        retries.close()  # now: an error's traceback may keep this frame
                    self.counts.succeeded(clock() - began)
                    return response, call
                failure = self.response_error(
                    response, request_id, call.trailing_metadata(), raise_on_partial
                )
                if failure is None:
                    self.counts.succeeded(clock() - began)
                    return response, call
            except grpc.RpcError as error:
                failure = self.unary_error(error, request_id)
                failure.__cause__ = error
            except errors.ApiError as error:
                failure = error
            except DecodeError as error:
                failure = self.garbled(error, request_id)
            if retries is None:
                retries = self.retries(idempotent, deadline, policy)
                until = None if cancellation is None else cancellation.cancelled
            try:
                if self.pause(retries.send(failure), until):
                    raise errors.CancelledError("cancelled by the caller")
            except errors.ClarigrpcError as error:
                self.counts.failed(error)
                raise
            timeout = deadline - clock()
            self._bound()

    def _send(
        self,
        payload: bytes,
        timeout: float,
        pairs: Metadata,
        options: tuple[Any, ...],
        request_id: str,
        cancellation: Cancellation | None,
        *,
        once: bool,
    ) -> tuple[Any, Any]:
        """One attempt by way of the transport's multicallable."""
        if cancellation is None:
            real = unhedged(self._real) if once else self._real
            return real.with_call(payload, timeout, pairs, *options)  # type: ignore[no-any-return]
        call = self._real.future(payload, timeout, pairs, *options)
        try:
            with cancellation.of(call):
                return call.result(), call
        except grpc.FutureCancelledError:
            if call.cancelled():
                raise self.cancelled(request_id) from None
            raise self.unary_error(call, request_id) from None

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start the call and return a ``ResponseFuture`` at once. There is one attempt."""
        timeout, _ = self.core.deadline(timeout, streaming=False)
        payload = self.serialize(request)
        request_id, pairs, timeout = self._metadata(metadata, timeout)
        options = (pairs, credentials, wait_for_ready, compression)
        return ResponseFuture(self, self._bound().future(payload, timeout, *options), request_id)

    def begin(
        self,
        request: Any,
        timeout: float | None,
        started: Callable[[BegunCall], object],
        ended: Callable[[BegunCall], None],
    ) -> None:
        """Start the call, and have ``ended`` called when it has ended.

        There is one attempt. It costs less than a ``future``: nobody else can watch the call.

        Args:
            request: A message of the method's request type.
            timeout: Seconds. None uses the client's setting.
            started: Called with the call at the moment from which it may have to be cancelled.
            ended: Called with it on a thread of gRPC; must not raise.
        """
        call = BegunCall(self, ended)
        if type(self) is not UnaryUnary:
            call.follow(self.future(request, timeout), started)
            return
        timeout, _ = self.core.deadline(timeout, streaming=False)
        payload = self.serialize(request)
        call.request_id, pairs, timeout = self._metadata(None, timeout)
        if self._start is not None:
            started(call)
            if call.start(self._start, payload, timeout, pairs):
                return
        future = self._bound().future(payload, timeout, pairs)
        call.follow(ResponseFuture(self, future, call.request_id), started)


class BegunCall:
    """A call with one request and one response that runs by itself."""

    __slots__ = ("_cancel", "_counted", "_ended", "_future", "_method", "_outcome", "request_id")

    def __init__(self, method: _Multicallable, ended: Callable[[BegunCall], None]) -> None:
        self.request_id = ""
        self._method = method
        self._ended = ended
        self._counted = CountedCall(method.counts)
        self._cancel: Callable[[], object] | None = None
        self._outcome: tuple[bytes | None, Any, grpc.RpcError | None] | None = None
        self._future: ResponseFuture | None = None

    def start(self, start: DirectStart, payload: bytes, timeout: float, pairs: Metadata) -> bool:
        """Start the call; False if that was not possible."""

        def note(encoded: bytes | None, status: Any, error: grpc.RpcError | None) -> None:
            self._outcome = encoded, status, error
            self._counted.note_end()
            self._ended(self)

        with HeldInterrupt():
            self._cancel = start(payload, timeout, pairs, note)
        return self._cancel is not None

    def follow(self, future: ResponseFuture, started: Callable[[BegunCall], object]) -> None:
        """Stand for a future."""
        try:
            self._cancel, self._future = future.cancel, future
            started(self)
            future.add_done_callback(lambda _: self._ended(self))
        except BaseException:
            future.cancel()
            raise

    @property
    def running(self) -> bool:
        """Whether the call has not ended."""
        return self._outcome is None if self._future is None else self._future.running()

    def cancel(self) -> None:
        """End the call."""
        if self._cancel is not None:
            with HeldInterrupt():
                self._cancel()

    def result(self) -> Any:
        """The response of a call that has ended.

        Raises:
            ApiError: It failed.
        """
        if self._future is not None:
            return self._future.result()
        try:
            response = self._response()
        except errors.ApiError as error:
            self._counted.ended(error)
            raise
        self._counted.ended(None)
        return response

    def _response(self) -> Any:
        method, request_id = self._method, self.request_id
        assert self._outcome is not None
        encoded, status, error = self._outcome
        if error is not None:
            raise method.unary_error(error, request_id) from error
        if encoded is None:
            raise method.silent(request_id)
        response = method.parse(encoded, request_id)
        if not method.checked or response.status.code == SUCCESS:
            return response
        failure = method.response_error(response, request_id, status.trailing_metadata(), None)
        if failure is not None:
            raise failure
        return response


# One request, a stream of responses.
class UnaryStream(_Multicallable, _UnaryStreamBase):
    __doc__ = DOCUMENTATION
    kind = "unary_stream"
    stream_type: ClassVar[type[ResponseStream]]
    __slots__ = ("_direct",)

    _direct: StartPolled | None

    def _bind(self, real: Any) -> None:
        from clarigrpc._rpc.polled_streams import polled  # not before the first stream

        self._direct = polled(real)
        super()._bind(real)

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        *,
        idempotent: bool | None = None,
        retry: Retry | None = None,
    ) -> Any:
        """Open the stream; the result is a ``ResponseStream``.

        It is opened again after a failure only before its first response.
        """
        policy = None if retry is None else as_policy(retry)
        timeout, deadline = self.core.deadline(timeout, streaming=True)
        payload = self.serialize(request)
        request_id, pairs, timeout = self._metadata(metadata, timeout)
        options = (pairs, credentials, wait_for_ready, compression)
        plain = credentials is None and wait_for_ready is None and compression is None

        def start(timeout: float) -> Any:
            real, call = self._bound(), None
            if plain and self._direct is not None:
                with HeldInterrupt():
                    call = self._direct(payload, timeout, pairs)
            return real(payload, timeout, *options) if call is None else call

        def retries() -> RetryLoop:
            return self.retries(idempotent, deadline, policy)

        return self.stream_type(
            self, start(timeout), request_id, deadline, restart=start, retries=retries
        )


# A stream of requests, one response. Never repeated: the requests are gone.
class StreamUnary(_Multicallable, _StreamUnaryBase):
    __doc__ = DOCUMENTATION
    kind = "stream_unary"
    __slots__ = ()

    def __call__(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self.with_call(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )[0]

    def with_call(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, Any]:
        """The response, and the call it came from."""
        future = self.future(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        return future.result(), future

    def future(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Start the call and return a ``ResponseFuture`` at once."""
        timeout, _ = self.core.deadline(timeout, streaming=True)
        requests = RequestStream(request_iterator, self.serialize)
        request_id, pairs, timeout = self._metadata(metadata, timeout)
        options = (pairs, credentials, wait_for_ready, compression)
        with HeldInterrupt():
            call = self._bound().future(requests, timeout, *options)
            requests.attach(call)
        return ResponseFuture(self, call, request_id, requests)


# A stream of requests, a stream of responses. Never repeated: the requests are gone.
class StreamStream(_Multicallable, _StreamStreamBase):
    __doc__ = DOCUMENTATION
    kind = "stream_stream"
    stream_type: ClassVar[type[ResponseStream]]
    __slots__ = ("_direct",)

    _direct: StartStream | None

    def _bind(self, real: Any) -> None:
        from clarigrpc._rpc.core_streams import direct_stream  # not before the first stream

        self._direct = direct_stream(real)
        super()._bind(real)

    def __call__(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        timeout, deadline = self.core.deadline(timeout, streaming=True)
        requests = RequestStream(request_iterator, self.serialize)
        request_id, pairs, timeout = self._metadata(metadata, timeout)
        plain = credentials is None and wait_for_ready is None and compression is None
        with HeldInterrupt():
            real, call = self._bound(), None
            if plain and self._direct is not None:
                from clarigrpc._rpc import sync_streams

                call = sync_streams.begin(self._direct, requests, timeout, pairs)
            if call is None:
                call = real(requests, timeout, pairs, credentials, wait_for_ready, compression)
            requests.attach(call)
        return self.stream_type(self, call, request_id, deadline, requests=requests)


PLAIN: dict[CallKind, type[_Multicallable]] = {
    made.kind: made for made in (UnaryUnary, UnaryStream, StreamUnary, StreamStream)
}


class RequestStream(Iterator[bytes]):
    """Serialized requests out of the caller's iterable, consumed by gRPC's thread.

    An error of the caller's iterable, or of serializing what it gave, cancels the call (a
    half-closed stream would look complete to the server) and is raised to the caller.
    """

    def __init__(self, requests: Iterable[Any], serialize: Serializer) -> None:
        self._requests = iter(requests)
        self._serialize = serialize
        self._call: Any = None
        self._attached = threading.Event()
        self.error: Exception | None = None

    def attach(self, call: Any) -> None:
        """Tell which call consumes this."""
        self._call = call
        self._attached.set()

    def __next__(self) -> bytes:
        try:
            return self._serialize(next(self._requests))
        except StopIteration:
            raise
        except Exception as error:  # noqa: BLE001 - raised to the caller from its own call
            self.error = error
            self._attached.wait()
            self._call.cancel()
            raise StopIteration from None


class CallInfo:
    """What can be asked of a call; the transport's call answers."""

    _call: Any

    def cancel(self) -> bool:
        """Cancel the call; what waits for it ends with ``CancelledError``."""
        return bool(self._call.cancel())

    def drop(self) -> None:
        """``cancel`` for finalizers: who observes the call is told later, without a lock."""
        self.cancel()

    def is_active(self) -> bool:
        """Whether the call is still running."""
        return bool(self._call.is_active())

    def time_remaining(self) -> float:
        """Seconds until the deadline."""
        return float(self._call.time_remaining())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have ``callback`` called when the call ends; False when it has ended."""
        return bool(self._call.add_callback(callback))

    def initial_metadata(self) -> Any:
        """Metadata that the server sent before the first response."""
        return self._call.initial_metadata()

    def trailing_metadata(self) -> Any:
        """Metadata that the server sent with the status."""
        return self._call.trailing_metadata()

    def code(self) -> Any:
        """The gRPC status code; waits for the end of the call."""
        return self._call.code()

    def details(self) -> Any:
        """The gRPC status text; waits for the end of the call."""
        return self._call.details()


_RENDEZVOUS = "_SingleThreadedRendezvous"
PRIVATE_NAMES: grpcio_internals.Names = {
    "grpc._channel": (_RENDEZVOUS, f"{_RENDEZVOUS}._consume_next_event")
}


@cache
def single_threaded_calls() -> dict[type[Any], Callable[[Any], Any]]:
    """The class of calls that are read on the caller's thread -> what takes their next event.

    Empty where grpcio's internals are not as expected: what gRPC holds of a cancelled call is then
    not freed early.
    """
    user = "freeing of streams"
    internals = grpcio_internals.load(PRIVATE_NAMES)
    if internals.missing:
        grpcio_internals.log_public_way(user, internals.missing)
        return {}
    made, consume = internals.objects.values()
    if len(inspect.signature(consume).parameters) != 1:
        grpcio_internals.log_public_way(user, "_consume_next_event takes arguments")
        return {}
    return {made: consume}


class ResponseStream(CallInfo, grpc.Call, Iterator[Any]):
    """The responses of a stream. Drop it, ``cancel`` it or leave its ``with`` block to end it."""

    def __init__(
        self,
        method: _Multicallable,
        call: Any,
        request_id: str,
        deadline: float,
        *,
        requests: RequestStream | None = None,
        restart: Callable[[float], Any] | None = None,
        retries: Callable[[], RetryLoop] | None = None,
    ) -> None:
        self._method = method
        self.request_id = request_id
        self._deadline = deadline
        self._requests = requests
        self._restart = restart
        self._start_retrying = retries
        self._retries: RetryLoop | None = None
        self._counted = CountedCall(method.counts)
        self._stopped = threading.Event()
        self._reading = threading.Lock()
        self._take_up(call)

    def _take_up(self, call: Any) -> None:
        """Read this call from now on."""
        real = call.real if isinstance(call, GrpcCall) else None
        self._call = call
        # What has come already is taken without a lock and without holding back an interrupt.
        self._received: Callable[[], bytes | None] | None = getattr(real, "received", None)
        # A call that sees to both by itself.
        self._read: Callable[[], bytes] | None = getattr(real, "read", None)

    def cancel(self) -> bool:
        """Cancel the call; what waits for it, or for its repetition, gets ``CancelledError``."""
        self._stopped.set()
        cancelled = super().cancel()
        self._free()
        self._counted.ended(errors.CancelledError("cancelled by the caller"))
        return cancelled

    def __del__(self) -> None:
        with HeldInterrupt(deliver_later=True):
            self.drop()

    def _free(self) -> None:
        """Take the last events of a call that is over.

        gRPC frees a call that is read on the caller's thread (``SingleThreadedUnaryStream``) with
        its last event, which nobody takes of a call that was cancelled or dropped. Other kinds
        of call need nothing. A thread that is reading does it itself afterwards.
        """
        call = self._call.real if isinstance(self._call, GrpcCall) else None
        drain = getattr(call, "drain", None)
        if drain is not None:
            with HeldInterrupt():
                drain()
            return
        consume = single_threaded_calls().get(type(call))
        if consume is None:
            return
        with HeldInterrupt():
            if not self._reading.acquire(blocking=False):
                return
            try:
                while getattr(getattr(call, "_state", None), "due", ()):
                    consume(call)
            finally:
                self._reading.release()

    def __next__(self) -> Any:
        try:
            while True:
                try:
                    return self._receive()
                except errors.ApiError as error:
                    if self._restart is None or self._start_retrying is None:
                        raise
                    if self._retries is None:
                        self._retries = self._start_retrying()
                    try:
                        delay = self._retries.send(error)
                    except errors.ApiError:
                        self._restart = None  # whoever reads on reads this call
                        raise
                    self._call.cancel()
                    self._free()
                    if self._method.pause(delay, self._stopped):
                        raise self._method.cancelled(self.request_id) from None
                    self._take_up(self._restart(self._deadline - time.monotonic()))
                    if self._stopped.is_set():
                        self._call.cancel()
        except StopIteration:
            self._counted.ended(None)
            raise
        except errors.PartialFailureError:  # a response like others: the next one may be read
            raise
        except Exception as error:
            self._counted.ended(error)
            raise

    def _receive(self) -> Any:
        encoded = None if self._received is None else self._received()
        try:
            if self._read is not None:
                encoded = self._read()
            elif encoded is None:
                with self._reading:
                    encoded = next(self._call)
        except StopIteration:
            self._free()
            raise
        except grpc.RpcError as error:
            self._free()
            if self._requests is not None and self._requests.error is not None:
                raise self._requests.error from None
            raise self._method.rpc_error(error, self.request_id) from error
        try:
            response = self._method.parse(encoded, self.request_id)
        except errors.InternalError:
            self._call.cancel()
            self._free()
            raise
        if self._method.checked and response.status.code != SUCCESS:
            failure = self._method.response_error(response, self.request_id, None, None)
            if failure is not None:
                raise failure
        self._restart = None  # what was delivered cannot be taken back
        if self._retries is not None:
            self._retries.close()
            self._retries = None
        return response

    def __enter__(self) -> ResponseStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()


class ResponseFuture(CallInfo, FutureBase):
    """The response of a call that runs by itself."""

    def __init__(
        self,
        method: _Multicallable,
        call: Any,
        request_id: str,
        requests: RequestStream | None = None,
    ) -> None:
        self._method = method
        self._call = call
        self.request_id = request_id
        self._requests = requests
        self._known: tuple[Any, Exception | None] | None = None
        self._counted = CountedCall(method.counts)
        call.add_done_callback(lambda _, counted=self._counted: counted.note_end())

    def result(self, timeout: float | None = None) -> Any:
        """The response.

        Raises:
            ApiError: The call failed.
            grpc.FutureTimeoutError: It has not ended within ``timeout`` seconds.
        """
        response, failure = self.outcome(timeout)
        if failure is not None:
            raise failure
        return response

    def exception(self, timeout: float | None = None) -> Exception | None:
        """What ``result`` would raise, or None."""
        return self.outcome(timeout)[1]

    def outcome(self, timeout: float | None = None) -> tuple[Any, Exception | None]:
        """The response, or None and the failure.

        Raises:
            grpc.FutureTimeoutError: It has not ended within ``timeout`` seconds.
        """
        if self._known is None:
            self._known = self._outcome(timeout)
            self._counted.ended(self._known[1])
        return self._known

    def _outcome(self, timeout: float | None) -> tuple[Any, Exception | None]:
        method = self._method
        try:
            encoded = self._call.result(timeout)
        except grpc.FutureCancelledError:
            if self._requests is not None and self._requests.error is not None:
                return None, self._requests.error
            if self._call.cancelled():
                return None, method.cancelled(self.request_id)
            return None, method.unary_error(self._call, self.request_id)
        except grpc.RpcError as error:
            return None, method.unary_error(error, self.request_id)
        try:
            response = method.parse(encoded, self.request_id)
        except errors.InternalError as error:
            return None, error
        if not method.checked or response.status.code == SUCCESS:
            return response, None
        failure = method.response_error(
            response, self.request_id, self._call.trailing_metadata(), None
        )
        return response, failure

    def traceback(self, timeout: float | None = None) -> Any:
        """The traceback of ``exception``, or None."""
        failure = self.exception(timeout)
        return None if failure is None else failure.__traceback__

    def cancelled(self) -> bool:
        """Whether the call was cancelled here."""
        return bool(self._call.cancelled())

    def running(self) -> bool:
        """Whether the call has not ended."""
        return bool(self._call.running())

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._call.done())

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have ``fn`` called with this object when the call ends."""
        self._call.add_done_callback(lambda _: fn(self))


UnaryStream.stream_type = StreamStream.stream_type = ResponseStream
