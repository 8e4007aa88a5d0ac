"""What the calls of ``client.v2`` take, beside what gRPC's own multicallables do.

For type checkers alone: ``clarigrpc.v2.client_stub``, which is generated, names the types of all
methods with these. They say themselves what a call takes and returns, so that a type checker
without the stubs of grpcio knows it, too.
"""

from abc import ABCMeta
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from grpc import aio

from clarigrpc._config.retry_policy import Retry

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

class ResponseStream(grpc._CallIterator[ResponseT], Generic[ResponseT], metaclass=ABCMeta):
    """An iterator of responses. Leave its ``with`` block, or ``cancel`` it, to end the call."""

    def __iter__(self) -> Iterator[ResponseT]: ...
    def __next__(self) -> ResponseT: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class UnaryUnary(grpc.UnaryUnaryMultiCallable[RequestT, ResponseT], Generic[RequestT, ResponseT]):
    """A method with one request and one response."""

    def __call__(
        self,
        request: RequestT,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        *,
        idempotent: bool | None = None,
        raise_on_partial: bool | None = None,
        retry: Retry | None = None,
    ) -> ResponseT:
        """Send a request and return its response.

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

        Raises:
            ApiError: The call failed; the subclass says how (see ``errors``).
        """

    def with_call(
        self,
        request: RequestT,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        *,
        idempotent: bool | None = None,
        raise_on_partial: bool | None = None,
        retry: Retry | None = None,
    ) -> tuple[ResponseT, grpc.Call]:
        """Send a request and return its response and the call, which has its metadata."""

    def future(
        self,
        request: RequestT,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc._CallFuture[ResponseT]:
        """Send a request once and return a future of its response."""

class UnaryStream(grpc.UnaryStreamMultiCallable[RequestT, ResponseT], Generic[RequestT, ResponseT]):
    """A method with one request and a stream of responses."""

    def __call__(
        self,
        request: RequestT,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        *,
        idempotent: bool | None = None,
        retry: Retry | None = None,
    ) -> ResponseStream[ResponseT]:
        """Send a request and return an iterator of the responses.

        Args:
            request: A message of the method's request type.
            timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.
            metadata: Further (key, value) pairs, sent beside the client's.
            credentials: Call credentials of gRPC, beside the client's.
            wait_for_ready: Whether to wait, within the timeout, until there is a connection.
            compression: Compression of the request.
            idempotent: Whether the call may be sent twice. None uses the property of the method.
            retry: When the call is sent again after a failure that comes before its first response;
                False sends it once. None uses the client's setting.

        Raises:
            ApiError: From the iterator; the subclass says how the call failed (see ``errors``).
        """

class UnaryUnaryCall(
    aio.UnaryUnaryCall[RequestT, ResponseT], Generic[RequestT, ResponseT], metaclass=ABCMeta
):
    """A call that has begun; await it for the response."""

    def __await__(self) -> Generator[Any, None, ResponseT]: ...

class UnaryStreamCall(
    aio.UnaryStreamCall[RequestT, ResponseT], Generic[RequestT, ResponseT], metaclass=ABCMeta
):
    """A call that has begun; iterate over it for the responses."""

    def __aiter__(self) -> AsyncIterator[ResponseT]: ...

class AsyncUnaryUnary(
    aio.UnaryUnaryMultiCallable[RequestT, ResponseT], Generic[RequestT, ResponseT]
):
    """A method with one request and one response, of an ``AsyncClient``."""

    def __call__(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,
        metadata: aio.Metadata | Sequence[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        idempotent: bool | None = None,
        raise_on_partial: bool | None = None,
        retry: Retry | None = None,
    ) -> UnaryUnaryCall[RequestT, ResponseT]:
        """Start the call; await the result for the response.

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

        Raises:
            ApiError: When awaited: the call failed; the subclass says how (see ``errors``).
        """

class AsyncUnaryStream(
    aio.UnaryStreamMultiCallable[RequestT, ResponseT], Generic[RequestT, ResponseT]
):
    """A method with one request and a stream of responses, of an ``AsyncClient``."""

    def __call__(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,
        metadata: aio.Metadata | Sequence[tuple[str, str | bytes]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        idempotent: bool | None = None,
        retry: Retry | None = None,
    ) -> UnaryStreamCall[RequestT, ResponseT]:
        """Start the call; iterate over the result for the responses.

        Args:
            request: A message of the method's request type.
            timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.
            metadata: Further (key, value) pairs, sent beside the client's.
            credentials: Call credentials of gRPC, beside the client's.
            wait_for_ready: Whether to wait, within the timeout, until there is a connection.
            compression: Compression of the request.
            idempotent: Whether the call may be sent twice. None uses the property of the method.
            retry: When the call is sent again after a failure that comes before its first response;
                False sends it once. None uses the client's setting.

        Raises:
            ApiError: From the iterator; the subclass says how the call failed (see ``errors``).
        """
