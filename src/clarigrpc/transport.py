"""The real channel to the service: options, TLS, and which kind to open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc.experimental import ChannelOptions

if TYPE_CHECKING:
    from clarigrpc.config import Settings

USER_AGENT = "clarigrpc/0.1.0"

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
    return options


def _tls(settings: Settings) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=settings.root_certificates,
        private_key=settings.client_key,
        certificate_chain=settings.client_certificate,
    )


def open_channel(settings: Settings) -> grpc.Channel:
    """A blocking channel over gRPC, or over REST where the settings say so."""
    if settings.transport == "rest":
        from clarigrpc.rest import RestChannel

        return RestChannel.from_settings(settings)
    options = channel_options(settings)
    options.append((ChannelOptions.SingleThreadedUnaryStream, 1))
    address = settings.target.address
    if settings.target.tls:
        return grpc.secure_channel(address, _tls(settings), options)
    return grpc.insecure_channel(address, options)


def open_aio_channel(settings: Settings) -> grpc.aio.Channel:
    """An asyncio channel on the running loop, over gRPC or REST."""
    if settings.transport == "rest":
        from clarigrpc.rest import AsyncRestChannel

        return AsyncRestChannel.from_settings(settings)
    options = channel_options(settings)
    address = settings.target.address
    if settings.target.tls:
        return grpc.aio.secure_channel(address, _tls(settings), options)
    return grpc.aio.insecure_channel(address, options)
