"""Async calls with one request and one response, straight on gRPC's core.

For each such call ``grpc.aio`` makes a task of a coroutine of its own, metadata of its own, and an
entry in a set that the end of the call takes out again by a callback. ``direct`` makes a task of
the core's coroutine. For calls with further options, and wherever grpcio's internals are not as
expected, there is the multicallable (see ``grpcio_internals``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import grpc
from grpc import aio

from clarigrpc._rpc import grpcio_internals
from clarigrpc._transports.transport import STATUS_CODES, Metadata

Running: TypeAlias = dict[Any, asyncio.Task[Any]]
"""The calls of a channel that somebody holds: the core's call, and the task that runs it."""

Start: TypeAlias = Callable[[bytes, float, Metadata], Any]
"""(request, timeout, metadata) -> the call, started: a ``DirectCall``, or that of ``grpc.aio``."""

USER = "async fast path"

PRIVATE_NAMES: grpcio_internals.Names = {
    "grpc.aio._channel": ("UnaryUnaryMultiCallable",),
    "grpc._cython.cygrpc": (
        "_AioCall.unary_unary",
        "_AioCall.done",
        "_AioCall.cancel",
        "_AioCall.cancelled",
        "_AioCall.is_ok",
        "_AioCall.is_locally_cancelled",
        "_AioCall.add_done_callback",
        "_AioCall.initial_metadata",
        "_AioCall.status",
        "AioRpcStatus.code",
        "AioRpcStatus.details",
        "AioRpcStatus.debug_error_string",
        "AioRpcStatus.trailing_metadata",
    ),
}
PRIVATE_ATTRIBUTES = ("_interceptors", "_channel.call", "_method", "_loop.create_task")
"""Of a multicallable."""

_CANCELLED = "Locally cancelled by application!"
_INTERNALS = grpcio_internals.load(PRIVATE_NAMES)


def _core() -> dict[str, Any] | None:
    # Nothing can be tried out without a call.
    return grpcio_internals.tried_out(USER, _INTERNALS, lambda objects: None)


def direct(multicallable: Any, running: Running) -> Start | None:
    """A function that calls what a multicallable of ``grpc.aio`` calls; None: take that one.

    Args:
        multicallable: Of the channel below, with bytes for requests and responses.
        running: Where the calls are entered while somebody holds them.
    """
    parts = grpcio_internals.parts_of(
        USER, multicallable, _core, "UnaryUnaryMultiCallable", PRIVATE_ATTRIBUTES
    )
    if parts is None:
        return None
    interceptors, start, method, create_task = parts[1]
    if interceptors:
        return None
    handle = getattr(multicallable, "_registered_call_handle", None)
    registered = () if handle is None else (handle,)  # newer grpcio only
    clock = time.time

    def call(request: bytes, timeout: float, metadata: Metadata) -> Any:
        try:
            core = start(method, clock() + timeout, None, None, *registered)
            sending = core.unary_unary(request, metadata, None)
        except (AttributeError, TypeError) as error:  # nothing has been sent
            grpcio_internals.log_public_way(USER, str(error))
            return multicallable(request, timeout=timeout, metadata=metadata)
        # A task, because calls that start one by one cost more than those that start together.
        running[core] = task = create_task(sending)
        return DirectCall(core, task, running)

    return call


def cancel(running: Running) -> None:
    """Cancel all calls of a channel."""
    for core, task in running.copy().items():
        _end(core, task)


def _end(core: Any, task: asyncio.Task[Any]) -> bool:
    """Cancel a call; whether it was still running."""
    if core.done():
        return False
    core.cancel(_CANCELLED)
    task.cancel()
    return True


class DirectCall:
    """A running call; await it for the serialized response, None if the server sent none.

    Its methods do what those of ``grpc.aio.UnaryUnaryCall`` do.
    """

    __slots__ = ("_core", "_running", "_task")

    def __init__(self, core: Any, task: asyncio.Task[Any], running: Running) -> None:
        self._core = core
        self._task = task
        self._running = running

    def __del__(self) -> None:
        self._running.pop(self._core, None)

    def __await__(self) -> Generator[Any, None, bytes | None]:
        core = self._core
        try:
            response: bytes | None = yield from self._task
        except asyncio.CancelledError:
            self.cancel()
            raise
        if core.is_ok():
            return response
        if core.is_locally_cancelled():
            raise asyncio.CancelledError
        raise (yield from self._failure().__await__())

    async def _failure(self) -> aio.AioRpcError:
        """The error of a call that failed."""
        status = await self._core.status()
        return aio.AioRpcError(
            STATUS_CODES[status.code()],
            await self.initial_metadata(),
            aio.Metadata.from_tuple(status.trailing_metadata() or ()),
            status.details(),
            status.debug_error_string(),
        )

    def cancel(self) -> bool:
        return _end(self._core, self._task)

    def cancelled(self) -> bool:
        return bool(self._core.cancelled())

    def done(self) -> bool:
        return bool(self._core.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        def ended() -> None:
            self._running.pop(self._core, None)  # older cores keep the callback, and with it this
            callback(self)

        self._core.add_done_callback(ended)

    async def initial_metadata(self) -> aio.Metadata:
        return aio.Metadata.from_tuple(await self._core.initial_metadata() or ())

    async def trailing_metadata(self) -> aio.Metadata:
        return aio.Metadata.from_tuple((await self._core.status()).trailing_metadata() or ())

    async def code(self) -> grpc.StatusCode:
        return STATUS_CODES[(await self._core.status()).code()]

    async def details(self) -> str:
        return str((await self._core.status()).details())

    async def wait_for_connection(self) -> None:
        await self
