"""Spans and metrics of calls, as the SDK gets them."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from clarigrpc import RetryPolicy, errors, opentelemetry, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.runner import RunnerWorker
from clarigrpc.types import UploadReport
from tests.both import ClientKind
from tests.conftest import Connect
from tests.observability.telemetry import Telemetry
from tests.scripted import Fail, ScriptedServer, refuse, reply, when_ended

FAST = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)
OUTPUTS = "PostModelOutputs"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def outputs(*ids: str) -> Any:
    made = reply(OUTPUTS)
    for one in ids or ("a",):
        output = made.outputs.add()
        output.status.code = v2.StatusCode.SUCCESS
        output.input.id = one
        output.model.model_version.id = "v7"
    made.status.req_id = "abc-1-of-the-service"
    return made


def request(items: int = 1) -> Any:
    return v2.PostModelOutputsRequest(model_id="m", inputs=[text("t") for _ in range(items)])


async def test_a_call_is_a_span(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    scripted.on(OUTPUTS, outputs("a", "b"))
    both = connect(scripted.base)
    with telemetry.traces.get_tracer("test").start_as_current_span("of the user") as parent:
        await both.call(OUTPUTS, request(2))
    span = next(one for one in telemetry.spans() if one.kind is SpanKind.CLIENT)
    host, _, port = scripted.base.rpartition("/")[2].partition(":")
    assert span.name == f"clarifai.api.V2/{OUTPUTS}"
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"clarifai.api.V2/{OUTPUTS}",
        "server.address": host,
        "server.port": int(port),
        "rpc.response.status_code": "OK",
        "clarifai.model.id": "m",
        "clarifai.model.version_id": "v7",
        "clarifai.items": 2,
        "clarifai.status_code": "SUCCESS",
        "clarifai.request.id": "abc-1-of-the-service",
        "clarigrpc.attempts": 1,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    (seen,) = scripted.seen
    context = span.get_span_context()
    assert context is not None
    _, trace_id, span_id, _ = seen.metadata["traceparent"].split("-")
    assert trace_id == trace.format_trace_id(context.trace_id)
    assert span_id == trace.format_span_id(context.span_id)
    (point,) = telemetry.points("rpc.client.call.duration")
    assert point.count == 1
    assert point.attributes == {
        name: span.attributes[name]
        for name in (
            "rpc.system.name",
            "rpc.method",
            "server.address",
            "server.port",
            "rpc.response.status_code",
        )
    }
    assert telemetry.value("clarigrpc.client.sent") == len(seen.request.SerializeToString())
    assert telemetry.value("clarigrpc.client.received") > 0
    assert telemetry.points("clarigrpc.client.items")[0].sum == 2


async def test_retries_are_events_of_one_span(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    scripted.on(OUTPUTS, Fail(UNAVAILABLE), Fail(UNAVAILABLE), outputs())
    both = connect(scripted.base, retry=FAST)
    await both.call(OUTPUTS, request())
    span = telemetry.span()
    assert span.attributes is not None
    assert span.attributes["clarigrpc.attempts"] == 3
    assert [event.name for event in span.events] == ["clarigrpc.retry"] * 2
    assert span.status.status_code is StatusCode.UNSET
    found = [dict(one.attributes or {}) for one in span.events]
    assert {one["error.type"] for one in found} == {"UNAVAILABLE"}
    assert telemetry.value("clarigrpc.client.retries", error_type="UNAVAILABLE") == 2
    budgets = telemetry.points("clarigrpc.client.retry_budget")
    assert 17 < budgets[0].value < 20


async def test_a_failure_is_told_by_its_status(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    scripted.on("GetModel", refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST, "no such model"))
    scripted.on("GetModel", Fail(grpc.StatusCode.INTERNAL, "broken"))
    both = connect(scripted.base, retry=RetryPolicy(max_attempts=1))
    for _ in range(2):
        with pytest.raises(errors.ApiError):
            await both.call("GetModel", v2.GetModelRequest(model_id="m"))
    first, second = telemetry.spans()
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["error.type"] == "MODEL_DOES_NOT_EXIST"
    assert first.attributes["rpc.response.status_code"] == "OK"
    assert first.attributes["clarifai.status_code"] == "MODEL_DOES_NOT_EXIST"
    assert second.attributes["error.type"] == "INTERNAL"
    assert second.attributes["rpc.response.status_code"] == "INTERNAL"
    assert first.attributes["clarifai.model.id"] == second.attributes["clarifai.model.id"] == "m"
    for span in (first, second):
        assert span.status.status_code is StatusCode.ERROR
    assert "no such model" in str(first.status.description)


async def collected(over: threading.Event) -> None:
    """Collect garbage until a call is over."""
    async with asyncio.timeout(30):
        while not over.is_set():
            gc.collect()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("client_kind", ["sync"])
async def test_a_dropped_stream_of_a_model_is_told_before_the_next_call(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    over = threading.Event()

    def answer(requests: Any, context: grpc.ServicerContext) -> Any:
        when_ended(context, over.set)
        yield outputs()
        over.wait(30)

    scripted.on("GenerateModelOutputs", answer)
    scripted.on(OUTPUTS, outputs())
    both = connect(scripted.base, user_id="u", app_id="a")
    stream = both.client.model("m", version_id="v1").generate(text("t"))
    next(stream)
    del stream
    await collected(over)
    assert telemetry.spans() == []
    await both.call(OUTPUTS, request())
    dropped, _ = telemetry.spans()
    assert dropped.attributes is not None
    assert dropped.attributes["error.type"] == "CancelledError"
    assert dropped.end_time is not None


async def test_a_stream_goes_on_after_a_partial_failure(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    mixed = refuse("GenerateModelOutputs", v2.StatusCode.MIXED_STATUS)
    scripted.on("GenerateModelOutputs", [mixed, reply("GenerateModelOutputs"), mixed])
    both = connect(scripted.base)
    stream = both.open("GenerateModelOutputs", request())
    partial = 0
    for _ in range(3):
        try:
            await (both.run(next, stream) if both.is_sync else anext(stream))
        except errors.PartialFailureError:
            partial += 1
        assert telemetry.spans() == []
    assert partial == 2
    assert await both.collect(stream) == []
    attributes = telemetry.span().attributes
    assert attributes is not None
    assert attributes["rpc.response.status_code"] == "OK"
    assert attributes["clarigrpc.responses"] == 3
    (counted,) = both.client.stats().methods.values()
    assert (counted.succeeded, counted.failed) == (1, 0)


async def test_a_request_of_a_wrong_type_is_refused_as_ever(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base)
    for wrong in (v2.GetModelRequest(model_id="m"), object(), "m", 1):
        with pytest.raises(TypeError, match="takes a PostModelOutputsRequest"):
            await both.call(OUTPUTS, wrong)


@pytest.mark.parametrize("end", ["read", "failed", "cancelled", "dropped"])
async def test_a_stream_is_a_span_until_its_end(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer, end: str
) -> None:
    over = threading.Event()

    def answer(requests: Any, context: grpc.ServicerContext) -> Any:
        when_ended(context, over.set)
        yield reply("GenerateModelOutputs")
        yield reply("GenerateModelOutputs")
        if end == "failed":
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        if end in ("cancelled", "dropped"):
            over.wait(30)

    scripted.on("GenerateModelOutputs", answer)
    both = connect(scripted.base)
    stream = both.open("GenerateModelOutputs", request())
    items = both.items(stream)
    assert telemetry.spans() == []
    await anext(items)
    await anext(items)
    if end == "read":
        with pytest.raises(StopAsyncIteration):
            await anext(items)
    elif end == "failed":
        with pytest.raises(errors.InternalError):
            await anext(items)
    elif end == "cancelled":
        stream.cancel()
    else:
        await items.aclose()  # type: ignore[attr-defined]
        del items, stream
        await collected(over)
        # The SDK's locks may be held by the thread in which an object is dropped.
        assert telemetry.spans() == []
        opentelemetry.uninstrument()
    span = telemetry.span()
    assert span.attributes is not None
    assert span.attributes["clarigrpc.responses"] == 2
    code = {"read": "OK", "failed": "INTERNAL"}.get(end, "CANCELLED")
    assert span.attributes["rpc.response.status_code"] == code
    assert ("error.type" in span.attributes) is (end != "read")


async def test_a_stream_of_requests(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer, client_kind: ClientKind
) -> None:
    def answer(requests: Any, context: grpc.ServicerContext) -> Any:
        for _ in requests:
            yield reply("StreamModelOutputs")

    scripted.on("StreamModelOutputs", answer)
    both = connect(scripted.base)
    stream = both.open("StreamModelOutputs", iter([request(), request(), request()]))
    assert len(await both.collect(stream)) == 3
    attributes = telemetry.span().attributes
    assert attributes is not None
    assert attributes["clarigrpc.responses"] == 3
    assert telemetry.value("clarigrpc.client.sent") == 3 * request().ByteSize()


async def test_bulk_work_is_measured(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    windows: list[Any] = []

    def answer(requests: Any, context: grpc.ServicerContext) -> Any:
        (given,) = requests
        windows.append(
            [telemetry.points(f"clarigrpc.bulk.{n}")[0].value for n in ("window", "in_flight")]
        )
        yield outputs(*(one.id for one in given.inputs))

    scripted.on(OUTPUTS, Fail(UNAVAILABLE), *[answer] * 5)
    both = connect(scripted.base, retry=FAST, user_id="u", app_id="a")
    model = both.client.model("m", version_id="v1")
    values = [text(str(one)) for one in range(10)]
    results = model.predict_many(values, batch_size=2, in_flight=3)
    found = await both.collect(results)
    assert [one.error for one in found] == [None] * 10
    *spans, whole = telemetry.spans()
    assert len(spans) == 6
    assert (whole.name, whole.parent) == ("clarigrpc.predict_many", None)
    assert whole.attributes == {
        "clarigrpc.bulk.inputs": 10,
        "clarigrpc.bulk.failures": 0,
        "clarigrpc.bulk.retries": 1,
    }
    assert whole.status.status_code is StatusCode.UNSET
    for span in spans:
        assert span.parent == whole.get_span_context()
        assert span.attributes is not None
        assert span.attributes["clarifai.items"] == 2
        assert span.attributes["clarifai.model.id"] == "m"
    assert sum(one.status.status_code is StatusCode.ERROR for one in spans) == 1
    assert {window for window, _ in windows} == {3}
    assert all(1 <= in_flight <= 3 for _, in_flight in windows)
    assert telemetry.value("clarigrpc.bulk.inputs", clarigrpc_outcome="success") == 10
    assert telemetry.value("clarigrpc.bulk.inputs", clarigrpc_outcome="failure") == 0
    assert telemetry.value("clarigrpc.bulk.retries") == 1
    assert telemetry.value("clarigrpc.bulk.queue") == 0
    assert telemetry.value("clarigrpc.bulk.window") == 0


def answered(requests: Any, context: grpc.ServicerContext) -> Any:
    (given,) = requests
    yield outputs(*(one.id for one in given.inputs))


async def test_bulk_work_is_below_the_span_of_its_caller(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    scripted.always(OUTPUTS, answered)
    both = connect(scripted.base, retry=FAST, user_id="u", app_id="a")
    tracer = telemetry.traces.get_tracer("of the program")
    values = [text(str(one)) for one in range(6)]
    with tracer.start_as_current_span("outer"):
        results = both.client.model("m").predict_batches(values, batch_size=2, in_flight=1)
        async for _ in both.items(results):
            with tracer.start_as_current_span("between"):
                pass
            break
        await both.run(results.close if both.is_sync else results.aclose)
        results = both.client.model("m").predict_batches(values, batch_size=2)
        await both.collect(results)
    by_name: dict[str, list[Any]] = {}
    for span in telemetry.spans():
        by_name.setdefault(span.name, []).append(span)
    (outer,) = by_name["outer"]
    left, done = by_name["clarigrpc.predict_batches"]
    assert left.status.status_code is StatusCode.UNSET  # left early is no failure
    assert left.end_time <= done.start_time
    for span in (left, done, *by_name["between"]):
        assert span.parent == outer.get_span_context()


async def test_bulk_work_that_fails(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, retry=FAST, user_id="u", app_id="a")
    scripted.on("PostInputs", Fail(grpc.StatusCode.UNAUTHENTICATED))
    with pytest.raises(errors.AuthenticationError):
        await both.run(both.client.inputs.upload, [text("a", id="a")])
    attempt, whole = telemetry.spans()
    assert whole.name == "clarigrpc.inputs.upload"
    assert whole.status.status_code is StatusCode.ERROR
    assert whole.attributes is not None
    assert whole.attributes["error.type"] == "UNAUTHENTICATED"
    assert attempt.parent == whole.get_span_context()


async def test_inputs_that_fail_are_no_successes(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, retry=FAST, user_id="u", app_id="a")
    report = UploadReport()

    def unreadable() -> v2.Input:
        raise OSError("gone")

    for _ in range(2):  # the second time after what the report has from the first
        answer = reply("PostInputs")
        answer.status.code = v2.StatusCode.MIXED_STATUS
        answer.inputs.add(id="a").status.code = v2.StatusCode.INPUT_PENDING
        answer.inputs.add(id="b").status.code = v2.StatusCode.INPUT_DUPLICATE
        scripted.on("PostInputs", answer)
        source = [text("a", id="a"), text("b", id="b"), unreadable]
        await both.run(both.client.inputs.upload, source, report=report)
        *_, whole = telemetry.spans()
        assert whole.attributes is not None
        assert whole.attributes["clarigrpc.bulk.inputs"] == 3
        assert whole.attributes["clarigrpc.bulk.failures"] == 2
    assert telemetry.value("clarigrpc.bulk.inputs", clarigrpc_outcome="success") == 2
    assert telemetry.value("clarigrpc.bulk.inputs", clarigrpc_outcome="failure") == 4


async def test_predicts_that_share_requests_are_measured(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer
) -> None:
    first, go_on = threading.Event(), threading.Event()

    def answer(requests: Any, context: grpc.ServicerContext) -> Any:
        (given,) = requests
        first.set()
        go_on.wait(20)
        yield outputs(*(one.id for one in given.inputs))

    scripted.on(OUTPUTS, answer, answer)
    both = connect(scripted.base, retry=FAST, user_id="u", app_id="a")
    model = both.client.model("m", coalesce=True, max_delay=20)
    tasks = [asyncio.ensure_future(both.run(model.predict, text("a")))]
    await asyncio.to_thread(first.wait, 20)
    tasks += [asyncio.ensure_future(both.run(model.predict, text(one))) for one in "bc"]
    async with asyncio.timeout(20):
        while telemetry.value("clarigrpc.coalesce.queue") != 2:
            await asyncio.sleep(0.01)
    assert telemetry.value("clarigrpc.coalesce.in_flight") == 1
    go_on.set()
    await asyncio.gather(*tasks)
    assert telemetry.value("clarigrpc.coalesce.queue") == 0
    async with asyncio.timeout(20):  # the thread of a request ends after its callers have outputs
        while telemetry.value("clarigrpc.coalesce.in_flight") != 0:
            await asyncio.sleep(0.01)


async def test_interceptors_are_around_the_span(
    telemetry: Telemetry, connect: Connect, scripted: ScriptedServer, client_kind: ClientKind
) -> None:
    from grpc import aio

    class Sync(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(details, request)

    class Async(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(details, request)

    scripted.on(OUTPUTS, outputs())
    both = connect(scripted.base, interceptors=[Sync() if client_kind == "sync" else Async()])
    await both.call(OUTPUTS, request())
    attributes = telemetry.span().attributes
    assert attributes is not None
    assert attributes["clarifai.model.id"] == "m"


async def test_a_client_made_without_it_is_not_watched(
    connect: Connect, scripted: ScriptedServer
) -> None:
    telemetry = Telemetry()
    before = connect(scripted.base)
    telemetry.instrument()
    opentelemetry.uninstrument()
    scripted.on(OUTPUTS, outputs(), outputs())
    for both in (before, connect(scripted.base)):
        await both.call(OUTPUTS, request())
    assert telemetry.spans() == []
    assert not any("traceparent" in one.metadata for one in scripted.seen)
    telemetry.shutdown()


def test_no_credential_is_in_a_span(telemetry: Telemetry, scripted: ScriptedServer) -> None:
    from clarigrpc import Client

    scripted.on("GetModel", Fail(grpc.StatusCode.UNAUTHENTICATED, "bad key"))
    pat = "pat-that-nobody-may-see"
    with Client(base=scripted.base, pat=pat) as client, pytest.raises(errors.AuthenticationError):
        client.v2.GetModel(v2.GetModelRequest(model_id="m"))
    assert pat not in telemetry.span().to_json()


def test_the_items_of_a_runner_are_measured(telemetry: Telemetry) -> None:
    def shout(text: str) -> str:
        if text == "bad":
            raise ValueError(text)
        return text.upper()

    with LocalServer() as server, server.client() as client:
        client.models.create(v2.Model(id="m"))
        version = v2.ModelVersion()
        version.pretrained_model_config.local_dev = True
        client.models.versions("m").create(version)
        with RunnerWorker(client, shout, runner_id="r", model_id="m"):
            model = client.model("m")
            assert model.call("predict", text="a") == "A"
            with pytest.raises(errors.ApiError):
                model.call("predict", text="bad")
    name = "clarigrpc.runner.item.duration"
    points = {point.attributes["clarigrpc.outcome"]: point for point in telemetry.points(name)}
    assert points["succeeded"].attributes["clarifai.runner.id"] == "r"
    assert points["succeeded"].count == 2  # with the one that asks for the signatures
    assert points["failed"].count == 1
