"""The multicallables of a sync channel that is observed: they tell of each call.

What they add is around the plain ones, so that those do not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from clarigrpc import errors
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._contract.methods import CallKind
from clarigrpc._rpc.call import Deserializer, RetryLoop, Serializer
from clarigrpc._rpc.call_observer import CallObservation, CallObserver, measured_codec, watched
from clarigrpc._rpc.sync_channel import (
    ResponseFuture,
    ResponseStream,
    StreamStream,
    StreamUnary,
    SyncChannel,
    UnaryStream,
    UnaryUnary,
)
from clarigrpc._transports.transport import Metadata

# The call with one response that runs on this thread.
_RUNNING: ContextVar[CallObservation | None] = ContextVar("clarigrpc call", default=None)


class _ObservedStream(ResponseStream):
    """The responses of a stream that is observed."""

    seen: CallObservation | None = None

    def watch(self, seen: CallObservation) -> None:
        """Tell ``seen`` what becomes of the stream."""
        self.seen = seen
        retries = self._start_retrying
        if retries is not None:
            self._start_retrying = lambda: watched(retries(), seen)

    def __next__(self) -> Any:
        try:
            response = super().__next__()
        except StopIteration:
            self._ended(None)
            raise
        except errors.PartialFailureError as error:  # a response like others
            if self.seen is not None:
                self.seen.received(error.response)
            raise
        except BaseException as error:
            self._ended(error)
            raise
        if self.seen is not None:
            self.seen.received(response)
        return response

    def cancel(self) -> bool:
        cancelled = super().cancel()
        self._ended(errors.CancelledError("cancelled by the caller"))
        return cancelled

    def drop(self) -> None:
        seen, self.seen = self.seen, None
        if seen is not None:
            seen.dropped(errors.CancelledError("dropped"), self.request_id)
        super().drop()

    def _ended(self, failure: BaseException | None) -> None:
        if self.seen is not None:
            self.seen.ended(failure, request_id=self.request_id)


def _watch_future(future: ResponseFuture, seen: CallObservation) -> None:
    def over(ended: ResponseFuture) -> None:
        response, failure = ended.outcome()
        seen.ended(failure, response, ended.request_id)

    future.add_done_callback(over)


class _Observed:
    """Stands before the class of a multicallable."""

    observer: CallObserver

    def __init__(
        self,
        channel: SyncChannel,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        super().__init__(channel, path, serialize, deserialize)  # type: ignore[call-arg]
        assert channel.observer is not None
        self.observer = channel.observer
        self.serialize, self.deserialize = measured_codec(self, self.observer)  # type: ignore[arg-type]

    def _future(
        self, request: Any, shown: Any, timeout: Any, metadata: Metadata | None, options: Any
    ) -> Any:
        seen = self.observer.begin(self, shown, metadata)  # type: ignore[arg-type]
        try:
            future = super().future(request, timeout, seen.metadata, *options)  # type: ignore[misc]
        except BaseException as error:
            seen.ended(error)
            raise
        _watch_future(future, seen)
        return future

    def _stream(
        self,
        request: Any,
        shown: Any,
        timeout: Any,
        metadata: Metadata | None,
        options: Any,
        ours: Any,
    ) -> Any:
        seen = self.observer.begin(self, shown, metadata)  # type: ignore[arg-type]
        try:
            stream = super().__call__(request, timeout, seen.metadata, *options, **ours)  # type: ignore[misc]
        except BaseException as error:
            seen.ended(error)
            raise
        stream.watch(seen)
        return stream


class ObservedUnaryUnary(_Observed, UnaryUnary):
    """One request, one response, observed."""

    def _run(
        self, request: Any, timeout: float | None, metadata: Metadata | None, *options: Any
    ) -> tuple[Any, Any]:
        seen = self.observer.begin(self, request, metadata)
        token = _RUNNING.set(seen)
        try:
            found = super()._run(request, timeout, seen.metadata, *options)
        except BaseException as error:
            seen.ended(error)
            raise
        finally:
            _RUNNING.reset(token)
        seen.ended(None, found[0])
        return found

    def retries(
        self, idempotent: bool | None, deadline: float, retry: RetryPolicy | None = None
    ) -> RetryLoop:
        return watched(super().retries(idempotent, deadline, retry), _RUNNING.get())

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *options: Any,
        **named: Any,
    ) -> Any:
        return self._future(request, request, timeout, metadata, _in_order(options, named))


class ObservedUnaryStream(_Observed, UnaryStream):
    """One request, many responses, observed."""

    stream_type = _ObservedStream

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *options: Any,
        **named: Any,
    ) -> Any:
        ours = {name: named.pop(name) for name in ("idempotent", "retry") if name in named}
        options = _in_order(options, named)
        return self._stream(request, request, timeout, metadata, options, ours)


class ObservedStreamUnary(_Observed, StreamUnary):
    """Many requests, one response, observed."""

    def future(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *options: Any,
        **named: Any,
    ) -> Any:
        return self._future(request_iterator, None, timeout, metadata, _in_order(options, named))


class ObservedStreamStream(_Observed, StreamStream):
    """Many requests, many responses, observed."""

    stream_type = _ObservedStream

    def __call__(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *options: Any,
        **named: Any,
    ) -> Any:
        options = _in_order(options, named)
        return self._stream(request_iterator, None, timeout, metadata, options, {})


def _in_order(options: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """The further arguments of gRPC, which may be given by position or by name."""
    names = ("credentials", "wait_for_ready", "compression")[len(options) :]
    found = (*options, *(named.pop(name, None) for name in names))
    if named:
        raise TypeError(f"unexpected arguments: {', '.join(sorted(named))}")
    return found


OBSERVED: dict[CallKind, Any] = {
    made.kind: made
    for made in (ObservedUnaryUnary, ObservedUnaryStream, ObservedStreamUnary, ObservedStreamStream)
}
