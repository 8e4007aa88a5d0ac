"""Asyncio calls with one request and one response, straight on gRPC's core.

For each such call ``grpc.aio`` makes a task of a coroutine of its own, metadata of its own, and an
entry in a set that the end of the call takes out again by a callback. ``direct`` makes a task of
the core's coroutine. Like ``blocking_call``, it needs names that grpcio does not promise, so it is
used with the versions that it was tested with, where nobody instruments or intercepts calls.
Otherwise, and for a call with more options, there is the multicallable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from importlib import import_module
from typing import Any, TypeAlias

import grpc
from grpc import aio

from clarigrpc._rpc.call import Metadata
from clarigrpc._rpc.sync_fast_path import uninstrumented

Running: TypeAlias = dict[Any, asyncio.Task[Any]]
"""The calls of a channel that somebody holds: the core's call, and the task that runs it."""

Start: TypeAlias = Callable[[bytes, float, Metadata], "DirectCall"]
"""(request, timeout, metadata) -> the call, started."""

_CANCELLED = "Locally cancelled by application!"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def direct(multicallable: Any, running: Running) -> Start | None:
    """A function that calls what a multicallable of ``grpc.aio`` calls; None: take that one.

    Args:
        multicallable: Of the channel below, with bytes for requests and responses.
        running: Where the calls are entered while somebody holds them.
    """
    if not uninstrumented():
        return None
    channel: Any = import_module("grpc.aio._channel")
    if type(multicallable) is not channel.UnaryUnaryMultiCallable or multicallable._interceptors:
        return None  # REST, several connections, or interceptors
    start = multicallable._channel.call
    method = multicallable._method
    handle = getattr(multicallable, "_registered_call_handle", None)
    registered = () if handle is None else (handle,)  # newer grpcio only
    create_task = multicallable._loop.create_task
    clock = time.time

    def call(request: bytes, timeout: float, metadata: Metadata) -> DirectCall:
        core = start(method, clock() + timeout, None, None, *registered)
        # A task, because calls that start one by one cost more than those that start together.
        running[core] = task = create_task(core.unary_unary(request, metadata, None))
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
        raise self._failure()

    def _failure(self) -> BaseException:
        """What awaiting a call raises that did not end well."""
        core = self._core
        if core.is_locally_cancelled():
            return asyncio.CancelledError()
        status = core._status
        return aio.AioRpcError(
            _CODES[status.code()],
            aio.Metadata.from_tuple(core._initial_metadata or ()),
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
        return _CODES[(await self._core.status()).code()]

    async def details(self) -> str:
        return str((await self._core.status()).details())

    async def wait_for_connection(self) -> None:
        await self
