"""Serves the toolbox by ``runner.serve`` until a signal: KIND BASE PAT GRACE.

Methods that do not end are soon left behind.
"""

from __future__ import annotations

import asyncio
import sys

from clarigrpc import AsyncClient, Client, runner
from clarigrpc._worker import worker_driver
from tests.worker.toolbox import Toolbox

KIND, BASE, PAT, GRACE = sys.argv[1:]
worker_driver.ABORT_SECONDS = 0.2
OPTIONS: runner.RunnerOptions = {"runner_id": "r", "model_id": "toolbox", "grace": float(GRACE)}


async def serve() -> None:
    async with AsyncClient(base=BASE, pat=PAT, user_id="local-user", app_id="local-app") as client:
        print(await runner.serve(client, Toolbox, **OPTIONS))


if KIND == "async":
    asyncio.run(serve())
else:
    with Client(base=BASE, pat=PAT, user_id="local-user", app_id="local-app") as client:
        print(runner.serve(client, Toolbox, **OPTIONS))
