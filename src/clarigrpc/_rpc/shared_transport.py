"""The transport of a client, opened at the first call and shared with the client's views."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
import weakref
from os import getpid
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from clarigrpc import errors
from clarigrpc._config.settings import Settings, fork_support_disabled
from clarigrpc._fork_lock import ForkLock
from clarigrpc._rpc.call_counts import CallTable
from clarigrpc._rpc.retry import RetryBudget
from clarigrpc._transports.opening import open_async, open_sync
from clarigrpc._transports.transport import AsyncTransport, SyncTransport

if TYPE_CHECKING:
    from clarigrpc._rpc.async_fast_path import Running
    from clarigrpc._rpc.async_streams import RunningStreams

TransportT = TypeVar("TransportT", SyncTransport, AsyncTransport)


class SharedTransport(Generic[TransportT]):
    """A transport, with all that calls of the client and of its views have in common.

    Attributes:
        settings: Those of the client that it is opened for.
        credentials: What identifies the caller.
        budget: What retries draw on.
        calls: Counts of the calls.
        pid: The process that used it last.
        current: The transport, None while it is not open.
        prefix: What the ids of calls begin with.
        count: What they end with.
        closed: Whether the client was closed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.credentials = settings.credentials
        self.budget = RetryBudget(settings.retry.budget, settings.retry.budget_reserve)
        self.calls = CallTable()
        self.pid = getpid()
        self.current: TransportT | None = None
        self.closed = False
        self.prefix = os.urandom(6).hex()
        self.count = itertools.count(1)

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        """How the transport is connected at this moment; None where that cannot be told."""
        current = self.current
        return None if current is None else current.connectivity()

    def check_process(self) -> bool:
        """Whether this is the process that used the client last; False once in a fork's child.

        Raises:
            ConfigurationError: This is a child, and gRPC was told not to support forks.
        """
        if self.pid == getpid():
            return True
        if fork_support_disabled():
            raise errors.ConfigurationError(
                "this process was forked after the client had been used, and "
                "GRPC_ENABLE_FORK_SUPPORT=0 is set; unset it, or use the client only after the fork"
            )
        self.pid = getpid()
        self.prefix = os.urandom(6).hex()  # the parent's ids are not to be used again
        return False


class SyncSharedTransport(SharedTransport[SyncTransport]):
    """Safe to share between threads. After a fork the child opens a transport of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._inherited: list[SyncTransport | None] = []
        self._pauses: set[threading.Event] = set()
        # Reentrant: a signal's handler may close the client while its thread opens the transport.
        self._lock = ForkLock(threading.RLock)

    def transport(self) -> SyncTransport:
        """The transport, opened if it is not yet.

        Raises:
            ClosedError: The client is closed.
        """
        with self._lock.get():
            if self.closed:
                raise errors.ClosedError
            if not self.check_process():
                # Neither closed nor let go here: its sockets belong to the parent.
                self._inherited.append(self.current)
                self.current = None
            if self.current is None:
                opened = open_sync(self.settings, self.budget)
                if self.closed:
                    opened.close()
                    raise errors.ClosedError
                self.current = opened
            return self.current

    def pause(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Wait so long, or until the event is set; whether it is.

        Raises:
            ClosedError: The client is closed, or was meanwhile.
        """
        event = threading.Event() if until is None else until
        self._pauses.add(event)
        try:
            stopped = self.closed or event.wait(seconds)
        finally:
            self._pauses.discard(event)
        if self.closed:
            raise errors.ClosedError
        return stopped

    def close(self) -> None:
        """Cancel what is running and close the connection; later calls raise ``ClosedError``."""
        with self._lock.get():
            transport, self.current, self.closed = self.current, None, True
        for event in self._pauses.copy():
            event.set()
        if transport is not None and self.pid == getpid():
            transport.close()


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


class AsyncSharedTransport(SharedTransport[AsyncTransport]):
    """It belongs to the event loop of the first call.

    Attributes:
        bound: The multicallables that hold the transport.
        running: The calls of the fast path that somebody holds.
        streams: The streams that somebody holds; None before the first.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.bound: weakref.WeakSet[Any] = weakref.WeakSet()
        self.running: Running = {}
        self.streams: RunningStreams | None = None
        self._pauses: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def transport(self) -> AsyncTransport:
        """The transport, opened if it is not yet.

        Raises:
            ClosedError: The client is closed.
            ConfigurationError: The running loop, or the process, is not the one of the first call.
        """
        if self.closed:
            raise errors.ClosedError
        loop = asyncio.get_running_loop()
        if self.current is None:
            self.check_process()
            self._loop = loop
            self.current = open_async(self.settings, self.budget)
        elif self.pid != getpid():
            raise errors.ConfigurationError(
                "this AsyncClient was used before the process was forked, and an event loop does "
                "not survive a fork; make a new AsyncClient in the child"
            )
        elif self._loop is not loop:
            raise errors.ConfigurationError(
                "this AsyncClient was first used on another event loop; make one for each loop"
            )
        return self.current

    def pause(self, seconds: float) -> asyncio.Future[None]:
        """What is done after so long, or when the client is closed.

        Raises:
            ClosedError: It is closed already.
        """
        if self.closed:
            raise errors.ClosedError
        loop = asyncio.get_running_loop()
        pause = loop.create_future()
        timer = loop.call_later(seconds, _end, pause)
        self._pauses.add(pause)
        pause.add_done_callback(lambda _: timer.cancel())
        pause.add_done_callback(self._pauses.discard)
        return pause

    async def close(self, grace: float | None = None) -> None:
        """Let running calls end for ``grace`` seconds, cancel the rest, close the connection."""
        transport, self.current, self.closed = self.current, None, True
        for pause in self._pauses:
            _end(pause)
        for multicallable in self.bound:
            multicallable.unbind()  # gRPC's thread lives as long as somebody holds its channel
        if transport is None or self.pid != getpid():
            return
        if grace and self.running:
            began = time.monotonic()
            await asyncio.wait(self.running.values(), timeout=grace)
            grace = max(0.0, grace - (time.monotonic() - began))
        if self.running:
            from clarigrpc._rpc import async_fast_path

            async_fast_path.cancel(self.running)
        if self.streams is not None:
            await self.streams.close(grace)
        await transport.close(grace)
