"""Checked by mypy --strict, with and without the extra ``typing``, and by pyright. Never run."""

import io
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, assert_type

import clarigrpc
from clarigrpc import (
    AsyncClient,
    Client,
    RetryPolicy,
    arrays,
    audio,
    errors,
    image,
    query,
    text,
    v2,
)
from clarigrpc.ingest import from_coco, from_csv, from_folder
from clarigrpc.types import (
    AsyncInputs,
    AsyncModel,
    AsyncStream,
    Datasets,
    FailedInput,
    Inputs,
    Listing,
    Model,
    PredictBatch,
    PredictFailure,
    PredictInput,
    PredictResult,
    PredictSuccess,
    Stream,
    UploadProgress,
    UploadReport,
    UploadResult,
    WorkflowPredictResult,
)

assert_type(image("cat.jpg", concepts={"cat": 1}, metadata={"camera": 7}), v2.Input)
assert_type(audio(io.BytesIO(b"bytes"), concepts=["bark", v2.Concept(id="dog")]), v2.Input)
assert_type(clarigrpc.__version__, str)
number: float = clarigrpc.wellknown.value(1).number_value


def predictions(model: Model, raw: bytes, inputs: list[v2.Input], unknown: Any) -> None:
    assert_type(model.predict(image("cat.jpg"), timeout=1.0), v2.Output)
    assert_type(model.predict(text("words")).data.text.raw, str)
    assert_type(model.predict(raw), v2.Output)
    assert_type(model.predict(bytearray(raw)), v2.Output)
    assert_type(model.predict(memoryview(raw)), v2.Output)
    assert_type(model.predict(Path("cat.jpg")), v2.Output)
    with open("cat.jpg", "rb") as file:
        assert_type(model.predict(file), v2.Output)
    assert_type(model.predict(inputs), list[v2.Output])
    assert_type(model.predict([image("cat.jpg"), raw, Path("dog.jpg")]), list[v2.Output])
    assert_type(model.predict((raw, raw), raise_on_partial=False), list[v2.Output])
    value: float = model.predict(inputs)[0].data.concepts[0].value
    print(value)
    model.predict(unknown)
    assert_type(model.generate(text("words")), Stream[v2.Output])
    for output in model.stream(image(f"{number}.jpg") for number in range(5)):
        assert_type(output, v2.Output)
    assert_type(model.methods(), dict[str, v2.MethodSignature])


def results(model: Model, values: Iterator[PredictInput]) -> list[v2.Output]:
    outputs = []
    for result in model.predict_many(values, batch_size=8):
        assert_type(result, PredictResult)
        assert_type(result.index, int)
        if result.error is None:
            assert_type(result, PredictSuccess)
            outputs.append(result.output)
        else:
            assert_type(result, PredictFailure)
            print(result.index, result.error)
    return outputs


def batches(client: Client, model: Model, values: Iterator[PredictInput]) -> None:
    for batch in model.predict_batches(values, in_flight=2):
        assert_type(batch, PredictBatch)
        assert_type(batch.outputs, Sequence[v2.Output])
        assert_type(batch.errors, Mapping[int, Exception])
        arrays.output_embeddings(batch.outputs)
    for result in client.workflows.predict_many("w", values):
        assert_type(result, WorkflowPredictResult)
        if result.error is None:
            assert_type(result.output, v2.WorkflowResult)
    for found in client.workflows.predict_batches("w", values):
        assert_type(found.outputs, Sequence[v2.WorkflowResult])


def outputs_of(some: list[PredictResult]) -> Iterator[v2.Output]:
    for result in some:
        if result.error is not None:
            raise result.error
        assert_type(result.output, v2.Output)
        yield result.output
    for result in some:
        if result.output is not None:
            assert_type(result.output, v2.Output)
        if isinstance(result, PredictFailure):
            assert_type(result.error, Exception)


def shown(progress: UploadProgress) -> None:
    print(progress.percent)


def uploads(client: Client, model: Model) -> None:
    for source in (from_folder("images"), from_csv("inputs.csv"), from_coco("coco.json", "images")):
        report = client.inputs.upload(source)
        assert_type(report, UploadReport)
        assert_type(report.failed_inputs, list[FailedInput])
    client.inputs.upload("images", progress=lambda report: print(report.added))
    client.inputs.upload([text("a"), lambda: image("cat.jpg"), *report.failed_inputs])
    client.inputs.create([image("cat.jpg"), b"bytes"])
    uploaded = model.upload_version("model.tar", progress=shown)
    assert_type(uploaded, UploadResult)
    assert_type(uploaded.status, v2.Status)


def resources(client: Client, datasets: Datasets, inputs: Inputs) -> None:
    assert_type(client.inputs, Inputs)
    assert_type(client.datasets, Datasets)
    assert_type(datasets.get("d"), v2.Dataset)
    assert_type(inputs.get("i").data.image.url, str)
    assert_type(client.workflows.predict("w", image("cat.jpg")), v2.WorkflowResult)
    assert_type(client.search.inputs(query.like_image("cat.jpg")), Listing[v2.Hit])
    assert_type(client.model("m", coalesce=True), Model)


def methods(client: Client, request: v2.PostInputsRequest, policy: RetryPolicy) -> None:
    pairs = [("x-key", "value")]
    response = client.v2.PostInputs(request, timeout=1.0, metadata=pairs, raise_on_partial=False)
    assert_type(response, v2.MultiInputResponse)
    client.v2.PostInputs(request, retry=False)
    client.v2.PostInputs(request, retry=policy, idempotent=True)
    assert_type(client.v2.PostInputs.with_call(request)[0], v2.MultiInputResponse)
    for found in client.v2.GenerateModelOutputs(v2.PostModelOutputsRequest(), retry=False):
        assert_type(found, v2.MultiOutputResponse)
    with client.v2.GenerateModelOutputs(v2.PostModelOutputsRequest()) as stream:
        stream.cancel()
    of_any_channel(client.v2)


def of_any_channel(stub: v2.V2Stub) -> None:
    stub.ListInputs(v2.ListInputsRequest(page=1))


def failures(client: Client) -> None:
    try:
        client.inputs.get("i")
    except errors.NotFoundError as error:
        assert_type(error.request_id, str)
        assert_type(error.retry_after, float | None)


async def awaited(client: AsyncClient, values: AsyncIterator[v2.Input]) -> None:
    model = client.model("m")
    assert_type(model, AsyncModel)
    assert_type(client.inputs, AsyncInputs)
    assert_type(await model.predict(image("cat.jpg")), v2.Output)
    assert_type(await model.predict([image("cat.jpg"), b"bytes"]), list[v2.Output])
    async for result in model.predict_many(values):
        if result.error is None:
            assert_type(result.output, v2.Output)
    assert_type(model.stream(values), AsyncStream[v2.Output])
    assert_type(await model.methods(), dict[str, v2.MethodSignature])
    response = await client.v2.ListInputs(v2.ListInputsRequest(page=1), retry=False)
    assert_type(response, v2.MultiInputResponse)
    async for found in client.v2.GenerateModelOutputs(v2.PostModelOutputsRequest(), retry=False):
        assert_type(found, v2.MultiOutputResponse)
    of_any_channel(client.v2)


Client(pat="x", retry=RetryPolicy(max_attempts=1), base=["https://a.example", "https://b.example"])
print(arrays.output_concepts(v2.MultiOutputResponse()).offsets)
