"""What a worker says to a service that does everything that the protocol allows."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import AsyncClient, Client, errors, runner, v2
from tests.both import ClientKind
from tests.scripted import Fail, ScriptedServer, refuse, reply
from tests.waiting import until
from tests.worker.conftest import Work, workers
from tests.worker.toolbox import Toolbox

Code = v2.StatusCode
Kind = v2.RunnerMethodType
PROCESS = "ProcessRunnerItems"
POST = "PostRunnerItemOutputs"

Requests = Iterator[v2.PostRunnerItemOutputsRequest]
Script = Callable[[Requests, grpc.ServicerContext], Iterator[Any]]


class Service:
    """Takes the calls for work one by one; ``said`` has the messages after the first one."""

    def __init__(self, server: ScriptedServer) -> None:
        self.base = server.base
        self.pat = "pat-of-the-tests-0123456789"
        self.user_id, self.app_id = "u", "a"
        self.server = server
        self.hellos: list[v2.PostRunnerItemOutputsRequest] = []
        self.said: list[v2.PostRunnerItemOutputsRequest] = []
        self.control: queue.Queue[v2.MultiRunnerItemResponse] = queue.Queue()
        self.ended = queue.Queue[str]()
        self._scripts: queue.Queue[Script] = queue.Queue()
        server.always("GetRunner", reply("GetRunner"))
        server.always(PROCESS, self._process)

    def on(self, *scripts: Script) -> None:
        for script in scripts:
            self._scripts.put(script)

    def _process(self, requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        first = next(requests)
        self.hellos.append(first)
        if first.runner_id.startswith("control-"):
            while context.is_active():
                try:
                    yield self.control.get(timeout=0.1)
                except queue.Empty:
                    continue
            return
        inbox: queue.Queue[v2.PostRunnerItemOutputsRequest | None] = queue.Queue()
        threading.Thread(target=_take_all, args=(requests, inbox), daemon=True).start()
        while context.is_active() and inbox.empty():
            try:
                script = self._scripts.get(timeout=0.02)
            except queue.Empty:
                continue
            yield from script(self._noted(inbox), context)
            return

    def _noted(self, inbox: queue.Queue[v2.PostRunnerItemOutputsRequest | None]) -> Requests:
        while (request := inbox.get()) is not None:
            self.said.append(request)
            yield request
        self.ended.put("half-closed")

    def texts(self) -> list[str]:
        """The first letters of all outputs."""
        return [
            output.data.parts[0].data.string_value
            for message in self.said
            for one in message.runner_item_outputs
            for output in one.multi_output_response.outputs
            if output.data.parts
        ]


def _take_all(
    requests: Requests, inbox: queue.Queue[v2.PostRunnerItemOutputsRequest | None]
) -> None:
    with contextlib.suppress(Exception):  # the call was cancelled
        for request in requests:
            inbox.put(request)
    inbox.put(None)


def item(
    method: str = "predict", kind: Kind.ValueType = Kind.UNARY_UNARY, text: str = "a", **more: Any
) -> v2.MultiRunnerItemResponse:
    response = reply(PROCESS)
    made = response.runner_items.add(id="i")
    made.processing_info.runner_method_type = kind
    data = made.post_model_outputs_request.inputs.add(id="x").data
    data.metadata.update({"_method_name": method})
    data.parts.add(id="words" if "stream" in method else "text").data.string_value = text
    assert isinstance(response, v2.MultiRunnerItemResponse)
    return response


@pytest.fixture
def service(scripted: ScriptedServer) -> Service:
    return Service(scripted)


@pytest.fixture
def start(client_kind: ClientKind, service: Service) -> Iterator[Work]:
    with workers(client_kind, service) as starting:  # type: ignore[arg-type]
        yield lambda model, **options: starting(
            model, **{"concurrency": 1, "grace": 2.0, **options}
        )


def worker_of(started: Any) -> Any:
    return getattr(started, "worker", started)


def test_the_first_messages_are_those_of_the_published_runner(
    start: Work, service: Service
) -> None:
    start(Toolbox(), nodepool_id="np", compute_cluster_id="cc", replica_id="one")
    until(lambda: len(service.hellos) == 2)
    control, work = sorted(service.hellos, key=lambda one: one.runner_id)
    assert (control.runner_id, work.runner_id) == ("control-r", "r")
    for one in (control, work):
        assert (one.user_app_id.user_id, one.nodepool_id, one.compute_cluster_id) == (
            "u",
            "np",
            "cc",
        )
        assert (one.runner_replica_id, one.status.code) == ("one", Code.RUNNER_STREAM_START)
        assert not one.runner_item_id


def test_the_environment_of_the_published_runner(
    start: Work, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUNNER_ID", "NODEPOOL_ID", "COMPUTE_CLUSTER_ID", "RUNNER_REPLICA_ID"):
        monkeypatch.setenv(f"CLARIFAI_{name}", f"{name} of the environment")
    start(Toolbox(), runner_id="given")
    until(lambda: len(service.hellos) == 2)
    (work,) = (one for one in service.hellos if one.runner_id == "given")
    assert work.nodepool_id == "NODEPOOL_ID of the environment"
    assert work.compute_cluster_id == "COMPUTE_CLUSTER_ID of the environment"
    assert work.runner_replica_id == "RUNNER_REPLICA_ID of the environment"


def test_outputs_and_the_end_of_the_call(start: Work, service: Service) -> None:
    def serve(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield item("generate", Kind.UNARY_STREAMING, "abc")
        yield from ()
        for _ in requests:
            pass

    service.on(serve)
    worker = worker_of(start(Toolbox()))
    assert service.ended.get(timeout=30) == "half-closed"
    assert service.texts() == ["a", "b", "c"]
    assert {one.status.code for one in service.said} == {Code.SUCCESS}
    assert {one.runner_item_id for one in service.said} == {"i"}
    until(lambda: worker.stats().succeeded == 1)


def test_an_output_of_which_nobody_knows_whether_it_arrived_is_handed_back_again(
    start: Work, service: Service, scripted: ScriptedServer
) -> None:
    def take_and_break(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield item()
        next(requests)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the service is going away")

    scripted.on(POST, refuse(POST, Code.RUNNER_NEEDS_RETRY), reply(POST))
    service.on(take_and_break)
    worker = worker_of(start(Toolbox()))
    until(lambda: worker.stats().succeeded == 1)
    again = [seen.request for seen in scripted.calls(POST)]
    assert [one.runner_item_id for one in again] == ["i", "i"]
    assert again[1].runner_item_outputs == service.said[0].runner_item_outputs


def test_generated_outputs_are_not_made_twice(
    start: Work, service: Service, scripted: ScriptedServer
) -> None:
    def take_two_and_break(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield item("count_for_ever", Kind.UNARY_STREAMING)
        next(requests)
        next(requests)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the service is going away")

    scripted.on(POST, reply(POST))
    service.on(take_two_and_break)
    toolbox = Toolbox()
    worker = worker_of(start(toolbox))
    until(lambda: worker.stats().lost == 1)
    until(lambda: toolbox.log == ["closed a"])
    (seen,) = scripted.calls(POST)
    assert seen.request.status.code == Code.RUNNER_PROCESSING_FAILED
    assert not seen.request.runner_item_outputs


@pytest.mark.parametrize("over", ["control", "own call"])
def test_a_cancelled_item(over: str, start: Work, service: Service) -> None:
    toolbox = Toolbox()
    cancelled = reply(PROCESS)
    cancelled.runner_items.add(id="i").processing_info.status.code = Code.RUNNER_ITEM_CANCELLED

    def serve(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield item("endless")
        toolbox.started.wait(30)
        if over == "control":
            service.control.put(cancelled)
        else:
            yield cancelled
        for _ in requests:
            pass

    service.on(serve)
    worker = worker_of(start(toolbox))
    until(lambda: worker.stats().cancelled == 1)
    until(lambda: toolbox.log == ["cancelled a"])
    assert service.said == []


def test_a_cancellation_that_overtakes_its_item(start: Work, service: Service) -> None:
    cancelled = reply(PROCESS)
    cancelled.runner_items.add(id="i").processing_info.status.code = Code.RUNNER_ITEM_CANCELLED

    def serve(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        service.control.put(cancelled)
        until(lambda: "i" in worker._loop._cancelled)
        yield item("count_for_ever", Kind.UNARY_STREAMING)
        for _ in requests:
            pass

    worker = worker_of(start(Toolbox()))
    service.on(serve)
    until(lambda: worker.stats().cancelled == 1)
    assert service.said == []


def test_a_service_that_forgot_the_runner(
    start: Work, service: Service, scripted: ScriptedServer
) -> None:
    def unknown(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield refuse(PROCESS, Code.RUNNER_DOES_NOT_EXIST)

    def work(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield item()
        for _ in requests:
            pass

    missing = refuse("GetRunner", Code.RUNNER_DOES_NOT_EXIST)
    scripted.on("GetRunner", reply("GetRunner"), Fail(grpc.StatusCode.INTERNAL), missing)
    scripted.on("PostRunners", reply("PostRunners"))
    service.on(unknown, unknown, work)
    worker = worker_of(start(Toolbox(), nodepool_id="np", version_id="v"))
    until(lambda: worker.stats().succeeded == 1)
    (seen,) = scripted.calls("PostRunners")
    (made,) = seen.request.runners
    assert (made.id, made.num_replicas, seen.request.nodepool_id) == ("r", 1, "np")
    model = made.worker.model
    assert (model.id, model.app_id, model.user_id) == ("toolbox", "a", "u")
    assert model.model_version.id == "v"


def test_an_item_that_comes_after_the_last_message_is_not_run(
    start: Work, service: Service
) -> None:
    """Its outputs could not be sent any more: another worker runs it."""
    toolbox = Toolbox()
    began, sent = threading.Event(), threading.Event()

    def serve(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        began.set()
        for _ in requests:
            pass
        sent.set()
        yield item("slow")

    service.on(serve)
    started = start(toolbox)
    assert began.wait(30)
    started.stop()
    assert sent.wait(30)
    assert worker_of(started).stats().lost == 1
    assert toolbox.log == []


def test_the_inputs_of_a_stream_are_not_complete_without_their_end(
    start: Work, service: Service
) -> None:
    def serve(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield item("stream", Kind.STREAMING_STREAMING, "a")
        yield item("stream", Kind.STREAMING_STREAMING, "b")
        next(requests)
        next(requests)
        if not whole:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        yield refuse(PROCESS, Code.RUNNER_STREAM_END)
        for _ in requests:
            pass

    whole = True
    service.on(serve)
    worker = worker_of(start(Toolbox()))
    until(lambda: worker.stats().succeeded == 1)
    assert service.texts() == ["a", "b"]
    whole = False
    service.server.on(POST, reply(POST))
    service.on(serve)
    until(lambda: worker.stats().lost == 1)


def test_a_service_without_work(start: Work, service: Service) -> None:
    """It may say so, end the call, or ask to try again; none of it is a failure for long."""

    def nothing(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield reply(PROCESS)

    def end(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from ()

    def retry(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield refuse(PROCESS, Code.RUNNER_NEEDS_RETRY)

    def work(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        yield item()
        for _ in requests:
            pass

    service.on(nothing, end, retry, work)
    worker = worker_of(start(Toolbox()))
    until(lambda: worker.stats().succeeded == 1)
    assert service.texts() == ["A"]


def test_a_service_that_refuses_the_runner(client_kind: ClientKind, service: Service) -> None:
    def refused(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
        yield from ()

    service.on(refused)
    settings: dict[str, Any] = {"base": service.base, "pat": service.pat, "user_id": "u"}

    async def serve() -> None:
        async with AsyncClient(**settings) as client:
            await runner.serve(client, Toolbox, runner_id="r", concurrency=1)

    with pytest.raises(errors.PermissionDeniedError, match="not yours"):
        if client_kind == "async":
            asyncio.run(serve())
        else:
            with Client(**settings) as client:
                runner.serve(client, Toolbox, runner_id="r", concurrency=1)


def test_content_behind_urls(start: Work, service: Service) -> None:
    def serve(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        response = item()
        part = response.runner_items[0].post_model_outputs_request.inputs[0].data.parts[0].data
        part.Clear()
        part.text.url = "https://example.com/a"
        yield response
        for _ in requests:
            pass

    service.on(serve)
    worker = worker_of(start(Toolbox(), fetch=lambda url: f"from {url}".encode()))
    until(lambda: worker.stats().succeeded == 1)
    assert service.texts() == ["FROM HTTPS://EXAMPLE.COM/A"]


def test_items_of_other_kinds_are_refused(start: Work, service: Service) -> None:
    def serve(requests: Requests, context: grpc.ServicerContext) -> Iterator[Any]:
        response = reply(PROCESS)
        response.runner_items.add(id="i").sync_state_request.operation_type = "create"
        yield response
        for _ in requests:
            pass

    service.on(serve)
    worker = worker_of(start(Toolbox()))
    until(lambda: worker.stats().failed == 1)
    (message,) = service.said
    (output,) = message.runner_item_outputs
    assert output.multi_output_response.status.code == Code.RUNNER_INVALID_REQUEST
