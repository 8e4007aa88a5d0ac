"""The calls of the service over HTTP/JSON, behind the interfaces of gRPC's channels.

``v2.V2Stub(RestChannel("http://127.0.0.1:8080"))`` works like a stub over a real channel, and so
does everything that is made to sit on one: addresses and JSON follow ``transcoding.py``, metadata
become HTTP headers, and a failure on the way is a ``grpc.aio.AioRpcError`` (a ``grpc.RpcError``
with ``code()``, ``details()`` and ``trailing_metadata()``) on both channels: UNAVAILABLE where the
server cannot be reached, DEADLINE_EXCEEDED, INVALID_ARGUMENT for a request that HTTP cannot say,
UNIMPLEMENTED for client streams, INTERNAL and UNKNOWN for an answer that is not the service's. An
HTTP error with a V2 status in its body is a response: its status decides, as over gRPC.

Differences to gRPC: an unread stream has not been opened yet; ``wait_for_ready`` and
``compression`` have no effect; call credentials are refused (give them as metadata).

Needs httpx: ``pip install clarigrpc[rest]``.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import math
import socket
import ssl
import tempfile
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Self

import grpc
import httpx
from grpc import aio

from clarigrpc._contract import methods
from clarigrpc._fork_lock import ForkLock
from clarigrpc._transports import transcoding
from clarigrpc._transports.transcoding import TranscodingError
from clarigrpc._version import __version__

if TYPE_CHECKING:
    from clarigrpc._config.settings import Settings

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]
Metadata = Sequence[tuple[str, str | bytes]]

MAX_RESPONSE_BYTES = 256 * 1024 * 1024
MAX_CONNECTIONS = 100

# Shorter than servers keep idle connections, so that they are closed from this side.
_KEEP_ALIVE_SECONDS = 30.0
_USER_AGENT = f"clarigrpc-rest/{__version__}"
_NDJSON = "application/x-ndjson"
_CODES: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# As gRPC itself reads the status of a proxy that does not speak gRPC.
_CODES_BY_HTTP_STATUS = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}
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


def rpc_error(
    code: grpc.StatusCode, details: str, metadata: aio.Metadata | None = None
) -> aio.AioRpcError:
    """The error that a call ends with."""
    metadata = metadata or aio.Metadata()
    return aio.AioRpcError(code, metadata, metadata, details)


class _Deadline(dict[str, float]):
    """The ``timeout`` extension of httpx, with what is left of the deadline for each step.

    Plain timeouts hold for each step (pool, connect, write, read) anew, so that a call could last
    several times as long as it may.
    """

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, None without a deadline."""
        return None if self._end is None else self._end - time.monotonic()

    def check(self) -> None:
        """Raise when the deadline has passed."""
        remaining = self.remaining()
        if remaining is not None and remaining <= 0:
            raise rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def get(self, key: str, default: Any = None) -> Any:
        """The timeout of a step. Zero would mean not to wait at all, without an error."""
        remaining = self.remaining()
        return default if remaining is None else max(remaining, 0.001)


class _Exchange:
    """One call as an HTTP request and its response, without the I/O."""

    def __init__(self, method: _Method, request: Any, timeout: float | None, pairs: Any) -> None:
        self._method = method
        self.deadline = _Deadline(timeout)
        self.deadline.check()
        self._received = bytearray()
        self._size = 0
        self.metadata = aio.Metadata()
        serialized = method.serialize(request) if method.serialize is not None else request
        message = method.row.request_class().FromString(serialized)
        try:
            verb, target, body = transcoding.encode_request(method.row.name, message)
            self.request = httpx.Request(
                verb,
                method.base + target,
                headers=_request_headers(timeout, pairs or ()),
                content=body,
                extensions={"timeout": self.deadline},
            )
        except (TranscodingError, httpx.InvalidURL) as error:
            raise rpc_error(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    def opened(self, response: httpx.Response) -> None:
        """Take the head of the response."""
        self.metadata = _response_metadata(response.headers)

    def streams(self, response: httpx.Response) -> bool:
        """Whether the body is a line a message, not a single failure."""
        kind = response.headers.get("content-type", "")
        return kind.startswith(_NDJSON) or response.status_code < 400

    def add(self, chunk: bytes) -> None:
        """Take a piece of a body that is one response."""
        self.deadline.check()
        self._received += chunk
        self._limit(len(self._received))

    def _limit(self, size: int) -> None:
        limit = self._method.max_response_bytes
        if size > limit:
            raise self._failed(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"received message larger than max ({size} vs. {limit})",
            )

    def add_lines(self, chunk: bytes) -> list[Any]:
        """Take a piece of a stream; returns the responses that it completes."""
        self.deadline.check()
        *lines, rest = chunk.split(b"\n")
        self._received += lines[0] if lines else rest
        self._limit(len(self._received))
        if not lines:
            return []
        complete = [bytes(self._received), *lines[1:]]
        self._received = bytearray(rest)
        return [self._line(line) for line in complete if line.strip()]

    def end_lines(self) -> list[Any]:
        """The stream has ended; returns what its last line holds, when nothing ended that."""
        return self.add_lines(b"\n") if self._received.strip() else []

    def _line(self, line: bytes) -> Any:
        tree = self._tree(line, 200)
        if "result" in tree:
            return self._message(tree["result"])[1]
        failure = tree.get("error")
        if not isinstance(failure, dict):
            raise self._failed(grpc.StatusCode.INTERNAL, "a line is neither result nor error")
        code = failure.get("code", failure.get("grpc_code"))
        raise self._failed(
            _CODES.get(code, grpc.StatusCode.UNKNOWN), str(failure.get("message", ""))
        )

    def response(self, http: httpx.Response) -> Any:
        """The response message of a body that was taken whole."""
        tree = self._tree(bytes(self._received), http.status_code)
        aborted = self.metadata.get("grpc-status")
        if aborted not in (None, "0"):
            code = _CODES.get(int(aborted) if str(aborted).isdecimal() else -1)
            status = tree.get("status")
            details = str(status.get("details", "")) if isinstance(status, dict) else ""
            raise self._failed(code or grpc.StatusCode.UNKNOWN, details)
        message, response = self._message(tree)
        if http.status_code >= 400 and not message.status.code:
            raise self._foreign(http.status_code, "an answer without a V2 status")
        return response

    def _tree(self, text: bytes, http_status: int) -> dict[str, Any]:
        try:
            tree = transcoding.loads(text)
        except TranscodingError as error:
            raise self._foreign(http_status, "an answer that is not JSON") from error
        if not isinstance(tree, dict):
            raise self._foreign(http_status, "an answer that is not a JSON object")
        return tree

    def _message(self, tree: Any) -> tuple[Any, Any]:
        """The message that JSON stands for, and what the caller's deserializer makes of it."""
        message = self._method.row.response_class()()
        try:
            transcoding.from_json(tree, message, ignore_unknown=True)
        except TranscodingError as error:
            raise self._failed(
                grpc.StatusCode.INTERNAL, f"an answer of another form: {error}"
            ) from error
        serialized = message.SerializeToString()
        deserialize = self._method.deserialize
        return message, serialized if deserialize is None else deserialize(serialized)

    def _failed(self, code: grpc.StatusCode, details: str) -> aio.AioRpcError:
        return rpc_error(code, details, self.metadata)

    def _foreign(self, http_status: int, what: str) -> aio.AioRpcError:
        code = grpc.StatusCode.INTERNAL
        if http_status >= 400:
            code = _CODES_BY_HTTP_STATUS.get(http_status, grpc.StatusCode.UNKNOWN)
        return self._failed(code, f"HTTP {http_status}: {what}")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the errors of httpx into that of gRPC."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise self._failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        except httpx.ConnectError as error:
            # gRPC's words: the layer above knows by them that the request was not sent.
            reason = (
                "DNS resolution failed"
                if _is_dns(error)
                else ("failed to connect to all addresses")
            )
            raise self._failed(grpc.StatusCode.UNAVAILABLE, f"{reason}; {error}") from error
        except httpx.LocalProtocolError as error:
            raise self._failed(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except (httpx.NetworkError, httpx.ProtocolError, httpx.ProxyError) as error:
            details = str(error) or "the connection broke"
            raise self._failed(grpc.StatusCode.UNAVAILABLE, details) from error
        except httpx.HTTPError as error:
            raise self._failed(grpc.StatusCode.INTERNAL, str(error)) from error


def _is_dns(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def _request_headers(timeout: float | None, pairs: Iterable[tuple[str, str | bytes]]) -> Any:
    headers = [
        ("accept", "application/json, application/x-ndjson"),
        ("accept-encoding", "gzip"),
        ("content-type", "application/json"),
        ("user-agent", _USER_AGENT),
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
        if key not in _HTTP_ONLY and not rounded:
            pairs.append((key, base64.b64decode(value + "==") if key.endswith("-bin") else value))
    return aio.Metadata(*pairs)


class _Method:
    """A method as a stub asks a channel for it."""

    def __init__(
        self,
        base: str,
        max_response_bytes: int,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        self.base = base
        self.max_response_bytes = max_response_bytes
        self.row = methods.lookup(path)
        self.serialize = serialize
        self.deserialize = deserialize

    def exchange(
        self,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
    ) -> _Exchange:
        """A call, ready to be sent."""
        if credentials is not None:
            raise rpc_error(
                grpc.StatusCode.INVALID_ARGUMENT,
                "call credentials do not work over REST; give them as metadata",
            )
        if self.row.request_streaming:
            raise rpc_error(
                grpc.StatusCode.UNIMPLEMENTED,
                f"{self.row.name} takes a stream of requests, which REST cannot carry; use gRPC",
            )
        return _Exchange(self, request, timeout, metadata)


def _client_options(
    base: str, verify: ssl.SSLContext | bool, max_connections: int
) -> dict[str, Any]:
    host = httpx.URL(base).host
    return {
        "verify": verify,
        "limits": httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        ),
        # The environment's proxies are not for this machine.
        "trust_env": host not in ("localhost", "127.0.0.1", "::1"),
    }


def _settings_options(settings: Settings) -> dict[str, Any]:
    """The arguments of a channel that a client's settings stand for."""
    verify: ssl.SSLContext | bool = True
    if settings.target.tls:
        roots = settings.root_certificates
        verify = ssl.create_default_context(cadata=roots.decode("ascii") if roots else None)
        if settings.client_certificate is not None:
            # The ssl module reads a certificate and its key from files only.
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(settings.client_certificate + b"\n" + (settings.client_key or b""))
                pem.flush()
                verify.load_cert_chain(pem.name)
    return {
        "base": settings.target.url,
        "verify": verify,
        "max_response_bytes": settings.max_message_bytes,
    }


# Sync -------------------------------------------------------------------------------------


class RestChannel(grpc.Channel):
    """A ``grpc.Channel`` over HTTP/JSON. Safe to share between threads.

    Args:
        base: ``http://host:port`` or ``https://host``.
        verify: How TLS is verified; False for not at all.
        max_connections: Calls that run at the same time; further ones wait, within their timeout.
        max_response_bytes: Longest response; a longer one ends with RESOURCE_EXHAUSTED.
    """

    def __init__(
        self,
        base: str,
        *,
        verify: ssl.SSLContext | bool = True,
        max_connections: int = MAX_CONNECTIONS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        self._base = base.rstrip("/")
        self._max_response_bytes = max_response_bytes
        self._max_connections = max_connections
        self._client = httpx.Client(**_client_options(base, verify, max_connections))
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self._lock = ForkLock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The channel of a client with these settings."""
        return cls(**_settings_options(settings))

    def client(self) -> httpx.Client:
        """The HTTP client.

        Raises:
            ValueError: The channel is closed (as gRPC does).
        """
        if self._client.is_closed:
            raise ValueError("Cannot invoke RPC on closed channel!")
        return self._client

    def executor(self) -> concurrent.futures.ThreadPoolExecutor:
        """Threads for calls that run in the background."""
        with self._lock.get():
            self.client()
            if self._executor is None:
                self._executor = concurrent.futures.ThreadPoolExecutor(
                    self._max_connections, thread_name_prefix="clarigrpc-rest-call"
                )
            return self._executor

    def _method(
        self, path: str, serialize: Serializer | None, deserialize: Deserializer | None
    ) -> _Method:
        return _Method(self._base, self._max_response_bytes, path, serialize, deserialize)

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> _UnaryUnary:
        """A multicallable for one request and one response."""
        return _UnaryUnary(self, self._method(method, request_serializer, response_deserializer))

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> _UnaryStream:
        """A multicallable for one request and a stream of responses."""
        return _UnaryStream(self, self._method(method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """The service has no such method."""
        raise NotImplementedError(f"{method}: REST cannot carry a stream of requests; use gRPC")

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable whose calls end with UNIMPLEMENTED: REST has no client streams."""
        return _UnaryStream(self, self._method(method, request_serializer, response_deserializer))

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        """Not for REST: there is a pool of connections, each made when it is needed."""
        raise NotImplementedError("a REST channel has no connectivity to watch")

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Nothing can be subscribed, so there is nothing to undo."""

    def close(self) -> None:
        """Close the connections; later calls raise ValueError. Idempotent."""
        with self._lock.get():
            self._client.close()
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _UnaryUnary(grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    def __init__(self, channel: RestChannel, method: _Method) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self.with_call(request, timeout, metadata, credentials)[0]

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, grpc.Call]:
        client = self._channel.client()
        exchange = self._method.exchange(request, timeout, metadata, credentials)
        with exchange.errors():
            response = client.send(exchange.request, stream=True)
            with contextlib.closing(response):
                exchange.opened(response)
                for chunk in response.iter_bytes():
                    exchange.add(chunk)
        return exchange.response(response), _Ended(exchange.metadata)

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        started = time.monotonic()

        def run() -> tuple[Any, grpc.Call]:
            left = None if timeout is None else timeout - (time.monotonic() - started)
            return self.with_call(request, left, metadata, credentials)

        return _FutureCall(self._channel.executor(), run, timeout)


class _Ended(grpc.Call):
    """A call that has ended well."""

    def __init__(self, metadata: aio.Metadata) -> None:
        self._metadata: Any = metadata

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return ""

    def initial_metadata(self) -> Any:
        return self._metadata

    def trailing_metadata(self) -> Any:
        return self._metadata

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


class _FutureCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call that runs in a thread of the channel.

    To cancel it frees the caller at once; its thread reads on until the answer or the deadline.
    """

    def __init__(
        self,
        executor: concurrent.futures.Executor,
        run: Callable[[], tuple[Any, grpc.Call]],
        timeout: float | None,
    ) -> None:
        self._deadline = _Deadline(timeout)
        self._future: concurrent.futures.Future[tuple[Any, grpc.Call]] = concurrent.futures.Future()
        executor.submit(self._run, run)

    def _run(self, run: Callable[[], tuple[Any, grpc.Call]]) -> None:
        if self._future.cancelled():
            return
        try:
            result = run()
        except Exception as error:  # noqa: BLE001  it is raised to who asks for the result
            if self._future.set_running_or_notify_cancel():
                self._future.set_exception(error)
        else:
            if self._future.set_running_or_notify_cancel():
                self._future.set_result(result)

    def _outcome(self, timeout: float | None = None) -> tuple[Any, grpc.Call]:
        try:
            return self._future.result(timeout)
        except concurrent.futures.CancelledError as error:
            raise grpc.FutureCancelledError from error
        except concurrent.futures.TimeoutError as error:
            raise grpc.FutureTimeoutError from error

    def _end(self) -> Any:
        """What knows code, details and metadata: the call, or the error."""
        try:
            return self._outcome()[1]
        except grpc.RpcError as error:
            return error
        except grpc.FutureCancelledError:
            return rpc_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")

    def result(self, timeout: float | None = None) -> Any:
        return self._outcome(timeout)[0]

    def exception(self, timeout: float | None = None) -> Exception | None:
        try:
            self._outcome(timeout)
        except grpc.RpcError as error:
            return error
        return None

    def traceback(self, timeout: float | None = None) -> Any:
        failure = self.exception(timeout)
        return None if failure is None else failure.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self._future.add_done_callback(lambda _: fn(self))

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._future.done():
            return False
        self._future.add_done_callback(lambda _: callback())
        return True

    def cancel(self) -> bool:
        return self._future.cancel()

    def cancelled(self) -> bool:
        return self._future.cancelled()

    def done(self) -> bool:
        return self._future.done()

    def running(self) -> bool:
        return not self._future.done()

    def is_active(self) -> bool:
        return not self._future.done()

    def time_remaining(self) -> Any:
        return self._deadline.remaining()

    def code(self) -> Any:
        return self._end().code()

    def details(self) -> Any:
        return self._end().details()

    def initial_metadata(self) -> Any:
        return self._end().initial_metadata()

    def trailing_metadata(self) -> Any:
        return self._end().trailing_metadata()


class _UnaryStream(grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    def __init__(self, channel: RestChannel, method: _Method) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        client = self._channel.client()

        def exchange() -> _Exchange:
            return self._method.exchange(request, timeout, metadata, credentials)

        return _StreamCall(client, exchange)


class _Opened:
    """What the reader of a stream tells its call.

    The reader does not know the call, so that a call that is dropped is freed at once, and its
    connection with it.
    """

    exchange: _Exchange | None = None
    socket: socket.socket | None = None


class _StreamState:
    """What both kinds of stream know of how they ended."""

    def __init__(self) -> None:
        self._opened = _Opened()
        self._failure: aio.AioRpcError | None = None
        self._ended = False
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    def _end(self, failure: aio.AioRpcError | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        self._failure = failure
        for callback in self._callbacks:
            callback()

    def _cancellation(self) -> aio.AioRpcError:
        return rpc_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")

    def _code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK if self._failure is None else self._failure.code()

    def _details(self) -> str:
        return "" if self._failure is None else self._failure.details() or ""

    def _metadata(self) -> Any:
        exchange = self._opened.exchange
        return aio.Metadata() if exchange is None else exchange.metadata

    def _remaining(self) -> float | None:
        exchange = self._opened.exchange
        return None if exchange is None else exchange.deadline.remaining()


def _read(
    client: httpx.Client, prepare: Callable[[], _Exchange], opened: _Opened
) -> Generator[Any, None, None]:
    opened.exchange = exchange = prepare()
    with exchange.errors():
        response = client.send(exchange.request, stream=True)
        with contextlib.closing(response):
            exchange.opened(response)
            opened.socket = response.extensions["network_stream"].get_extra_info("socket")
            if exchange.streams(response):
                for chunk in response.iter_bytes():
                    yield from exchange.add_lines(chunk)
                yield from exchange.end_lines()
            else:
                for chunk in response.iter_bytes():
                    exchange.add(chunk)
                yield exchange.response(response)


class _StreamCall(_StreamState, grpc.Call, Iterator[Any]):
    """The responses of a server stream, for one reader; any thread may cancel it."""

    def __init__(self, client: httpx.Client, prepare: Callable[[], _Exchange]) -> None:
        super().__init__()
        self._responses = _read(client, prepare, self._opened)

    def __next__(self) -> Any:
        if self._failure is not None:
            raise self._failure
        if self._cancelled:
            self._end(self._cancellation())
            raise self._cancellation()
        try:
            return next(self._responses)
        except StopIteration:
            self._end()
            raise
        except aio.AioRpcError as error:
            # Cancelled by another thread, which broke the connection.
            failure = self._cancellation() if self._cancelled else error
            self._end(failure)
            raise failure from error

    def cancel(self) -> bool:
        if self._ended or self._cancelled:
            return False
        self._cancelled = True
        if self._opened.socket is not None:
            # Wakes the reader. The socket may be gone by now, which is what is wanted.
            with contextlib.suppress(OSError):
                self._opened.socket.shutdown(socket.SHUT_RDWR)
        return True

    def is_active(self) -> bool:
        return not (self._ended or self._cancelled)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._ended:
            return False
        self._callbacks.append(callback)
        return True

    def time_remaining(self) -> Any:
        return self._remaining()

    def code(self) -> grpc.StatusCode:
        return self._code()

    def details(self) -> str:
        return self._details()

    def initial_metadata(self) -> Any:
        return self._metadata()

    def trailing_metadata(self) -> Any:
        return self._metadata()


# Async -------------------------------------------------------------------------------------


class AsyncRestChannel(aio.Channel):
    """A ``grpc.aio.Channel`` over HTTP/JSON, for the event loop that it is first used in.

    The arguments are those of ``RestChannel``.
    """

    def __init__(
        self,
        base: str,
        *,
        verify: ssl.SSLContext | bool = True,
        max_connections: int = MAX_CONNECTIONS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        self._base = base.rstrip("/")
        self._max_response_bytes = max_response_bytes
        self._client = httpx.AsyncClient(**_client_options(base, verify, max_connections))
        self.running: set[asyncio.Task[Any]] = set()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The channel of a client with these settings."""
        return cls(**_settings_options(settings))

    def client(self) -> httpx.AsyncClient:
        """The HTTP client.

        Raises:
            aio.UsageError: The channel is closed (as gRPC does).
        """
        if self._client.is_closed:
            raise aio.UsageError("Channel is closed.")
        return self._client

    def _method(
        self, path: str, serialize: Serializer | None, deserialize: Deserializer | None
    ) -> _Method:
        return _Method(self._base, self._max_response_bytes, path, serialize, deserialize)

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> _AsyncUnaryUnary:
        """A multicallable for one request and one response."""
        return _AsyncUnaryUnary(
            self, self._method(method, request_serializer, response_deserializer)
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> _AsyncUnaryStream:
        """A multicallable for one request and a stream of responses."""
        return _AsyncUnaryStream(
            self, self._method(method, request_serializer, response_deserializer)
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """The service has no such method."""
        raise NotImplementedError(f"{method}: REST cannot carry a stream of requests; use gRPC")

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable whose calls end with UNIMPLEMENTED: REST has no client streams."""
        return _AsyncUnaryStream(
            self, self._method(method, request_serializer, response_deserializer)
        )

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """IDLE until the channel is closed: connections are made when they are needed."""
        closed = self._client.is_closed
        return grpc.ChannelConnectivity.SHUTDOWN if closed else grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Not for REST: there is a pool of connections, each made when it is needed."""
        raise NotImplementedError("a REST channel has no connectivity to watch")

    async def channel_ready(self) -> None:
        """Not for REST, as ``wait_for_state_change``."""
        raise NotImplementedError("a REST channel has no connectivity to watch")

    async def close(self, grace: float | None = None) -> None:
        """Let running calls end for ``grace`` seconds, cancel the rest, close the connections."""
        if self.running and grace:
            await asyncio.wait(self.running, timeout=grace)
        rest = list(self.running)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _AsyncUnaryUnary(aio.UnaryUnaryMultiCallable[Any, Any]):
    def __init__(self, channel: AsyncRestChannel, method: _Method) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        def exchange() -> _Exchange:
            return self._method.exchange(request, timeout, metadata, credentials)

        return _AsyncUnaryCall(self._channel, exchange, timeout)


class _AsyncUnaryCall(aio.UnaryUnaryCall[Any, Any]):
    """A running call; await it for its response."""

    def __init__(
        self,
        channel: AsyncRestChannel,
        prepare: Callable[[], _Exchange],
        timeout: float | None,
    ) -> None:
        self._deadline = _Deadline(timeout)
        self._metadata = aio.Metadata()
        self._task = asyncio.ensure_future(self._run(channel.client(), prepare))
        channel.running.add(self._task)
        self._task.add_done_callback(channel.running.discard)

    async def _run(self, client: httpx.AsyncClient, prepare: Callable[[], _Exchange]) -> Any:
        exchange = prepare()
        with exchange.errors():
            response = await client.send(exchange.request, stream=True)
            async with contextlib.aclosing(response):
                exchange.opened(response)
                self._metadata = exchange.metadata
                async for chunk in response.aiter_bytes():
                    exchange.add(chunk)
        return exchange.response(response)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._task.__await__()

    async def _outcome(self) -> aio.AioRpcError | None:
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return rpc_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        failure = self._task.exception()
        if failure is None or isinstance(failure, aio.AioRpcError):
            return failure
        raise failure

    def cancel(self) -> bool:
        return self._task.cancel()

    def cancelled(self) -> bool:
        return self._task.cancelled()

    def done(self) -> bool:
        return self._task.done()

    def time_remaining(self) -> float | None:
        return self._deadline.remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._task.add_done_callback(lambda _: callback(self))

    async def code(self) -> grpc.StatusCode:
        failure = await self._outcome()
        return grpc.StatusCode.OK if failure is None else failure.code()

    async def details(self) -> str:
        failure = await self._outcome()
        return "" if failure is None else failure.details() or ""

    async def initial_metadata(self) -> aio.Metadata:
        await self._outcome()
        return self._metadata

    async def trailing_metadata(self) -> aio.Metadata:
        await self._outcome()
        return self._metadata

    async def wait_for_connection(self) -> None:
        await self._outcome()


class _AsyncUnaryStream(aio.UnaryStreamMultiCallable[Any, Any]):
    def __init__(self, channel: AsyncRestChannel, method: _Method) -> None:
        self._channel = channel
        self._method = method

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        def exchange() -> _Exchange:
            return self._method.exchange(request, timeout, metadata, credentials)

        return _AsyncStreamCall(self._channel, exchange)


async def _read_async(
    client: httpx.AsyncClient, prepare: Callable[[], _Exchange], opened: _Opened
) -> AsyncGenerator[Any, None]:
    opened.exchange = exchange = prepare()
    with exchange.errors():
        response = await client.send(exchange.request, stream=True)
        async with contextlib.aclosing(response):
            exchange.opened(response)
            if exchange.streams(response):
                async for chunk in response.aiter_bytes():
                    for each in exchange.add_lines(chunk):
                        yield each
                for each in exchange.end_lines():
                    yield each
            else:
                async for chunk in response.aiter_bytes():
                    exchange.add(chunk)
                yield exchange.response(response)


class _AsyncStreamCall(_StreamState, aio.StreamStreamCall[Any, Any]):
    """The responses of a server stream; stands for a duplex one too, which cannot be opened."""

    def __init__(self, channel: AsyncRestChannel, prepare: Callable[[], _Exchange]) -> None:
        super().__init__()
        self._channel = channel
        self._responses = _read_async(channel.client(), prepare, self._opened)
        self._reading: asyncio.Task[Any] | None = None

    async def read(self) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return aio.EOF
        self._reading = self._track(anext(self._responses, aio.EOF))
        try:
            response = await self._reading
        except asyncio.CancelledError:
            self._cancelled = True
            self._end(self._cancellation())
            raise
        except aio.AioRpcError as error:
            self._end(error)
            raise
        finally:
            self._reading = None
        if response is aio.EOF:
            self._end()
        return response

    def _track(self, awaitable: Any) -> asyncio.Task[Any]:
        async def run() -> Any:
            return await awaitable

        task = asyncio.ensure_future(run())
        self._channel.running.add(task)
        task.add_done_callback(self._channel.running.discard)
        return task

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        while (response := await self.read()) is not aio.EOF:
            yield response

    async def write(self, request: Any) -> None:
        await self.read()

    async def done_writing(self) -> None:
        await self.read()

    def cancel(self) -> bool:
        if self._ended or self._cancelled:
            return False
        self._cancelled = True
        if self._reading is not None:
            self._reading.cancel()
        else:
            self._end(self._cancellation())
            self._track(self._responses.aclose())
        return True

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._ended

    def time_remaining(self) -> float | None:
        return self._remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(lambda: callback(self))

    async def code(self) -> grpc.StatusCode:
        return self._code()

    async def details(self) -> str:
        return self._details()

    async def initial_metadata(self) -> Any:
        return self._metadata()

    async def trailing_metadata(self) -> Any:
        return self._metadata()

    async def wait_for_connection(self) -> None:
        return None
