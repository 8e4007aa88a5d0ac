"""The service as HTTP/JSON: an ASGI application.

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
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from clarigrpc._contract import methods
from clarigrpc._rpc import statuses
from clarigrpc._rpc.statuses import StatusKind
from clarigrpc._transports import transcoding
from clarigrpc._transports.transcoding import Binding, TranscodingError
from clarigrpc.local import json_values
from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.engine.request_checks import check_counts
from clarigrpc.local.fronts.http_messages import (
    MAX_BODY_BYTES,
    BodyReader,
    BodyRefusedError,
    HttpReply,
    failure,
    json_reply,
    respond,
    response_headers,
)
from clarigrpc.local.served_call import ServedCall, WaitingShare
from clarigrpc.local.service_errors import CallAborted, ServiceError, http_status
from clarigrpc.v2 import StatusCode

# Media type of a stream: a line of JSON a message.
_STREAM_TYPE = "application/x-ndjson"
# Messages of a stream that may wait for the client to read on.
_STREAM_WINDOW = 16

_MAX_JSON_VALUES = 1_000_000
"""Values of a body. As many are read in a quarter of a second, in which no other thread runs."""
_MAX_JSON_OBJECTS = 100_000
"""Objects of a body. As many take a core some seconds."""

_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_TIMEOUT_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

_logger = logging.getLogger(__name__)

_ABORT_CODES = {
    StatusKind.CANCELLED: StatusCode.RPC_CANCELED,
    StatusKind.DEADLINE_EXCEEDED: StatusCode.RPC_REQUEST_TIMEOUT,
    StatusKind.INVALID_ARGUMENT: StatusCode.CONN_INVALID_REQUEST,
    StatusKind.RATE_LIMIT: StatusCode.CONN_THROTTLED,
    StatusKind.UNIMPLEMENTED: StatusCode.NOT_IMPLEMENTED,
    StatusKind.UNAVAILABLE: StatusCode.RPC_SERVER_UNAVAILABLE,
}


class CallServer(Protocol):
    """What the gateway needs of the service."""

    def implements(self, method: str) -> bool:
        """Whether the method does anything here."""
        ...

    def unrouted(self, address: str) -> None:
        """A request came for an address that is none of the service."""
        ...

    def authorize(self, call: ServedCall) -> None:
        """Raises ServiceError unless the caller is known."""
        ...

    def unary(self, method: str, request: Any, call: ServedCall) -> Message:
        """Serve a call with one response, which carries its V2 status."""
        ...

    def server_stream(self, method: str, request: Any, call: ServedCall) -> Iterator[Message]:
        """Serve a call with many responses."""
        ...

    def duplex(self, method: str, requests: Iterator[Any], call: ServedCall) -> Iterator[Message]:
        """Serve a call with many requests and responses."""
        ...


def parse_timeout(text: str) -> float | None:
    """Seconds of a ``grpc-timeout`` header; None where it is not well-formed."""
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _TIMEOUT_UNITS[match[2]] if match else None


class _RefusedError(Exception):
    """The request never reaches the service."""

    def __init__(self, code: StatusCode.ValueType, details: str, **headers: str) -> None:
        super().__init__(details)
        self.reply = failure(code, details, headers)


def _grpc_number(error: Exception) -> int:
    code = error.code if isinstance(error, CallAborted) else grpc.StatusCode.INTERNAL
    number: int = code.value[0]
    return number


def _explain(error: Exception, call: ServedCall) -> HttpReply:
    """The response to a call that ended with an exception."""
    if isinstance(error, _RefusedError):
        return error.reply
    if isinstance(error, ServiceError):
        return failure(error.code, error.details)
    if isinstance(error, CallAborted):
        kind = statuses.kind_of_grpc(error.code)
        code = _ABORT_CODES.get(kind, StatusCode.INTERNAL_UNCATEGORIZED)
        headers = {**call.trailing, "grpc-status": str(_grpc_number(error))}
        return failure(code, error.details, headers)
    _logger.error("%s failed", call.method, exc_info=error)
    return failure(StatusCode.INTERNAL_UNCATEGORIZED, "internal error; see the server's log")


class RestGateway:
    """The ASGI application that answers every address of the service.

    Args:
        service: Serves the calls. Its methods block and run in ``executor``.
        executor: Bounds how many calls run at once. A stream takes a worker until it ends.
        max_body_bytes: Longest request body; a longer one is answered 413.
        budget: What all calls may hold; None for a budget of its own.
        is_closing: True once running calls should come to an end.
        waiting: How many calls may wait in the executor's workers; None for no limit.
        mounts: Prefix of paths -> the application that serves them instead.
    """

    def __init__(
        self,
        service: CallServer,
        executor: Executor,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        budget: ByteBudget | None = None,
        is_closing: Callable[[], bool] = lambda: False,
        waiting: WaitingShare | None = None,
        mounts: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._service = service
        self._mounts = mounts or {}
        self._executor = executor
        self._bodies = BodyReader(max_body_bytes, budget)
        self._is_closing = is_closing
        self._waiting = waiting or WaitingShare(None)
        self._told_of_nulls = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope["raw_path"].decode("ascii")
        for prefix, mounted in self._mounts.items():
            if path.startswith(prefix):
                await mounted(scope, receive, send)
                return
        try:
            binding = self._route(scope["method"], path)
            gone = threading.Event()
            call = self._call(binding.method, scope["headers"], gone)

            async def authorize() -> None:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._executor, self._service.authorize, call)

            async with self._bodies.body(receive, authorize) as body:
                await self._serve(binding, path, body, call, gone, scope, receive, send)
        except _RefusedError as refused:
            await respond(refused.reply, scope, receive, send)
        except BodyRefusedError as error:
            await respond(failure(error.CODE, str(error), error.HEADERS), scope, receive, send)
        except ServiceError as error:  # a stranger's body was too long
            reply = failure(error.code, error.details, BodyRefusedError.HEADERS)
            await respond(reply, scope, receive, send)
        except ClientDisconnect:
            return

    def _route(self, verb: str, path: str) -> Binding:
        router = transcoding.router()
        binding = router.match(verb, path)
        if binding is not None:
            return binding
        self._service.unrouted(f"{verb} {path}")
        verbs = ", ".join(router.verbs(path))
        if verbs:
            raise _RefusedError(
                StatusCode.CONN_METHOD_NOT_ALLOWED,
                f"{verb} is not allowed for {path}; use {verbs}",
                allow=verbs,
            )
        raise _RefusedError(StatusCode.CONN_DOES_NOT_EXIST, f"{path} does not exist in this API")

    async def _serve(
        self,
        binding: Binding,
        path: str,
        body: bytes,
        call: ServedCall,
        gone: threading.Event,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        query = scope["query_string"].decode("ascii")
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

    def _call(
        self, method: str, headers: list[tuple[bytes, bytes]], gone: threading.Event
    ) -> ServedCall:
        metadata = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        timeout = parse_timeout(metadata.get("grpc-timeout", ""))
        deadline = None if timeout is None else time.monotonic() + timeout

        def remaining() -> float | None:
            return None if deadline is None else deadline - time.monotonic()

        return ServedCall(
            method=method,
            metadata=metadata,
            is_active=lambda: not (gone.is_set() or self._is_closing() or _is_late(remaining())),
            remaining=remaining,
            waiting=self._waiting,
        )

    def _decode(self, binding: Binding, path: str, query: str, body: bytes) -> Message:
        method = binding.method
        if not self._service.implements(method):
            raise CallAborted(
                grpc.StatusCode.UNIMPLEMENTED, f"the local server does not implement {method}"
            )
        try:
            _check_size(body)
            return transcoding.decode_request(binding, path, query, body, check=_check_tree)
        except TranscodingError as error:
            raise _RefusedError(StatusCode.CONN_BAD_REQUEST_FORMAT, str(error)) from error

    def _decode_stream(
        self, binding: Binding, path: str, query: str, body: bytes
    ) -> Iterator[Message]:
        """The requests of a stream, of which one alone may take several lines."""
        lines = [line for line in body.splitlines() if line.strip()]
        _check_size(body)
        if len(lines) > 1:
            with contextlib.suppress(TranscodingError):
                transcoding.loads(body)
                lines = [body]
        return iter([self._decode(binding, path, query, line) for line in lines or [b""]])

    async def _unary(
        self,
        call: ServedCall,
        answer: Callable[[], Message],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        def work() -> HttpReply:
            try:
                message = answer()
                tree = self._json_of(message, call)
                return json_reply(tree, message, call.trailing)
            except Exception as error:  # noqa: BLE001  nothing but JSON leaves the server
                return _explain(error, call)

        reply = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        await respond(reply, scope, receive, send)

    def _json_of(self, message: Message, call: ServedCall) -> dict[str, Any]:
        """The message as JSON; data of earlier versions may hold values that have none."""
        try:
            return transcoding.to_json(message)
        except TranscodingError:
            message, flaws = json_values.with_nulls(message)
            tree = transcoding.to_json(message)
        if not self._told_of_nulls:
            self._told_of_nulls = True
            _logger.warning(
                "%s: %s; over HTTP such values are null (said once)", call.method, flaws[0]
            )
        return tree

    async def _stream(
        self,
        call: ServedCall,
        start: Callable[[], Iterator[Message]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[HttpReply | bytes | None] = asyncio.Queue()
        permits = threading.Semaphore(_STREAM_WINDOW)

        def put(item: HttpReply | bytes) -> bool:
            while not permits.acquire(timeout=0.1):
                if not call.is_active():
                    return False
            loop.call_soon_threadsafe(queue.put_nowait, item)
            return True

        def end(line: bytes | None) -> None:
            # Without a permit: there is one end, and a client whose time is over waits for it.
            for item in (line, None) if line else (None,):
                loop.call_soon_threadsafe(queue.put_nowait, item)

        # One worker runs the stream from end to end: a generator may hold what belongs to a thread.
        running = loop.run_in_executor(self._executor, self._produce, call, start, put, end)
        head = await queue.get()
        assert isinstance(head, HttpReply)
        permits.release()
        if head.body:
            await respond(head, scope, receive, send)
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
        call: ServedCall,
        start: Callable[[], Iterator[Message]],
        put: Callable[[HttpReply | bytes], bool],
        end: Callable[[bytes | None], None],
    ) -> None:
        head: HttpReply | None = None
        last: bytes | None = None
        try:
            for message in start():
                line = transcoding.dumps({"result": self._json_of(message, call)}) + b"\n"
                if head is None:
                    status: Any = message
                    head = HttpReply(
                        http_status(status.status.code),
                        response_headers(call.trailing, _STREAM_TYPE),
                        b"",
                    )
                    put(head)
                if not (call.is_active() and put(line)):
                    break
            _check_deadline(call)
        except Exception as error:  # noqa: BLE001  nothing but JSON leaves the server
            reply = _explain(error, call)
            if head is None:
                head = reply
                put(head)
            else:
                text = transcoding.loads(reply.body)["status"]["details"]
                last = transcoding.dumps({"error": {"code": _grpc_number(error), "message": text}})
        if head is None:
            put(HttpReply(200, response_headers(call.trailing, _STREAM_TYPE), b""))
        end(last)


def _is_late(remaining: float | None) -> bool:
    return remaining is not None and remaining <= 0


def _check_deadline(call: ServedCall) -> None:
    if _is_late(call.remaining()):
        raise CallAborted(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")


def _check_size(body: bytes) -> None:
    """Refuses what would take too long to read, even before it is checked.

    The numbers are upper bounds, since texts may have such characters, too; base64 has none.
    """
    values = sum(map(body.count, (b",", b"[", b"{")))
    for count, most, what in (
        (body.count(b"{"), _MAX_JSON_OBJECTS, "objects"),
        (values, _MAX_JSON_VALUES, "values"),
    ):
        if count > most:
            raise _RefusedError(
                StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED,
                f"the JSON seems to have more than {most} {what}; send parts of it, or use gRPC",
            )


def _check_tree(tree: Any) -> None:
    """Refuses long lists before they become messages, a hundred times the work of reading JSON."""
    if isinstance(tree, dict):
        check_counts({name: len(each) for name, each in tree.items() if isinstance(each, list)})


async def _watch(receive: Receive, gone: threading.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
