"""Requests that are large in number or size are refused early, and count in one budget."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import hypothesis
import PIL.Image
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import strategies as st

from clarigrpc import Client, RetryPolicy, errors, image, query, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.engine.request_checks import MAX_CONCEPTS
from clarigrpc.local.fronts.field_count import has_too_many_fields
from clarigrpc.local.store import resource_store
from tests.strategies import messages
from tests.waiting import until


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as server:
        yield server


@pytest.fixture(scope="module", params=["grpc", "rest"])
def client(request: pytest.FixtureRequest, server: LocalServer) -> Iterator[Client]:
    with server.client(transport=request.param) as client:
        yield client


def _fields(descriptor: Any, payload: bytes) -> int:
    """How many fields a message has, the ones of messages inside included."""
    count = 0
    found: Any = UnknownFieldSet(Empty.FromString(payload))
    for each in found:
        count += 1
        field = descriptor.fields_by_number[each.field_number]
        if field.message_type is not None:
            count += _fields(field.message_type, each.data)
    return count


@hypothesis.given(message=messages(v2.PostInputsRequest, depth=6, max_fields=6))
def test_fields_are_counted(message: v2.PostInputsRequest) -> None:
    payload = message.SerializeToString()
    count = _fields(message.DESCRIPTOR, payload)
    assert not has_too_many_fields(message.DESCRIPTOR, payload, count)
    assert not count or has_too_many_fields(message.DESCRIPTOR, payload, count - 1)


@hypothesis.given(payload=st.binary(max_size=200))
def test_any_bytes_can_be_counted(payload: bytes) -> None:
    assert not has_too_many_fields(v2.PostInputsRequest.DESCRIPTOR, payload, 1000)


def test_too_many_items_are_refused_before_they_are_checked(client: Client) -> None:
    request = v2.PostInputsRequest()
    for number in range(20_000):
        request.inputs.add(id=str(number))
    with pytest.raises(errors.InvalidArgumentError, match=r"20000 inputs; the maximum is 1000"):
        client.v2.PostInputs(request)
    listed = v2.ListAnnotationsRequest(per_page=1, user_ids=["u"] * 2000)
    with pytest.raises(errors.InvalidArgumentError, match=r"2000 user_ids; the maximum is 1000"):
        client.v2.ListAnnotations(listed)


def test_too_many_concepts_are_refused(client: Client) -> None:
    request = v2.PostAnnotationsRequest()
    for _ in range(MAX_CONCEPTS // 100 + 1):
        region = request.annotations.add(input_id="a").data.regions.add()
        for number in range(100):
            region.data.concepts.add(id=str(number))
    with pytest.raises(errors.InvalidArgumentError, match=r"more than 13000 concepts"):
        client.v2.PostAnnotations(request)


def test_a_page_that_is_too_large_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.v2.PostInputs(v2.PostInputsRequest(inputs=[text("x" * 5000) for _ in range(3)]))
    monkeypatch.setattr(resource_store, "MAX_PAGE_BYTES", 10_000)
    calls: list[tuple[Any, Any]] = [
        (client.v2.ListInputs, v2.ListInputsRequest(per_page=100)),
        (client.v2.StreamInputs, v2.StreamInputsRequest(per_page=100, descending=True)),
    ]
    for method, request in calls:
        with pytest.raises(errors.InvalidArgumentError, match="fewer items per page"):
            method(request)
        request.per_page = 1
        assert method(request).inputs


def test_an_input_is_found_by_much_metadata_and_a_long_text(client: Client) -> None:
    metadata = {f"key{number}": number for number in range(3000)}
    sent = text("beginning " + "word " * 20_000 + "end", id=f"much-{time.monotonic_ns()}")
    sent.data.metadata.update(metadata)
    client.inputs.create(sent)
    said = v2.Filter()
    said.input.data.text.raw = "word end"
    for condition in (query.has_metadata({"key2999": 2999}), said):
        found = client.search.inputs(condition)
        assert sent.id in {hit.input.id for hit in found}


def test_a_message_that_is_all_fields_is_refused(server: LocalServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary("/clarifai.api.V2/PostInputs")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\x12\x00" * 600_000, metadata=(("authorization", f"Key {server.pat}"),))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "more than 200000 fields" in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": [' + b"1," * 1_000_000 + b"1]}", "more than 1000000 values"),
        (b'{"a": [[' + b"{}," * 120_000 + b"1]]}", "more than 100000 objects"),
    ],
)
def test_json_of_too_many_values_is_refused(server: LocalServer, body: bytes, reason: str) -> None:
    headers = {"authorization": f"Key {server.pat}"}
    response = httpx.post(f"{server.rest_base}/v2/inputs", content=body, headers=headers)
    assert response.status_code == 413
    assert reason in response.json()["status"]["details"]


def test_bodies_and_pictures_share_one_budget(server: LocalServer, client: Client) -> None:
    assert server._service is not None
    budget = server._service.budget
    large = v2.PostModelOutputsRequest(model_id="none")
    large.inputs.add().data.image.base64 = b"x" * (2 << 20)
    once = client.with_options(retry=RetryPolicy(max_attempts=1))
    with budget.take(budget.total // 2):
        with pytest.raises(errors.RateLimitError, match="memory"):
            once.v2.PostModelOutputs(large)
        once.inputs.status()  # small requests go on
    with pytest.raises(errors.NotFoundError):
        once.v2.PostModelOutputs(large)
    assert until(lambda: budget.free == budget.total)


def test_a_picture_waits_for_memory_and_gives_it_back(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server._service is not None
    budget = server._service.budget
    monkeypatch.setattr(ByteBudget.take, "__kwdefaults__", {"wait": 0.05})
    with server.client(retry=RetryPolicy(max_attempts=1)) as client:
        model = client.model("color-recognition", user_id="clarifai", app_id="main")
        picture = image(PIL.Image.new("RGB", (100, 100), "red"))
        with budget.take(budget.total - 1000):
            with pytest.raises(errors.RateLimitError, match="memory"):
                model.predict(picture)
            client.inputs.create(picture)
        assert model.predict(picture).data.colors
        # What could not be looked at for lack of memory was not lost.
        assert until(lambda: client.inputs.status().processed)
    assert until(lambda: budget.free == budget.total)


def test_strangers_send_little_to_methods_that_are_open_to_all(server: LocalServer) -> None:
    url = f"{server.rest_base}/v2/status_codes/10000"
    body = b" " * 100_000
    assert httpx.request("GET", url, content=body).status_code == 401
    headers = {"authorization": f"Key {server.pat}"}
    assert httpx.request("GET", url, content=body, headers=headers).status_code == 200
    assert httpx.get(url).status_code == 200
