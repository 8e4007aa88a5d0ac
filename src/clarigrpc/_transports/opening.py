"""The real channel to the service: options, TLS, and which kind to open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from clarigrpc._version import __version__

if TYPE_CHECKING:
    from clarigrpc._config.settings import Settings
    from clarigrpc._transports.balancing import Budget

USER_AGENT = f"clarigrpc/{__version__}"

# grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, whose module takes time to import.
_SINGLE_THREADED_UNARY_STREAM = "SingleThreadedUnaryStream"

# A dead peer is noticed within 40 s while calls are running. Nothing is sent on an idle
# connection: servers answer such pings with too_many_pings.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
)


def channel_options(settings: Settings) -> list[tuple[str, Any]]:
    """Options of the gRPC channel.

    Messages are limited to ``settings.max_message_bytes`` in both directions. Retries are ours
    (``policy.py``): the service config of a name server is ignored, gRPC's transparent retries
    of calls that never left stay on. A server stream is read on the caller's thread.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.primary_user_agent", USER_AGENT),
        ("grpc.service_config_disable_resolution", 1),
        # After a failed connection attempt, try again soon: our own retries wait longer than this.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        *_KEEPALIVE,
    ]
    if settings.target.is_loopback:
        options.append(("grpc.enable_http_proxy", 0))
    if service_config := _service_config(settings):
        options.append(("grpc.service_config", service_config))
    if settings.others:
        # gRPC would take the whole list for the name of the service.
        options.append(("grpc.default_authority", settings.target.address))
    if settings.connections > 1:
        # Channels with the same target would share a connection.
        options.append(("grpc.use_local_subchannel_pool", 1))
    return options


def _tls(settings: Settings) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=settings.root_certificates,
        private_key=settings.client_key,
        certificate_chain=settings.client_certificate,
    )


def _service_config(settings: Settings) -> str:
    """What gRPC is told about its connections; "" for nothing."""
    config: dict[str, Any] = {}
    if settings.balanced:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        config["healthCheckConfig"] = {"serviceName": ""}
    if settings.wait_for_ready:
        config["methodConfig"] = [{"name": [{}], "waitForReady": True}]
    if not config:
        return ""
    import json

    return json.dumps(config)


def _address(settings: Settings) -> str:
    """The target as gRPC takes it."""
    target = settings.target
    if not settings.balanced:
        return target.address
    if target.ip_version is None:
        return f"dns:///{target.address}"
    every = ",".join(one.address for one in (target, *settings.others))
    return f"ipv{target.ip_version}:{every}"


def open_channel(settings: Settings, budget: Budget) -> grpc.Channel:
    """A blocking channel over gRPC, or over REST where the settings say so."""
    if settings.transport == "rest":
        from clarigrpc._transports.http import RestChannel

        return RestChannel.from_settings(settings)
    options = channel_options(settings)
    options.append((_SINGLE_THREADED_UNARY_STREAM, 1))
    address = _address(settings)

    def open_one() -> grpc.Channel:
        if settings.target.tls:
            return grpc.secure_channel(address, _tls(settings), options)
        return grpc.insecure_channel(address, options)

    if settings.connections == 1 and settings.hedge is None:
        return open_one()
    from clarigrpc._transports.balancing import Hedge, Multipath

    hedge = None if settings.hedge is None else Hedge(settings.hedge, budget)
    return Multipath([open_one() for _ in range(settings.connections)], hedge)


def open_aio_channel(settings: Settings, budget: Budget) -> grpc.aio.Channel:
    """An asyncio channel on the running loop, over gRPC or REST."""
    if settings.transport == "rest":
        from clarigrpc._transports.http import AsyncRestChannel

        return AsyncRestChannel.from_settings(settings)
    options = channel_options(settings)
    address = _address(settings)

    def open_one() -> grpc.aio.Channel:
        if settings.target.tls:
            return grpc.aio.secure_channel(address, _tls(settings), options)
        return grpc.aio.insecure_channel(address, options)

    if settings.connections == 1 and settings.hedge is None:
        return open_one()
    from clarigrpc._transports.balancing import AioMultipath, Hedge

    hedge = None if settings.hedge is None else Hedge(settings.hedge, budget)
    return AioMultipath([open_one() for _ in range(settings.connections)], hedge)
