"""The published clients: ``clarifai-grpc`` (the raw stub, the JSON channel) and ``clarifai``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import repeat
from queue import SimpleQueue
from typing import Any

from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel
from clarifai_grpc.grpc.api import resources_pb2, service_pb2, service_pb2_grpc
from google.protobuf import json_format
from protocol import Config, Variant, blocking, counting, embedding_answer, serve


def _stub(config: Config) -> Any:
    place = config.server
    if config.tls:
        channel = ClarifaiChannel.get_grpc_channel(
            place["grpc"], root_certificates_path=place["certificate"]
        )
    else:
        host, _, port = place["grpc"].rpartition(":")
        channel = ClarifaiChannel.get_insecure_grpc_channel(host, int(port))
    return service_pb2_grpc.V2Stub(channel)


def _metadata(config: Config) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Key {config.server['pat']}"),)


def _request(config: Config, inputs: int = 1) -> Any:
    """A request as the package's own documentation builds it."""
    place = config.server
    if config.payload:
        data = resources_pb2.Data(image=resources_pb2.Image(base64=config.payload))
    else:
        data = resources_pb2.Data(text=resources_pb2.Text(raw=config.text))
    return service_pb2.PostModelOutputsRequest(
        user_app_id=resources_pb2.UserAppIDSet(user_id=place["user_id"], app_id=place["app_id"]),
        model_id=place["model_id"],
        inputs=[resources_pb2.Input(data=data)] * inputs,
    )


def _fields(output: Any) -> dict[str, Any]:
    return json_format.MessageToDict(output.data, preserving_proto_field_name=True)


def stub(config: Config) -> Variant:
    """The generated stub; the request is built for every call."""
    post, metadata = _stub(config).PostModelOutputs, _metadata(config)

    def call() -> Any:
        return post(_request(config), metadata=metadata)

    return Variant(_fields(call().outputs[0]), blocking(call))


def json_channel(config: Config) -> Variant:
    """The generated stub over HTTP and JSON."""
    channel = ClarifaiChannel.get_json_channel(config.rest_base)
    post, metadata = service_pb2_grpc.V2Stub(channel).PostModelOutputs, _metadata(config)

    def call() -> Any:
        return post(_request(config), metadata=metadata)

    return Variant(_fields(call().outputs[0]), blocking(call))


def generate(config: Config) -> Variant:
    """Tokens of a server stream, by the generated stub."""
    call, metadata = _stub(config).GenerateModelOutputs, _metadata(config)
    request = _request(config)

    def items(tokens: int, in_flight: int) -> int:
        count = 0
        while count < tokens:
            for response in call(request, metadata=metadata):
                count += bool(response.outputs[0].data.text.raw)
        return count

    first = next(iter(call(request, metadata=metadata)))
    return Variant(_fields(first.outputs[0]), counting(items))


def stream(config: Config) -> Variant:
    """Outputs of a duplex stream, by the generated stub; a queue bounds what is unanswered."""
    call, metadata = _stub(config).StreamModelOutputs, _metadata(config)

    def items(inputs: int, in_flight: int) -> int:
        free: SimpleQueue[None] = SimpleQueue()
        for _ in range(in_flight):
            free.put(None)

        def requests() -> Iterator[Any]:
            for _ in repeat(None, inputs):
                free.get()
                yield _request(config)

        count = 0
        for response in call(requests(), metadata=metadata):
            free.put(None)
            count += len(response.outputs)
        return count

    first = next(iter(call(iter([_request(config)]), metadata=metadata)))
    return Variant(_fields(first.outputs[0]), counting(items))


def embeddings(config: Config) -> Variant:
    """A batch's embeddings as one array, through lists; a call is a batch."""
    import numpy as np

    post, metadata = _stub(config).PostModelOutputs, _metadata(config)
    request = _request(config, config.batch)

    def call() -> Any:
        response = post(request, metadata=metadata)
        rows = [list(output.data.embeddings[0].vector) for output in response.outputs]
        return np.array(rows, dtype=np.float32)

    return Variant(embedding_answer(call()), blocking(call))


def predict_by_bytes(config: Config) -> Variant:
    """The published SDK's way to predict an image."""
    from clarifai.client.model import Model

    place = config.server
    os.environ["CLARIFAI_PAT"] = place["pat"]
    model = Model(
        model_id=place["model_id"],
        user_id=place["user_id"],
        app_id=place["app_id"],
        base_url=config.base,
        pat=place["pat"],
        root_certificates_path=place["certificate"] or None,
    )

    def call() -> Any:
        return model.predict_by_bytes(config.payload, input_type="image")

    return Variant(_fields(call().outputs[0]), blocking(call))


VARIANTS = {
    "stub": stub,
    "json_channel": json_channel,
    "generate": generate,
    "stream": stream,
    "embeddings": embeddings,
    "predict_by_bytes": predict_by_bytes,
}

if __name__ == "__main__":
    serve(VARIANTS, ("clarifai", "clarifai-grpc", "grpcio", "protobuf", "requests"))
