"""Uploads in a process of its own: ``upload_client.py BASE PAT CLIENT_KIND SOURCE OPTIONS``.

Prints a line of JSON for each report of progress and one for the result. SOURCE is a path, or
``stream:PATH`` for its content as a stream that cannot seek. The option ``warm_up`` names another
source, which is uploaded first.
"""

import asyncio
import io
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

from clarigrpc import AsyncClient, Client
from clarigrpc._uploads.upload_progress import UploadProgress


class Unseekable(io.RawIOBase):
    """A file that can only be read on."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size) or b""

    def close(self) -> None:
        self._file.close()
        super().close()


def anonymous_memory() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def report(progress: UploadProgress) -> None:
    tell(done=progress.bytes_done, memory=anonymous_memory())


def opened(source: str) -> Any:
    """What to upload for the name of a source."""
    return Unseekable(source.partition(":")[2]) if source.startswith("stream:") else source


def main() -> None:
    base, pat, client_kind, source, text = sys.argv[1:]
    options = {"progress": report, **json.loads(text)}
    ids: dict[str, Any] = {"user_id": "local-user", "app_id": "local-app"}
    value = opened(source)
    warm_up = options.pop("warm_up", None)

    async def asynchronous() -> Any:
        async with AsyncClient(base=base, pat=pat, **ids) as client:
            if warm_up:
                await client.model("m").upload_version(opened(warm_up))
                tell(memory=anonymous_memory())
            return await client.model("m").upload_version(value, **options)

    def synchronous() -> Any:
        with Client(base=base, pat=pat, **ids) as client:
            if warm_up:
                client.model("m").upload_version(opened(warm_up))
                tell(memory=anonymous_memory())
            return client.model("m").upload_version(value, **options)

    result = synchronous() if client_kind == "sync" else asyncio.run(asynchronous())
    tell(version_id=result.version_id, sha256=result.sha256, resumed_from=result.resumed_from)


if __name__ == "__main__":
    # As in a terminal; a shell starts what runs in the background without.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
