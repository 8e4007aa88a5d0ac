"""What a transport is: the part of a client that moves the bytes of calls.

A transport knows nothing of messages, credentials, retries or the meaning of a status: all that is
decided above, in ``clarigrpc._rpc``, which opens one transport for a client
(``_transports.opening``) and asks it for the multicallables of the methods that are called. There
are transports over gRPC and over HTTP/JSON, and transports made of others, which balance or hedge.

The multicallables are those of gRPC's channels without serializers, so that a channel of grpcio
can be used as it is, without another object on the way of each call:

======================  ==========================================================================
call                    multicallable
======================  ==========================================================================
sync, one response      ``with_call(request, timeout, metadata, credentials, wait_for_ready,
                        compression)`` returns the response and its ``grpc.Call``; ``future(...)``
                        starts the call and returns a ``grpc.Future`` that is a ``grpc.Call``
sync, many responses    called with the same arguments, starts the call and returns an iterator of
                        responses that is a ``grpc.Call``
async                   called with the same arguments by keyword (but the request), starts the
                        call and returns the call object of ``grpc.aio`` for its kind
======================  ==========================================================================

* Requests and responses are ``bytes``, or iterators of them where the kind says ``stream``. A
  response of None stands for a call that ended well without one.
* ``timeout`` is the time for the whole call in seconds. ``metadata`` are pairs that are sent as
  they are. A transport that cannot do what ``credentials`` asks refuses the call;
  ``wait_for_ready`` and ``compression`` are hints.
* A call that fails raises a ``grpc.RpcError`` with ``code()``, ``details()`` and
  ``trailing_metadata()``. Whether the request may have been sent decides about repeating calls
  that must not run twice, so the error says it: ``TransportError.not_sent``. grpcio's own errors
  do not have that attribute; ``clarigrpc._rpc.grpc_failures`` reads their text.
* A call can be cancelled at any moment, from any thread (sync) or on its loop (async), and frees
  what it holds when it is cancelled or dropped. An async call that is cancelled here raises
  ``asyncio.CancelledError``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from grpc import aio

from clarigrpc._contract.methods import CallKind

if TYPE_CHECKING:  # generic in the type stubs only
    FutureBase = grpc.Future[Any]
else:
    FutureBase = grpc.Future

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Keys and values of a call, in order."""

STATUS_CODES: Mapping[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
"""The status codes of gRPC by number."""

CHANNEL_CLOSED = "Channel closed!"
"""What gRPC says, with CANCELLED, of a sync call that ran while its channel was closed."""


class TransportError(aio.AioRpcError):
    """A failed call, of a sync or an async transport.

    Attributes:
        not_sent: True where certainly no byte of the request has left this process.
        connection_lost: True where the connection broke while the call ran.
    """

    not_sent: bool = False
    connection_lost: bool = False


def transport_error(
    code: grpc.StatusCode,
    details: str,
    metadata: aio.Metadata | None = None,
    *,
    not_sent: bool = False,
    connection_lost: bool = False,
) -> TransportError:
    """The error that a call ends with; ``metadata`` are the response's."""
    metadata = metadata or aio.Metadata()
    error = TransportError(code, metadata, metadata, details)
    error.not_sent = not_sent
    error.connection_lost = connection_lost
    return error


def note_transport(call: Any, transport: SyncTransport | AsyncTransport | None) -> None:
    """Note what a call uses where it is not simply the client's transport."""
    call.transport_used = transport


def transport_of(call: Any) -> SyncTransport | AsyncTransport | None:
    """What ``note_transport`` noted of a call, or of a call that is an error; None for nothing."""
    return getattr(call, "transport_used", None)


def unhedged(multicallable: Any) -> Any:
    """A multicallable whose calls are sent once, also where a transport hedges them."""
    return getattr(multicallable, "unhedged", multicallable)


# A connection that was never used is idle, which says nothing of the others.
_TELLING = (
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.IDLE,
)


def connectivity_of(
    states: Iterable[grpc.ChannelConnectivity | None],
) -> grpc.ChannelConnectivity | None:
    """The connectivity of several transports: that of one which is down before that of others."""
    found = set(states)
    if None in found:
        return None
    return next((state for state in _TELLING if state in found), None)


class SyncTransport(ABC):
    """A transport whose calls block. Safe to share between threads.

    Attributes:
        channels: The channels of gRPC below, for those who ask about connectivity; none where
            connections are opened as needed and nobody watches them.
    """

    channels: Sequence[grpc.Channel] = ()

    @abstractmethod
    def multicallable(self, kind: CallKind, path: str) -> Any:
        """What makes the calls of one method.

        Args:
            kind: Kind of the calls.
            path: ``/clarifai.api.V2/PostInputs``.
        """

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        """How it is connected at this moment; None where that cannot be told."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Cancel what is running and close the connections. Idempotent."""


class AsyncTransport(ABC):
    """A transport for one event loop.

    Attributes:
        channels: As of ``SyncTransport``.
    """

    channels: Sequence[aio.Channel] = ()

    @abstractmethod
    def multicallable(self, kind: CallKind, path: str) -> Any:
        """What makes the calls of one method; arguments as of ``SyncTransport``."""

    def for_streams(self) -> SyncTransport | None:
        """A sync transport to the same address, whose streams take less than those of this one.

        None where there is none. ``close`` closes it, too.
        """
        return None

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        """As of ``SyncTransport``, without the one ``for_streams``."""
        return None

    @abstractmethod
    async def close(self, grace: float | None) -> None:
        """Let running calls end for ``grace`` seconds, cancel the rest, close the connections."""
