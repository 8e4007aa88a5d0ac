"""``client.bind``: generated stubs over a client, with its errors or with those of grpcio."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from clarigrpc import Client, errors, v2
from tests.both import Both
from tests.conftest import PAT, Connect
from tests.scripted import SUCCESS, Answer, Fail, ScriptedServer, refuse, reply
from tests.waiting import until

MISSING = refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST, "no such model")
REQUEST = v2.GetModelRequest(model_id="m")
TRAILING = (("x-why", "because"),)


def grpc_stub(both: Both) -> Any:
    return both.client.bind(v2.V2Stub, errors="grpc")


async def test_a_bound_stub_has_the_errors_of_the_client(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.on("GetModel", MISSING)
    with pytest.raises(errors.NotFoundError, match="no such model"):
        await both.run(both.client.bind(v2.V2Stub).GetModel, REQUEST)
    with pytest.raises(errors.ConfigurationError, match="'grpcio'"):
        both.client.bind(v2.V2Stub, errors="grpcio")


async def test_a_failed_call_raises_what_grpcio_raises(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.on("GetModel", Fail(grpc.StatusCode.INTERNAL, "broken", TRAILING))
    expected = grpc.RpcError if both.is_sync else grpc.aio.AioRpcError
    with pytest.raises(expected) as caught:
        await both.run(grpc_stub(both).GetModel, REQUEST)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "broken")
    assert ("x-why", "because") in [tuple(pair) for pair in error.trailing_metadata()]
    assert not isinstance(error, errors.ApiError)
    assert PAT not in repr(error)


async def test_a_response_with_a_failure_is_returned_when_retries_are_over(
    both: Both, scripted: ScriptedServer
) -> None:
    loading = refuse("GetModel", v2.StatusCode.MODEL_LOADING)
    scripted.on("GetModel", Fail(grpc.StatusCode.UNAVAILABLE), loading, MISSING)
    response = await both.run(grpc_stub(both).GetModel, REQUEST)
    assert response == MISSING
    assert len(scripted.seen) == 3


async def test_a_partial_failure_is_returned(both: Both, scripted: ScriptedServer) -> None:
    mixed = refuse("PostModelOutputs", v2.StatusCode.MIXED_STATUS)
    scripted.on("PostModelOutputs", mixed)
    request = v2.PostModelOutputsRequest(model_id="m")
    assert await both.run(grpc_stub(both).PostModelOutputs, request) == mixed


async def test_a_credential_of_the_call_takes_the_place_of_the_clients(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.on("GetModel", reply("GetModel"), reply("GetModel"), reply("GetModel"))
    stub = grpc_stub(both)
    await both.run(stub.GetModel, REQUEST, metadata=(("authorization", "Key of-the-call"),))
    await both.run(stub.GetModel, REQUEST, metadata=(("x-clarifai-session-token", "mine"),))
    await both.run(stub.GetModel, REQUEST, metadata=(("x-other", "1"),))
    first, second, third = (seen.metadata for seen in scripted.seen)
    assert first["authorization"] == "Key of-the-call"
    assert "authorization" not in second
    assert third["authorization"] == f"Key {PAT}"


async def test_the_deadline_is_the_clients(connect: Connect, scripted: ScriptedServer) -> None:
    scripted.always("GetModel", Answer([reply("GetModel")], delay=20))
    both = connect(scripted.base, timeout=0.3)
    with pytest.raises(grpc.RpcError) as caught:
        await both.run(grpc_stub(both).GetModel, REQUEST)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_streams(both: Both, scripted: ScriptedServer) -> None:
    def response(code: int) -> Any:
        return refuse("StreamModelOutputs", code)

    failed = response(v2.StatusCode.MODEL_PREDICTION_FAILED)
    lost = Fail(grpc.StatusCode.UNAVAILABLE, "gone")
    scripted.on(
        "GenerateModelOutputs",
        Answer([failed, response(SUCCESS)], fail=lost),
    )
    stub = grpc_stub(both)
    found: list[Any] = []
    stream = stub.GenerateModelOutputs(v2.PostModelOutputsRequest(model_id="m"))
    with pytest.raises(grpc.RpcError) as caught:
        await both.collect(stream, into=found)
    # What came before the failure was read; a response with a failure does not end the stream.
    assert [one.status.code for one in found] == [failed.status.code, SUCCESS]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(scripted.seen) == 1
    scripted.on("StreamModelOutputs", Answer([response(SUCCESS)]))
    requests = [v2.PostModelOutputsRequest(model_id="m")]
    (only,) = await both.collect(stub.StreamModelOutputs(iter(requests)))
    assert only.status.code == SUCCESS


async def test_errors_go_through_interceptors(
    client_kind: str, connect: Connect, scripted: ScriptedServer
) -> None:
    module = grpc if client_kind == "sync" else grpc.aio

    class Interceptor(module.UnaryUnaryClientInterceptor):  # type: ignore[name-defined, misc]
        def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
            return proceed(details, request)

    both = connect(scripted.base, timeout=10, interceptors=[Interceptor()])
    if client_kind == "async":

        async def intercept(self: Any, proceed: Any, details: Any, request: Any) -> Any:
            return await proceed(details, request)

        Interceptor.intercept_unary_unary = intercept  # type: ignore[method-assign]
    scripted.on("GetModel", MISSING, Fail(grpc.StatusCode.INTERNAL, "broken"))
    stub = grpc_stub(both)
    assert await both.run(stub.GetModel, REQUEST) == MISSING
    with pytest.raises(grpc.RpcError) as caught:
        await both.run(stub.GetModel, REQUEST)
    assert caught.value.details() == "broken"


def test_with_call_and_futures(scripted: ScriptedServer) -> None:
    failure = Fail(grpc.StatusCode.INTERNAL, "broken", TRAILING)
    scripted.on("GetModel", reply("GetModel"), MISSING, MISSING, failure)
    with Client(pat=PAT, base=scripted.base, timeout=10) as client:
        get: Any = client.bind(v2.V2Stub, errors="grpc").GetModel
        response, call = get.with_call(REQUEST)
        assert (response.status.code, call.code()) == (SUCCESS, grpc.StatusCode.OK)
        response, call = get.with_call(REQUEST)
        assert (response, call.code()) == (MISSING, grpc.StatusCode.OK)
        future = get.future(REQUEST)
        assert (future.result(), future.exception(), future.code()) == (
            MISSING,
            None,
            grpc.StatusCode.OK,
        )
        future = get.future(REQUEST)
        with pytest.raises(grpc.RpcError) as caught:
            future.result()
        assert future.exception() is caught.value
        assert caught.value.details() == "broken"
        assert future.code() is grpc.StatusCode.INTERNAL


def test_a_cancelled_future(scripted: ScriptedServer) -> None:
    scripted.on("GetModel", Answer([reply("GetModel")], delay=20))
    with Client(pat=PAT, base=scripted.base, timeout=10) as client:
        future = client.bind(v2.V2Stub, errors="grpc").GetModel.future(REQUEST)
        until(lambda: scripted.seen)
        assert future.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            future.result()
        assert future.cancelled()
        assert future.code() is grpc.StatusCode.CANCELLED
        assert future.details() == "Locally cancelled by application!"


@pytest.mark.parametrize("client_kind", ["async"])
async def test_calls_of_asyncio(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", reply("GetModel"), Answer([reply("GetModel")], delay=20))
    stub = grpc_stub(both)
    ended: list[Any] = []
    call = stub.GetModel(REQUEST)
    call.add_done_callback(ended.append)
    assert (await call).status.code == SUCCESS
    assert await call.code() is grpc.StatusCode.OK
    await asyncio.sleep(0)
    assert ended == [call]
    call = stub.GetModel(REQUEST)
    await asyncio.to_thread(until, lambda: len(scripted.seen) >= 2)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    scripted.on("StreamModelOutputs", Answer([refuse("StreamModelOutputs", SUCCESS)]))
    stream = stub.StreamModelOutputs()
    await stream.write(v2.PostModelOutputsRequest(model_id="m"))
    await stream.done_writing()
    assert (await stream.read()).status.code == SUCCESS
    assert await stream.read() is grpc.aio.EOF
