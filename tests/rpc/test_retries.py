"""Retries, deadlines and the budget against a server, with both clients."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from clarigrpc import RetryPolicy, errors, text, v2
from tests.both import Both, ClientKind
from tests.conftest import PAT, Connect
from tests.scripted import Answer, Fail, ScriptedServer, refuse, reply
from tests.socket_server import kept_port
from tests.waiting import until

Code = v2.StatusCode
DOWN = Fail(grpc.StatusCode.UNAVAILABLE)
QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)
GET = v2.GetModelRequest(model_id="m")
POST = v2.PostInputsRequest(inputs=[v2.Input(id="i")])


@pytest.fixture
def both(connect: Connect, scripted: ScriptedServer) -> Both:
    return connect(scripted.base, timeout=10, stream_timeout=10, retry=QUICK)


async def test_a_read_is_repeated(both: Both, scripted: ScriptedServer) -> None:
    answer = reply("GetModel", model=v2.Model(id="m"))
    slow = Answer((), fail=DOWN, delay=0.3)
    scripted.on("GetModel", slow, refuse("GetModel", Code.CONN_THROTTLED), answer)
    assert await both.call("GetModel", GET, timeout=8) == answer
    assert [seen.request for seen in scripted.seen] == [GET] * 3
    ids = {seen.metadata["x-clarifai-request-id-prefix"] for seen in scripted.seen}
    assert len(ids) == 1  # one call, one id
    assert scripted.seen[2].seconds_left <= 7.85  # what the first attempt took is gone


async def test_tries_are_limited(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", *[DOWN] * 5)
    with pytest.raises(errors.UnavailableError):
        await both.call("GetModel", GET)


async def test_a_write_is_sent_once(both: Both, scripted: ScriptedServer) -> None:
    for failure in (DOWN, refuse("PostInputs", Code.CONN_THROTTLED)):
        scripted.on("PostInputs", failure)
        with pytest.raises(errors.ApiError):
            await both.call("PostInputs", POST)


async def test_a_write_that_the_caller_calls_repeatable(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.on("PostInputs", DOWN, reply("PostInputs"))
    await both.call("PostInputs", POST, idempotent=True)


async def test_a_read_that_must_not_be_repeated(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", DOWN)
    with pytest.raises(errors.UnavailableError):
        await both.call("GetModel", GET, idempotent=False)


async def test_a_write_that_never_left_is_repeated(connect: Connect) -> None:
    policy = RetryPolicy(initial_backoff=0.2, max_backoff=0.3, max_attempts=100)
    with kept_port() as port:
        both = connect(f"http://127.0.0.1:{port}", timeout=60, retry=policy)
        call = asyncio.ensure_future(both.call("PostInputs", POST))
        await asyncio.sleep(0.3)
        assert not call.done()
        with ScriptedServer(port=port) as server:
            server.on("PostInputs", reply("PostInputs"))
            await call
            assert len(server.seen) == 1
        server.check()


@pytest.mark.parametrize(
    "failure",
    [
        Fail(grpc.StatusCode.INTERNAL),
        Fail(grpc.StatusCode.INVALID_ARGUMENT),
        Fail(grpc.StatusCode.DEADLINE_EXCEEDED),
        Fail(grpc.StatusCode.UNKNOWN),
        Fail(grpc.StatusCode.UNIMPLEMENTED),
        refuse("GetModel", Code.MODEL_DOES_NOT_EXIST),
        refuse("GetModel", Code.CONN_KEY_INVALID),
        refuse("GetModel", Code.INTERNAL_UNCATEGORIZED),
        refuse("GetModel", Code.CONN_EXCEED_MONTHLY_LIMIT),
    ],
)
async def test_what_is_not_repeated(both: Both, scripted: ScriptedServer, failure: Any) -> None:
    scripted.on("GetModel", failure)
    with pytest.raises(errors.ApiError):
        await both.call("GetModel", GET)


THROTTLED = refuse("GetModel", Code.CONN_THROTTLED)


@pytest.mark.parametrize(
    "failure",
    [
        Answer([THROTTLED], trailing=(("retry-after", "0.3"),)),
        Answer([THROTTLED], trailing=(("x-throttle-wait-seconds", "0.3"),)),
        Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing=(("retry-after", "0.3"),)),
        Fail(grpc.StatusCode.UNAVAILABLE, trailing=(("grpc-retry-pushback-ms", "300"),)),
    ],
)
async def test_no_earlier_than_told(both: Both, scripted: ScriptedServer, failure: Any) -> None:
    scripted.on("GetModel", failure, reply("GetModel"))
    await both.call("GetModel", GET)
    first, second = scripted.seen
    assert 0.29 <= second.at - first.at < 2


@pytest.mark.parametrize(
    "trailing",
    [
        ("grpc-retry-pushback-ms", "-1"),
        ("grpc-retry-pushback-ms", "nonsense"),
        ("retry-after", "3600"),  # longer than max_retry_after
        ("retry-after", "11"),  # longer than the deadline
    ],
)
@pytest.mark.measures
async def test_told_not_to_come_back(
    both: Both, scripted: ScriptedServer, trailing: tuple[str, str]
) -> None:
    scripted.on("GetModel", Fail(grpc.StatusCode.UNAVAILABLE, trailing=(trailing,)))
    began = time.monotonic()
    with pytest.raises(errors.UnavailableError) as caught:
        await both.call("GetModel", GET)
    assert time.monotonic() - began < 2
    assert caught.value.retry_after is not None


async def test_a_model_that_is_deployed_meanwhile(both: Both, scripted: ScriptedServer) -> None:
    method = "PostModelOutputs"
    codes = (Code.MODEL_DEPLOYING,) * 8 + (Code.MODEL_LOADING,) * 4
    scripted.on(method, *[refuse(method, code) for code in codes], reply(method))
    await both.call(method, v2.PostModelOutputsRequest(model_id="m"))


@pytest.mark.measures
async def test_a_model_that_does_not_arrive(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, timeout=0.5, retry=QUICK)
    method = "PostModelOutputs"
    scripted.always(method, refuse(method, Code.MODEL_DEPLOYING, "still deploying"))
    began = time.monotonic()
    with pytest.raises((errors.NotReadyError, errors.DeadlineExceededError)):
        await both.call(method, v2.PostModelOutputsRequest(model_id="m"))
    assert 0.4 < time.monotonic() - began < 1.5
    assert len(scripted.seen) > 5


@pytest.mark.measures
async def test_the_deadline_holds_for_all_attempts_together(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, retry=RetryPolicy(max_attempts=1000, initial_backoff=0.05))
    scripted.always("GetModel", Answer((), fail=DOWN, delay=0.1))
    began = time.monotonic()
    with pytest.raises((errors.UnavailableError, errors.DeadlineExceededError)):
        await both.call("GetModel", GET, timeout=0.6)
    assert time.monotonic() - began < 1.5
    assert len(scripted.seen) >= 2


async def test_retries_are_logged_with_the_request_id(
    both: Both, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="clarigrpc")
    scripted.on("GetModel", DOWN, reply("GetModel"))
    await both.call("GetModel", GET)
    (record,) = [record for record in caplog.records if record.name == "clarigrpc"]
    assert "trying again" in record.getMessage()
    assert scripted.seen[0].metadata["x-clarifai-request-id-prefix"] in record.getMessage()
    assert PAT not in record.getMessage()


STREAM = v2.PostModelOutputsRequest(model_id="m")
ITEMS = [reply("GenerateModelOutputs", outputs=[v2.Output(id=str(n))]) for n in range(3)]


async def test_a_stream_is_reopened_before_its_first_item(
    both: Both, scripted: ScriptedServer
) -> None:
    deploying = refuse("GenerateModelOutputs", Code.MODEL_DEPLOYING)
    scripted.on("GenerateModelOutputs", DOWN, deploying, ITEMS)
    assert await both.collect(both.open("GenerateModelOutputs", STREAM)) == ITEMS


@pytest.mark.parametrize("failure", [DOWN, refuse("GenerateModelOutputs", Code.CONN_THROTTLED)])
async def test_a_stream_is_not_reopened_after_its_first_item(
    both: Both, scripted: ScriptedServer, failure: Any
) -> None:
    script = Answer(ITEMS, fail=failure) if isinstance(failure, Fail) else Answer([*ITEMS, failure])
    scripted.on("GenerateModelOutputs", script)
    got: list[Any] = []
    with pytest.raises(errors.ApiError):
        await both.collect(both.open("GenerateModelOutputs", STREAM), into=got)
    assert got == ITEMS


async def test_a_duplex_stream_is_never_reopened(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("StreamModelOutputs", DOWN)
    with pytest.raises(errors.UnavailableError):
        await both.collect(both.open("StreamModelOutputs", [STREAM]))


@pytest.mark.measures
async def test_a_stream_ends_with_its_deadline_while_it_waits(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, stream_timeout=0.4, retry=QUICK)
    deploying = refuse("GenerateModelOutputs", Code.MODEL_DEPLOYING)
    scripted.always("GenerateModelOutputs", deploying)
    began = time.monotonic()
    with pytest.raises((errors.NotReadyError, errors.DeadlineExceededError)):
        await both.collect(both.open("GenerateModelOutputs", STREAM))
    assert time.monotonic() - began < 1.5


async def test_ten_clients_and_a_failing_server(connect: Connect, scripted: ScriptedServer) -> None:
    clients = [
        connect(scripted.base, retry=RetryPolicy(initial_backoff=0.001, max_backoff=0.001))
        for _ in range(10)
    ]
    scripted.always("GetModel", DOWN)

    async def call(client: Both, times: int) -> None:
        for _ in range(times):
            with pytest.raises(errors.UnavailableError):
                await client.call("GetModel", GET)

    await asyncio.gather(*[call(client, 5) for client in clients])  # the reserve goes
    before = len(scripted.seen)
    calls = 30
    await asyncio.gather(*[call(client, calls) for client in clients])
    attempts = len(scripted.seen) - before
    assert 1.0 < attempts / (calls * len(clients)) <= 1.2


WAITING: dict[str, tuple[str, Callable[[Both], Any]]] = {
    "call": ("GetModel", lambda both: both.call("GetModel", GET)),
    "stream": (
        "GenerateModelOutputs",
        lambda both: both.collect(both.open("GenerateModelOutputs", STREAM)),
    ),
    "verb": ("PostInputs", lambda both: both.run(both.client.inputs.create, v2.Input(id="i"))),
    "stream of a model": (
        "GenerateModelOutputs",
        lambda both: both.collect(both.client.model("m").generate(text("a"))),
    ),
    "upload": (
        "PostModelVersionsUpload",
        lambda both: both.run(both.client.model("m").upload_version, io.BytesIO(b"x")),
    ),
}
"""What waits for its next attempt: the method that fails, and how it is called."""


@pytest.mark.parametrize("what", WAITING)
async def test_closing_ends_a_wait(
    connect: Connect, scripted: ScriptedServer, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    method, run = WAITING[what]
    caplog.set_level(logging.INFO, logger="clarigrpc")
    policy = RetryPolicy(max_retry_after=600)
    both = connect(
        scripted.base, timeout=600, stream_timeout=600, retry=policy, user_id="u", app_id="a"
    )
    scripted.on(method, Fail(grpc.StatusCode.UNAVAILABLE, trailing=(("retry-after", "300"),)))
    call = asyncio.ensure_future(run(both))
    await asyncio.to_thread(until, lambda: " in 30" in caplog.text)
    await both.close()
    with pytest.raises(errors.ClosedError):
        await asyncio.wait_for(call, 60)


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.measures
async def test_cancelling_a_task_ends_its_wait(
    client_kind: ClientKind, connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base)
    scripted.on("GetModel", Fail(grpc.StatusCode.UNAVAILABLE, trailing=(("retry-after", "5"),)))
    task = asyncio.ensure_future(both.call("GetModel", GET))
    await asyncio.to_thread(until, lambda: scripted.seen)
    await asyncio.sleep(0.05)
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("client_kind", ["async"])
async def test_cancelling_a_call_ends_its_wait(
    client_kind: ClientKind, connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base)
    scripted.on("GetModel", Fail(grpc.StatusCode.UNAVAILABLE, trailing=(("retry-after", "5"),)))
    call = both.client.v2.GetModel(GET)

    async def wait() -> Any:
        return await call

    task = asyncio.ensure_future(wait())
    await asyncio.to_thread(until, lambda: scripted.seen)
    await asyncio.sleep(0.05)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    assert call.done()


async def awaited(call: Any) -> Any:
    return await call


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.parametrize("options", [{}, {"connections": 2}, {"hedge": 0.5}], ids=str)
@pytest.mark.parametrize("together", [True, False])
async def test_many_await_a_call_and_it_is_repeated_once(
    client_kind: ClientKind,
    connect: Connect,
    scripted: ScriptedServer,
    options: dict[str, Any],
    together: bool,
) -> None:
    both = connect(scripted.base, retry=QUICK, **options)
    tries = QUICK.max_attempts
    scripted.on("GetModel", *[DOWN] * tries, DOWN, reply("GetModel"))
    call = both.client.v2.GetModel(GET)
    failures: list[Any]
    if together:
        waiting = [awaited(call) for _ in range(5)]
        failures = await asyncio.gather(*waiting, return_exceptions=True)
    else:
        failures = []
        for _ in range(3):
            with pytest.raises(errors.UnavailableError) as caught:
                await call
            failures.append(caught.value)
    assert len(scripted.seen) == tries
    for failure in failures:
        assert isinstance(failure, errors.UnavailableError)
        assert len(failure.attempts) == tries - 1
    call = both.client.v2.GetModel(GET)
    assert await asyncio.gather(*[awaited(call) for _ in range(5)]) == [reply("GetModel")] * 5
    assert len(scripted.seen) == tries + 2


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.parametrize("method", ["GetModel", "GenerateModelOutputs"])
async def test_a_call_that_was_cancelled_is_not_repeated(
    client_kind: ClientKind, both: Both, scripted: ScriptedServer, method: str
) -> None:
    """Also where its last attempt had failed before, and nobody knew yet."""
    scripted.on(method, DOWN)
    request = GET if method == "GetModel" else v2.PostModelOutputsRequest(model_id="m")
    call = both.open(method, request)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    call.cancel()
    with pytest.raises(errors.UnavailableError):
        await (call if method == "GetModel" else call.read())
    assert len(scripted.seen) == 1


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("method", ["GetModel", "GenerateModelOutputs"])
async def test_a_call_that_was_cancelled_before_a_token_is_there_is_not_sent(
    client_kind: ClientKind, connect: Connect, scripted: ScriptedServer, method: str, begun: bool
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def token() -> list[tuple[str, str]]:
        asked.set()
        assert go_on.wait(30)
        return [("authorization", "x")]

    both = connect(scripted.base, auth=token)
    request = GET if method == "GetModel" else v2.PostModelOutputsRequest(model_id="m")
    call = both.open(method, request)
    waiting: Any = awaited(call if method == "GetModel" else call.read())
    if begun:
        waiting = asyncio.ensure_future(waiting)
        await asyncio.to_thread(asked.wait)
    try:
        assert call.cancel()
        assert not call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    finally:
        go_on.set()
    assert call.cancelled()
    assert call.done()
    assert not scripted.seen
