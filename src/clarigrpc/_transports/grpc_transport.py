"""Transports over gRPC: one channel of grpcio each."""

from __future__ import annotations

from os import getpid
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from clarigrpc._contract.methods import CallKind
from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._transports.sync_grpc_calls import GrpcMulticallable
from clarigrpc._transports.transport import AsyncTransport, SyncTransport
from clarigrpc._version import __version__

if TYPE_CHECKING:
    from clarigrpc._config.settings import Settings

_IMPORTED_BY = getpid()

_GRPC_USER_AGENT = f"clarigrpc/{__version__}"

# grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, whose module takes time to import.
# A grpcio that does not know it reads server streams on a thread of its own.
_SINGLE_THREADED_UNARY_STREAM = "SingleThreadedUnaryStream"

# A dead peer is noticed within 40 s while calls are running. Nothing is sent on an idle
# connection: servers answer such pings with too_many_pings.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # By default a minute, for any ping; the longer of the two counts.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
)

_CONNECTIVITY = {state.value[0]: state for state in grpc.ChannelConnectivity}


class SyncGrpcTransport(SyncTransport):
    """Calls over a ``grpc.Channel``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.channels = (channel,)

    @classmethod
    def open(cls, settings: Settings) -> SyncGrpcTransport:
        """A transport to the address of the settings. Server streams use the caller's thread."""
        options = [*channel_options(settings), (_SINGLE_THREADED_UNARY_STREAM, 1)]
        address = _address(settings)
        with HeldInterrupt():
            if settings.target.tls:
                return cls(grpc.secure_channel(address, _tls(settings), options))
            return cls(grpc.insecure_channel(address, options))

    def multicallable(self, kind: CallKind, path: str) -> Any:
        with HeldInterrupt():
            return GrpcMulticallable(getattr(self._channel, kind)(path))

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        # A grpc.Channel tells its state to subscribers only, for which it keeps a thread.
        try:
            with HeldInterrupt():
                state: Any = self._channel._channel.check_connectivity_state(False)  # type: ignore[attr-defined]
        except (AttributeError, TypeError, ValueError):  # another grpcio, or it is closed
            return None
        return _CONNECTIVITY.get(state)

    def close(self) -> None:
        with HeldInterrupt():
            self._channel.close()


class AsyncGrpcTransport(AsyncTransport):
    """Calls over a ``grpc.aio.Channel``."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel
        self.channels = (channel,)
        self._settings: Settings | None = None
        self._streams: SyncGrpcTransport | None = None

    @classmethod
    def open(cls, settings: Settings) -> AsyncGrpcTransport:
        """A transport to the address of the settings, for the running event loop."""
        options = channel_options(settings)
        address = _address(settings)
        if settings.target.tls:
            opened = cls(aio.secure_channel(address, _tls(settings), options))
        else:
            opened = cls(aio.insecure_channel(address, options))
        opened._settings = settings
        return opened

    def for_streams(self) -> SyncTransport | None:
        if self._streams is None and self._settings is not None:
            self._streams = SyncGrpcTransport.open(self._settings)
        return self._streams

    def multicallable(self, kind: CallKind, path: str) -> Any:
        return getattr(self._channel, kind)(path)

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        return self._channel.get_state()

    async def close(self, grace: float | None) -> None:
        await self._channel.close(grace)
        streams, self._streams, self._settings = self._streams, None, None
        if streams is not None:
            streams.close()


def channel_options(settings: Settings) -> list[tuple[str, Any]]:
    """Options of the gRPC channel.

    Messages are limited to ``settings.max_message_bytes`` in both directions. Calls are retried
    by ``clarigrpc._rpc.retry`` alone: the service config of a name server is ignored, and gRPC's
    own retries are off. Its transparent ones repeat a call without a pause on a connection that the
    server has told to go away and keeps open for a running stream, and take all memory for that
    (grpcio 1.85.3).
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.primary_user_agent", _GRPC_USER_AGENT),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.enable_retries", 0),
        # After a failed connection attempt, try again soon: our own retries wait longer than this.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        *_KEEPALIVE,
    ]
    if any(target.is_loopback for target in (settings.target, *settings.others)):
        options.append(("grpc.enable_http_proxy", 0))
    if service_config := _service_config(settings):
        options.append(("grpc.service_config", service_config))
    if settings.others:
        # gRPC would take the whole list for the name of the service.
        options.append(("grpc.default_authority", settings.target.address))
    if settings.connections > 1 or getpid() != _IMPORTED_BY:
        # Channels with the same target would share a connection. In the child of a fork that is
        # the parent's, which gRPC leaves as it is when calls were in flight: the child's calls
        # would wait for it until their deadlines.
        options.append(("grpc.use_local_subchannel_pool", 1))
    return options


def _tls(settings: Settings) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=settings.root_certificates,
        private_key=settings.client_key,
        certificate_chain=settings.client_certificate,
    )


def _service_config(settings: Settings) -> str:
    """gRPC's service config as JSON; "" for none. Several addresses are used round-robin."""
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
    """The target as gRPC takes it: an address, a list of them, or a name with all its addresses."""
    target = settings.target
    if not settings.balanced:
        return target.address
    if target.ip_version is None:
        return f"dns:///{target.address}"
    every = ",".join(one.address for one in (target, *settings.others))
    return f"ipv{target.ip_version}:{every}"
