"""A model that runs in a process of its own, which fetches its work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import grpc
import pytest

from clarigrpc import v2
from clarigrpc.local.store.resource_store import StoredCollection
from tests.local.conftest import Raw, ok

Code = v2.StatusCode


@pytest.fixture
def runner(raw: Raw) -> Raw:
    """A model with a version that the server cannot run, and a runner for it."""
    ok(raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")])))
    version = v2.ModelVersion(id="v", status=v2.Status(code=Code.MODEL_TRAINED))
    service = raw.server._service
    assert service is not None
    where = StoredCollection("model_version", raw.server.user_id, raw.server.app_id, "m")
    service.state.store.insert(where, "v", version.SerializeToString())
    request = v2.PostRunnersRequest()
    request.runners.add(id="r").worker.model.id = "m"
    ok(raw("PostRunners", request))
    return raw


def answer(item: v2.RunnerItem) -> v2.PostRunnerItemOutputsRequest:
    """What a runner of a model that shouts hands back."""
    result = v2.PostRunnerItemOutputsRequest(runner_id="r", runner_item_id=item.id)
    response = result.runner_item_outputs.add().multi_output_response
    for given in item.post_model_outputs_request.inputs:
        output = response.outputs.add(status=v2.Status(code=Code.SUCCESS))
        output.data.text.raw = given.data.text.raw.upper()
    return result


def predict(raw: Raw, text: str, **options: float) -> v2.MultiOutputResponse:
    request = v2.PostModelOutputsRequest(model_id="m")
    request.inputs.add().data.text.raw = text
    response: v2.MultiOutputResponse = raw("PostModelOutputs", request, **options)
    return response


def test_unary_calls(runner: Raw) -> None:
    def serve() -> None:
        listing = v2.ListRunnerItemsRequest(runner_id="r")
        while not (items := ok(runner("ListRunnerItems", listing)).runner_items):
            pass
        ok(runner("PostRunnerItemOutputs", answer(items[0])))

    thread = threading.Thread(target=serve)
    thread.start()
    response = predict(runner, "hello")
    thread.join()
    assert response.outputs[0].data.text.raw == "HELLO"
    late = v2.PostRunnerItemOutputsRequest(runner_id="r", runner_item_id="none")
    assert runner("PostRunnerItemOutputs", late).status.code == Code.RUNNER_ITEM_CANCELLED


def test_a_stream(runner: Raw) -> None:
    outgoing: queue.Queue[v2.PostRunnerItemOutputsRequest | None] = queue.Queue()

    def requests() -> Iterator[v2.PostRunnerItemOutputsRequest]:
        while (message := outgoing.get()) is not None:
            yield message

    def serve() -> None:
        outgoing.put(v2.PostRunnerItemOutputsRequest(runner_id="r"))
        stream = runner.stub.ProcessRunnerItems(requests(), metadata=runner.metadata, timeout=20)
        done = 0
        for response in stream:
            for item in response.runner_items:
                outgoing.put(answer(item))
                done += 1
            if not response.runner_items:
                message = v2.PostRunnerItemOutputsRequest(runner_id="r") if done < 2 else None
                outgoing.put(message)

    thread = threading.Thread(target=serve)
    thread.start()
    assert predict(runner, "a").outputs[0].data.text.raw == "A"
    assert predict(runner, "b").outputs[0].data.text.raw == "B"
    thread.join()


def test_a_stream_of_outputs_ends_with_the_call_that_brought_them(runner: Raw) -> None:
    """The published runner sends no RUNNER_STREAM_END, and reads no work beside its outputs."""

    def serve() -> None:
        outgoing: queue.Queue[v2.PostRunnerItemOutputsRequest | None] = queue.Queue()
        outgoing.put(v2.PostRunnerItemOutputsRequest(runner_id="r"))
        stream = runner.stub.ProcessRunnerItems(
            iter(outgoing.get, None), metadata=runner.metadata, timeout=20
        )
        for response in stream:
            if response.runner_items:
                for _ in range(2):
                    outgoing.put(answer(response.runner_items[0]))
                outgoing.put(None)
                break
            outgoing.put(v2.PostRunnerItemOutputsRequest(runner_id="r"))
        assert [list(response.runner_items) for response in stream] == [[], []]

    thread = threading.Thread(target=serve)
    thread.start()
    request = v2.PostModelOutputsRequest(model_id="m")
    request.inputs.add().data.text.raw = "a"
    stream = runner.stub.GenerateModelOutputs(request, metadata=runner.metadata, timeout=20)
    assert [response.outputs[0].data.text.raw for response in stream] == ["A", "A"]
    thread.join()


def served(runner: Raw, work: Callable[[v2.RunnerItem], None]) -> threading.Thread:
    """A runner in a thread that takes one item."""

    def serve() -> None:
        listing = v2.ListRunnerItemsRequest(runner_id="r")
        while not (items := ok(runner("ListRunnerItems", listing)).runner_items):
            pass
        work(items[0])

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_pieces_of_an_output(runner: Raw) -> None:
    def spell(item: v2.RunnerItem) -> None:
        assert item.processing_info.runner_method_type == v2.RunnerMethodType.UNARY_STREAMING
        for letter in item.post_model_outputs_request.inputs[0].data.text.raw:
            piece = v2.PostRunnerItemOutputsRequest(runner_id="r", runner_item_id=item.id)
            output = piece.runner_item_outputs.add().multi_output_response.outputs.add()
            output.data.text.raw = letter
            ok(runner("PostRunnerItemOutputs", piece))
        end = v2.PostRunnerItemOutputsRequest(runner_id="r", runner_item_id=item.id)
        end.status.code = Code.RUNNER_STREAM_END
        ok(runner("PostRunnerItemOutputs", end))

    thread = served(runner, spell)
    request = v2.PostModelOutputsRequest(model_id="m")
    request.inputs.add().data.text.raw = "abc"
    stream = runner.stub.GenerateModelOutputs(request, metadata=runner.metadata, timeout=20)
    pieces = [response.outputs[0].data.text.raw for response in stream]
    thread.join()
    assert pieces[:3] == ["a", "b", "c"]
    assert not any(pieces[3:])


def test_a_runner_that_fails(runner: Raw) -> None:
    def fail(item: v2.RunnerItem) -> None:
        message = v2.PostRunnerItemOutputsRequest(runner_id="r", runner_item_id=item.id)
        message.status.code = Code.RUNNER_PROCESSING_FAILED
        message.status.details = "out of memory"
        ok(runner("PostRunnerItemOutputs", message))

    thread = served(runner, fail)
    status = predict(runner, "x").outputs[0].status
    thread.join()
    assert (status.code, status.details) == (Code.RUNNER_PROCESSING_FAILED, "out of memory")


def test_a_runner_that_does_not_come(runner: Raw) -> None:
    try:
        response = predict(runner, "x", timeout=0.5)
    except grpc.RpcError as error:
        code = error.code()
    else:
        # The server's own end of waiting came first.
        assert response.outputs[0].status.code == Code.MODEL_BUSY_PLEASE_RETRY
        code = grpc.StatusCode.DEADLINE_EXCEEDED
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
