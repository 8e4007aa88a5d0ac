"""``client.ping`` and ``model.ready``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from clarigrpc import errors, v2
from clarigrpc.local import LocalServer
from tests.both import Both, ClientKind


def shout(text: str) -> str:
    return text.upper()


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(models={"shout": shout}) as running:
        yield running


@pytest_asyncio.fixture
async def connected(
    client_kind: ClientKind, server: LocalServer
) -> AsyncIterator[Callable[..., Both]]:
    made: list[Both] = []

    def connect(**settings: Any) -> Both:
        defaults = {"base": server.base, "user_id": server.user_id, "app_id": server.app_id}
        made.append(Both(client_kind, **{**defaults, **settings}))
        return made[-1]

    yield connect
    for one in made:
        await one.close()


async def test_ping(connected: Callable[..., Both], server: LocalServer) -> None:
    for credential in ({"pat": server.pat}, {"api_key": server.api_key}):
        both = connected(**credential)
        found = await both.run(both.client.ping)
        assert (found.base, found.transport) == (server.base, "grpc")
        assert found.user_id == server.user_id
        assert 0 < found.latency < 60
        assert 0 < found.first_latency < 60
        assert found.request_id
        assert found.versions["python"]


async def test_ping_fails_as_every_call_does(connected: Callable[..., Both]) -> None:
    both = connected(pat="0" * 32)
    with pytest.raises(errors.AuthenticationError) as caught:
        await both.run(both.client.ping)
    assert caught.value.method == "GetUser"
    nobody = connected(pat="0" * 32, base="http://127.0.0.1:1")
    with pytest.raises(errors.UnavailableError):
        await nobody.run(nobody.client.ping, timeout=0.2)


async def test_ready(connected: Callable[..., Both], server: LocalServer) -> None:
    both = connected(pat=server.pat)
    assert await both.run(both.client.model("shout").ready)
    public = both.client.model("color-recognition", user_id="clarifai", app_id="main")
    assert await both.run(public.ready)  # it has no methods, and says so
    with pytest.raises(errors.NotFoundError):
        await both.run(both.client.model("nothing").ready)
    model = f"untrained-{both.is_sync}"
    await both.run(both.client.models.create, v2.Model(id=model, model_type_id="text-classifier"))
    assert await both.run(both.client.model(model).ready) is False


async def test_a_model_that_is_being_deployed_is_not_waited_for(
    connected: Callable[..., Both], server: LocalServer
) -> None:
    both = connected(pat=server.pat)
    server.faults.deploy_seconds = 600
    try:
        assert await both.run(both.client.model("shout").ready) is False
    finally:
        server.faults.deploy_seconds = 0


async def test_a_failed_training_is_an_error(
    connected: Callable[..., Both], server: LocalServer
) -> None:
    both = connected(pat=server.pat)
    model = f"failed-{both.is_sync}"
    await both.run(both.client.models.create, v2.Model(id=model, model_type_id="text-classifier"))
    await both.run(both.client.models.versions(model).create)
    with pytest.raises(errors.ApiError):
        await both.run(both.client.models.wait_trained, model)
    with pytest.raises(errors.ApiError) as caught:
        await both.run(both.client.model(model).ready)
    assert caught.value.code == v2.StatusCode.MODEL_TRAINING_NO_DATA
