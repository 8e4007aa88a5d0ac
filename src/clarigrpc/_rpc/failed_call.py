"""A failed call as interceptors of gRPC expect it: as an error of gRPC.

Between the interceptors of a call its failure is a ``FailedCall``, which has the ``code()``, the
``details()`` and the metadata of a ``grpc.RpcError``. What the caller gets in the end is the
``ApiError`` in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio

from clarigrpc import errors
from clarigrpc._transports.transport import FutureBase

# Where the service reports the failure in a response, or over HTTP, gRPC has no code of its own.
_CODES: dict[type[errors.ApiError], grpc.StatusCode] = {
    errors.AuthenticationError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RateLimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotReadyError: grpc.StatusCode.UNAVAILABLE,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CancelledError: grpc.StatusCode.CANCELLED,
    errors.UnimplementedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


class FailedCall(aio.AioRpcError, grpc.Call, FutureBase):  # type: ignore[misc]
    """An error of gRPC, and the call or future that has ended with it.

    Attributes:
        error: The failure.
    """

    def __init__(self, error: errors.ApiError) -> None:
        code = error.grpc_code
        if code is None or code is grpc.StatusCode.OK:
            code = _CODES.get(type(error), grpc.StatusCode.UNKNOWN)
        cause: Any = error.__cause__
        trailing: Any = ()
        if isinstance(cause, grpc.RpcError):
            trailing = cause.trailing_metadata() or ()
        super().__init__(
            code, aio.Metadata(), aio.Metadata(*trailing), error.details or error.description
        )
        self.error = error
        self.__cause__ = error

    def __str__(self) -> str:
        return str(self.error)

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return isinstance(self.error, errors.CancelledError)

    def is_active(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def time_remaining(self) -> float:
        return 0.0

    def result(self, timeout: float | None = None) -> Any:
        raise self

    def exception(self, timeout: float | None = None) -> FailedCall:
        return self

    def traceback(self, timeout: float | None = None) -> Any:
        return self.error.__traceback__

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)


class AnsweredCall(grpc.Call):
    """The call of a response whose V2 status is a failure: for gRPC it has ended well."""

    def __init__(self, error: errors.ApiError) -> None:
        self._retry_after = error.retry_after

    def cancel(self) -> bool:
        return False

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        wait = self._retry_after
        return () if wait is None else (("retry-after", f"{wait:g}"),)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return ""


def as_grpc_error(error: Exception) -> Exception:
    """What interceptors get for an error."""
    return FailedCall(error) if isinstance(error, errors.ApiError) else error


def grpc_failure(error: errors.ApiError) -> grpc.RpcError:
    """What grpcio itself raises for a failed call: its own error, where the call ended with one."""
    cause = error.__cause__
    if isinstance(cause, grpc.RpcError) and hasattr(cause, "code"):
        return cause
    return FailedCall(error)


def answer_of(error: errors.ApiError) -> Any:
    """The response whose V2 status made an error of it.

    Raises:
        grpc.RpcError: There was no response.
    """
    if error.response is None:
        raise grpc_failure(error) from None
    return error.response


def as_api_error(error: Exception, mapped: Callable[[Any], errors.ApiError]) -> Exception:
    """What the caller gets for an error that came out of the interceptors.

    Args:
        error: An error, perhaps one of gRPC that an interceptor has made.
        mapped: The ``ApiError`` for an error of gRPC.
    """
    if isinstance(error, FailedCall):
        return error.error
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
        return mapped(error)
    return error
