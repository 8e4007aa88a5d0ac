"""What gRPC's interfaces tell of a call, over gRPC and over HTTP."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import text, v2
from clarigrpc.local import LocalServer
from tests.both import Both, ClientKind
from tests.conftest import Connect

REQUEST = v2.PostModelOutputsRequest(
    user_app_id=v2.UserAppIDSet(user_id="clarifai", app_id="main"),
    model_id="text-stream",
    inputs=[text("one two")],
)
LIST = v2.ListInputsRequest()


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def both(request: pytest.FixtureRequest, connect: Connect, server: LocalServer) -> Both:
    """A client of either kind, over either transport."""
    base = server.base if request.param == "grpc" else str(server.rest_base)
    settings: dict[str, Any] = {"user_id": server.user_id, "app_id": server.app_id}
    return connect(base, transport=request.param, pat=server.pat, timeout=30, **settings)


async def ask(both: Both, call: Any, name: str) -> Any:
    """What a method of a call returns; those of the async client are coroutines in part."""
    told = await both.run(getattr(call, name)) if both.is_sync else getattr(call, name)()
    return await told if inspect.isawaitable(told) else told


async def ended_well(both: Both, call: Any) -> None:
    """Check all that can be asked of a call that has ended with OK."""
    assert await ask(both, call, "code") is grpc.StatusCode.OK
    assert await ask(both, call, "details") in ("", None, "OK")
    for name in ("initial_metadata", "trailing_metadata"):
        for key, value in await ask(both, call, name) or ():
            assert isinstance(key, str)
            assert isinstance(value, str | bytes)


async def test_a_stream(both: Both) -> None:
    stream = both.open("GenerateModelOutputs", REQUEST, timeout=25)
    first = await anext(both.items(stream))
    assert first.status.code == v2.StatusCode.SUCCESS
    assert 0 < await ask(both, stream, "time_remaining") <= 25
    if both.is_sync:  # an asynchronous one may have its end by now, before the rest is read
        assert stream.is_active()
    rest = await both.collect(stream)
    assert rest
    await ended_well(both, stream)
    if both.is_sync:
        assert not stream.is_active()
    else:
        assert stream.done()


async def test_a_call(both: Both) -> None:
    method = both.client.v2.ListInputs
    if both.is_sync:
        response, call = await both.run(method.with_call, LIST)
        assert not call.is_active()
        assert not call.cancel()
        assert not call.add_callback(lambda: None)
    else:
        call = method(LIST)
        response = await call
        ended: list[Any] = []
        call.add_done_callback(ended.append)
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()
    assert response.status.code == v2.StatusCode.SUCCESS
    await ended_well(both, call)


@pytest.mark.parametrize("client_kind", ["sync"])  # gRPC's futures are of sync calls
async def test_a_future(client_kind: ClientKind, both: Both) -> None:
    future = both.client.v2.ListInputs.future(LIST)
    assert future.result(20).status.code == v2.StatusCode.SUCCESS
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.traceback() is None
    assert not future.cancel()
    await ended_well(both, future)
