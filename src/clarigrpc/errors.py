"""The exceptions of clarigrpc.

The service reports at two layers: the gRPC status of a call, and the V2 status inside a response
(a call that is OK for gRPC can carry ``MODEL_DOES_NOT_EXIST``). Both end in one tree::

    ClarigrpcError
    +-- ConfigurationError          settings that contradict each other or are missing
    +-- ClosedError                 the client was closed before the call
    +-- ApiError                    the service, or the way to it, reported a failure
        +-- AuthenticationError     the credential is missing, wrong or expired
        +-- PermissionDeniedError   the credential is known and may not do this
        +-- NotFoundError           no such resource, or none that the credential may see
        +-- AlreadyExistsError      the id, or the URL of an input, is taken
        +-- InvalidArgumentError    the request cannot succeed as it is
        +-- RateLimitError          too many requests; ``retry_after`` says how long to wait
        +-- QuotaExceededError      the plan or the account is used up; waiting a moment is no help
        +-- NotReadyError           the model is still being deployed, the index being built
        +-- UnavailableError        the service cannot be reached or a part of it is down
        +-- DeadlineExceededError   the call's deadline passed
        +-- CancelledError          the call was cancelled
        +-- UnimplementedError      the service does not have this method
        +-- InternalError           the service failed
        +-- PartialFailureError     some items of a bulk call failed; the others are in ``response``

A failure that fits none of these (a training that failed, say) is a plain ``ApiError``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name

if TYPE_CHECKING:
    from google.protobuf.message import Message


class ItemStatus(NamedTuple):
    """The status of one item of a bulk call; ``index`` is its place in the response."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a pair
    status: v2.Status


class ClarigrpcError(Exception):
    """The root of everything that clarigrpc raises on purpose."""


class ConfigurationError(ClarigrpcError):
    """Settings are missing, malformed or contradict each other; the text says what to set."""


class ClosedError(ClarigrpcError):
    """The client was closed."""

    def __init__(self, text: str = "this client is closed; make a new one") -> None:
        super().__init__(text)


class ApiError(ClarigrpcError):
    """The service, or the way to it, reported a failure.

    Attributes:
        code: V2 status code (a value of ``v2.StatusCode``), None where only gRPC spoke.
        grpc_code: gRPC status code, None where the failure came over REST.
        description: What happened, in the service's words.
        details: More words of the service, often the reason; may be empty.
        request_id: Id of the call for the service's support and logs.
        method: Name of the method, ``PostInputs`` say.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds that the service asks to wait, None where it does not say.
        status: The V2 status message, where there was one.
        rich_details: Messages of ``google.rpc`` from the trailers (``BadRequest``, ...).
        response: The whole response, where there was one.
    """

    response: Message | None = None

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
        self.rich_details = tuple(rich_details)

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
    """The credential is known and may not do this."""


class NotFoundError(ApiError):
    """There is no such resource, or none that this credential may see."""


class AlreadyExistsError(ApiError):
    """The id, or the URL of an input, is taken."""


class InvalidArgumentError(ApiError):
    """The request cannot succeed as it is."""


class RateLimitError(ApiError):
    """Too many requests; ``retry_after`` says how long to wait, where the service does."""


class QuotaExceededError(ApiError):
    """The plan or the account is used up."""


class NotReadyError(ApiError):
    """The model is still being deployed, the index being built."""


class UnavailableError(ApiError):
    """The service cannot be reached, or a part of it is down."""


class DeadlineExceededError(ApiError):
    """The deadline of the call passed. The service may have done the work all the same."""


class CancelledError(ApiError):
    """The call was cancelled."""


class UnimplementedError(ApiError):
    """The service does not have this method."""


class InternalError(ApiError):
    """The service failed."""


class PartialFailureError(ApiError):
    """Some items of a bulk call failed.

    Attributes:
        response: The whole response, with the good items in it.
        succeeded: ``(index, status)`` of every item that is done or being worked on.
        failed: ``(index, status)`` of every item that failed.
    """

    response: Message
    succeeded: list[ItemStatus]
    failed: list[ItemStatus]
