"""The generated stub of the service, except that its multicallables are made when first used."""

from __future__ import annotations

from typing import Any

import grpc

from clarigrpc._contract.methods import lookup, names


class LazyStub:
    """What ``client.v2`` is: a ``V2Stub`` for type checkers."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        try:
            method = lookup(name)
        except KeyError:
            raise AttributeError(f"the V2 service has no method {name!r}") from None
        multicallable = method.factory(self._channel)(
            method.path,
            request_serializer=method.request_class().SerializeToString,
            response_deserializer=method.response_class().FromString,
        )
        self.__dict__[name] = multicallable
        return multicallable

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name.startswith("__")] + list(names())
