"""The four factory methods of gRPC's channels, made from one.

``grpc.Channel`` and ``grpc.aio.Channel`` have a method for each kind of call, all with the same
arguments. A channel here says once what it makes of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from clarigrpc._contract.methods import CallKind
from clarigrpc._rpc.call import Deserializer, Serializer
from clarigrpc._rpc.connected import Connected


class ChannelMethods(Connected, ABC):
    """Base of a channel, before ``grpc.Channel`` or ``grpc.aio.Channel``."""

    @abstractmethod
    def multicallable(
        self,
        kind: CallKind,
        path: str,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> Any:
        """The multicallable of a method.

        Args:
            kind: CallKind of its calls.
            path: ``/clarifai.api.V2/PostInputs``.
            serialize: Request message -> bytes; None for requests that are bytes.
            deserialize: Bytes -> response message; None for responses as bytes.
        """

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for one request and one response."""
        return self.multicallable("unary_unary", method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for one request and a stream of responses."""
        return self.multicallable("unary_stream", method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for a stream of requests and one response."""
        return self.multicallable("stream_unary", method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """A multicallable for a stream of requests and a stream of responses."""
        return self.multicallable(
            "stream_stream", method, request_serializer, response_deserializer
        )
