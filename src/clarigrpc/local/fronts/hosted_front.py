"""The media of inputs, for those who may see the inputs: ``/data/<size>/<suffix>``.

Credentials come in the headers of any call, or in cookies, since pages load pictures by address
alone. Without any, nothing is there (404); wrong ones are refused (401).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clarigrpc.local.byte_budget import Held
from clarigrpc.local.engine.hosted_media import HOSTED_PREFIX
from clarigrpc.local.fronts.http_messages import failure, respond
from clarigrpc.local.media.media_copies import MediaCopy
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

_KEY_COOKIE = "x-clarifai-api-key"
_SESSION_COOKIE = "x_clarifai_session_token"
_SESSION_HEADER = "x-clarifai-session-token"

_MEDIA_THREADS = 8
"""Media that are read at the same time."""


class HostedFront:
    """The ASGI application behind ``/data/``.

    Args:
        read: What is behind a path, for a call, and its bytes in the budget of all calls;
            ServiceError for nothing.
    """

    def __init__(self, read: Callable[[ServedCall, str], tuple[MediaCopy, Held]]) -> None:
        self._read = read
        # Apart from the calls: a page loads many pictures at once.
        self._executor = ThreadPoolExecutor(
            _MEDIA_THREADS, thread_name_prefix="clarigrpc-hosted-media"
        )

    def close(self) -> None:
        """Ends its threads. No request may be in work."""
        self._executor.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope)
        path = scope["raw_path"].decode("ascii").removeprefix(HOSTED_PREFIX)
        credentials = _credentials(request)
        if not credentials or request.method not in ("GET", "HEAD"):
            reply = failure(StatusCode.CONN_DOES_NOT_EXIST, "there is no such medium")
            await respond(reply, scope, receive, send)
            return
        call = ServedCall("GetInput", credentials, lambda: True, lambda: None)
        loop = asyncio.get_running_loop()
        try:
            found, held = await loop.run_in_executor(self._executor, self._read, call, path)
        except ServiceError as error:
            reply = failure(error.code, error.details, call.trailing)
            await respond(reply, scope, receive, send)
            return
        headers = {
            "content-type": found.media_type,
            # Somebody else's upload: a browser takes it for what it is said to be.
            "x-content-type-options": "nosniff",
            "cache-control": "private",
        }
        with held:
            await Response(found.content, headers=headers)(scope, receive, send)


def _credentials(request: Request) -> dict[str, str]:
    """The metadata of a call with the credentials of the request; empty without any."""
    token = request.headers.get(_SESSION_HEADER) or request.cookies.get(_SESSION_COOKIE)
    if token:
        return {_SESSION_HEADER: token}
    given = request.headers.get("authorization")
    if given:
        return {"authorization": given}
    key = request.cookies.get(_KEY_COOKIE)
    return {"authorization": f"Key {key}"} if key else {}
