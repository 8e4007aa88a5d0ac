"""Calls of programs written for ``grpc.aio``: see ``grpc_errors_channel``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from clarigrpc import errors
from clarigrpc._rpc.async_channel import AsyncChannel
from clarigrpc._rpc.failed_call import answer_of, grpc_failure
from clarigrpc._rpc.grpc_errors_channel import GrpcErrorsChannel


def async_grpc_errors(channel: AsyncChannel) -> GrpcErrorsChannel:
    """What a generated stub is made over."""
    return GrpcErrorsChannel(
        channel,
        lambda made: _Wrapped(made, AsyncGrpcErrorsResponse),
        lambda made: _Wrapped(made, AsyncGrpcErrorsStream),
    )


class _Wrapped:
    """A multicallable over one of the channel."""

    def __init__(self, multicallable: Any, call_class: Callable[[Any], Any]) -> None:
        self._multicallable = multicallable
        self._call_class = call_class
        self.__doc__ = multicallable.__doc__

    def __repr__(self) -> str:
        return repr(self._multicallable)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._call_class(self._multicallable(*args, **options))


class _WrappedCall:
    """A call of the channel; what is not here is asked of that."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called with this object when the current attempt ends."""
        self._call.add_done_callback(lambda _: callback(self))

    async def write(self, request: Any) -> None:
        """Send a request; returns when there is room for the next one."""
        try:
            await self._call.write(request)
        except errors.ApiError as error:
            raise grpc_failure(error) from None


class AsyncGrpcErrorsResponse(_WrappedCall):
    """A running call; await it for its response."""

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._call.__await__())
        except errors.ApiError as error:
            return answer_of(error)


class AsyncGrpcErrorsStream(_WrappedCall):
    """The responses of a stream."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._call.__anext__()
        except errors.ApiError as error:
            return answer_of(error)

    async def read(self) -> Any:
        """The next response, or ``grpc.aio.EOF``."""
        try:
            return await self._call.read()
        except errors.ApiError as error:
            return answer_of(error)
