"""The multicallables of an async channel that is observed: they tell of each call.

What ``sync_observed`` is to threads, for one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from grpc import aio

from clarigrpc import errors
from clarigrpc._contract.methods import CallKind
from clarigrpc._rpc.async_channel import (
    AsyncChannel,
    StreamStream,
    StreamStreamCall,
    StreamUnary,
    StreamUnaryCall,
    UnaryStream,
    UnaryStreamCall,
    UnaryUnary,
    UnaryUnaryCall,
)
from clarigrpc._rpc.call import Deserializer, RetryLoop, Serializer, split_arguments
from clarigrpc._rpc.call_observer import CallObservation, CallObserver, measured_codec, watched


class _ObservedCall:
    """Stands before the class of a call."""

    seen: CallObservation | None = None
    request_id: str

    def _retries(self) -> RetryLoop:
        return watched(super()._retries(), self.seen)  # type: ignore[misc]

    def ended(self, failure: BaseException | None, response: Any = None) -> None:
        """The call is over."""
        if self.seen is not None:
            self.seen.ended(failure, response, self.request_id)

    def __del__(self) -> None:
        if self.seen is not None:
            self.seen.dropped(asyncio.CancelledError("dropped"), self.request_id)
        super().__del__()  # type: ignore[misc]


class _OneResponseCall(_ObservedCall):
    def __await__(self) -> Generator[Any, None, Any]:
        try:
            response = yield from super().__await__()  # type: ignore[misc]
        except BaseException as error:
            self.ended(error)
            raise
        self.ended(None, response)
        return response


class _ManyResponsesCall(_ObservedCall):
    _may_restart: bool

    async def __anext__(self) -> Any:
        try:
            return await super().__anext__()  # type: ignore[misc]
        except StopAsyncIteration:
            self.ended(None)
            raise
        except errors.PartialFailureError:  # a response like others: the next one may be read
            raise
        except BaseException as error:
            self.ended(error)
            raise

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF``."""
        try:
            response = await super().read()  # type: ignore[misc]
        except errors.PartialFailureError:
            raise
        except BaseException as error:
            self.ended(error)
            raise
        if response is aio.EOF:
            self.ended(None)
        return response

    def _checked(self, encoded: bytes) -> Any:
        try:
            response = super()._checked(encoded)  # type: ignore[misc]
        except errors.PartialFailureError as error:
            if self.seen is not None:
                self.seen.received(error.response)
            raise
        except errors.ApiError as error:
            if not self._may_restart:
                self.ended(error)
            raise
        if self.seen is not None:
            self.seen.received(response)
        return response

    def cancel(self) -> bool:
        """Cancel the call."""
        cancelled = bool(super().cancel())  # type: ignore[misc]
        self.ended(asyncio.CancelledError("cancelled by the caller"))
        return cancelled


class ObservedUnaryUnaryCall(_OneResponseCall, UnaryUnaryCall):
    """A running call that is observed."""


class ObservedUnaryStreamCall(_ManyResponsesCall, UnaryStreamCall):
    """The responses to one request, observed."""


class ObservedStreamUnaryCall(_OneResponseCall, StreamUnaryCall):
    """A stream of requests, observed."""


class ObservedStreamStreamCall(_ManyResponsesCall, StreamStreamCall):
    """A stream of requests and a stream of responses, observed."""


class _Observed:
    """Stands before the class of a multicallable."""

    kind: Any  # a CallKind
    observer: CallObserver

    def __init__(
        self,
        channel: AsyncChannel,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        super().__init__(channel, path, serialize, deserialize)  # type: ignore[call-arg]
        assert channel.observer is not None
        self.observer = channel.observer
        self.serialize, self.deserialize = measured_codec(self, self.observer)  # type: ignore[arg-type]

    def __call__(self, *args: Any, **options: Any) -> Any:
        request, given, ours = split_arguments(args, options)
        shown = None if self.kind.startswith("stream") else request
        seen = self.observer.begin(self, shown, given["metadata"])  # type: ignore[arg-type]
        given["metadata"] = seen.metadata
        try:
            call = super().__call__(request, **given, **ours)  # type: ignore[misc]
        except BaseException as error:
            seen.ended(error)
            raise
        call.seen = seen
        return call


class ObservedUnaryUnary(_Observed, UnaryUnary):
    """One request, one response, observed."""

    call_type = ObservedUnaryUnaryCall


class ObservedUnaryStream(_Observed, UnaryStream):
    """One request, many responses, observed."""

    call_type = ObservedUnaryStreamCall


class ObservedStreamUnary(_Observed, StreamUnary):
    """Many requests, one response, observed."""

    call_type = ObservedStreamUnaryCall


class ObservedStreamStream(_Observed, StreamStream):
    """Many requests, many responses, observed."""

    call_type = ObservedStreamStreamCall


OBSERVED: dict[CallKind, Any] = {
    made.kind: made
    for made in (ObservedUnaryUnary, ObservedUnaryStream, ObservedStreamUnary, ObservedStreamStream)
}
