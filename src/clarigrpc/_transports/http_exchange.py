"""One call over HTTP/JSON, without the I/O: from request bytes to an HTTP request, and back.

Addresses and JSON follow ``transcoding``, metadata become HTTP headers. A call that fails on the
way ends with a ``TransportError``:

===================  =============================================================================
UNAVAILABLE          the server cannot be reached, or the connection broke
DEADLINE_EXCEEDED    the timeout has passed
INVALID_ARGUMENT     the request cannot be expressed in HTTP
UNIMPLEMENTED        the method takes a stream of requests
RESOURCE_EXHAUSTED   the response is longer than the limit
INTERNAL, UNKNOWN    the response is not one of the service
===================  =============================================================================

An HTTP error with a V2 status in its body is a response: its status decides, as over gRPC.

Different from gRPC: a stream is opened when it is first read; ``wait_for_ready`` and
``compression`` have no effect; call credentials are refused (give them as metadata).

Needs httpx: ``pip install clarigrpc[rest]``.
"""

from __future__ import annotations

import base64
import contextlib
import math
import re
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from grpc import aio

from clarigrpc._config.http_deadlines import HttpDeadline
from clarigrpc._contract import methods
from clarigrpc._contract.methods import CallKind
from clarigrpc._transports import transcoding
from clarigrpc._transports.content_coding import ACCEPTED_CODINGS, BodyDecoder
from clarigrpc._transports.transcoding import TranscodingError
from clarigrpc._transports.transport import STATUS_CODES, TransportError, transport_error
from clarigrpc._version import __version__
from clarigrpc.errors import ConfigurationError

if TYPE_CHECKING:
    from clarigrpc._config.settings import Settings

# Shorter than servers keep idle connections, so that they are closed from this side.
_KEEP_ALIVE_SECONDS = 30.0
_HTTP_USER_AGENT = f"clarigrpc-rest/{__version__}"
_NDJSON = "application/x-ndjson"

# As gRPC itself reads the status of a proxy that does not speak gRPC.
_CODES_BY_HTTP_STATUS = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.UNAVAILABLE,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    414: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    431: grpc.StatusCode.INVALID_ARGUMENT,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}
_HTTP_MEANINGS = {
    413: "a proxy says that the request is too large; send less at a time, or URLs",
    414: "a proxy says that the address of the request is too long",
    429: "a proxy says that there are too many requests",
    431: "a proxy says that the headers are too large",
}
_GRPC_STATUS = re.compile("[0-9]{1,2}")
_LONGEST_DETAILS = 10_000
"""Characters of an error text that are kept."""

# Of the HTTP message and not of the call.
_HTTP_ONLY = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "server",
        "transfer-encoding",
    }
)


@dataclass(frozen=True)
class HttpOptions:
    """Options of a transport over HTTP.

    Attributes:
        base: ``http://host:port`` or ``https://host``.
        verify: How TLS is verified; False for not at all.
        max_connections: Calls that run at the same time; further ones wait, within their timeout.
        max_response_bytes: Longest response; a longer one ends with RESOURCE_EXHAUSTED.
    """

    base: str
    verify: ssl.SSLContext | bool = True
    max_connections: int = 100
    max_response_bytes: int = 256 * 1024 * 1024

    @classmethod
    def of(cls, settings: Settings) -> HttpOptions:
        """The options that the settings of a client stand for."""
        verify: ssl.SSLContext | bool = True
        if settings.target.tls:
            try:
                verify = _tls(settings)
            except ssl.SSLError as error:
                raise ConfigurationError(
                    "root_certificates=, client_key= or client_certificate= is no valid PEM "
                    f"({error.reason or error})"
                ) from None
        return cls(settings.target.url, verify, max_response_bytes=settings.max_message_bytes)

    def limits(self) -> httpx.Limits:
        """How many connections there are, and for how long."""
        return httpx.Limits(
            max_connections=self.max_connections,
            max_keepalive_connections=self.max_connections,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        )


def _tls(settings: Settings) -> ssl.SSLContext:
    roots = settings.root_certificates
    context = ssl.create_default_context(cadata=roots.decode("ascii") if roots else None)
    if settings.client_certificate is not None:
        # The ssl module reads a certificate and its key from files only.
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(settings.client_certificate + b"\n" + (settings.client_key or b""))
            pem.flush()
            context.load_cert_chain(pem.name)
    return context


def cancellation() -> TransportError:
    """The error of a call that was cancelled on this side, in gRPC's words."""
    return transport_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")


class HttpMethod:
    """A method of the service over HTTP.

    Raises:
        KeyError: The service has no such method.
        NotImplementedError: The method is of the kind that the service has not: a stream of
            requests and one response.
    """

    def __init__(self, options: HttpOptions, kind: CallKind, path: str) -> None:
        self.row = methods.lookup(path)
        self.base = options.base.rstrip("/")
        self.max_response_bytes = options.max_response_bytes
        self.response_streaming = kind.endswith("stream")
        if kind == "stream_unary":
            raise NotImplementedError(f"{path}: REST cannot carry a stream of requests; use gRPC")

    def exchange(
        self,
        request: Any,
        deadline: Deadline,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
    ) -> Exchange:
        """A call, ready to be sent.

        Raises:
            TransportError: It cannot be sent over HTTP, or there is no time left.
        """
        if credentials is not None:
            raise transport_error(
                grpc.StatusCode.INVALID_ARGUMENT,
                "call credentials do not work over REST; give them as metadata",
                not_sent=True,
            )
        if self.row.request_streaming:
            raise transport_error(
                grpc.StatusCode.UNIMPLEMENTED,
                f"{self.row.name} takes a stream of requests, which REST cannot carry; use gRPC",
                not_sent=True,
            )
        return Exchange(self, request, deadline, metadata)


class Deadline(HttpDeadline):
    """The deadline of a call."""

    def check(self, *, not_sent: bool = False) -> None:
        """Raise when the deadline has passed."""
        remaining = self.remaining()
        if remaining is not None and remaining <= 0:
            raise transport_error(
                grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", not_sent=not_sent
            )


class Exchange:
    """One call as an HTTP request and its response.

    Send ``request``, then pass the response's head to ``opened``, each piece of its body to
    ``feed`` and its end to ``end``. The last two return the responses, serialized, that are
    complete. All of them raise ``TransportError``; the I/O stands within ``errors()``.

    Attributes:
        request: What is to be sent.
        deadline: When the call has to be over.
        http: The response, when its head has arrived.
        metadata: Of the response; empty before.
        cancelled: Set from another thread, while the head is awaited.
    """

    http: httpx.Response | None = None
    cancelled = False

    def __init__(self, method: HttpMethod, request: bytes, deadline: Deadline, pairs: Any) -> None:
        deadline.check(not_sent=True)
        self._method = method
        self.deadline = deadline
        self._received = bytearray()
        self._status = 200
        self._by_line = False
        self._decoder = BodyDecoder("")
        self.metadata = aio.Metadata()
        message = method.row.request_class().FromString(request)
        try:
            verb, target, body = transcoding.encode_request(method.row.name, message)
            self.request = httpx.Request(
                verb,
                method.base + target,
                headers=_request_headers(deadline.remaining(), pairs or ()),
                content=body,
                extensions={"timeout": deadline},
            )
        except (TranscodingError, httpx.InvalidURL) as error:
            raise transport_error(
                grpc.StatusCode.INVALID_ARGUMENT, str(error), not_sent=True
            ) from error

    def opened(self, response: httpx.Response) -> None:
        """Take the head of the response."""
        self.http = response
        if self.cancelled:  # asked after http is set: who cancels does it the other way round
            raise cancellation()
        try:
            self.metadata = _response_metadata(response.headers)
        except ValueError as error:
            raise self._failed(
                grpc.StatusCode.INTERNAL, f"a header that ends in -bin is not base64: {error}"
            ) from error
        self._status = response.status_code
        if 300 <= self._status < 400:
            where = response.headers.get("location", "nowhere")[:200]
            raise self._failed(
                grpc.StatusCode.UNAVAILABLE,
                f"HTTP {self._status}: the server redirects to {where}; give that address as base=",
            )
        with self._readable():
            self._decoder = BodyDecoder(response.headers.get("content-encoding", ""))
        # A stream has a line for each message, unless it fails before its first one.
        kind = response.headers.get("content-type", "")
        self._by_line = self._method.response_streaming and (
            kind.startswith(_NDJSON) or response.status_code < 400
        )

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a piece of the body as it was sent; returns the responses that it completes."""
        complete: list[bytes] = []
        with self._readable():
            for piece in self._decoder.pieces(chunk):
                self.deadline.check()
                if self._by_line:
                    complete += self._feed_lines(piece)
                else:
                    self._received += piece
                    self._limit()
        return complete

    def end(self) -> list[bytes]:
        """The body is complete; returns the response that this completes, if any."""
        if not self._by_line:
            return [self._response()]
        # The last line may lack its end.
        return self._feed_lines(b"\n") if self._received.strip() else []

    def _feed_lines(self, chunk: bytes) -> list[bytes]:
        *lines, rest = chunk.split(b"\n")
        self._received += lines[0] if lines else rest
        self._limit()
        if not lines:
            return []
        complete = [bytes(self._received), *lines[1:]]
        self._received = bytearray(rest)
        return [self._line(line) for line in complete if line.strip()]

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn the errors of the decoder into ``TransportError``."""
        try:
            yield
        except ValueError as error:
            raise self._failed(grpc.StatusCode.INTERNAL, str(error)) from error

    def _limit(self) -> None:
        size, limit = len(self._received), self._method.max_response_bytes
        if size > limit:
            raise self._failed(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"received message larger than max ({size} vs. {limit})",
            )

    def _line(self, line: bytes) -> bytes:
        tree = self._tree(line, 200)
        if "result" in tree:
            return self._message(tree["result"]).SerializeToString()  # type: ignore[no-any-return]
        failure = tree.get("error")
        if not isinstance(failure, dict):
            raise self._failed(grpc.StatusCode.INTERNAL, "a line is neither result nor error")
        code = failure.get("code", failure.get("grpc_code"))
        known = STATUS_CODES.get(code) if isinstance(code, int) else None
        raise self._failed(
            known or grpc.StatusCode.UNKNOWN, str(failure.get("message", ""))[:_LONGEST_DETAILS]
        )

    def _response(self) -> bytes:
        """The response that the whole body is."""
        tree = self._tree(bytes(self._received), self._status)
        aborted = self.metadata.get("grpc-status")
        if aborted not in (None, "0"):
            # At most two digits: a longer number is none of gRPC's, and may be endless.
            code = STATUS_CODES.get(int(aborted) if _GRPC_STATUS.fullmatch(str(aborted)) else -1)
            status = tree.get("status")
            details = str(status.get("details", "")) if isinstance(status, dict) else ""
            raise self._failed(code or grpc.StatusCode.UNKNOWN, details)
        message = self._message(tree)
        if self._status >= 400 and not message.status.code:
            raise self._foreign(self._status, "a response without a V2 status")
        return message.SerializeToString()  # type: ignore[no-any-return]

    def _tree(self, text: bytes, http_status: int) -> dict[str, Any]:
        try:
            tree = transcoding.loads(text)
        except TranscodingError as error:
            raise self._foreign(http_status, "a response that is not JSON") from error
        if not isinstance(tree, dict):
            raise self._foreign(http_status, "a response that is not a JSON object")
        return tree

    def _message(self, tree: Any) -> Any:
        """The message that JSON stands for."""
        message = self._method.row.response_class()()
        try:
            transcoding.from_json(tree, message, ignore_unknown=True)
        except TranscodingError as error:
            raise self._failed(
                grpc.StatusCode.INTERNAL, f"a response of another form: {error}"
            ) from error
        return message

    def _failed(self, code: grpc.StatusCode, details: str, **what_broke: bool) -> TransportError:
        return transport_error(code, details, self.metadata, **what_broke)

    def _foreign(self, http_status: int, what: str) -> TransportError:
        code = grpc.StatusCode.INTERNAL
        if http_status >= 400:
            code = _CODES_BY_HTTP_STATUS.get(http_status, grpc.StatusCode.UNKNOWN)
        meaning = _HTTP_MEANINGS.get(http_status, what)
        return self._failed(code, f"HTTP {http_status}: {meaning}")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the errors of httpx into ``TransportError``."""
        try:
            yield
        except httpx.TimeoutException as error:
            # Waiting for a connection comes before sending.
            waiting = isinstance(error, httpx.PoolTimeout | httpx.ConnectTimeout)
            raise self._failed(
                grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", not_sent=waiting
            ) from error
        except httpx.ConnectError as error:
            what = "DNS resolution failed" if _is_dns(error) else "no connection"
            raise self._failed(
                grpc.StatusCode.UNAVAILABLE, f"{what}: {error}", not_sent=True
            ) from error
        except httpx.LocalProtocolError as error:
            raise self._failed(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except (httpx.NetworkError, httpx.ProtocolError, httpx.ProxyError) as error:
            details = str(error) or "the connection broke"
            raise self._failed(
                grpc.StatusCode.UNAVAILABLE, details, connection_lost=True
            ) from error
        except httpx.HTTPError as error:
            raise self._failed(grpc.StatusCode.INTERNAL, str(error)) from error
        except OSError as error:  # an alert of TLS in the middle, which httpx lets through
            raise self._failed(
                grpc.StatusCode.UNAVAILABLE, str(error), connection_lost=True
            ) from error


class StreamState:
    """How a stream of responses ended; for the calls of both kinds.

    Attributes:
        exchange: The call, once it is prepared.
    """

    exchange: Exchange | None = None

    def __init__(self, timeout: float | None) -> None:
        self._deadline = Deadline(timeout)
        self._failure: TransportError | None = None
        self._ended = False
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    def _end(self, failure: TransportError | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        self._failure = failure
        for callback in self._callbacks:
            callback()

    def _code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK if self._failure is None else self._failure.code()

    def _details(self) -> str:
        return "" if self._failure is None else self._failure.details() or ""

    def _metadata(self) -> Any:
        return aio.Metadata() if self.exchange is None else self.exchange.metadata


def _is_dns(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def _request_headers(timeout: float | None, pairs: Iterable[tuple[str, str | bytes]]) -> Any:
    headers = [
        ("accept", "application/json, application/x-ndjson"),
        ("accept-encoding", ACCEPTED_CODINGS),
        ("content-type", "application/json"),
        ("user-agent", _HTTP_USER_AGENT),
    ]
    if timeout is not None:
        milliseconds = max(1, math.ceil(timeout * 1000))
        # The header has room for eight digits.
        short = milliseconds < 10**8
        headers.append(
            ("grpc-timeout", f"{milliseconds}m" if short else f"{milliseconds // 1000}S")
        )
    for key, value in pairs:
        if isinstance(value, bytes) and key.endswith("-bin"):
            value = base64.b64encode(value).rstrip(b"=")
        headers.append((key, value.decode("ascii") if isinstance(value, bytes) else value))
    return headers


def _response_metadata(headers: httpx.Headers) -> aio.Metadata:
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in headers.multi_items():
        # The service's own header has fractions of a second, that of HTTP has not.
        rounded = key == "retry-after" and "x-throttle-wait-seconds" in headers
        if key in _HTTP_ONLY or rounded:
            continue
        pairs.append((key, base64.b64decode(value + "==") if key.endswith("-bin") else value))
    return aio.Metadata(*pairs)
