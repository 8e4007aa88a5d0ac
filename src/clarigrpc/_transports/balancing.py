"""Balancing over several connections: calls use them round-robin.

Several addresses need nothing here: gRPC balances over them itself (``grpc_transport``).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from clarigrpc._contract.methods import CallKind
from clarigrpc._transports.transport import AsyncTransport, SyncTransport, all_connected


class _RoundRobinMulticallable:
    """The multicallables of one method on several transports; each call uses the next one."""

    def __init__(self, multicallables: Sequence[Any]) -> None:
        self._next = itertools.cycle(multicallables).__next__  # atomic

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._next()(*args, **options)

    def with_call(self, *args: Any, **options: Any) -> Any:
        return self._next().with_call(*args, **options)

    def future(self, *args: Any, **options: Any) -> Any:
        return self._next().future(*args, **options)


class SyncRoundRobin(SyncTransport):
    """Balances over sync transports."""

    def __init__(self, transports: Sequence[SyncTransport]) -> None:
        self._transports = transports
        self.channels = [channel for one in transports for channel in one.channels]

    def multicallable(self, kind: CallKind, path: str) -> Any:
        return _RoundRobinMulticallable([one.multicallable(kind, path) for one in self._transports])

    def connected(self) -> bool | None:
        return all_connected(one.connected() for one in self._transports)

    def close(self) -> None:
        for transport in self._transports:
            transport.close()


class AsyncRoundRobin(AsyncTransport):
    """Balances over async transports."""

    def __init__(self, transports: Sequence[AsyncTransport]) -> None:
        self._transports = transports
        self.channels = [channel for one in transports for channel in one.channels]

    def multicallable(self, kind: CallKind, path: str) -> Any:
        return _RoundRobinMulticallable([one.multicallable(kind, path) for one in self._transports])

    def connected(self) -> bool | None:
        return all_connected(one.connected() for one in self._transports)

    async def close(self, grace: float | None) -> None:
        await asyncio.gather(*(transport.close(grace) for transport in self._transports))
