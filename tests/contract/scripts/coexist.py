"""clarigrpc and clarifai_grpc in one process: make a call through each and pass values between.

Runs in the environment of the published package with our src on the path. The argument says which
one is imported first, ``ours`` or ``theirs``. Writes a JSON object of results to stdout.
"""

import importlib
import json
import pickle
import sys
from concurrent import futures
from copy import deepcopy
from typing import Any

import grpc


def echo_model_id(request: bytes, _context: Any) -> bytes:
    """GetModel on bytes: the server belongs to neither package."""
    # GetModelRequest.model_id and Model.id are length-delimited; SingleModelResponse.model is 2.
    # The test sends nothing but model_id (field 2 of the request: tag 0x12).
    assert request[:1] == b"\x12", request
    name = request[2 : 2 + request[1]]
    model = b"\x0a" + bytes([len(name)]) + name
    return b"\x12" + bytes([len(model)]) + model


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    def service(self, details: Any) -> Any:
        if details.method == "/clarifai.api.V2/GetModel":
            return grpc.unary_unary_rpc_method_handler(echo_model_id)
        return None


def load_ours() -> Any:
    module = importlib.import_module("clarigrpc.v2")
    assert module.V2Stub
    return module


def load_theirs() -> Any:
    importlib.import_module("clarifai_grpc.grpc.api.service_pb2_grpc")
    return importlib.import_module("clarifai_grpc.grpc.api")


if sys.argv[1] == "ours":
    ours, theirs = load_ours(), load_theirs()
else:
    theirs, ours = load_theirs(), load_ours()
wellknown = importlib.import_module("clarigrpc.wellknown")

results: dict[str, Any] = {}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), handlers=[Handler()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
try:
    # Their stub works only after one of their channels was made: it leaves a setting in a global.
    channels = importlib.import_module("clarifai_grpc.channel.clarifai_channel").ClarifaiChannel
    with (
        channels.get_insecure_grpc_channel("127.0.0.1", port) as own_channel,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        answer = ours.V2Stub(channel).GetModel(ours.GetModelRequest(model_id="a"), timeout=10)
        results["ours"] = [answer.model.id, isinstance(answer, ours.SingleModelResponse)]
        for name, their_channel in (("their channel", own_channel), ("a plain channel", channel)):
            answer = theirs.service_pb2_grpc.V2Stub(their_channel).GetModel(
                theirs.service_pb2.GetModelRequest(model_id="b"), timeout=10
            )
            results[f"theirs over {name}"] = [
                answer.model.id,
                isinstance(answer, theirs.service_pb2.SingleModelResponse),
            ]
finally:
    server.stop(None).wait()

their_input = theirs.resources_pb2.Input(id="i")
their_input.data.metadata.update({"k": [1, None, "v"]})
our_input = wellknown.convert(their_input)
results["converted"] = [
    isinstance(our_input, ours.Input),
    our_input.SerializeToString() == their_input.SerializeToString(),
]
copy = ours.Data()
copy.metadata.CopyFrom(wellknown.convert(their_input.data.metadata))
results["copied"] = copy == our_input.data
results["pickled"] = [
    type(pickle.loads(pickle.dumps(our_input))) is ours.Input,
    pickle.loads(pickle.dumps(our_input)) == our_input,
]
results["deepcopied"] = [
    type(deepcopy(our_input)) is ours.Input,
    deepcopy(our_input) == our_input,
    deepcopy(their_input) == their_input,
]
json.dump(results, sys.stdout)
