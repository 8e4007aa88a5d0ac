"""Checked by mypy --strict and pyright in test_typing.py: no errors. Never run."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, assert_type

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from clarigrpc import AsyncClient, Client, RetryPolicy, query, v2, wellknown
from clarigrpc.types import AsyncListing, Listing, PageInfo, WorkProgress

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


def resources(client: Client) -> None:
    assert_type(client.datasets.create("d"), v2.Dataset)
    assert_type(
        client.datasets.create_many(["d", v2.Dataset(id="e"), {"id": "f"}]), list[v2.Dataset]
    )
    assert_type(client.datasets.get("d", timeout=1.0), v2.Dataset)
    assert_type(client.datasets.list(page=1, search="x", all_apps=True), Listing[v2.Dataset])
    assert_type(client.datasets.list().page_info, PageInfo | None)
    assert_type(client.datasets.delete(["d"]), None)
    assert_type(client.datasets.versions("d").get("v"), v2.DatasetVersion)
    assert_type(client.models.types.get("t"), v2.ModelType)
    assert_type(client.models.versions("m").create(), v2.ModelVersion)
    assert_type(client.models.versions("m").evaluations("v").get("e", "test_set"), v2.EvalMetrics)
    assert_type(client.models.within(app_id="other").wait_trained("m"), v2.ModelVersion)
    assert_type(client.workflows.predict("w", b"bytes"), v2.WorkflowResult)
    assert_type(client.inputs.wait("i"), list[v2.Input])
    assert_type(client.inputs.follow(["i"]).wait(progress=print), list[v2.Input])
    assert_type(client.models.versions("m").follow("v").wait(progress=True), v2.ModelVersion)
    seen: list[WorkProgress] = []
    assert_type(client.jobs.follow("j").wait(progress=seen.append), v2.InputsAddJob)
    assert_type(client.jobs.follow("j").cancel(), v2.Status)
    found = client.search.inputs(query.has_concept("c"), query.like_input("i"), min_value=0.5)
    assert_type(found, Listing[v2.Hit])
    assert_type(query.negate(query.has_concept("c")), v2.Filter)
    assert_type(client.search.count(), int)


async def awaited_resources(client: AsyncClient) -> None:
    assert_type(await client.datasets.create("d"), v2.Dataset)
    assert_type(client.datasets.list(page=1), AsyncListing[v2.Dataset])
    assert_type(await client.datasets.versions("d").get("v"), v2.DatasetVersion)
    assert_type(await client.models.types.get("t"), v2.ModelType)
    assert_type(await client.jobs.wait(["j"], timeout=5.0), list[v2.InputsAddJob])
    assert_type(await client.evaluations.follow("e").wait(timeout=5.0), v2.EvalMetrics)
    assert_type(await client.evaluations.follow("e").status(), v2.Status)
    async for hit in client.search.inputs(query.by_concept("c")):
        assert_type(hit, v2.Hit)


class Counting(grpc.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.calls = 0

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        self.calls += 1
        return continuation(client_call_details, request)


def options(client: Client, other: AsyncClient) -> None:
    made = Client(
        pat="x",
        base=["127.0.0.1:1", "127.0.0.1:2"],
        timeout=3,
        retry=RetryPolicy(max_attempts=2),
        hedge=0.95,
        metadata=[("x-tenant", "t")],
        interceptors=[Counting()],
    )
    assert_type(made, Client)
    assert_type(client.with_options(timeout=3, retry=False), Client)
    assert_type(other.with_options(metadata=[("a", "b")], user_id="u"), AsyncClient)
    assert_type(client.with_options(app_id="a").datasets.get("d"), v2.Dataset)
    assert_type(made.settings.timeout, float)
    assert_type(made.settings.user_id, str)
