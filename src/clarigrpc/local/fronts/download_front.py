"""Files that the service made, for its users to fetch: ``/downloads/<name>``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from clarigrpc.local.fronts.http_messages import failure, respond
from clarigrpc.local.store.download_files import MEDIA_TYPES
from clarigrpc.v2 import StatusCode

DOWNLOADS_PREFIX = "/downloads/"
"""Beginning of the paths of files."""


class DownloadFront:
    """The ASGI application behind ``/downloads/``.

    Args:
        find: The file of a name, None where there is none.
    """

    def __init__(self, find: Callable[[str], Path | None]) -> None:
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request. The name of a file is the permission to have it."""
        path = scope["raw_path"].decode("ascii")
        file = self._find(path.removeprefix(DOWNLOADS_PREFIX))
        if file is None or scope["method"] not in ("GET", "HEAD"):
            reply = failure(StatusCode.CONN_DOES_NOT_EXIST, "the file does not exist")
            await respond(reply, scope, receive, send)
            return
        await FileResponse(file, media_type=MEDIA_TYPES[file.suffix])(scope, receive, send)
