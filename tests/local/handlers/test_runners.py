"""Models that run in processes of their own, which fetch their work; and what goes wrong there."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.engine import runner_queues
from clarigrpc.local.fronts import grpc_front
from tests.faults.proxy import FaultProxy
from tests.local.conftest import Raw, ok
from tests.local.runner_workers import Calling, RemoteModel, Worker
from tests.waiting import until

Code = v2.StatusCode
Kind = v2.RunnerMethodType

NAMES = (f"m{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def shared() -> Iterator[Raw]:
    with LocalServer(record_calls=100) as server, grpc.insecure_channel(server.address) as channel:
        yield Raw(server, v2.V2Stub(channel))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items wait for the workers that the tests make, however busy the machine is."""
    monkeypatch.setattr(runner_queues, "ARRIVAL_SECONDS", 15.0)


@pytest.fixture
def model(shared: Raw) -> RemoteModel:
    return RemoteModel(shared, next(NAMES))


def listed(model: RemoteModel) -> list[v2.RunnerItem]:
    request = v2.ListRunnerItemsRequest(runner_id=model.name)
    return list(ok(model.raw("ListRunnerItems", request)).runner_items)


def polled(model: RemoteModel) -> v2.RunnerItem:
    """An item for a worker that asks by unary calls."""
    items: list[v2.RunnerItem] = until(lambda: listed(model))  # each look waits for work
    return items[0]


def posted(
    model: RemoteModel, item: v2.RunnerItem, text: str = "", code: Any = 0
) -> v2.MultiRunnerItemOutputResponse:
    """The response to an output of a worker that answers by unary calls."""
    message = v2.PostRunnerItemOutputsRequest(runner_id=model.name, runner_item_id=item.id)
    message.status.code = code
    if text:
        output = message.runner_item_outputs.add().multi_output_response.outputs.add()
        output.data.text.raw = text
    return model.raw("PostRunnerItemOutputs", message)  # type: ignore[no-any-return]


def texts(responses: Any) -> list[str]:
    """Of a stream of outputs, without the ones that are empty."""
    found = [response.outputs[0].data.text.raw for response in responses]
    return [text for text in found if text]


# Each way to fetch work.


def test_unary_calls(model: RemoteModel) -> None:
    calling = Calling(model, "hello")
    item = polled(model)
    assert ok(posted(model, item, "HELLO"))
    assert calling.texts() == ["HELLO"]
    assert posted(model, item, "again").status.code == Code.RUNNER_ITEM_CANCELLED


def test_a_call_in_step(model: RemoteModel) -> None:
    """Each message has one response, an empty one where there is no work for a moment."""
    outgoing: queue.Queue[v2.PostRunnerItemOutputsRequest | None] = queue.Queue()
    ask = v2.PostRunnerItemOutputsRequest(runner_id=model.name)
    raw = model.raw
    calls = [Calling(model, "a"), Calling(model, "b")]
    outgoing.put(ask)
    done = 0
    for response in raw.stub.ProcessRunnerItems(
        iter(outgoing.get, None), metadata=raw.metadata, timeout=20
    ):
        for item in response.runner_items:
            message = v2.PostRunnerItemOutputsRequest(runner_id=model.name, runner_item_id=item.id)
            output = message.runner_item_outputs.add().multi_output_response.outputs.add()
            output.data.text.raw = item.post_model_outputs_request.inputs[0].data.text.raw * 2
            outgoing.put(message)
            done += 1
        if not response.runner_items:
            outgoing.put(ask if done < 2 else None)
    assert [call.texts() for call in calls] == [["aa"], ["bb"]]


def test_pieces_of_an_output_by_unary_calls(model: RemoteModel) -> None:
    stream = model.generate("abc")
    item = polled(model)
    assert item.processing_info.runner_method_type == Kind.UNARY_STREAMING
    for letter in "abc":
        ok(posted(model, item, letter))
    ok(posted(model, item, code=Code.RUNNER_STREAM_END))
    assert texts(stream) == ["a", "b", "c"]


def test_a_call_for_one_item(model: RemoteModel) -> None:
    """As the published runner makes them: the end of the call ends the item."""
    with model.worker() as worker:
        calling = Calling(model, "one", "two")
        item = worker.take()
        assert item.processing_info.runner_method_type == Kind.UNARY_UNARY
        request = item.post_model_outputs_request
        assert (request.model_id, request.version_id) == (model.name, model.version_id)
        assert request.user_app_id.app_id == model.raw.server.app_id
        assert len(request.inputs) == 2
        worker.answer(item)
        assert calling.texts() == ["ONE", "TWO"]
        worker.close()
    with model.worker() as worker:
        stream = model.generate("x")
        item = worker.take()
        for number in range(3):
            worker.answer(item, str(number))
        worker.close()
        assert texts(stream) == ["0", "1", "2"]


def test_several_items_in_a_call(model: RemoteModel) -> None:
    with model.worker() as worker:
        worker.ask()
        calls = {text: Calling(model, text) for text in "ab"}
        items = [worker.take(), worker.take()]
        for item in reversed(items):
            worker.answer(item)
        assert {text: call.texts() for text, call in calls.items()} == {"a": ["A"], "b": ["B"]}
        worker.ask()
        stream = model.generate("x")
        item = worker.take()
        worker.answer(item, "0")
        worker.answer(item, code=Code.RUNNER_STREAM_END)
        assert texts(stream) == ["0"]
        worker.close()


def test_a_conversation(model: RemoteModel) -> None:
    """The inputs go to the worker one by one, and the outputs come while there are more."""
    asking: queue.Queue[v2.PostModelOutputsRequest | None] = queue.Queue()
    with model.worker() as worker:
        answers = model.stream(iter(asking.get, None))
        ids = set()
        for number, text in enumerate("abc"):
            asking.put(model.request(text))
            item = worker.take()
            ids.add(item.id)
            code = item.processing_info.status.code
            assert code == (Code.SUCCESS if number else Code.RUNNER_STREAM_START)
            worker.answer(item)
            assert next(answers).outputs[0].data.text.raw == text.upper()
        assert len(ids) == 1
        asking.put(None)
        end = next(worker.call)
        assert end.status.code == Code.RUNNER_STREAM_END
        assert end.runner_items[0].id in ids
        assert end.runner_items[0].processing_info.status.code == Code.RUNNER_STREAM_END
        worker.close()
        assert list(answers) == []


def test_a_conversation_with_a_method_that_takes_no_stream(model: RemoteModel) -> None:
    request = v2.PostModelVersionsRequest(model_id=model.name)
    version = request.model_versions.add()
    version.pretrained_model_config.local_dev = True
    version.method_signatures.add(name="spell", method_type=Kind.UNARY_STREAMING)
    version_id = ok(model.raw("PostModelVersions", request)).model.model_version.id
    runners = v2.PostRunnersRequest()
    runner = runners.runners.add(id=f"{model.name}-spell").worker.model
    runner.id, runner.model_version.id = model.name, version_id
    ok(model.raw("PostRunners", runners))
    with Worker(model.raw, f"{model.name}-spell") as worker:
        stream = model.stream(iter([model.request("x", method="spell")]))
        item = worker.take()
        assert item.processing_info.runner_method_type == Kind.UNARY_STREAMING
        worker.answer(item, "y")
        worker.close()
        assert texts(stream) == ["y"]


def test_the_tokens_that_an_output_took(model: RemoteModel) -> None:
    def counted(item: v2.RunnerItem) -> v2.PostRunnerItemOutputsRequest:
        message = v2.PostRunnerItemOutputsRequest(runner_item_id=item.id)
        response = message.runner_item_outputs.add().multi_output_response
        output = response.outputs.add(prompt_tokens=3, completion_tokens=5, cached_tokens=2)
        output.data.text.raw = "x"
        return message

    def tokens(output: v2.Output) -> tuple[int, int, int]:
        return output.prompt_tokens, output.completion_tokens, output.cached_tokens

    with model.worker() as worker:
        calling = Calling(model, "x")
        worker.outgoing(counted(worker.take()))
        assert tokens(calling.result().outputs[0]) == (3, 5, 2)
        worker.ask()
        stream = model.generate("x")
        worker.outgoing(counted(worker.take()))
        assert tokens(next(stream).outputs[0]) == (3, 5, 2)


# What goes wrong.


def test_a_worker_that_fails(model: RemoteModel) -> None:
    with model.worker() as worker:
        calling = Calling(model, "x")
        worker.answer(worker.take(), code=Code.RUNNER_PROCESSING_FAILED)
        assert calling.status().code == Code.RUNNER_PROCESSING_FAILED
        worker.ask()
        calling = Calling(model, "x", "y")
        item = worker.take()
        worker.answer(item, "only one")
        assert [output.status.code for output in calling.result().outputs] == [
            Code.RUNNER_PROCESSING_FAILED
        ] * 2
        worker.ask()
        calling = Calling(model, "x")
        item = worker.take()
        message = v2.PostRunnerItemOutputsRequest(runner_item_id=item.id)
        response = message.runner_item_outputs.add().multi_output_response
        response.status.code, response.status.details = Code.FAILURE, "out of memory"
        worker.outgoing(message)
        status = calling.status()
        assert (status.code, status.details) == (Code.FAILURE, "out of memory")


@pytest.mark.parametrize("way", ["cut", "closed", "asks for another"])
def test_an_item_goes_on_to_another_worker(model: RemoteModel, way: str) -> None:
    first = model.worker(replica="one")
    calling = Calling(model, "x")
    item = first.take()
    if way == "cut":
        first.cut()
    elif way == "closed":
        first.close()
    else:
        first.answer(item, code=Code.RUNNER_NEEDS_RETRY)
    with model.worker(replica="two") as second:
        again = second.take()
        assert again.id == item.id
        if way == "asks for another":
            first.answer(item, "late")  # it has the item no longer
            first.close()
        second.answer(again, "second")
        assert calling.texts() == ["second"]


def test_a_conversation_goes_on_to_another_worker_before_its_second_input(
    model: RemoteModel,
) -> None:
    first = model.worker()
    answers = model.stream(iter([model.request("a")]))
    first.take()
    assert next(first.call).status.code == Code.RUNNER_STREAM_END
    first.cut()
    with model.worker() as second:
        second.answer(second.take(), "A")
        assert next(second.call).status.code == Code.RUNNER_STREAM_END
        second.close()
        assert texts(answers) == ["A"]


def test_outputs_are_not_made_twice(model: RemoteModel) -> None:
    worker = model.worker(replica="one")
    stream = model.generate("x")
    item = worker.take()
    worker.answer(item, "0")
    assert next(stream).outputs[0].data.text.raw == "0"
    with model.worker(replica="two"):
        worker.cut()
        status = list(stream)[-1].outputs[0].status
        assert status.code == Code.RUNNER_PROCESSING_FAILED
        assert "left in the middle" in status.details


def test_an_item_that_ends_its_workers(model: RemoteModel) -> None:
    calling = Calling(model, "x")
    for number in range(runner_queues.MAX_HANDOUTS):
        worker = model.worker(replica=str(number))
        worker.take()
        worker.cut()
    status = calling.status()
    assert status.code == Code.RUNNER_PROCESSING_FAILED
    assert "worker number 3" in status.details


def test_a_worker_that_loses_its_connection_counts_once(model: RemoteModel) -> None:
    """Its calls break one after the other; the item is given to the next until all have."""

    def lose(call: Worker) -> None:
        call.take()
        call.cut()

    # They arrive in any order.
    calls = [model.worker(replica="one") for _ in range(5)]
    threads = [threading.Thread(target=lose, args=(call,)) for call in calls]
    calling = Calling(model, "x")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with model.worker(replica="two") as second:
        second.answer(second.take(), "second")
        assert calling.texts() == ["second"]


def test_a_worker_that_falls_silent(
    serve: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a router that forgot its connection: nothing says that it is gone."""
    monkeypatch.setattr(grpc_front, "_KEEPALIVE_SECONDS", 1.0)
    model = RemoteModel(serve(), "m")
    server = model.raw.server
    host, _, port = server.address.rpartition(":")
    with (
        FaultProxy(host, int(port)) as proxy,
        grpc.insecure_channel(proxy.address) as channel,
        Worker(Raw(server, v2.V2Stub(channel)), "m", replica="far") as far,
    ):
        calling = Calling(model, "x")
        item = far.take()
        proxy.blackhole()
        with model.worker(replica="near") as near:
            again = near.take()
            assert again.id == item.id
            near.answer(again, "near")
            assert calling.texts() == ["near"]


def test_a_worker_that_answers_too_late(
    model: RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that asks by unary calls has an item for a time only."""
    monkeypatch.setattr(runner_queues, "LEASE_SECONDS", 0.2)
    calling = Calling(model, "x")
    item = polled(model)
    monkeypatch.setattr(runner_queues, "LEASE_SECONDS", 30.0)
    again = polled(model)
    assert again.id == item.id
    ok(posted(model, item, "first"))  # both have it; the first answer counts
    assert calling.texts() == ["first"]
    assert posted(model, again, "second").status.code == Code.RUNNER_ITEM_CANCELLED
    # Pieces of two workers would mix.
    monkeypatch.setattr(runner_queues, "LEASE_SECONDS", 0.2)
    stream = model.generate("x")
    item = polled(model)
    (response,) = list(stream)
    assert response.outputs[0].status.code == Code.RUNNER_PROCESSING_FAILED
    assert "did not answer for 0.2 seconds" in response.outputs[0].status.details
    assert posted(model, item, "late").status.code == Code.RUNNER_ITEM_CANCELLED


@pytest.mark.parametrize("has_control", [True, False])
def test_a_caller_that_leaves(model: RemoteModel, has_control: bool) -> None:
    """The worker is told, in its control call if it has one; what it still sends is dropped."""
    control = model.worker(control=True) if has_control else None
    with model.worker() as worker:
        stream = model.generate("x")
        item = worker.take()
        worker.answer(item, "0")
        assert next(stream).outputs[0].data.text.raw == "0"
        stream.cancel()
        told = (control or worker).take()
        assert told.id == item.id
        assert told.processing_info.status.code == Code.RUNNER_ITEM_CANCELLED
        assert not told.HasField("post_model_outputs_request")
        worker.answer(item, "1")
        worker.ask()
        calling = Calling(model, "next")
        worker.answer(worker.take())
        assert calling.texts() == ["NEXT"]
        worker.close()
    if control is not None:
        control.close()


@pytest.mark.parametrize("how", ["cancels", "has no more time"])
def test_a_caller_of_a_unary_method_that_leaves(model: RemoteModel, how: str) -> None:
    with model.worker(control=True) as control, model.worker() as worker:
        until(lambda: model.counts().pods_running == 1)
        timeout = 30 if how == "cancels" else 1.0
        calling = model.raw.stub.PostModelOutputs.future(
            model.request("x"), metadata=model.raw.metadata, timeout=timeout
        )
        item = worker.take()
        if how == "cancels":
            calling.cancel()
        told = control.take()
        assert told.id == item.id
        assert told.processing_info.status.code == Code.RUNNER_ITEM_CANCELLED
        worker.close()


def test_an_output_that_nobody_reads_stops_its_worker(model: RemoteModel) -> None:
    """The server holds some messages; the rest stays where it is made."""
    with model.worker() as worker:
        stream = model.generate("x")
        item = worker.take()
        piece = "x" * (1 << 18)
        for _ in range(200):
            worker.answer(item, piece)
        worker.answer(item, code=Code.RUNNER_STREAM_END)
        before = -1
        while before != worker.sent:
            before = worker.sent
            time.sleep(0.3)
        assert before < 150
        assert len(texts(stream)) == 200
        worker.close()


def test_a_full_queue(shared: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_queues, "MAX_POOL_ITEMS", 2)
    cluster = next(NAMES)
    clusters = v2.PostComputeClustersRequest(compute_clusters=[v2.ComputeCluster(id=cluster)])
    ok(shared("PostComputeClusters", clusters))
    pools = v2.PostNodepoolsRequest(compute_cluster_id=cluster)
    pools.nodepools.add(id="a")
    pools.nodepools.add(id="b")
    ok(shared("PostNodepools", pools))
    one, same, other = (RemoteModel(shared, next(NAMES), pool, cluster) for pool in "aab")
    workers = [each.worker() for each in (one, same, other)]
    calls = [Calling(one, "x"), Calling(one, "y")]
    workers[0].ask()
    items = [workers[0].take(), workers[0].take()]
    refused = same.predict("z")
    assert refused.status.code == Code.MODEL_BUSY_PLEASE_RETRY
    assert refused.status.details == "the queue of 'a' is full: 2 items wait or run"
    elsewhere = Calling(other, "z")
    workers[2].answer(workers[2].take())
    assert elsewhere.texts() == ["Z"]
    for item in items:
        workers[0].answer(item)
    assert sorted(call.texts() for call in calls) == [["X"], ["Y"]]
    for worker in workers:
        worker.cut()


def test_more_calls_than_a_server_takes(
    model: RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_queues, "MAX_CALLS", 0)
    (response,) = list(model.worker().call)
    assert response.status.code == Code.CONN_THROTTLED


def test_callers_do_not_keep_workers_out(serve: Callable[..., Raw]) -> None:
    """They occupy all threads of the server and wait for a worker, which needs threads, too."""
    model = RemoteModel(serve(workers=2), "m")
    with model.worker(control=True):
        calls = [Calling(model, "a"), Calling(model, "b"), Calling(model, "c")]
        until(lambda: model.counts().pods_running == 1)
        for _ in calls:
            with model.worker() as worker:
                worker.answer(worker.take())
                worker.close()
        assert sorted(call.texts() for call in calls) == [["A"], ["B"], ["C"]]


def test_a_server_that_closes_sends_waiting_workers_away(serve: Callable[..., Raw]) -> None:
    raw = serve()
    model = RemoteModel(raw, "m")
    busy, idle = model.worker(replica="busy"), None
    calling = Calling(model, "x")
    item = busy.take()
    idle = model.worker(replica="idle")
    until(lambda: model.counts().pods_running == 2)
    closing = threading.Thread(target=raw.server.close, args=(20,))
    closing.start()
    assert list(idle.call) == []
    busy.answer(item)
    assert calling.texts() == ["X"]
    busy.close()
    closing.join(15)
    assert not closing.is_alive()


def test_nothing_is_left_of_calls_that_broke(model: RemoteModel) -> None:
    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if "clarigrpc-local-runner-" in t.name]

    for _ in range(3):
        worker = model.worker()
        stream = model.stream(itertools.repeat(model.request("x"), 2))
        worker.take()
        worker.cut()
        stream.cancel()
    until(lambda: not any("puts" in name for name in threads()))
    service = model.raw.server._service
    assert service is not None
    queues = service.state.runners
    until(lambda: not queues._items and not queues._in_pool)
    assert queues._open_calls == 0


# Who may.


def stopped(worker: Worker) -> int:
    """Why the server ends a worker's call."""
    (response,) = list(worker.call)
    code: int = response.status.code
    return code


def test_who_may_fetch_items(serve: Callable[..., Raw]) -> None:
    users = [{"id": "anna", "pat": "anna-secret", "apps": [{"id": "app"}]}]
    users.append({"id": "carl", "pat": "carl-secret", "apps": [{"id": "own"}]})
    raw = serve(config={"users": users})
    anna, carl = raw.with_key("anna-secret"), raw.with_key("carl-secret")
    model = RemoteModel(anna, "m", app_id="app")
    with model.worker() as worker:
        # Another user, by the id of the owner or by one's own.
        foreign = Worker(carl, "m", user_id="anna")
        assert stopped(foreign) == Code.CONN_INSUFFICIENT_SCOPES
        assert stopped(Worker(carl, "m")) == Code.RUNNER_DOES_NOT_EXIST
        assert stopped(Worker(anna, "control-none")) == Code.RUNNER_DOES_NOT_EXIST
        keys = v2.PostKeysRequest()
        scopes = ["Runners_Get", "RunnerItems_Get"]
        keys.keys.add(type="personal_access_token", scopes=scopes)
        reader = anna.with_key(ok(anna("PostKeys", keys)).keys[0].id)
        assert stopped(Worker(reader, "m")) == Code.CONN_INSUFFICIENT_SCOPES
        # Another runner of the same user.
        RemoteModel(anna, "other", app_id="app")
        calling = Calling(model, "x")
        item = worker.take()
        message = v2.PostRunnerItemOutputsRequest(runner_id="other", runner_item_id=item.id)
        message.runner_item_outputs.add().multi_output_response.outputs.add()
        refused = anna("PostRunnerItemOutputs", message)
        assert refused.status.code == Code.RUNNER_ITEM_CANCELLED
        with Worker(anna, "other") as other:
            other.outgoing(v2.PostRunnerItemOutputsRequest(runner_id="m", runner_item_id=item.id))
            assert stopped(other) == Code.RUNNER_INVALID_ARGUMENT
        worker.answer(item)
        assert calling.texts() == ["X"]


def test_a_runner_that_is_deleted(model: RemoteModel) -> None:
    worker = model.worker()
    until(lambda: model.counts().pods_running == 1)
    ok(model.raw("DeleteRunners", v2.DeleteRunnersRequest(ids=[model.name])))
    assert stopped(worker) == Code.RUNNER_DOES_NOT_EXIST
    assert model.predict("x").status.code == Code.NOT_IMPLEMENTED


# What others see of it.


class Deployed:
    """A model on a nodepool, with a deployment, and with a runner if one is added."""

    def __init__(self, raw: Raw) -> None:
        self.name = next(NAMES)
        self.raw = raw
        cluster = v2.ComputeCluster(id=self.name, cluster_type="local-dev")
        clusters = v2.PostComputeClustersRequest(compute_clusters=[cluster])
        ok(raw("PostComputeClusters", clusters))
        pools = v2.PostNodepoolsRequest(compute_cluster_id=self.name)
        pools.nodepools.add(id="pool")
        pools.nodepools.add(id="empty")
        ok(raw("PostNodepools", pools))
        self.model = RemoteModel(raw, self.name, "pool", self.name)
        for pool in ("pool", "empty"):
            request = v2.PostDeploymentsRequest()
            deployment = request.deployments.add(id=f"{self.name}-{pool}")
            deployment.worker.model.id = self.name
            deployment.worker.model.model_version.id = self.model.version_id
            deployment.nodepools.add(id=pool).compute_cluster.id = self.name
            ok(raw("PostDeployments", request))

    def deployment(self, pool: str) -> v2.Deployment:
        request = v2.GetDeploymentRequest(deployment_id=f"{self.name}-{pool}")
        return ok(self.raw("GetDeployment", request)).deployment  # type: ignore[no-any-return]

    def predict(self, pool: str) -> v2.MultiOutputResponse:
        """By the deployment alone, without naming the model."""
        request = v2.PostModelOutputsRequest()
        request.inputs.add().data.text.raw = "x"
        request.runner_selector.deployment.id = f"{self.name}-{pool}"
        return self.raw("PostModelOutputs", request)  # type: ignore[no-any-return]

    def replicas(self, pool: str) -> tuple[int, int]:
        metrics = self.deployment(pool).deployment_metrics
        assert metrics.nodepool_metrics[0].nodepool_id == pool
        assert metrics.nodepool_metrics[0].metrics == metrics.aggregate
        return metrics.aggregate.live_replicas, metrics.aggregate.desired_replicas


@pytest.fixture
def deployed(shared: Raw) -> Deployed:
    return Deployed(shared)


def test_a_deployment_serves_while_it_has_workers(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_queues, "ARRIVAL_SECONDS", 0.05)
    waiting = deployed.predict("pool")
    assert waiting.status.code == Code.MODEL_DEPLOYING
    assert "no worker of runner" in waiting.status.details
    assert deployed.replicas("pool") == (0, 1)
    with deployed.model.worker(replica="one") as worker:
        with deployed.model.worker(replica="two"):
            until(lambda: deployed.replicas("pool") == (2, 1))
        until(lambda: deployed.replicas("pool") == (1, 1))
        answers: list[v2.MultiOutputResponse] = []
        thread = threading.Thread(target=lambda: answers.append(deployed.predict("pool")))
        thread.start()
        worker.answer(worker.take())
        thread.join(30)
        assert answers[0].outputs[0].data.text.raw == "X"
        elsewhere = deployed.predict("empty")
        assert elsewhere.status.code == Code.MODEL_DEPLOYING
        assert deployed.replicas("empty") == (0, 0)
        models = v2.ListModelsRequest(show_replicas=True, min_replicas=1)
        found = {
            each.id: each.replica_count for each in ok(deployed.raw("ListModels", models)).models
        }
        assert found[deployed.name] == 1
        one = v2.GetModelRequest(model_id=deployed.name)
        assert ok(deployed.raw("GetModel", one)).model.replica_count == 1
        one.version_id = deployed.model.version_id
        assert ok(deployed.raw("GetModel", one)).model.replica_count == 1
        versions = v2.ListModelVersionsRequest(model_id=deployed.name, min_replicas=1)
        listed = ok(deployed.raw("ListModelVersions", versions)).model_versions
        assert [version.id for version in listed] == [deployed.model.version_id]
    until(lambda: deployed.replicas("pool") == (0, 1))
    assert ok(deployed.raw("GetModel", one)).model.replica_count == 0
    versions.min_replicas = 2
    assert not ok(deployed.raw("ListModelVersions", versions)).model_versions
    counts = deployed.model.counts()
    assert (counts.pods_running, counts.pods_total) == (0, 2)
    assert deployed.predict("pool").status.code == Code.MODEL_DEPLOYING


def test_a_runner_that_comes_later(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our client asks again until its deadline."""
    monkeypatch.setattr(runner_queues, "ARRIVAL_SECONDS", 0.05)
    with deployed.raw.server.client() as client:
        answers: list[Any] = []
        model = client.model(deployed.name)
        thread = threading.Thread(
            target=lambda: answers.append(model.predict(v2.Input(data=v2.Data(), id="i")))
        )
        thread.start()
        calls = deployed.raw.server.calls
        until(lambda: len(calls("PostModelOutputs", model_id=deployed.name)) > 1)
        with deployed.model.worker() as worker:
            worker.answer(worker.take(), "here")
            thread.join(20)
    assert answers[0].data.text.raw == "here"


def test_what_serves_follows_what_is_desired(deployed: Deployed) -> None:
    """``worker`` of a patch is ignored; ``desired_worker`` is what can be set."""
    before = deployed.deployment("pool")
    assert before.desired_worker == before.worker
    request = v2.PatchDeploymentsRequest(action="overwrite")
    change = request.deployments.add(id=before.id)
    change.worker.model.id = "ignored"
    ok(deployed.raw("PatchDeployments", request))
    assert deployed.deployment("pool").worker == before.worker
    change.ClearField("worker")
    change.desired_worker.model.CopyFrom(before.worker.model)
    change.desired_worker.model.model_version.id = "newer"
    ok(deployed.raw("PatchDeployments", request))
    after = deployed.deployment("pool")
    assert after.worker.model.model_version.id == "newer"
    assert after.desired_worker == after.worker
    assert deployed.predict("pool").status.code == Code.MODEL_DOES_NOT_EXIST


def test_a_disabled_deployment(deployed: Deployed) -> None:
    request = v2.PatchDeploymentsRequest(action="overwrite")
    request.deployments.add(id=f"{deployed.name}-pool", status=v2.Deployment.DISABLED)
    ok(deployed.raw("PatchDeployments", request))
    assert deployed.predict("pool").status.code == Code.DEPLOYMENT_DISABLED
    # Nor does its nodepool serve the model to those who name no deployment.
    with deployed.model.worker():
        assert deployed.model.predict("x").status.code == Code.DEPLOYMENT_DISABLED


@pytest.mark.parametrize("selector", ["runner", "nodepool"])
def test_a_selected_place(deployed: Deployed, selector: str) -> None:
    deployed.model.add_runner(f"{deployed.name}-2", "empty", deployed.name)
    request = deployed.model.request("x")
    if selector == "runner":
        request.runner_selector.runner.id = f"{deployed.name}-2"
    else:
        request.runner_selector.nodepool.id = "empty"
        request.runner_selector.nodepool.compute_cluster.id = deployed.name
    with deployed.model.worker(), deployed.model.worker(runner_id=f"{deployed.name}-2") as second:
        stream = deployed.raw.stub.GenerateModelOutputs(
            request, metadata=deployed.raw.metadata, timeout=20
        )
        second.answer(second.take(), "second")
        second.close()
        assert texts(stream) == ["second"]
    request.runner_selector.runner.id = "none"
    response = deployed.raw("PostModelOutputs", request)
    assert response.status.code == Code.RUNNER_DOES_NOT_EXIST


def test_the_log_of_a_runner(deployed: Deployed) -> None:
    raw, name = deployed.raw, deployed.name
    asking = v2.StreamLogEntriesRequest(log_type="runner.events", runner_id=name)
    following = raw.stub.StreamLogEntries(asking, metadata=raw.metadata, timeout=20)
    assert not next(following).log_entries
    worker = deployed.model.worker(replica="one")
    (entry,) = next(following).log_entries
    assert "Name: one, Type: Normal, Reason: Started" in entry.message
    assert (entry.meta.nodepool_id, entry.meta.compute_cluster_id) == ("pool", name)
    assert entry.meta.model_version_id == deployed.model.version_id
    with deployed.model.worker(replica="two") as other:
        until(lambda: deployed.replicas("pool")[0] == 2)
        calling = Calling(deployed.model, "x")
        item = worker.take()
        worker.cut()
        other.answer(other.take())
        assert calling.texts() == ["X"]
    following.cancel()
    request = v2.ListLogEntriesRequest(log_type="runner.events", nodepool_id="pool", runner_id=name)

    def reasons() -> list[str]:
        found = ok(raw("ListLogEntries", request)).log_entries
        return [entry.message.split("Reason: ")[1].split(",")[0] for entry in found]

    until(lambda: len(reasons()) == 5)
    assert reasons() == ["Started", "Started", "Failed", "Killing", "Killing"]
    failed = ok(raw("ListLogEntries", request)).log_entries[2].message
    assert "Type: Warning" in failed
    assert item.id in failed
    # What the runner writes itself is another log.
    line = v2.LogEntry(message="loading", log_type="runner")
    line.meta.runner_id = name
    ok(raw("PostLogEntries", v2.PostLogEntriesRequest(log_entries=[line])))
    request.log_type, request.nodepool_id = "runner", ""
    assert [e.message for e in ok(raw("ListLogEntries", request)).log_entries] == ["loading"]


def test_a_worker_that_goes_on_for_nobody_is_told(model: RemoteModel) -> None:
    with model.worker() as worker:
        outputs = model.generate("a")
        item = worker.take()
        worker.answer(item, "1")
        next(outputs)
        outputs.cancel()
        told = worker.take()  # of the cancellation, as there is no control call
        assert told.processing_info.status.code == Code.RUNNER_ITEM_CANCELLED
        worker.answer(item, "2")
        worker.answer(item, "3")
        told = worker.take()  # it may not have heard
        assert (told.id, told.processing_info.status.code) == (item.id, Code.RUNNER_ITEM_CANCELLED)
        worker.answer(item, "4")
        worker.close()


def test_a_bad_request_in_a_stream_ends_the_item(model: RemoteModel) -> None:
    def requests() -> Iterator[v2.PostModelOutputsRequest]:
        yield model.request("a")
        yield model.request("b", "c")
        yield model.request("d")

    with model.worker() as worker:
        outputs = model.stream(requests())
        item = worker.take()
        response = next(outputs)
        assert response.outputs[0].status.details == "the request has 2 inputs; the maximum is 1"
        told = worker.take()
        assert (told.id, told.processing_info.status.code) == (item.id, Code.RUNNER_ITEM_CANCELLED)


def test_a_worker_that_loses_an_item_at_once_does_so_few_times(model: RemoteModel) -> None:
    """However short the time is between its calls."""
    calling, given = Calling(model, "a"), 0
    current: list[Worker] = []

    def end() -> None:
        calling.join(30)
        current[-1].cut()

    ending = threading.Thread(target=end)
    while calling.is_alive():
        with model.worker() as worker:
            current.append(worker)
            if not calling.is_alive():  # too late to be cut by the other thread
                break
            if not given:
                ending.start()
            try:
                worker.take()
            except grpc.RpcError:  # the caller has its answer
                break
            given += 1
            time.sleep(0.2)
    ending.join(30)
    assert calling.status().code == Code.RUNNER_PROCESSING_FAILED
    assert 3 <= given < 40
