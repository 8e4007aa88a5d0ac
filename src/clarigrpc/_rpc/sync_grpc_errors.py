"""Sync calls of programs written for grpcio: see ``grpc_errors_channel``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from clarigrpc import errors
from clarigrpc._rpc.failed_call import AnsweredCall, answer_of, as_grpc_error, grpc_failure
from clarigrpc._rpc.grpc_errors_channel import GrpcErrorsChannel
from clarigrpc._rpc.sync_channel import CallInfo, SyncChannel
from clarigrpc._rpc.sync_interceptors import ConvertedFuture
from clarigrpc._transports.transport import Metadata


def sync_grpc_errors(channel: SyncChannel) -> GrpcErrorsChannel:
    """What a generated stub is made over."""
    return GrpcErrorsChannel(channel, _ResponseCalls, _StreamCalls)


class _Wrapped:
    """A multicallable over one of the channel."""

    def __init__(self, multicallable: Any) -> None:
        self._call = multicallable
        self.__doc__ = multicallable.__doc__

    def __repr__(self) -> str:
        return repr(self._call)


class _ResponseCalls(_Wrapped):
    """One response."""

    # The arguments are written out: to pass them on as a dict costs more than all else here.
    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        try:
            return self._call(request, timeout, metadata, credentials, wait_for_ready, compression)
        except errors.ApiError as error:
            return answer_of(error)

    def with_call(self, *args: Any, **options: Any) -> tuple[Any, Any]:
        try:
            found: tuple[Any, Any] = self._call.with_call(*args, **options)
        except errors.ApiError as error:
            return answer_of(error), AnsweredCall(error)
        return found

    def future(self, *args: Any, **options: Any) -> GrpcErrorsFuture:
        return GrpcErrorsFuture(self._call.future(*args, **options), as_grpc_error)


class _StreamCalls(_Wrapped):
    """A stream of responses."""

    def __call__(self, *args: Any, **options: Any) -> GrpcErrorsStream:
        return GrpcErrorsStream(self._call(*args, **options))


class GrpcErrorsFuture(ConvertedFuture):
    """The response of a call that runs by itself; raises what grpcio's futures raise."""

    def _failure(self, timeout: float | None) -> errors.ApiError | Exception | None:
        failure: Exception | None = self._call.exception(timeout)
        if isinstance(failure, errors.CancelledError) and self._call.cancelled():
            raise grpc.FutureCancelledError
        return failure

    def result(self, timeout: float | None = None) -> Any:
        failure = self._failure(timeout)
        if failure is None:
            return self._call.result(timeout)
        if isinstance(failure, errors.ApiError):
            return answer_of(failure)
        raise failure

    def exception(self, timeout: float | None = None) -> Exception | None:
        failure = self._failure(timeout)
        if not isinstance(failure, errors.ApiError):
            return failure
        return None if failure.response is not None else grpc_failure(failure)

    def code(self) -> Any:
        try:
            return super().code()
        except grpc.FutureCancelledError:
            return grpc.StatusCode.CANCELLED

    def details(self) -> Any:
        try:
            return super().details()
        except grpc.FutureCancelledError:
            return CallInfo.details(self)

    def traceback(self, timeout: float | None = None) -> Any:
        failure = self.exception(timeout)
        return None if failure is None else failure.__traceback__


class GrpcErrorsStream(CallInfo, grpc.Call, Iterator[Any]):
    """The responses of a stream; raises what grpcio's streams raise."""

    def __init__(self, stream: Any) -> None:
        self._call = stream

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except errors.ApiError as error:
            return answer_of(error)
