"""The exceptions that clarigrpc raises.

A failure is reported either by gRPC, as the status of the call, or by the service, as a status
inside the response (a call can succeed for gRPC and still answer ``MODEL_DOES_NOT_EXIST``). Both
raise an exception of the same tree::

    ClarigrpcError
    +-- ConfigurationError          a setting is missing, malformed or contradicts another one
    +-- ClosedError                 the client is closed
    +-- ApiError                    the service, or the connection to it, reported a failure
        +-- AuthenticationError     the credential is missing, wrong or expired
        +-- PermissionDeniedError   the credential is valid but does not permit this
        +-- NotFoundError           the resource does not exist or is not visible to you
        +-- AlreadyExistsError      the id, or the URL of an input, is already in use
        +-- InvalidArgumentError    the request is invalid
        +-- RateLimitError          too many requests; ``retry_after`` says how long to wait
        +-- QuotaExceededError      the account's quota is exhausted
        +-- NotReadyError           the model is still being deployed, or an index being built
        +-- UnavailableError        the service, or a part of it, cannot be reached
        +-- DeadlineExceededError   the deadline of the call has passed
        +-- CancelledError          the call was cancelled
        +-- UnimplementedError      the service does not implement this method
        +-- InternalError           the service failed
        +-- PartialFailureError     some or all items of a request failed, each on its own

A status of the service that fits none of these (for example, a failed training) raises
``ApiError`` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = [
    "AlreadyExistsError",
    "ApiError",
    "AuthenticationError",
    "CancelledError",
    "ClarigrpcError",
    "ClosedError",
    "ConfigurationError",
    "DeadlineExceededError",
    "InternalError",
    "InvalidArgumentError",
    "ItemStatus",
    "NotFoundError",
    "NotReadyError",
    "PartialFailureError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "RateLimitError",
    "UnavailableError",
    "UnimplementedError",
]


class ItemStatus(NamedTuple):
    """Status of one item of a request; ``index`` is its position in the response."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a pair
    status: v2.Status


class ClarigrpcError(Exception):
    """Base class of all exceptions of clarigrpc."""


class ConfigurationError(ClarigrpcError):
    """A setting is missing, malformed or contradicts another one; the text says what to set."""


class ClosedError(ClarigrpcError):
    """The client is closed."""

    def __init__(self, text: str = "the client is closed; create a new one") -> None:
        super().__init__(text)


class ApiError(ClarigrpcError):
    """The service, or the connection to it, reported a failure.

    Attributes:
        code: V2 status code, a value of ``v2.StatusCode``; None if the service sent none.
        grpc_code: gRPC status code; None if the failure came over REST.
        description: What happened, as the service describes it.
        details: Further explanation by the service, often the reason; may be empty.
        request_id: Id of the call; name it when you contact the service's support.
        method: Name of the method, for example ``PostInputs``.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds to wait before the next attempt; None if the service names none.
        not_sent: True if no byte of the request was sent, so that the service cannot have acted on
            it; False if that is not known.
        not_reached: True if the service was not reached for a reason that may pass by itself, for
            example a refused connection while it restarts.
        refused: True if the server announced the end of the connection (GOAWAY) and excluded this
            call, so that it has not acted on it; False if that is not known.
        connection_lost: True if the connection broke while the call ran.
        attempts: Failures of the earlier attempts of the call, oldest first, at most 20.
        status: V2 status message; None if the service sent none.
        rich_details: ``google.rpc`` messages of the gRPC status, for example ``BadRequest``.
        response: The complete response; None if the service sent none.
        failed: ``(index, status)`` of each item of the response that failed; empty if the failure
            is that of the whole request.
    """

    response: Message | None = None
    failed: Sequence[ItemStatus] = ()
    not_reached: bool = False
    refused: bool = False
    connection_lost: bool = False
    attempts: tuple[ApiError, ...] = ()

    def __init__(
        self,
        description: str,
        *,
        code: int | None = None,
        grpc_code: grpc.StatusCode | None = None,
        details: str = "",
        request_id: str = "",
        method: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
        status: v2.Status | None = None,
        rich_details: Sequence[Message] = (),
        not_sent: bool = False,
    ) -> None:
        super().__init__(description)
        self.description = description
        self.code = code
        self.grpc_code = grpc_code
        self.details = details
        self.request_id = request_id
        self.method = method
        self.retryable = retryable
        self.retry_after = retry_after
        self.status = status
        self.rich_details: tuple[Message, ...] = tuple(rich_details)
        self.not_sent = not_sent

    @property
    def stack_trace(self) -> str:
        """Stack trace of the model or service, a line each; empty if the status has none."""
        return "\n".join(self.status.stack_trace) if self.status is not None else ""

    def __str__(self) -> str:
        text = f"{self.method}: {self.description}" if self.method else self.description
        if self.details and self.details != self.description:
            text += f": {self.details}"
        facts = []
        if self.code is not None:
            facts.append(f"{self.code} {code_name(self.code)}")
        if self.grpc_code not in (None, grpc.StatusCode.OK):
            facts.append(f"gRPC {self.grpc_code.name}")
        if self.request_id:
            facts.append(f"request {self.request_id}")
        if self.retry_after is not None:
            facts.append(f"retry after {self.retry_after:g} s")
        return f"{text} ({', '.join(facts)})" if facts else text

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with the description alone.
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(cls: type[ApiError], args: tuple[Any, ...], state: dict[str, Any]) -> ApiError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class AuthenticationError(ApiError):
    """The credential is missing, wrong or expired."""


class PermissionDeniedError(ApiError):
    """The credential is valid but does not permit this."""


class NotFoundError(ApiError):
    """The resource does not exist or is not visible to you."""


class AlreadyExistsError(ApiError):
    """The id, or the URL of an input, is already in use."""


class InvalidArgumentError(ApiError, ValueError):
    """The request is invalid; sending it again unchanged does not help."""


class RateLimitError(ApiError):
    """Too many requests. ``retry_after`` says how long to wait, if the service does."""


class QuotaExceededError(ApiError):
    """The account's quota is exhausted; waiting a moment does not help."""


class NotReadyError(ApiError):
    """The model is still being deployed, or an index is still being built; try again later."""


class UnavailableError(ApiError):
    """The service, or a part of it, cannot be reached."""


class DeadlineExceededError(ApiError):
    """The deadline of the call has passed. The service may still have done the work."""


class CancelledError(ApiError):
    """The call was cancelled."""


class UnimplementedError(ApiError):
    """The service does not implement this method."""


class InternalError(ApiError):
    """The service failed."""


class PartialFailureError(ApiError):
    """Some or all items of a request failed, each with a status of its own.

    Attributes:
        response: The complete response, including the items that succeeded.
        succeeded: ``(index, status)`` of each item that succeeded or is still being processed.
        failed: ``(index, status)`` of each item that failed.
    """

    response: Message
    succeeded: list[ItemStatus]
    failed: list[ItemStatus]
