"""Checked by mypy --strict and pyright in test_typing.py: no errors. Never run."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import assert_type

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from clarigrpc import v2, wellknown

request = v2.PostInputsRequest(
    user_app_id=v2.UserAppIDSet(user_id="u", app_id="a"),
    inputs=[
        v2.Input(
            id="i",
            data=v2.Data(
                image=v2.Image(url="https://example.org/cat.jpg"),
                metadata=wellknown.struct({"camera": 7}),
                concepts=[v2.Concept(id="c", value=1.0)],
            ),
            created_at=wellknown.timestamp(datetime(2024, 5, 6)),
        )
    ],
)
request.inputs.add().data.image.base64 = b"bytes"
assert_type(request.inputs[0].data.image.base64, bytes)
assert_type(request.inputs[0].data.concepts[0].value, float)
assert_type(request.HasField("user_app_id"), bool)

status = v2.Status(code=v2.StatusCode.SUCCESS)
assert_type(v2.StatusCode.Name(status.code), str)

assert_type(wellknown.struct({}), Struct)
assert_type(wellknown.value(1), Value)
assert_type(wellknown.timestamp(datetime(2024, 5, 6)), Timestamp)
assert_type(wellknown.duration(timedelta(1)), Duration)
assert_type(wellknown.convert({"a": 1}), Struct)
assert_type(wellknown.convert(datetime(2024, 5, 6)), Timestamp)
assert_type(wellknown.convert(timedelta(1)), Duration)
assert_type(wellknown.convert(Value()), Value)
assert_type(wellknown.convert(request), v2.PostInputsRequest)


def blocking(channel: grpc.Channel) -> None:
    stub = v2.V2Stub(channel)
    assert_type(stub.PostInputs(request, timeout=1.0), v2.MultiInputResponse)
    for output in stub.GenerateModelOutputs(v2.PostModelOutputsRequest(model_id="m")):
        assert_type(output, v2.MultiOutputResponse)

    def parts() -> Iterator[v2.PostModelVersionsUploadRequest]:
        yield v2.PostModelVersionsUploadRequest()

    for progress in stub.PostModelVersionsUpload(parts()):
        assert_type(progress, v2.PostModelVersionsUploadResponse)


async def awaiting(channel: grpc.aio.Channel) -> None:
    stub = v2.V2Stub(channel)
    assert_type(await stub.PostInputs(request, timeout=1.0), v2.MultiInputResponse)
