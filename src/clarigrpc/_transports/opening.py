"""Which transport the settings of a client ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarigrpc._extras import NeedsExtra
from clarigrpc._transports.grpc_transport import AsyncGrpcTransport, SyncGrpcTransport

if TYPE_CHECKING:
    from clarigrpc._config.settings import Settings
    from clarigrpc._transports.hedging import Budget
    from clarigrpc._transports.transport import AsyncTransport, SyncTransport

# What is rarely asked for is imported when it is.


def open_sync(settings: Settings, budget: Budget) -> SyncTransport:
    """The transport of a sync client.

    Args:
        settings: Settings of the client.
        budget: Limits the second requests of hedging.
    """
    if settings.transport == "rest":
        with NeedsExtra("rest", "transport='rest'"):
            from clarigrpc._transports.http_exchange import HttpOptions
            from clarigrpc._transports.sync_http_transport import SyncHttpTransport

        return SyncHttpTransport(HttpOptions.of(settings))
    transport: SyncTransport
    if settings.connections == 1:
        transport = SyncGrpcTransport.open(settings)
    else:
        from clarigrpc._transports.balancing import SyncRoundRobin

        count = range(settings.connections)
        transport = SyncRoundRobin([SyncGrpcTransport.open(settings) for _ in count])
    if settings.hedge is not None:
        from clarigrpc._transports.hedging import Hedge, SyncHedging

        transport = SyncHedging(transport, Hedge(settings.hedge, budget))
    return transport


def open_async(settings: Settings, budget: Budget) -> AsyncTransport:
    """The transport of an async client, for the running event loop; arguments as ``open_sync``."""
    if settings.transport == "rest":
        with NeedsExtra("rest", "transport='rest'"):
            from clarigrpc._transports.async_http_transport import AsyncHttpTransport
            from clarigrpc._transports.http_exchange import HttpOptions

        return AsyncHttpTransport(HttpOptions.of(settings))
    transport: AsyncTransport
    if settings.connections == 1:
        transport = AsyncGrpcTransport.open(settings)
    else:
        from clarigrpc._transports.balancing import AsyncRoundRobin

        count = range(settings.connections)
        transport = AsyncRoundRobin([AsyncGrpcTransport.open(settings) for _ in count])
    if settings.hedge is not None:
        from clarigrpc._transports.hedging import AsyncHedging, Hedge

        transport = AsyncHedging(transport, Hedge(settings.hedge, budget))
    return transport
