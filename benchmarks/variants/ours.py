"""clarigrpc, and the limit that it is measured against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from itertools import repeat
from typing import Any

import grpc
from google.protobuf import json_format
from protocol import (
    Config,
    MakeVariant,
    Slice,
    Variant,
    awaiting,
    blocking,
    counting,
    embedding_answer,
    paced,
    serve,
)

from clarigrpc import AsyncClient, Client, image, text, v2
from clarigrpc.arrays import output_concepts, output_embeddings

INPUTS = 100_000
"""Inputs of an upload."""


def _arguments(config: Config) -> dict[str, Any]:
    place = config.server
    return {
        "base": config.base,
        "pat": place["pat"],
        "user_id": place["user_id"],
        "app_id": place["app_id"],
        "root_certificates": config.certificate(),
        "connections": config.connections,
    }


def _value(config: Config) -> Any:
    return config.payload or text(config.text)


def _model(config: Config) -> Any:
    return Client(**_arguments(config)).model(config.server["model_id"])


def _amodel(config: Config, runner: asyncio.Runner, **options: Any) -> Any:
    async def make() -> Any:
        return AsyncClient(**_arguments(config)).model(config.server["model_id"], **options)

    return runner.run(make())


def _fields(output: v2.Output) -> dict[str, Any]:
    return json_format.MessageToDict(output.data, preserving_proto_field_name=True)


def predict(config: Config) -> Variant:
    """One input a call."""
    model, value = _model(config), _value(config)
    return Variant(_fields(model.predict(value)), blocking(lambda: model.predict(value)))


def _apredict(config: Config, **options: Any) -> Variant:
    runner = asyncio.Runner()
    model, value = _amodel(config, runner, **options), _value(config)
    answer = _fields(runner.run(model.predict(value)))

    def call() -> Any:
        return model.predict(value)

    return Variant(answer, awaiting(runner, call), paced(runner, call))


def apredict(config: Config) -> Variant:
    """One input a call, asyncio."""
    return _apredict(config)


def _request(config: Config) -> v2.PostModelOutputsRequest:
    place = config.server
    return v2.PostModelOutputsRequest(
        user_app_id=v2.UserAppIDSet(user_id=place["user_id"], app_id=place["app_id"]),
        model_id=place["model_id"],
        inputs=[text(config.text)] * config.batch,
    )


def call(config: Config) -> Variant:
    """A method of ``client.v2`` with a request that is there already."""
    request, post = _request(config), Client(**_arguments(config)).v2.PostModelOutputs
    return Variant(_fields(post(request).outputs[0]), blocking(lambda: post(request)))


def acall(config: Config) -> Variant:
    """The same, asyncio."""
    runner = asyncio.Runner()
    request = _request(config)

    async def make() -> Any:
        return AsyncClient(**_arguments(config)).v2.PostModelOutputs

    post = runner.run(make())

    async def first() -> v2.MultiOutputResponse:
        response: v2.MultiOutputResponse = await post(request)
        return response

    answer = _fields(runner.run(first()).outputs[0])
    return Variant(answer, awaiting(runner, lambda: post(request)))


def coalesced(config: Config) -> Variant:
    """One input a call, asyncio, sharing requests."""
    return _apredict(config, coalesce=True)


def predict_list(config: Config) -> Variant:
    """A list of inputs a call; what is counted are inputs."""
    model, values = _model(config), [_value(config)] * config.batch
    answer = _fields(model.predict(values)[0])
    return Variant(answer, _batches(config, lambda: model.predict(values)))


def _batches(config: Config, call: Any) -> Slice:
    one_by_one = blocking(call)

    def run(inputs: int, in_flight: int) -> tuple[int, list[float]]:
        calls, latencies = one_by_one(max(1, inputs // config.batch), 1)
        return calls * config.batch, latencies

    return run


def _read(output: v2.Output) -> float:
    """What a caller looks at: the best concept's value."""
    concepts = output.data.concepts
    return concepts[0].value if concepts else 0.0


def read_list(config: Config) -> Variant:
    """``predict_list``, its results read."""
    model, values = _model(config), [_value(config)] * config.batch

    def call() -> None:
        for output in model.predict(values):
            _read(output)

    return Variant(_fields(model.predict(values)[0]), _batches(config, call))


def aread_list(config: Config) -> Variant:
    """``read_list``, asyncio, one call after the other."""
    runner = asyncio.Runner()
    model, values = _amodel(config, runner), [_value(config)] * config.batch

    async def items(inputs: int) -> int:
        for _ in range(calls := max(1, inputs // config.batch)):
            for output in await model.predict(values):
                _read(output)
        return calls * config.batch

    return Variant(
        _fields(runner.run(model.predict(values))[0]),
        counting(lambda inputs, _: runner.run(items(inputs))),
    )


def many(config: Config) -> Variant:
    """``predict_many`` as it is by default, its results read."""
    model, value = _model(config), _value(config)

    def items(inputs: int, in_flight: int) -> int:
        count = 0
        for result in model.predict_many(repeat(value, inputs)):
            _read(result.output)
            count += 1
        return count

    return Variant(_fields(next(model.predict_many([value])).output), counting(items))


def many_fixed(config: Config) -> Variant:
    """``predict_many`` with the batch size and window that are asked for."""
    model, value = _model(config), _value(config)

    def items(inputs: int, in_flight: int) -> int:
        values = repeat(value, inputs)
        run = model.predict_many(values, batch_size=config.batch, in_flight=in_flight)
        return sum(_read(result.output) is not None for result in run)

    return Variant(_fields(model.predict(value)), counting(items))


def batches(config: Config) -> Variant:
    """``predict_batches`` as it is by default, its results read."""
    model, value = _model(config), _value(config)

    def items(inputs: int, in_flight: int) -> int:
        count = 0
        for batch in model.predict_batches(repeat(value, inputs)):
            for output in batch.outputs:
                _read(output)
            count += len(batch)
        return count

    return Variant(_fields(model.predict(value)), counting(items))


def _photos(config: Config, max_side: int | None) -> Variant:
    """``predict_many`` of photos, each read, and shrunk if so, when its turn comes."""
    model, photo = _model(config), config.payload or _small_photo()
    make = partial(image, photo, max_side=max_side)

    def items(inputs: int, in_flight: int) -> int:
        count = 0
        for result in model.predict_many(repeat(make, inputs)):
            _read(result.output)
            count += 1
        return count

    return Variant(_fields(next(model.predict_many([make])).output), counting(items))


def _small_photo() -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (2000, 1500)).save(buffer, "JPEG")
    return buffer.getvalue()


def amany(config: Config) -> Variant:
    """``predict_many``, asyncio, with the batch size and window that are asked for."""
    runner = asyncio.Runner()
    model, value = _amodel(config, runner), _value(config)

    async def items(inputs: int, in_flight: int) -> int:
        count = 0
        values = repeat(value, inputs)
        async for result in model.predict_many(
            values, batch_size=config.batch, in_flight=in_flight
        ):
            _read(result.output)
            count += 1
        return count

    return Variant(
        _fields(runner.run(model.predict(value))),
        counting(lambda inputs, in_flight: runner.run(items(inputs, in_flight))),
    )


def _inputs(count: int) -> Iterator[v2.Input]:
    """Small inputs, each with an id."""
    return (text(f"a short text {number}", id=f"id-{number}") for number in range(count))


def upload_inputs(config: Config) -> Variant:
    """``inputs.upload``."""
    client = Client(**_arguments(config))
    made = list(_inputs(INPUTS))
    return Variant(INPUTS, counting(lambda count, _: client.inputs.upload(made[:count]).added))


def aupload_inputs(config: Config) -> Variant:
    """``inputs.upload``, asyncio."""
    runner = asyncio.Runner()
    made = list(_inputs(INPUTS))

    async def make() -> Any:
        return AsyncClient(**_arguments(config))

    client = runner.run(make())
    return Variant(
        INPUTS,
        counting(lambda count, _: runner.run(client.inputs.upload(made[:count])).added),
    )


def raw_inputs(config: Config) -> Variant:
    """The same inputs in batches by hand, on the generated stub over a bare channel."""
    place = config.server
    stub = v2.V2Stub(grpc.insecure_channel(place["grpc"]))
    owner = v2.UserAppIDSet(user_id=place["user_id"], app_id=place["app_id"])
    metadata = (("authorization", f"Key {place['pat']}"),)
    made = list(_inputs(INPUTS))

    def run(count: int, in_flight: int) -> int:
        added = 0
        for start in range(0, count, config.batch):
            inputs = made[start : min(start + config.batch, count)]
            request = v2.PostInputsRequest(user_app_id=owner, inputs=inputs)
            response = stub.PostInputs(request, timeout=60, metadata=metadata)
            added += sum(one.status.code == v2.StatusCode.INPUT_PENDING for one in response.inputs)
        return added

    return Variant(INPUTS, counting(run))


def generate(config: Config) -> Variant:
    """Tokens of a server stream."""
    model, value = _model(config), _value(config)

    def items(tokens: int, in_flight: int) -> int:
        count = 0
        while count < tokens:
            for output in model.generate(value):
                count += bool(output.data.text.raw)
        return count

    return Variant(_fields(next(iter(model.generate(value)))), counting(items))


def agenerate(config: Config) -> Variant:
    """Tokens of a server stream, asyncio."""
    runner = asyncio.Runner()
    model, value = _amodel(config, runner), _value(config)

    async def items(tokens: int) -> int:
        count = 0
        while count < tokens:
            async for output in model.generate(value):
                count += bool(output.data.text.raw)
        return count

    async def first() -> v2.Output:
        return await anext(aiter(model.generate(value)))

    return Variant(
        _fields(runner.run(first())), counting(lambda tokens, _: runner.run(items(tokens)))
    )


def stream(config: Config) -> Variant:
    """Outputs of a duplex stream, in_flight of them unanswered."""
    model, value = _model(config), _value(config)

    def items(inputs: int, in_flight: int) -> int:
        return sum(1 for _ in model.stream(repeat(value, inputs), window=in_flight))

    return Variant(_fields(next(iter(model.stream([value])))), counting(items))


def astream(config: Config) -> Variant:
    """Outputs of a duplex stream, in_flight of them unanswered, asyncio."""
    runner = asyncio.Runner()
    model, value = _amodel(config, runner), _value(config)

    async def items(inputs: int, in_flight: int) -> int:
        count = 0
        async for _ in model.stream(repeat(value, inputs), window=in_flight):
            count += 1
        return count

    async def first() -> v2.Output:
        return await anext(aiter(model.stream([value])))

    return Variant(
        _fields(runner.run(first())),
        counting(lambda inputs, in_flight: runner.run(items(inputs, in_flight))),
    )


def embeddings(config: Config) -> Variant:
    """A batch's embeddings as one array; a call is a batch."""
    request, post = _request(config), Client(**_arguments(config)).v2.PostModelOutputs

    def call() -> Any:
        return output_embeddings(post(request))

    return Variant(embedding_answer(call()), blocking(call))


def _concepts(config: Config, read: Any) -> Variant:
    request, post = _request(config), Client(**_arguments(config)).v2.PostModelOutputs
    return Variant(_fields(post(request).outputs[0]), _batches(config, lambda: read(post(request))))


def concept_arrays(config: Config) -> Variant:
    """Ids and values of a batch's concepts as arrays; what is counted are inputs."""
    return _concepts(config, output_concepts)


def concept_lists(config: Config) -> Variant:
    """The same by a loop over the messages."""
    import numpy as np

    def read(response: v2.MultiOutputResponse) -> Any:
        ids, found = [], []
        for output in response.outputs:
            for concept in output.data.concepts:
                ids.append(concept.id)
                found.append(concept.value)
        return ids, np.array(found, np.float32)

    return _concepts(config, read)


def upload(config: Config) -> Variant:
    """Uploads of the payload's file as a model version; what is counted are files."""
    model = _model(config)
    return Variant(None, blocking(lambda: model.upload_version(config.file)))


def aupload(config: Config) -> Variant:
    """The same, asyncio."""
    runner = asyncio.Runner()
    model = _amodel(config, runner)
    return Variant(None, awaiting(runner, lambda: model.upload_version(config.file)))


def identity(config: Config) -> Variant:
    """The limit: the same bytes through a bare channel, and no protobuf at all."""
    place = config.server
    request = v2.PostModelOutputsRequest(model_id=place["model_id"])
    request.user_app_id.user_id, request.user_app_id.app_id = place["user_id"], place["app_id"]
    if config.payload:
        request.inputs.add().data.image.base64 = config.payload
    else:
        request.inputs.append(text(config.text))
    payload = request.SerializeToString()
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    post: Any = grpc.insecure_channel(place["grpc"], options).unary_unary(
        "/clarifai.api.V2/PostModelOutputs"
    )
    metadata = (("authorization", f"Key {place['pat']}"),)

    def call() -> bytes:
        encoded: bytes = post(payload, timeout=60, metadata=metadata)
        return encoded

    response = v2.MultiOutputResponse.FromString(call())
    return Variant(_fields(response.outputs[0]), blocking(call))


VARIANTS: dict[str, MakeVariant] = {
    "predict": predict,
    "apredict": apredict,
    "call": call,
    "acall": acall,
    "coalesced": coalesced,
    "predict_list": predict_list,
    "read_list": read_list,
    "aread_list": aread_list,
    "many": many,
    "many_fixed": many_fixed,
    "batches": batches,
    "upload_inputs": upload_inputs,
    "aupload_inputs": aupload_inputs,
    "raw_inputs": raw_inputs,
    "amany": amany,
    "photos": partial(_photos, max_side=None),
    "photos_1024": partial(_photos, max_side=1024),
    "photos_512": partial(_photos, max_side=512),
    "generate": generate,
    "agenerate": agenerate,
    "stream": stream,
    "astream": astream,
    "embeddings": embeddings,
    "concept_arrays": concept_arrays,
    "concept_lists": concept_lists,
    "upload": upload,
    "aupload": aupload,
    "identity": identity,
}

if __name__ == "__main__":
    serve(VARIANTS, ("clarigrpc", "grpcio", "protobuf"))
