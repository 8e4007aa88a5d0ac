"""All 304 methods on both clients, and what every call carries."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from clarigrpc import AsyncClient, Client, errors, v2
from clarigrpc._contract import methods
from clarigrpc.v2 import service_pb2
from tests.both import Both
from tests.conftest import PAT, Connect
from tests.scripted import SUCCESS, Fail, ScriptedServer, refuse, reply

SERVICE = service_pb2.DESCRIPTOR.services_by_name["V2"]
CLIENTS = pytest.mark.parametrize("make", [Client, AsyncClient])
PREFIX = "x-clarifai-request-id-prefix"


def test_the_table_is_the_service() -> None:
    assert len(SERVICE.methods) == 304
    assert methods.names() == sorted(method.name for method in SERVICE.methods)
    for method in SERVICE.methods:
        row = methods.lookup(method.name)
        assert row is methods.lookup(method.name)
        assert row == methods.lookup(row.path)
        assert row.path == f"/{SERVICE.full_name}/{method.name}"
        assert row.request_class().DESCRIPTOR.full_name == method.input_type.full_name
        assert row.response_class().DESCRIPTOR.full_name == method.output_type.full_name
        described = descriptor_pb2.MethodDescriptorProto()
        method.CopyToProto(described)
        assert row.request_streaming is described.client_streaming
        assert row.response_streaming is described.server_streaming
        assert row.has_user_app_id is ("user_app_id" in method.input_type.fields_by_name)
        if row.item_field:
            assert row.item_field in method.output_type.fields_by_name


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
async def test_every_method_can_be_called(both: Both, scripted: ScriptedServer) -> None:
    for method in SERVICE.methods:
        row = methods.lookup(method.name)
        request: Any = row.request_class()()
        answer = reply(row.name)
        scripted.on(row.name, answer)
        if row.response_streaming:
            stream = both.open(row.name, [request] if row.request_streaming else request)
            assert await both.collect(stream) == [answer], row.name
        else:
            assert not row.request_streaming
            assert await both.call(row.name, request) == answer, row.name
    assert [seen.method for seen in scripted.seen] == [method.name for method in SERVICE.methods]


@pytest.mark.parametrize(
    ("name", "idempotent"),
    [
        ("GetModel", True),
        ("ListInputs", True),
        ("StreamInputs", True),
        ("MyScopes", True),
        ("PostModelOutputs", True),
        ("GenerateModelOutputs", True),
        ("PostInputsSearches", True),
        ("PutUploadContentParts", True),
        ("ListNextTaskAssignments", False),
        ("StreamModelOutputs", False),
        ("PostInputs", False),
        ("PatchInputs", False),
        ("DeleteInputs", False),
        ("PostModelVersionsUpload", False),
    ],
)
def test_what_may_be_repeated(name: str, idempotent: bool) -> None:
    assert methods.lookup(name).idempotent is idempotent


@CLIENTS
def test_stubs_are_made_at_first_use(make: Any) -> None:
    client = make(pat=PAT)
    made = client.v2.__dict__.keys()
    assert not made & set(methods.names())
    first = client.v2.GetModel
    assert made & set(methods.names()) == {"GetModel"}
    assert client.v2.GetModel is first
    assert client.channel.shared.current is None  # nothing is connected yet either


@CLIENTS
def test_help_of_the_methods(make: Any) -> None:
    client = make(pat=PAT)
    assert set(methods.names()) <= set(dir(client.v2))
    for name in methods.names():
        multicallable = getattr(client.v2, name)
        text = multicallable.__doc__
        assert text, name
        assert text == methods.lookup(name).documentation()
        assert multicallable.__name__ == name
        first = "request_iterator" if methods.lookup(name).request_streaming else "request"
        assert list(inspect.signature(multicallable).parameters) == [first, "timeout", "metadata"]
        assert name in repr(multicallable)
    with pytest.raises(AttributeError, match="no method 'GetModle'"):
        client.v2.GetModle  # noqa: B018


async def test_a_wrong_request(both: Both, scripted: ScriptedServer) -> None:
    scripted.always("StreamModelOutputs", [])  # whether it arrives before it is cancelled is open
    for wrong in (v2.GetInputRequest(), {"model_id": "m"}, None, b"bytes"):
        with pytest.raises(TypeError, match="GetModel takes a GetModelRequest, not") as caught:
            await both.call("GetModel", wrong)
        assert type(wrong).__name__ in str(caught.value)
    with pytest.raises(TypeError, match="not GetModelRequest"):
        await both.collect(both.open("StreamModelOutputs", [v2.GetModelRequest()]))


IDS = v2.UserAppIDSet(user_id="u", app_id="a")


@pytest.mark.parametrize(
    ("client_ids", "given", "sent"),
    [
        ({}, None, None),
        ({"user_id": "u", "app_id": "a"}, None, IDS),
        ({"user_id": "u"}, None, v2.UserAppIDSet(user_id="u")),
        ({"user_id": "u", "app_id": "a"}, v2.UserAppIDSet(), IDS),
        (
            {"user_id": "u", "app_id": "a"},
            v2.UserAppIDSet(user_id="mine"),
            v2.UserAppIDSet(user_id="mine"),
        ),
        (
            {"user_id": "u", "app_id": "a"},
            v2.UserAppIDSet(app_id="mine"),
            v2.UserAppIDSet(app_id="mine"),
        ),
    ],
)
async def test_user_app_id_is_filled_where_it_is_empty(
    connect: Connect,
    scripted: ScriptedServer,
    client_ids: dict[str, str],
    given: Any,
    sent: Any,
) -> None:
    both = connect(scripted.base, **client_ids)
    scripted.on("GetModel", reply("GetModel"))
    scripted.on("StreamModelOutputs", [reply("StreamModelOutputs")])
    for name in ("GetModel", "StreamModelOutputs"):
        request: Any = methods.lookup(name).request_class()(model_id="m", user_app_id=given)
        before = request.SerializeToString()
        if name == "GetModel":
            await both.call(name, request)
        else:
            await both.collect(both.open(name, [request]))
        assert request.SerializeToString() == before  # the caller's message stays as it was
        arrived = scripted.calls(name)[0].request
        assert arrived.model_id == "m"
        assert arrived.user_app_id == (sent or v2.UserAppIDSet())


async def test_requests_without_user_app_id_stay_as_they_are(
    connect: Connect, scripted: ScriptedServer
) -> None:
    name = "GetStatusCode"
    assert not methods.lookup(name).has_user_app_id
    both = connect(scripted.base, user_id="u", app_id="a")
    scripted.on(name, reply(name))
    request = v2.GetStatusCodeRequest(status_code_id="1")
    await both.call(name, request)
    assert scripted.seen[0].request == request


async def test_request_ids(both: Both, scripted: ScriptedServer) -> None:
    scripted.always("GetModel", reply("GetModel"))
    for _ in range(20):
        await both.call("GetModel", v2.GetModelRequest())
    ids = [seen.metadata[PREFIX] for seen in scripted.seen]
    assert len(set(ids)) == 20
    assert all(ids)


async def test_request_ids_differ_between_clients(
    connect: Connect, scripted: ScriptedServer
) -> None:
    scripted.always("GetModel", reply("GetModel"))
    for _ in range(3):
        await connect(scripted.base).call("GetModel", v2.GetModelRequest())
    assert len({seen.metadata[PREFIX] for seen in scripted.seen}) == 3


async def test_the_caller_s_metadata_and_request_id(
    both: Both, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="clarigrpc")
    scripted.on("GetModel", reply("GetModel"), Fail(grpc.StatusCode.NOT_FOUND))
    await both.call("GetModel", v2.GetModelRequest(), metadata=(("x-mine", "1"),))
    with pytest.raises(errors.NotFoundError) as caught:
        await both.call("GetModel", v2.GetModelRequest(), metadata=((PREFIX, "my-id"),))
    first, second = scripted.seen
    assert first.metadata["x-mine"] == "1"
    assert first.metadata[PREFIX]
    assert first.metadata["authorization"] == f"Key {PAT}"
    assert second.metadata[PREFIX] == "my-id"
    assert caught.value.request_id == "my-id"
    assert "my-id" in caplog.text


async def test_the_id_of_a_stream_ends_in_its_error(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("StreamModelOutputs", Fail(grpc.StatusCode.INTERNAL))
    with pytest.raises(errors.InternalError) as caught:
        await both.collect(both.open("StreamModelOutputs", []))
    assert caught.value.request_id == scripted.seen[0].metadata[PREFIX]
    assert caught.value.method == "StreamModelOutputs"


def foreign_classes() -> tuple[Any, Any]:
    """Message classes of the same names out of another pool, as another package has them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="foreign.proto", package="clarifai.api", syntax="proto3"
    )
    fields = descriptor_pb2.FieldDescriptorProto
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="code", number=1, type=fields.TYPE_INT32, label=1)
    request = file.message_type.add(name="GetModelRequest")
    request.field.add(
        name="user_app_id", number=1, type=fields.TYPE_MESSAGE, label=1,
        type_name=".clarifai.api.Ids",
    )  # fmt: skip
    request.field.add(name="model_id", number=2, type=fields.TYPE_STRING, label=1)
    ids = file.message_type.add(name="Ids")
    ids.field.add(name="user_id", number=1, type=fields.TYPE_STRING, label=1)
    ids.field.add(name="app_id", number=2, type=fields.TYPE_STRING, label=1)
    response = file.message_type.add(name="SingleModelResponse")
    response.field.add(
        name="status", number=1, type=fields.TYPE_MESSAGE, label=1,
        type_name=".clarifai.api.status.Status",
    )  # fmt: skip
    status = descriptor_pb2.FileDescriptorProto(
        name="foreign_status.proto", package="clarifai.api.status", syntax="proto3"
    )
    message = status.message_type.add(name="Status")
    for number, (name, kind) in enumerate(
        (("code", fields.TYPE_INT32), ("description", fields.TYPE_STRING),
         ("details", fields.TYPE_STRING)), 1,
    ):  # fmt: skip
        message.field.add(name=name, number=number, type=kind, label=1)
    message.field.add(name="req_id", number=6, type=fields.TYPE_STRING, label=1)
    file.dependency.append("foreign_status.proto")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(status)  # type: ignore[attr-defined, unused-ignore]
    pool.Add(file)  # type: ignore[attr-defined, unused-ignore]
    found = [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"clarifai.api.{name}"))
        for name in ("GetModelRequest", "SingleModelResponse")
    ]
    return found[0], found[1]


async def test_a_stub_of_another_package_on_our_channel(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, user_id="u", app_id="a")
    request_class, response_class = foreign_classes()
    multicallable = both.client.channel.unary_unary(
        "/clarifai.api.V2/GetModel",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    scripted.on(
        "GetModel",
        Fail(grpc.StatusCode.UNAVAILABLE),
        reply("GetModel"),
        refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST, "none"),
    )
    answer = await both.run(multicallable, request_class(model_id="m"))
    assert type(answer) is response_class
    assert answer.status.code == SUCCESS
    assert scripted.seen[1].request == v2.GetModelRequest(user_app_id=IDS, model_id="m")
    assert scripted.seen[1].metadata["authorization"] == f"Key {PAT}"
    with pytest.raises(errors.NotFoundError, match="none"):
        await both.run(multicallable, request_class(model_id="m"))


async def test_the_generated_stub_on_our_channel(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", reply("GetModel"))
    stub = v2.V2Stub(both.client.channel)
    assert (await both.run(stub.GetModel, v2.GetModelRequest())).status.code == SUCCESS


async def test_bytes_in_and_bytes_out(both: Both, scripted: ScriptedServer) -> None:
    answer = refuse("GetModel", v2.StatusCode.MODEL_DOES_NOT_EXIST)
    scripted.on("GetModel", answer)
    multicallable = both.client.channel.unary_unary("/clarifai.api.V2/GetModel")
    request = v2.GetModelRequest(model_id="m")
    # Without a deserializer nobody looks at the status.
    assert await both.run(multicallable, request.SerializeToString()) == answer.SerializeToString()
    assert scripted.seen[0].request == request


async def test_another_service_on_our_channel(both: Both, scripted: ScriptedServer) -> None:
    def join(requests: Any, context: Any) -> bytes:
        return b"+".join(requests)

    scripted.other("/test.Other/Join", grpc.stream_unary_rpc_method_handler(join))
    multicallable = both.client.channel.stream_unary(
        "/test.Other/Join", request_serializer=str.encode, response_deserializer=bytes.decode
    )
    assert await both.run(multicallable, ["a", "b", "c"]) == "a+b+c"
    missing = both.client.channel.unary_unary("/test.Other/GetModel")
    with pytest.raises(errors.UnimplementedError):
        await both.run(missing, b"")
    assert scripted.unexpected.pop() == "/test.Other/GetModel"


def test_interceptors_on_our_channel(scripted: ScriptedServer) -> None:
    seen: list[str] = []

    class Interceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg, misc, unused-ignore]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            seen.append(details.method)
            return continuation(details, request)

    scripted.on("GetModel", reply("GetModel"), refuse("GetModel", v2.StatusCode.CONN_KEY_INVALID))
    with Client(pat=PAT, base=scripted.base) as client:
        stub = v2.V2Stub(grpc.intercept_channel(client.channel, Interceptor()))
        assert stub.GetModel(v2.GetModelRequest()).status.code == SUCCESS
        with pytest.raises(errors.AuthenticationError):
            stub.GetModel(v2.GetModelRequest())
    assert seen == ["/clarifai.api.V2/GetModel"] * 2
    assert scripted.seen[0].metadata["authorization"] == f"Key {PAT}"
