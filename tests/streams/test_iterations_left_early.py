"""An async iteration that is left early leaves nothing unclosed behind, over gRPC and over REST.

In a process of its own, where every warning is an error and errors that nobody can catch are kept.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from clarigrpc.local import LocalServer

SCRIPT = """
    import asyncio, gc, sys
    from clarigrpc import AsyncClient, image, text, v2

    base, pat, user_id, app_id, transport, how = sys.argv[1:]
    lost = []
    sys.unraisablehook = lambda hook: lost.append(f"{hook.exc_value!r} in {hook.object!r}")
    PNG = bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
        "53de0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
    )

    async def leave(iteration):
        if how == "break":
            async for _ in iteration:
                break
        elif how == "drop":
            await anext(aiter(iteration))
        elif how == "close":
            await anext(aiter(iteration))
            cancel = getattr(iteration, "cancel", None)
            if cancel is not None:
                cancel()
            else:
                await iteration.aclose()
        else:
            async def consume():
                async for _ in iteration:
                    arrived.set()
                    await asyncio.sleep(60)
            arrived = asyncio.Event()
            task = asyncio.create_task(consume())
            await arrived.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def source():
        while True:
            yield PNG
            await asyncio.sleep(0.01)

    async def main():
        settings = {"pat": pat, "user_id": user_id, "app_id": app_id}
        async with AsyncClient(base=base, transport=transport, **settings) as client:
            name = f"{transport}-{how}"
            await client.inputs.create([text(f"{name}{n}", id=f"{name}-{n}") for n in range(5)])
            model = client.model("color-recognition", user_id="clarifai", app_id="main")
            await leave(client.inputs.list())
            await leave(client.inputs.stream(per_page=2))
            await leave(model.predict_many(iter([PNG] * 200), batch_size=2))
            await leave(model.predict_many(source(), batch_size=2))
            await leave(model.generate(PNG))
            request = v2.PostModelOutputsRequest(
                user_app_id=v2.UserAppIDSet(user_id="clarifai", app_id="main"),
                model_id="color-recognition",
                inputs=[image(PNG)],
            )
            await leave(client.v2.GenerateModelOutputs(request))
            if transport == "grpc":
                await leave(model.stream([PNG] * 20))
                await leave(model.stream(source()))

    asyncio.run(main())
    gc.collect()
    print(*lost, sep="\\n")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as running:
        yield running


@pytest.mark.parametrize("how", ["break", "drop", "close", "cancel"])
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_nothing_is_left_unclosed(server: LocalServer, transport: str, how: str) -> None:
    base = server.base if transport == "grpc" else str(server.rest_base)
    arguments = (base, server.pat, server.user_id, server.app_id, transport, how)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
