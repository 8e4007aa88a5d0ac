"""``client.stats()``: counts and latencies of a client's calls."""

from __future__ import annotations

import statistics
import threading
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import RetryPolicy, errors, text, v2
from clarigrpc._rpc.call_counts import CallCounts
from tests.both import Both
from tests.conftest import Connect
from tests.scripted import Answer, Fail, ScriptedServer, reply

FAST = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)
MODEL = v2.GetModelRequest(model_id="m")


async def test_calls_are_counted(connect: Connect, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", *[Answer([reply("GetModel")], delay=0.02)] * 3)
    scripted.on("GetModel", Fail(grpc.StatusCode.UNAVAILABLE), reply("GetModel"))
    scripted.on("GetModel", Fail(grpc.StatusCode.NOT_FOUND))
    both = connect(scripted.base, retry=FAST)
    assert dict(both.client.stats().methods) == {}
    for _ in range(4):
        await both.call("GetModel", MODEL)
    with pytest.raises(errors.NotFoundError):
        await both.call("GetModel", MODEL)
    stats = both.client.stats()
    one = stats.methods["GetModel"]
    assert (one.method, one.succeeded, one.failed, one.retries) == ("GetModel", 4, 1, 1)
    assert dict(one.errors) == {"NotFoundError": 1}
    assert 0.02 <= one.p90 <= one.p99 <= one.max < 10
    assert one.p50 <= one.p90
    assert (stats.succeeded, stats.failed, stats.retries) == (4, 1, 1)
    assert 18 < stats.retry_budget < 20


KINDS = {
    "GetModel": lambda both: both.call("GetModel", MODEL),
    "GenerateModelOutputs": lambda both: both.collect(
        both.open("GenerateModelOutputs", v2.PostModelOutputsRequest(model_id="m"))
    ),
    "StreamModelOutputs": lambda both: both.collect(
        both.open("StreamModelOutputs", iter([v2.PostModelOutputsRequest(model_id="m")]))
    ),
}


@pytest.mark.parametrize("method", KINDS)
async def test_calls_without_a_credential_are_counted(
    connect: Connect, scripted: ScriptedServer, method: str
) -> None:
    def auth() -> list[tuple[str, str]]:
        raise LookupError("no key today")

    both = connect(scripted.base, pat=None, auth=auth)
    with pytest.raises(LookupError):
        await KINDS[method](both)
    one = both.client.stats().methods[method]
    assert (one.succeeded, one.failed, dict(one.errors)) == (0, 1, {"LookupError": 1})
    assert not scripted.seen


@pytest.mark.parametrize("method", KINDS)
async def test_every_call_earns_retries(
    connect: Connect, scripted: ScriptedServer, method: str
) -> None:
    scripted.always(method, reply(method))
    scripted.on("ListModels", Fail(grpc.StatusCode.UNAVAILABLE), reply("ListModels"))
    both = connect(scripted.base, retry=FAST)
    await both.call("ListModels", v2.ListModelsRequest())
    before = both.client.stats().retry_budget
    await KINDS[method](both)
    assert both.client.stats().retry_budget == pytest.approx(before + 0.1)


@pytest.mark.parametrize("settings", [{}, {"hedge": 0.9}], ids=["plain", "hedged"])
async def test_attempts_of_bulk_work_earn_once(
    connect: Connect, scripted: ScriptedServer, settings: dict[str, Any]
) -> None:
    scripted.on("ListModels", Fail(grpc.StatusCode.UNAVAILABLE), reply("ListModels"))
    scripted.on("PostModelOutputs", reply("PostModelOutputs", outputs=[v2.Output()]))
    both = connect(scripted.base, retry=FAST, user_id="u", app_id="a", **settings)
    await both.call("ListModels", v2.ListModelsRequest())
    before = both.client.stats().retry_budget
    await both.collect(both.client.model("m").predict_many([text("a")]))
    assert both.client.stats().retry_budget == pytest.approx(before + 0.1)


async def test_views_count_with_their_client(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", reply("GetModel"), reply("GetModel"))
    view = both.client.with_options(timeout=9)
    for client in (both.client, view):
        await both.run(client.v2.GetModel, MODEL)
    assert both.client.stats().succeeded == view.stats().succeeded == 2


@pytest.mark.parametrize(
    ("end", "counted"), [("read", (1, 0)), ("failed", (0, 1)), ("left", (0, 1))]
)
async def test_a_stream_is_one_call(
    both: Both, scripted: ScriptedServer, end: str, counted: tuple[int, int]
) -> None:
    def answer(requests: Any, context: grpc.ServicerContext) -> Any:
        yield reply("GenerateModelOutputs")
        if end == "failed":
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        over = threading.Event()
        if end == "left" and context.add_callback(over.set):
            over.wait(30)

    scripted.on("GenerateModelOutputs", answer)
    stream = both.open("GenerateModelOutputs", v2.PostModelOutputsRequest(model_id="m"))
    items = both.items(stream)
    await anext(items)
    if end == "left":
        stream.cancel()
    elif end == "failed":
        with pytest.raises(errors.InternalError):
            await anext(items)
    else:
        with pytest.raises(StopAsyncIteration):
            await anext(items)
    one = both.client.stats().methods["GenerateModelOutputs"]
    assert (one.succeeded, one.failed) == counted


async def test_attempts_of_bulk_work_are_calls(connect: Connect, scripted: ScriptedServer) -> None:
    def answer(requests: Any, context: grpc.ServicerContext) -> Any:
        (given,) = requests
        made = reply("PostModelOutputs")
        for sent in given.inputs:
            output = made.outputs.add()
            output.status.code = v2.StatusCode.SUCCESS
            output.input.id = sent.id
        yield made

    scripted.on("PostModelOutputs", Fail(grpc.StatusCode.UNAVAILABLE), *[answer] * 3)
    both = connect(scripted.base, retry=FAST, user_id="u", app_id="a")
    values = [text(str(one)) for one in range(6)]
    results = both.client.model("m").predict_many(values, batch_size=2, in_flight=1)
    assert len(await both.collect(results)) == 6
    one = both.client.stats().methods["PostModelOutputs"]
    assert (one.succeeded, one.failed) == (3, 1)
    assert dict(one.errors) == {"UnavailableError": 1}


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=300))
def test_quantiles_are_close(latencies: list[float]) -> None:
    counts = CallCounts()
    for one in latencies:
        counts.succeeded(one)
    found = counts.read("GetModel")
    ordered = sorted(latencies)
    assert found.succeeded == len(latencies)
    assert found.max == ordered[-1]
    assert found.mean == pytest.approx(statistics.fmean(latencies))
    for share, value in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
        exact = ordered[-(-len(ordered) * int(share * 100) // 100) - 1]
        assert value == pytest.approx(exact, rel=0.05)


def test_no_call_of_many_threads_is_lost() -> None:
    counts = CallCounts()

    def work() -> None:
        for _ in range(10_000):
            counts.succeeded(0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    read = [counts.read("GetModel").succeeded for _ in range(10)]
    for thread in threads:
        thread.join()
    assert counts.read("GetModel").succeeded == 40_000
    assert read == sorted(read)


def test_the_end_of_a_call_waits_for_nobody() -> None:
    """It may come from a finalizer, inside any method of the same object."""
    counts = CallCounts()
    failures = 10_000
    with counts._lock.get():
        for _ in range(failures):
            counts.failed(ValueError())
            counts.succeeded(0.1)
    stats = counts.read("ListInputs")
    assert (stats.failed, stats.succeeded) == (failures, failures)
    assert stats.errors == {"ValueError": failures}
