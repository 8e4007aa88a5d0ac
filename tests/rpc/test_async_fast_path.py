"""Asyncio calls straight on gRPC's core: as by grpc.aio's multicallable, or by that one."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import _observability, aio

from clarigrpc import AsyncClient, errors, v2
from clarigrpc._contract import methods
from clarigrpc._rpc import async_fast_path, grpcio_internals
from tests.conftest import PAT
from tests.scripted import Answer, Fail, ScriptedServer, refuse, reply, when_ended

GET = v2.GetModelRequest(model_id="m")
PATH = methods.lookup("GetModel").path
METADATA = (("authorization", "Key of-a-test"), ("data-bin", b"\x00\xff"))
SECONDS = 10.0

Attempt = Callable[[bytes, Any], Any]
"""(request, metadata) -> a call of grpc.aio, or a direct one."""


@pytest_asyncio.fixture
async def multicallable(scripted: ScriptedServer) -> AsyncIterator[Any]:
    async with aio.insecure_channel(scripted.base.removeprefix("http://")) as channel:
        yield channel.unary_unary(PATH)


@pytest.fixture
def running() -> async_fast_path.Running:
    return {}


@pytest.fixture
def attempts(multicallable: Any, running: async_fast_path.Running) -> list[Attempt]:
    """The same call straight on the core, and by the multicallable."""
    start = async_fast_path.direct(multicallable, running)
    if start is None:
        pytest.skip(f"not with grpcio {grpc.__version__}")
    return [
        lambda request, metadata: start(request, SECONDS, metadata),
        lambda request, metadata: multicallable(request, timeout=SECONDS, metadata=metadata),
    ]


@pytest.fixture(params=["direct", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a client makes its calls."""
    if request.param == "public":
        monkeypatch.setattr("clarigrpc._rpc.grpcio_internals.usable", lambda: False)
    elif not grpcio_internals.usable():
        pytest.skip(f"not with grpcio {grpc.__version__}")
    return str(request.param)


@pytest_asyncio.fixture
async def client(way: str, scripted: ScriptedServer) -> AsyncIterator[AsyncClient]:
    """A client that leaves no task behind and knows of no call when all are over."""
    before = asyncio.all_tasks()
    async with AsyncClient(base=scripted.base, pat=PAT, timeout=SECONDS) as made:
        yield made
    await settle(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})
    gc.collect()
    assert made.channel.shared.running == {}


async def settle(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


class Held:
    """A handler that answers when it is told to, or when its call is over."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.release = threading.Event()
        self.ended = threading.Event()
        self.late = False

    def __call__(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterable[Any]:
        list(requests)

        def over() -> None:
            self.ended.set()
            self.release.set()

        when_ended(context, over)
        self.arrived.set()
        self.late = not self.release.wait(SECONDS)
        return [reply("GetModel", model=v2.Model(id="held"))]


@pytest.fixture
def held(scripted: ScriptedServer) -> Held:
    handler = Held()
    scripted.on("GetModel", handler)
    return handler


def pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [tuple(pair) for pair in metadata]


async def outcome(call: Any) -> list[Any]:
    """What can be asked of a call that is over."""
    return [
        call.done(),
        call.cancelled(),
        call.cancel(),
        await call.code(),
        await call.details(),
        pairs(await call.initial_metadata()),
        pairs(await call.trailing_metadata()),
    ]


async def test_a_response_and_what_is_known_of_its_call(
    scripted: ScriptedServer, attempts: list[Attempt], running: async_fast_path.Running
) -> None:
    answer = reply("GetModel", model=v2.Model(id="m"))
    script = Answer([answer], trailing=(("k", "v"), ("b-bin", b"\x01")))
    scripted.on("GetModel", script, script)
    found = []
    for attempt in attempts:
        call = attempt(GET.SerializeToString(), METADATA)
        await call.wait_for_connection()
        assert v2.SingleModelResponse.FromString(await call) == answer
        assert await call == await call  # as often as one likes
        found.append(await outcome(call))
    assert found[0] == found[1]
    assert found[0][3] is grpc.StatusCode.OK
    assert found[0][6] == [("k", "v"), ("b-bin", b"\x01")]
    for seen in scripted.seen:
        assert seen.request == GET
        assert seen.metadata["authorization"] == "Key of-a-test"
        assert 5 < seen.seconds_left < SECONDS + 1
    del call, attempts
    assert running == {}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
async def test_a_failure_is_that_of_the_multicallable(
    scripted: ScriptedServer, attempts: list[Attempt], code: grpc.StatusCode
) -> None:
    scripted.always("GetModel", Fail(code, "no \u2603", (("why", "told"),)))
    found = []
    for attempt in attempts:
        call = attempt(GET.SerializeToString(), METADATA)
        with pytest.raises(aio.AioRpcError) as caught:
            await call
        error = caught.value
        # Without the time, and in some order: gRPC has the parts in none.
        debug = sorted(re.sub(r'created_time:"[^"]*"', "", error.debug_error_string() or ""))
        initial, trailing = pairs(error.initial_metadata()), pairs(error.trailing_metadata())
        found.append([error.code(), error.details(), initial, trailing, debug, await outcome(call)])
        with pytest.raises(aio.AioRpcError):
            await call.wait_for_connection()
    assert found[0] == found[1]
    assert found[0][:2] == [code, "no \u2603"]
    assert found[0][3] == [("why", "told")]
    assert found[0][4]


async def test_metadata_that_cannot_be_sent_is_refused(attempts: list[Attempt]) -> None:
    found = []
    for attempt in attempts:
        with pytest.raises(Exception, match="batch") as caught:
            await attempt(b"", (("Upper", "x"),))
        found.append(type(caught.value))
    assert found[0] == found[1]


@pytest.mark.parametrize("arrived", [False, True])
async def test_a_call_that_is_cancelled(
    scripted: ScriptedServer, attempts: list[Attempt], arrived: bool
) -> None:
    found = []
    for attempt in attempts:
        held = Held()
        scripted.always("GetModel", held)
        ended: list[Any] = []
        call = attempt(GET.SerializeToString(), METADATA)
        call.add_done_callback(ended.append)
        if arrived:
            await settle(held.arrived.is_set)
        assert not call.done()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(asyncio.CancelledError):
            await call
        found.append(await outcome(call))
        assert ended == [call]
        if arrived:
            await settle(held.ended.is_set)
    assert found[0] == found[1]
    assert found[0][:4] == [True, True, False, grpc.StatusCode.CANCELLED]


async def test_a_call_is_a_call_of_grpc_aio(client: AsyncClient, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", reply("GetModel", model=v2.Model(id="m")))
    ended: list[Any] = []
    call = client.v2.GetModel(GET, timeout=5)
    assert isinstance(call, aio.UnaryUnaryCall)
    call.add_done_callback(ended.append)
    assert not call.done()
    assert 4 < (call.time_remaining() or 0) <= 5
    await call.wait_for_connection()
    assert (await call).model.id == "m"
    assert await call.code() is grpc.StatusCode.OK
    assert ended == [call]


async def test_a_task_that_is_cancelled_ends_its_call(client: AsyncClient, held: Held) -> None:
    call = client.v2.GetModel(GET)
    task = asyncio.ensure_future(call)
    await settle(held.arrived.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    assert await call.details() == "Locally cancelled by application!"
    await settle(held.ended.is_set)


async def test_a_limit_of_time_ends_its_call(client: AsyncClient, held: Held) -> None:
    async def expire(limit: asyncio.Timeout) -> None:
        await settle(held.arrived.is_set)
        limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            expiring = asyncio.ensure_future(expire(limit))
            await client.v2.GetModel(GET)
    await expiring
    await settle(held.ended.is_set)


async def test_a_call_is_cancelled_by_its_caller(client: AsyncClient, held: Held) -> None:
    call = client.v2.GetModel(GET)
    task = asyncio.ensure_future(call)
    await settle(held.arrived.is_set)
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    await settle(held.ended.is_set)


async def test_a_call_that_is_dropped_is_cancelled(client: AsyncClient, held: Held) -> None:
    call = client.v2.GetModel(GET)
    await settle(held.arrived.is_set)
    assert not call.done()
    del call
    gc.collect()
    await settle(held.ended.is_set)
    assert not held.late


async def test_the_deadline_passes(client: AsyncClient, held: Held) -> None:
    with pytest.raises(errors.DeadlineExceededError) as caught:
        await client.v2.GetModel(GET, timeout=1)  # long enough to arrive
    assert caught.value.grpc_code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert isinstance(caught.value.__cause__, aio.AioRpcError)


async def test_a_failed_attempt_is_repeated(client: AsyncClient, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", Fail(grpc.StatusCode.UNAVAILABLE), reply("GetModel"))
    await client.v2.GetModel(GET)
    assert len(scripted.seen) == 2


async def test_the_error_of_a_v2_status(client: AsyncClient, scripted: ScriptedServer) -> None:
    failed = refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST, "no such model")
    scripted.on("GetModel", Answer([failed], trailing=(("k", "v"),)))
    with pytest.raises(errors.NotFoundError) as caught:
        await client.v2.GetModel(GET)
    assert caught.value.status == failed.status


async def test_an_answer_without_a_message_is_an_error(
    client: AsyncClient, scripted: ScriptedServer
) -> None:
    scripted.other(PATH, grpc.unary_stream_rpc_method_handler(lambda *_: iter(())))
    with pytest.raises(errors.InternalError, match="without a response"):
        await client.v2.GetModel(GET)


@pytest.mark.parametrize("grace", [None, 0.05])
async def test_closing_cancels_what_runs(
    client: AsyncClient, held: Held, grace: float | None
) -> None:
    awaited = asyncio.ensure_future(client.v2.GetModel(GET))
    await settle(held.arrived.is_set)
    await client.channel.close(grace)
    with pytest.raises(errors.CancelledError, match="the client was closed"):
        await awaited
    await settle(held.ended.is_set)


async def test_closing_waits_for_what_runs(client: AsyncClient, held: Held) -> None:
    call = client.v2.GetModel(GET)
    awaited = asyncio.ensure_future(call)
    await settle(held.arrived.is_set)
    closing = asyncio.ensure_future(client.channel.close(SECONDS))
    await asyncio.sleep(0)
    with pytest.raises(errors.ClosedError):
        client.v2.GetModel(GET)
    assert not closing.done()
    held.release.set()
    assert (await awaited).model.id == "held"
    await closing


async def test_closing_ends_a_call_that_nobody_awaits(client: AsyncClient, held: Held) -> None:
    call = client.v2.GetModel(GET)
    await settle(held.arrived.is_set)
    await client.channel.close()
    with pytest.raises(errors.CancelledError):
        await call
    await settle(held.ended.is_set)


def test_an_event_loop_that_ends_with_calls_running(
    scripted: ScriptedServer, held: Held, recwarn: pytest.WarningsRecorder
) -> None:
    async def main() -> None:
        client = AsyncClient(base=scripted.base, pat=PAT)
        tasks.append(asyncio.ensure_future(client.v2.GetModel(GET)))
        await settle(held.arrived.is_set)

    tasks: list[asyncio.Future[Any]] = []
    asyncio.run(main())
    assert tasks[0].cancelled()
    assert held.ended.wait(SECONDS)
    tasks.clear()
    gc.collect()
    assert not recwarn.list


@pytest.mark.parametrize("version", ["1.75.1", "1.999.0", "2.0.0"])
async def test_other_versions_of_grpcio_are_called_the_public_way(
    scripted: ScriptedServer, multicallable: Any, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    assert async_fast_path.direct(multicallable, {}) is None
    scripted.on("GetModel", reply("GetModel", model=v2.Model(id="m")))
    async with AsyncClient(base=scripted.base, pat=PAT) as client:
        assert (await client.v2.GetModel(GET)).model.id == "m"


async def test_an_instrumented_grpcio_is_called_the_public_way(
    multicallable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_observability, "_OBSERVABILITY_PLUGIN", object())
    assert not grpcio_internals.usable()
    assert async_fast_path.direct(multicallable, {}) is None


async def test_interceptors_are_not_passed_by(scripted: ScriptedServer) -> None:
    class Interceptor(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, call: Any) -> Any:
            return await continuation(details, call)

    address = scripted.base.removeprefix("http://")
    async with aio.insecure_channel(address, interceptors=[Interceptor()]) as channel:
        assert async_fast_path.direct(channel.unary_unary(PATH), {}) is None


async def test_a_call_with_options_is_made_the_public_way(
    client: AsyncClient, scripted: ScriptedServer
) -> None:
    scripted.on("GetModel", reply("GetModel"))
    call = client.v2.GetModel(GET, wait_for_ready=True)
    assert client.channel.shared.running == {}
    await call
