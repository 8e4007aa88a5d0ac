"""A local server for the tests of resources, and a client with an app of its own for each."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from clarigrpc import errors, v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.local.conftest import png

_numbers = itertools.count()

COLORS = v2.Model(id="color-recognition", user_id="clarifai", app_id="main")
OTHER = "pat-of-the-other-user"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the server may read inputs from."""
    made = tmp_path_factory.mktemp("inputs")
    for color in ("red", "blue"):
        (made / f"{color}.png").write_bytes(png(color))
    return made


@pytest.fixture(scope="session")
def service(folder: Path) -> Iterator[LocalServer]:
    """One server for all; each test works in an app of its own."""
    users = [
        {"id": "me-user", "primary_email": "me@example.org", "apps": [{"id": "home"}]},
        {"id": "other", "primary_email": "o@example.org", "pat": OTHER, "apps": [{"id": "theirs"}]},
    ]
    with LocalServer(rest_port=0, input_roots=[folder], config={"users": users}) as server:
        yield server


@pytest_asyncio.fixture
async def both(connect: Connect, service: LocalServer) -> Both:
    """A client of either kind in an empty app."""
    app = f"app{next(_numbers)}"
    made = connect(service.base, pat=service.pat, user_id=service.user_id, app_id=app, timeout=20)
    await made.run(made.client.apps.create, app)
    return made


async def wait_deleted(both: Both, input_id: str) -> None:
    """Waits until the server has deleted an input, which it does some time after it is told to."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            await both.run(both.client.inputs.get, input_id)
        except errors.NotFoundError:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{input_id} is still there")


async def add_inputs(both: Both, *ids: str, color: str = "red") -> None:
    """Adds images with these ids and waits for them."""
    inputs = [v2.Input(id=one, data=v2.Data(image=v2.Image(base64=png(color)))) for one in ids]
    await both.run(both.client.inputs.create, inputs)
    await both.run(both.client.inputs.wait, ids)
