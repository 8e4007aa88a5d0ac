"""What the error of a gRPC call tells: by its text, its trailing metadata, its rich details."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc

from clarigrpc._transports.transport import TransportError

if TYPE_CHECKING:
    from google.protobuf.message import Message


# Fragments of the text that gRPC gives with UNAVAILABLE, where no connection could be made: no byte
# of the request has left this process. gRPC has no other sign of that. A server can pass on the
# same text about a call of its own.
_NOT_SENT = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    # A call that waited for its turn on a connection with too many calls, when that ended.
    "subchannel lost all connections",
    "DNS resolution failed",
    "errors resolving",
    "empty address list",
)

# Of those, what does not pass by itself: certificates, another protocol, names.
_LASTING = (
    "certificate",
    "handshak",
    "ssl",
    "http1",
    "http/1",
    "http2 preface",
    "failed parsing http/2",
    "illegal request line",
    "illegal status line",
    "empty address list",
    "dns",
    "errors resolving",
)

# Fragments of the text that gRPC gives with UNAVAILABLE where a connection broke under a call. A
# server that refuses a call says so in words of its own.
_LOST = (
    "socket closed",
    "connection reset",
    "broken pipe",
    "goaway",
    "stream removed",
    "transport closed",
    "endpoint closing",
    "connection dropped",
    "recvmsg",
    "sendmsg",
    "keepalive watchdog",
    # Servers that stop, in the words of several languages' libraries.
    "cancelling all calls",
    "transport is closing",
    "shutting down",
)

_REMOVED = "Stream removed ("

# What gRPC (1.81 and later) says where the server's GOAWAY excludes the call: the peer has not
# taken it and never will (RFC 9113, section 6.8). A call that the peer may have taken and that was
# lost with the connection has the reason before it: "Stream removed (Socket closed (GOAWAY ...".
# Earlier releases say the same of both.
_EXCLUDED = _REMOVED + "GOAWAY received; Error code: "

WRITE_FAILED = "Internal error from Core"
"""What grpc.aio says when it writes to a stream that has just ended, or a connection that broke."""

_THROTTLE_KEYS = ("retry-after", "x-throttle-wait-seconds")
_PUSHBACK_KEY = "grpc-retry-pushback-ms"


def retry_after_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> float | None:
    """Seconds that the server asks to wait before the next attempt.

    None if it names none, ``inf`` if there shall be no next attempt (a ``grpc-retry-pushback-ms``
    that is negative or malformed, see gRFC A6).

    Args:
        metadata: Trailing metadata of the call, or HTTP headers of the response.
    """
    for key, value in metadata or ():
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        key = key.lower()
        if key == _PUSHBACK_KEY:
            return float(text) / 1000 if text.isdecimal() else float("inf")
        if key in _THROTTLE_KEYS:
            seconds = _seconds_until(text)
            if seconds is not None:
                return max(0.0, seconds)
    return None


def _seconds_until(text: str) -> float | None:
    """A number of seconds, or an HTTP date as RFC 9110 has it; None for anything else."""
    try:
        seconds = float(text)
    except ValueError:
        from email.utils import parsedate_to_datetime  # much to import for what is rarely sent

        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        return moment.timestamp() - time.time()
    return None if math.isnan(seconds) else seconds


def text_of(error: Any) -> str:
    """What gRPC says of a failed call.

    Without its own retries it puts "Stream removed (...)" around what ended a call on this side.
    That says something only where a connection broke.

    Args:
        error: A ``grpc.RpcError`` with a code.
    """
    text: str = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE or not text.startswith(_REMOVED):
        return text
    return text.removeprefix(_REMOVED).removesuffix(")")


def was_not_sent(error: Any, *, connected: bool | None = None) -> bool:
    """Whether certainly no byte of the request of a failed call was sent.

    A transport of this package says so itself (``TransportError.not_sent``); of gRPC's own errors
    the text is read. Over a connection that is still up it comes from the server.

    Args:
        error: A ``grpc.RpcError`` with a code.
        connected: Whether the connection is still up; None if that is not known.
    """
    if isinstance(error, TransportError):
        return error.not_sent
    if connected:
        return False
    text = error.details() or ""
    return error.code() is grpc.StatusCode.UNAVAILABLE and any(
        fragment in text for fragment in _NOT_SENT
    )


def was_refused(error: Any, *, connected: bool | None) -> bool:
    """Whether the peer said, as it went away, that it has not taken the request.

    The text alone does not prove that: a server can pass on what gRPC said of a call of its own,
    after it has done half of the work. So the connection has to be gone, too. RST_STREAM with
    REFUSED_STREAM leaves it as it is, and does not count.

    Args:
        error: A ``grpc.RpcError`` with a code.
        connected: Whether the connection is still up; None if that is not known.
    """
    if connected is not False or error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    return (error.details() or "").startswith(_EXCLUDED)


def may_pass(text: str) -> bool:
    """Whether the reason for which nothing was sent may pass by itself, as a restart does."""
    lower = text.lower()
    return not any(fragment in lower for fragment in _LASTING)


def connection_was_lost(error: Any, *, not_sent: bool) -> bool:
    """Whether the connection broke while the call ran.

    Args:
        error: A ``grpc.RpcError`` with a code.
        not_sent: What ``was_not_sent`` says of it.
    """
    if isinstance(error, TransportError):
        return error.connection_lost
    text = error.details() or ""
    if text == WRITE_FAILED:
        return error.code() is grpc.StatusCode.INTERNAL
    lower = text.lower()
    return (
        error.code() is grpc.StatusCode.UNAVAILABLE
        and not not_sent
        and any(fragment in lower for fragment in _LOST)
    )


def is_by_server(error: Any, *, connected: bool | None, failed: bool) -> bool:
    """Whether the server said itself that it is unavailable, or a proxy before it did.

    Where the connection is up again after it broke, only gRPC's text tells.

    Args:
        error: A ``grpc.RpcError`` with a code.
        connected: As of ``was_not_sent``.
        failed: Whether the connection did: nothing was sent, or it was lost.
    """
    return not failed and (isinstance(error, TransportError) or connected is True)


# Fragments of gRPC's text, in lower case -> what they mean; the first that fits counts. The texts
# differ between releases of gRPC.
_EXPLANATIONS = (
    (
        ("http1", "http/1", "http2 preface", "failed parsing http/2"),
        "{} speaks HTTP/1, not gRPC; give a gRPC address, or transport='rest'",
    ),
    (
        # What an HTTP/1 client makes of the frames that a gRPC server greets it with.
        ("illegal request line", "illegal status line"),
        "{} does not speak HTTP/1; transport='rest' needs the server's address for REST",
    ),
    (
        ("certificate_verify_failed",),
        "the TLS certificate of {} is not trusted; give root_certificates=",
    ),
    (
        ("hostname verification", "is not in peer certificate"),
        "the TLS certificate of {} is for another host; check base=",
    ),
    (
        ("security handshaker",),
        "no TLS with {}: root_certificates=, client_key= or client_certificate= is no valid PEM",
    ),
    (
        # Older versions of gRPC say no more than this when they cannot read the PEM.
        ("empty address list",),
        "no usable address for {}; check base=, and that root_certificates=, client_key= and "
        "client_certificate= are valid PEM",
    ),
    (
        ("wrong_version_number",),
        "{} does not speak TLS; if it is a plaintext server, give base='http://...'",
    ),
    (
        ("handshake", "ssl"),
        "no TLS with {}; if it is a plaintext server, give base='http://...', and if it asks for "
        "a client certificate, client_key= and client_certificate=",
    ),
    (
        ("connection refused",),
        "nothing listens at {}; check base= and that the server is running",
    ),
    (
        ("dns", "errors resolving"),
        "the name of {} cannot be resolved; check base= and the network",
    ),
)


def explain(
    code: grpc.StatusCode, text: str, target: str, *, not_sent: bool, by_server: bool = False
) -> str:
    """A description of a failure that the service did not describe, and what to do about it.

    Args:
        code: gRPC status of the call.
        text: gRPC's own text, from which the reason is read.
        target: URL of the server.
        not_sent: Whether no byte of the request was sent.
        by_server: Whether the text is the server's (``is_by_server``), so that what it says of
            connections is about others than this one.
    """
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no complete response from {target} in time; raise timeout= for slow calls"
    if code is not grpc.StatusCode.UNAVAILABLE:
        return text or code.name.replace("_", " ").lower()
    if by_server:
        return f"{target} says that it is unavailable"
    lower = text.lower()
    for fragments, explanation in _EXPLANATIONS:
        if any(fragment in lower for fragment in fragments):
            return explanation.format(target)
    if not_sent and ("closed" in lower or "reset" in lower):
        advice = (
            "a client certificate, give client_key= and client_certificate="
            if target.startswith("https:")
            else "TLS, give base='https://...'"
        )
        return f"{target} accepts connections and closes them at once; if it wants {advice}"
    return f"the connection to {target} failed"


def rich_details(error: Any) -> tuple[Message, ...]:
    """The messages in ``grpc-status-details-bin``; none when it is absent or does not parse."""
    if not any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ()):
        return ()
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    found = []
    # A trailer that does not parse, or contradicts the status of the call, must not hide the error.
    with contextlib.suppress(DecodeError, ValueError):
        status = rpc_status.from_call(error)
        for packed in status.details if status is not None else ():
            name = packed.TypeName().rpartition(".")[2]
            detail_class = getattr(error_details_pb2, name, None)
            if detail_class is not None:
                detail = detail_class()
                if packed.Unpack(detail):
                    found.append(detail)
    return tuple(found)


def retry_info(details: Iterable[Any]) -> float | None:
    for detail in details:
        if detail.DESCRIPTOR.full_name == "google.rpc.RetryInfo":
            return float(detail.retry_delay.ToTimedelta().total_seconds())
    return None
