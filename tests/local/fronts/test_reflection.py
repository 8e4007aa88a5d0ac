"""What tools like grpcurl do: they know nothing but the address, and ask for the rest."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from clarigrpc import v2
from clarigrpc.v2._index import METHODS
from tests.local.conftest import Raw


def test_every_method_can_be_called_by_reflection(raw: Raw) -> None:
    with grpc.insecure_channel(raw.server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "clarifai.api.V2",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        service = descriptor_pool.DescriptorPool(database).FindServiceByName("clarifai.api.V2")
        assert {method.name for method in service.methods} == set(METHODS)
        for method in service.methods:
            answer = _call(raw, channel, method)
            assert answer is grpc.StatusCode.UNIMPLEMENTED or answer.status.code, method.name
        listed = _call(
            raw,
            channel,
            service.methods_by_name["ListModels"],
            user_app_id={"user_id": "clarifai", "app_id": "main"},
        )
        assert "color-recognition" in {model.id for model in listed.models}
        assert listed.status.code == v2.StatusCode.SUCCESS


def _call(raw: Raw, channel: grpc.Channel, method: MethodDescriptor, **fields: Any) -> Any:
    """The first response, or the gRPC status of a call without one."""
    request = json_format.ParseDict(fields, message_factory.GetMessageClass(method.input_type)())
    kind = f"{'stream' if method.client_streaming else 'unary'}_" + (
        "stream" if method.server_streaming else "unary"
    )
    call = getattr(channel, kind)(
        f"/clarifai.api.V2/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    try:
        answer = call(
            iter([request]) if method.client_streaming else request,
            metadata=raw.metadata,
            timeout=20,
        )
        return next(iter(answer)) if method.server_streaming else answer
    except grpc.RpcError as error:
        return error.code()
