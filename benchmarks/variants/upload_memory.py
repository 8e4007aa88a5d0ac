"""``upload_memory.py KIND ADDRESS PAT BEFORE FILE``: what memory the upload of a file takes.

KIND is ``sync`` or ``asyncio``. BEFORE is a small file, uploaded first: what stays after it is
there already. Prints JSON: the largest anonymous memory of the process above that, in MiB, and how
often it was looked at.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

from clarigrpc import AsyncClient, Client

SECONDS_BETWEEN = 0.002


def anonymous() -> int:
    """Bytes of memory that belong to no file."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


class Peak:
    """The largest anonymous memory while its block runs, looked at by a thread.

    The thread begins before: a new one would be given the memory that the thread of the upload
    before has left, which is there for the thread of the next.
    """

    def __init__(self) -> None:
        self.before = self.most = 0
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN):
            self.most = max(self.most, anonymous())
            self.looks += 1

    def __enter__(self) -> Peak:
        self.looks = 0
        self.before = self.most = anonymous()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


def main() -> None:
    """Run."""
    kind, address, pat, before, path = sys.argv[1:]
    options: dict[str, Any] = {
        "base": f"http://{address}",
        "pat": pat,
        "user_id": "user",
        "app_id": "app",
    }
    peak = Peak()

    def blocking() -> None:
        with Client(**options) as client:
            model = client.model("model")
            model.upload_version(before)
            with peak:
                model.upload_version(path)

    async def awaiting() -> None:
        async with AsyncClient(**options) as client:
            model = client.model("model")
            await model.upload_version(before)
            with peak:
                await model.upload_version(path)

    if kind == "sync":
        blocking()
    else:
        asyncio.run(awaiting())
    print(json.dumps({"mib": (peak.most - peak.before) / (1 << 20), "looks": peak.looks}))


main()
