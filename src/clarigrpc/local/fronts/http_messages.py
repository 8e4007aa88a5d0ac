"""HTTP requests and responses, as far as the fronts over HTTP share them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NamedTuple

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clarigrpc import v2
from clarigrpc._transports import transcoding
from clarigrpc.local.byte_budget import BudgetFullError, ByteBudget, Held
from clarigrpc.local.service_errors import http_status, make_status
from clarigrpc.v2 import StatusCode

MAX_BODY_BYTES = 128 * 1024 * 1024
"""Longest body of a request, by default."""

STRANGERS_BODY_BYTES = 64 * 1024
"""Longest body that is read before it is known who sends it."""

BODY_IDLE_SECONDS = 30.0
"""How long a client may send nothing before its body is complete."""

_JSON = "application/json"


class HttpReply(NamedTuple):
    """A response; with an empty body, the head of a stream."""

    status: int
    headers: dict[str, str]
    body: bytes


class BodyRefusedError(Exception):
    """The body of a request is not read to its end."""

    CODE: ClassVar[StatusCode.ValueType]
    HEADERS: ClassVar[dict[str, str]] = {"connection": "close"}
    """The rest of the body is still on its way."""


class BodyTooLongError(BodyRefusedError):
    """It is longer than the server takes."""

    CODE = StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED


class BodyTooSlowError(BodyRefusedError):
    """The client sends nothing more."""

    CODE = StatusCode.RPC_REQUEST_TIMEOUT


class BodiesFullError(BodyRefusedError):
    """All calls together hold as many bytes as the server keeps at a time."""

    CODE = StatusCode.CONN_THROTTLED
    HEADERS = BodyRefusedError.HEADERS | {"retry-after": "1"}


class BodyReader:
    """Reads the bodies of requests, within bounds for each and for all together.

    Belongs to one event loop.

    Args:
        max_bytes: Longest body.
        budget: What all calls of the server may hold.
        idle_seconds: How long a client may send nothing before its body is complete.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BODY_BYTES,
        budget: ByteBudget | None = None,
        idle_seconds: float = BODY_IDLE_SECONDS,
    ) -> None:
        self._max_bytes = max_bytes
        self._budget = budget or ByteBudget()
        self._idle_seconds = idle_seconds

    @asynccontextmanager
    async def body(
        self, receive: Receive, authorize: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[bytes]:
        """The whole body of a request, which counts while the context is open.

        Args:
            receive: Of the request.
            authorize: Awaited once a body is longer than strangers may send; raises to refuse it.

        Raises:
            BodyRefusedError: It is too long, comes too slowly, or there is no room for it now.
            ClientDisconnect: The client went away before its request was complete.
        """
        body = bytearray()
        held: list[Held] = []
        try:
            more = True
            while more:
                try:
                    async with asyncio.timeout(self._idle_seconds):
                        event = await receive()
                except TimeoutError:
                    raise BodyTooSlowError(
                        f"nothing of the body arrived for {self._idle_seconds:g} s"
                    ) from None
                if event["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = event.get("body", b"")
                more = event.get("more_body", False)
                if len(body) + len(chunk) > self._max_bytes:
                    raise BodyTooLongError(f"the body is longer than {self._max_bytes} bytes")
                if authorize is not None and len(body) + len(chunk) > STRANGERS_BODY_BYTES:
                    await authorize()
                    authorize = None
                try:
                    held.append(self._budget.take_for_body(len(chunk)))
                except BudgetFullError as error:
                    raise BodiesFullError(str(error)) from None
                body += chunk
            yield bytes(body)
        finally:
            for each in held:
                each.release()


def json_reply(tree: dict[str, Any], message: Any, headers: dict[str, str]) -> HttpReply:
    """A response with ``message``, whose JSON is ``tree``; its V2 status makes the HTTP status."""
    body = transcoding.dumps(tree)
    return HttpReply(http_status(message.status.code), response_headers(headers, _JSON), body)


def failure(
    code: StatusCode.ValueType, details: str, headers: dict[str, str] | None = None
) -> HttpReply:
    """A response that carries a V2 status alone."""
    message = v2.BaseResponse(status=make_status(code, details))
    return json_reply(transcoding.to_json(message), message, headers or {})


def response_headers(trailing: dict[str, str], content_type: str) -> dict[str, str]:
    """The headers of a response, with what the call left in ``trailing``."""
    return {**throttle_headers(trailing), "content-type": content_type}


def throttle_headers(trailing: dict[str, str]) -> dict[str, str]:
    """What a call left in ``trailing``, as HTTP headers."""
    headers = dict(trailing)
    wait = headers.get("retry-after")
    if wait is not None:
        # HTTP has whole seconds there; the service's own header takes any number.
        headers["x-throttle-wait-seconds"] = wait
        headers["retry-after"] = str(math.ceil(float(wait)))
    return headers


async def respond(reply: HttpReply, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a response."""
    await Response(reply.body, reply.status, reply.headers)(scope, receive, send)
