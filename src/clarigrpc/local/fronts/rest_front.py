"""The REST front of the local server: HTTP/JSON in, the same service code behind it.

Addresses, names and JSON follow ``clarigrpc._transports.transcoding``. What is decided here:

* The HTTP status says what the V2 status in the body says (``HTTP_STATUSES``). A failure of HTTP
  itself (no such path, a body that is not JSON) has a V2 status in the body too.
* A call that the service aborts, where the gRPC front would end without a response, carries the
  gRPC code in the header ``grpc-status`` beside a V2 status in the body.
* A server stream is a line of JSON a message, ``application/x-ndjson``:
  ``{"result": <message>}``, and ``{"error": {"code": <gRPC code>, "message": ...}}`` as the last
  line where it breaks. The HTTP status is that of the first message.
* A stream of requests is a line of JSON a message, too. All are read before the first is served,
  since HTTP/1.1 has no conversations; a single message may be laid out over several lines.
* Request headers are the call's metadata; ``grpc-timeout`` (``5S``, ``300m``) is its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import grpc
import uvicorn
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._rpc import statuses
from clarigrpc._rpc.statuses import Kind
from clarigrpc._transports import transcoding
from clarigrpc._transports.transcoding import Binding, TranscodingError
from clarigrpc.local.served_call import Call
from clarigrpc.local.service_errors import CallAborted, make_status
from clarigrpc.local.store.download_files import MEDIA_TYPES

MAX_BODY_BYTES = 128 * 1024 * 1024
WORKERS = 32

# Messages of a stream that may wait for the client to read on.
_STREAM_WINDOW = 16
_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_DOWNLOADS = "/downloads/"
_FIRST_GENERATION = "/v1/"
# Long queries come in the request line; httpx sends URLs of up to 64 KiB.
_MAX_HEAD_BYTES = 256 * 1024
# Longer than clients keep idle connections, so that it is they who close them.
_KEEP_ALIVE_SECONDS = 75

_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_TIMEOUT_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

_log = logging.getLogger(__name__)

HTTP_STATUSES = {
    Kind.SUCCESS: 200,
    Kind.PENDING: 200,
    Kind.PARTIAL: 200,
    Kind.FAILED: 400,
    Kind.AUTHENTICATION: 401,
    Kind.PERMISSION_DENIED: 403,
    Kind.NOT_FOUND: 404,
    Kind.ALREADY_EXISTS: 409,
    Kind.INVALID_ARGUMENT: 400,
    Kind.RATE_LIMIT: 429,
    Kind.QUOTA_EXCEEDED: 402,
    Kind.NOT_READY: 503,
    Kind.UNAVAILABLE: 503,
    Kind.DEADLINE_EXCEEDED: 504,
    Kind.CANCELLED: 499,
    Kind.UNIMPLEMENTED: 501,
    Kind.INTERNAL: 500,
}
"""HTTP status of a response by what its V2 status means."""

# Codes for which HTTP has a word of its own. For ACCEPTED the service's definitions say 202.
_HTTP_STATUSES_BY_CODE = {
    v2.StatusCode.ACCEPTED: 202,
    v2.StatusCode.CONN_METHOD_NOT_ALLOWED: 405,
    v2.StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED: 413,
}

_ABORT_CODES = {
    Kind.CANCELLED: v2.StatusCode.RPC_CANCELED,
    Kind.DEADLINE_EXCEEDED: v2.StatusCode.RPC_REQUEST_TIMEOUT,
    Kind.INVALID_ARGUMENT: v2.StatusCode.CONN_INVALID_REQUEST,
    Kind.RATE_LIMIT: v2.StatusCode.CONN_THROTTLED,
    Kind.UNIMPLEMENTED: v2.StatusCode.NOT_IMPLEMENTED,
    Kind.UNAVAILABLE: v2.StatusCode.RPC_SERVER_UNAVAILABLE,
}


class Backend(Protocol):
    """What the gateway needs of the service."""

    def implements(self, method: str) -> bool:
        """Whether the method does anything here."""

    def unary(self, method: str, request: Any, call: Call) -> Message:
        """Serve a call with one response, which carries its V2 status."""

    def server_stream(self, method: str, request: Any, call: Call) -> Iterator[Message]:
        """Serve a call with many responses."""

    def duplex(self, method: str, requests: Iterator[Any], call: Call) -> Iterator[Message]:
        """Serve a call with many requests and responses."""


def http_status(code: int) -> int:
    """The HTTP status of a response with this V2 status code."""
    return _HTTP_STATUSES_BY_CODE.get(code, HTTP_STATUSES[statuses.kind_of(code)])  # type: ignore[call-overload, no-any-return]


def parse_timeout(text: str) -> float | None:
    """Seconds of a ``grpc-timeout`` header; None where it is not well-formed."""
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _TIMEOUT_UNITS[match[2]] if match else None


class _Reply(NamedTuple):
    """A response; with an empty body, the head of a stream."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Refused(Exception):
    """The request never reaches the service."""

    def __init__(self, code: v2.StatusCode.ValueType, details: str, **headers: str) -> None:
        super().__init__(details)
        self.reply = _failure(code, details, headers)


class BodyTooLongError(Exception):
    """The body of a request is longer than the server takes."""

    HEADERS: ClassVar = {"connection": "close"}
    """The rest of the body is still on its way."""


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body of a request.

    Raises:
        BodyTooLongError: It is longer than ``max_bytes``.
        ClientDisconnect: The client went away before its request was complete.
    """
    body = bytearray()
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientDisconnect
        body += event.get("body", b"")
        more = event.get("more_body", False)
        if len(body) > max_bytes:
            raise BodyTooLongError(f"the body is longer than {max_bytes} bytes")
    return bytes(body)


def _reply(message: Any, headers: dict[str, str]) -> _Reply:
    body = transcoding.dumps(transcoding.to_json(message))
    return _Reply(http_status(message.status.code), _headers(headers, _JSON), body)


def _failure(
    code: v2.StatusCode.ValueType, details: str, headers: dict[str, str] | None = None
) -> _Reply:
    return _reply(v2.BaseResponse(status=make_status(code, details)), headers or {})


def _headers(trailing: dict[str, str], content_type: str) -> dict[str, str]:
    return {**throttle_headers(trailing), "content-type": content_type}


def throttle_headers(trailing: dict[str, str]) -> dict[str, str]:
    """What a call leaves in ``trailing`` as HTTP headers."""
    headers = dict(trailing)
    wait = headers.get("retry-after")
    if wait is not None:
        # HTTP has whole seconds there; the service's own header takes any number.
        headers["x-throttle-wait-seconds"] = wait
        headers["retry-after"] = str(math.ceil(float(wait)))
    return headers


def _grpc_number(error: Exception) -> int:
    code = error.code if isinstance(error, CallAborted) else grpc.StatusCode.INTERNAL
    number: int = code.value[0]
    return number


def _explain(error: Exception, call: Call) -> _Reply:
    """The response to a call that ended with an exception."""
    if isinstance(error, _Refused):
        return error.reply
    if isinstance(error, CallAborted):
        kind = statuses.kind_of_grpc(error.code)
        code = _ABORT_CODES.get(kind, v2.StatusCode.INTERNAL_UNCATEGORIZED)
        headers = {**call.trailing, "grpc-status": str(_grpc_number(error))}
        return _failure(code, error.details, headers)
    _log.error("%s failed", call.method, exc_info=error)
    return _failure(v2.StatusCode.INTERNAL_UNCATEGORIZED, "the local server failed; see its log")


class Gateway:
    """The ASGI application that answers every address of the service.

    Args:
        service: Serves the calls. Its methods block and run in ``executor``.
        executor: Bounds how many calls run at once. A stream takes a worker until it ends.
        max_body_bytes: Longest request body; a longer one is answered 413.
        is_closing: True once running calls should come to an end.
        download: Finds the file behind the last part of ``/downloads/<name>``.
        first_generation: Serves ``/v1/``; None has no such addresses.
    """

    def __init__(
        self,
        service: Backend,
        executor: Executor,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        is_closing: Callable[[], bool] = lambda: False,
        download: Callable[[str], Path | None] = lambda name: None,
        first_generation: ASGIApp | None = None,
    ) -> None:
        self._service = service
        self._first_generation = first_generation
        self._find_download = download
        self._executor = executor
        self._max_body_bytes = max_body_bytes
        self._is_closing = is_closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope["raw_path"].decode("ascii")
        if path.startswith(_DOWNLOADS):
            await self._download(path.removeprefix(_DOWNLOADS), scope, receive, send)
            return
        if self._first_generation is not None and path.startswith(_FIRST_GENERATION):
            await self._first_generation(scope, receive, send)
            return
        try:
            binding = _route(scope["method"], path)
            body = await read_body(receive, self._max_body_bytes)
        except _Refused as refused:
            await _respond(refused.reply, scope, receive, send)
            return
        except BodyTooLongError as error:
            code = v2.StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED
            await _respond(_failure(code, str(error), error.HEADERS), scope, receive, send)
            return
        except ClientDisconnect:
            return
        query = scope["query_string"].decode("ascii")
        gone = threading.Event()
        call = self._call(binding.method, scope["headers"], gone)
        row = methods.lookup(binding.method)
        watcher = asyncio.create_task(_watch(receive, gone))

        def start() -> Iterator[Message]:
            if row.request_streaming:
                requests = self._decode_stream(binding, path, query, body)
                return self._service.duplex(row.name, requests, call)
            request = self._decode(binding, path, query, body)
            return self._service.server_stream(row.name, request, call)

        def answer() -> Message:
            return self._service.unary(row.name, self._decode(binding, path, query, body), call)

        try:
            if row.response_streaming:
                await self._stream(call, start, scope, receive, send)
            else:
                await self._unary(call, answer, scope, receive, send)
        finally:
            gone.set()
            watcher.cancel()

    async def _download(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends a file that the service made. Its name is the permission to have it."""
        file = self._find_download(name)
        if file is None or scope["method"] not in ("GET", "HEAD"):
            reply = _failure(v2.StatusCode.CONN_DOES_NOT_EXIST, "there is no such file")
            await _respond(reply, scope, receive, send)
            return
        await FileResponse(file, media_type=MEDIA_TYPES[file.suffix])(scope, receive, send)

    def _call(self, method: str, headers: list[tuple[bytes, bytes]], gone: threading.Event) -> Call:
        metadata = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        timeout = parse_timeout(metadata.get("grpc-timeout", ""))
        deadline = None if timeout is None else time.monotonic() + timeout
        return Call(
            method=method,
            metadata=metadata,
            is_active=lambda: not (gone.is_set() or self._is_closing()),
            remaining=lambda: None if deadline is None else deadline - time.monotonic(),
        )

    def _decode(self, binding: Binding, path: str, query: str, body: bytes) -> Message:
        method = binding.method
        if not self._service.implements(method):
            raise CallAborted(
                grpc.StatusCode.UNIMPLEMENTED, f"the local server does not implement {method}"
            )
        try:
            return transcoding.decode_request(binding, path, query, body)
        except TranscodingError as error:
            raise _Refused(v2.StatusCode.CONN_BAD_REQUEST_FORMAT, str(error)) from error

    def _decode_stream(
        self, binding: Binding, path: str, query: str, body: bytes
    ) -> Iterator[Message]:
        """The requests of a stream, of which one alone may take several lines."""
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) > 1:
            with contextlib.suppress(TranscodingError):
                transcoding.loads(body)
                lines = [body]
        return iter([self._decode(binding, path, query, line) for line in lines or [b""]])

    async def _unary(
        self, call: Call, answer: Callable[[], Message], scope: Scope, receive: Receive, send: Send
    ) -> None:
        def work() -> _Reply:
            try:
                return _reply(answer(), call.trailing)
            except Exception as error:  # noqa: BLE001  nothing but JSON leaves the server
                return _explain(error, call)

        reply = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        await _respond(reply, scope, receive, send)

    async def _stream(
        self,
        call: Call,
        start: Callable[[], Iterator[Message]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[_Reply | bytes | None] = asyncio.Queue()
        permits = threading.Semaphore(_STREAM_WINDOW)

        def put(item: _Reply | bytes | None) -> bool:
            while not permits.acquire(timeout=0.1):
                if not call.is_active():
                    return False
            loop.call_soon_threadsafe(queue.put_nowait, item)
            return True

        # One worker runs the stream from end to end: a generator may hold what belongs to a thread.
        running = loop.run_in_executor(self._executor, self._produce, call, start, put)
        head = await queue.get()
        assert isinstance(head, _Reply)
        permits.release()
        if head.body:
            await _respond(head, scope, receive, send)
        else:
            headers = [(name.encode(), value.encode()) for name, value in head.headers.items()]
            await send({"type": "http.response.start", "status": head.status, "headers": headers})
            while (line := await queue.get()) is not None:
                permits.release()
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        await running

    def _produce(
        self,
        call: Call,
        start: Callable[[], Iterator[Message]],
        put: Callable[[_Reply | bytes | None], bool],
    ) -> None:
        head: _Reply | None = None
        try:
            for message in start():
                line = transcoding.dumps({"result": transcoding.to_json(message)}) + b"\n"
                if head is None:
                    status: Any = message
                    head = _Reply(
                        http_status(status.status.code), _headers(call.trailing, _NDJSON), b""
                    )
                    put(head)
                if not (call.is_active() and put(line)):
                    break
        except Exception as error:  # noqa: BLE001  nothing but JSON leaves the server
            reply = _explain(error, call)
            if head is None:
                head = reply
                put(head)
            else:
                text = transcoding.loads(reply.body)["status"]["details"]
                put(transcoding.dumps({"error": {"code": _grpc_number(error), "message": text}}))
        if head is None:
            put(_Reply(200, _headers(call.trailing, _NDJSON), b""))
        put(None)


def _route(verb: str, path: str) -> Binding:
    router = transcoding.router()
    binding = router.match(verb, path)
    if binding is not None:
        return binding
    verbs = ", ".join(router.verbs(path))
    if verbs:
        raise _Refused(
            v2.StatusCode.CONN_METHOD_NOT_ALLOWED, f"{path} takes {verbs}, not {verb}", allow=verbs
        )
    raise _Refused(v2.StatusCode.CONN_DOES_NOT_EXIST, f"there is no {path} in the API")


async def _watch(receive: Receive, gone: threading.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def _respond(reply: _Reply, scope: Scope, receive: Receive, send: Send) -> None:
    await Response(reply.body, reply.status, reply.headers)(scope, receive, send)


class RestFront:
    """Serves the gateway over HTTP/1.1 from a thread of its own.

    The socket is bound when the object is made, so ``base`` is known and another process that
    has the port is an ``OSError`` at once.

    Args:
        service: What the gRPC front serves too. It is not closed here.
        host: Address to listen on.
        port: Port to listen on, 0 for any.
        workers: Calls that run at the same time; further ones wait.
        max_body_bytes: Longest request body.
        download: Finds the file behind the last part of ``/downloads/<name>``.
        first_generation: Serves ``/v1/``; None has no such addresses.
    """

    def __init__(
        self,
        service: Backend,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        workers: int = WORKERS,
        max_body_bytes: int = MAX_BODY_BYTES,
        download: Callable[[str], Path | None] = lambda name: None,
        first_generation: ASGIApp | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=1024)
        # Connections inherit it. asyncio leaves it out for sockets made by create_server, and head
        # and body of a response are two writes, of which the second would wait 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket_name: tuple[str, int] = self._socket.getsockname()[:2]
        self._closed = False
        self._expired = threading.Event()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="clarigrpc-rest-worker")
        gateway = Gateway(
            service,
            self._executor,
            max_body_bytes=max_body_bytes,
            is_closing=self._expired.is_set,
            download=download,
            first_generation=first_generation,
        )
        config = uvicorn.Config(
            # Without a router before it: that of Starlette has no place for ids with a newline.
            gateway,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="clarigrpc-rest", daemon=True
        )

    @property
    def base(self) -> str:
        """``http://host:port``."""
        host, port = self._socket_name
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin to serve; requests that come before it has begun wait."""
        self._thread.start()

    def close(self, grace: float = 5.0) -> None:
        """Stop: running calls have ``grace`` seconds. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._thread.ident is not None:
            self._server.config.timeout_graceful_shutdown = math.ceil(grace)
            self._server.should_exit = True
            self._thread.join()
        self._socket.close()
        self._expired.set()
        self._executor.shutdown()
