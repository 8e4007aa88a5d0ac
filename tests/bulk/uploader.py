"""Uploads texts with a journal: ``uploader.py CLIENT_KIND BASE PAT JOURNAL COUNT``."""

import asyncio
import json
import sys
from typing import Any

from clarigrpc import AsyncClient, Client, text
from clarigrpc.types import UploadReport

if __name__ == "__main__":
    client_kind, base, pat, journal, count = sys.argv[1:]
    settings: dict[str, Any] = {
        "base": base,
        "pat": pat,
        "user_id": "local-user",
        "app_id": "local-app",
    }
    source = (
        text(f"text {number}", id=f"given-{number}" if number % 2 else "")
        for number in range(int(count))
    )
    if client_kind == "sync":
        with Client(**settings) as client:
            report = client.inputs.upload(source, journal=journal, batch_size=64)
    else:

        async def main() -> UploadReport:
            async with AsyncClient(**settings) as client:
                return await client.inputs.upload(source, journal=journal, batch_size=64)

        report = asyncio.run(main())
    print(
        json.dumps(
            {
                "added": report.added,
                "resumed": report.resumed,
                "complete": report.complete,
                "failed": [str(one) for one in report.failed_inputs],
            }
        )
    )
