"""Balancing over several connections: calls use them round-robin.

Several addresses need nothing here: gRPC balances over them itself (``grpc_transport``).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import grpc

from clarigrpc._contract.methods import CallKind
from clarigrpc._transports.sync_grpc_calls import GrpcCall
from clarigrpc._transports.transport import (
    AsyncTransport,
    SyncTransport,
    connectivity_of,
    note_transport,
)


class _RoundRobinMulticallable:
    """One method on several transports; each call uses the next one, and carries a note of it."""

    def __init__(
        self, transports: Sequence[SyncTransport | AsyncTransport], kind: CallKind, path: str
    ) -> None:
        bound = [(one, one.multicallable(kind, path)) for one in transports]
        self._next = itertools.cycle(bound).__next__  # atomic

    def __call__(self, *args: Any, **options: Any) -> Any:
        transport, multicallable = self._next()
        return _noted(multicallable(*args, **options), transport)

    def with_call(self, *args: Any, **options: Any) -> Any:
        transport, multicallable = self._next()
        try:
            return multicallable.with_call(*args, **options)
        except grpc.RpcError as error:
            note_transport(error, transport)
            raise

    def future(self, *args: Any, **options: Any) -> Any:
        transport, multicallable = self._next()
        return _noted(multicallable.future(*args, **options), transport)


def _noted(call: Any, transport: SyncTransport | AsyncTransport) -> Any:
    # Of sync calls, what they raise is grpcio's own call.
    note_transport(call.real if isinstance(call, GrpcCall) else call, transport)
    return call


class SyncRoundRobin(SyncTransport):
    """Balances over sync transports."""

    def __init__(self, transports: Sequence[SyncTransport]) -> None:
        self._transports = transports
        self.channels = [channel for one in transports for channel in one.channels]

    def multicallable(self, kind: CallKind, path: str) -> Any:
        return _RoundRobinMulticallable(self._transports, kind, path)

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        return connectivity_of(one.connectivity() for one in self._transports)

    def close(self) -> None:
        for transport in self._transports:
            transport.close()


class AsyncRoundRobin(AsyncTransport):
    """Balances over async transports."""

    def __init__(self, transports: Sequence[AsyncTransport]) -> None:
        self._transports = transports
        self.channels = [channel for one in transports for channel in one.channels]

    def multicallable(self, kind: CallKind, path: str) -> Any:
        return _RoundRobinMulticallable(self._transports, kind, path)

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        return connectivity_of(one.connectivity() for one in self._transports)

    async def close(self, grace: float | None) -> None:
        await asyncio.gather(*(transport.close(grace) for transport in self._transports))
