"""What the contract says about the scopes of keys and the credentials of methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import message_factory

from clarigrpc import v2
from clarigrpc._descriptor_pool import POOL
from clarigrpc.v2 import auth_options_pb2, auth_scopes_pb2, service_pb2


def _options(name: str, raw: bytes) -> Any:
    # The options classes of the default pool do not know the extensions of our pool.
    descriptor = POOL.FindMessageTypeByName(f"google.protobuf.{name}")
    return message_factory.GetMessageClass(descriptor).FromString(raw)


_SCOPE_ENUM = auth_scopes_pb2.DESCRIPTOR.enum_types_by_name["S"]


def _scope_table() -> dict[str, frozenset[str]]:
    table = {}
    for value in _SCOPE_ENUM.values:
        options = _options("EnumValueOptions", value.GetOptions().SerializeToString())
        if options.Extensions[auth_scopes_pb2.clarfai_exposed]:
            table[value.name] = frozenset(
                _SCOPE_ENUM.values_by_number[number].name
                for number in options.Extensions[auth_scopes_pb2.clarifai_depending_scopes]
            )
    return table


_METHOD_OPTIONS = {
    method.name: _options("MethodOptions", method.GetOptions().SerializeToString()).Extensions
    for method in service_pb2.DESCRIPTOR.services_by_name["V2"].methods
}
_AUTH_TYPES = {
    name: found[auth_options_pb2.cl_auth_type] for name, found in _METHOD_OPTIONS.items()
}
_METHOD_SCOPES = {
    name: frozenset(
        _SCOPE_ENUM.values_by_number[number].name
        for number in found[auth_options_pb2.cl_depending_scopes]
    )
    for name, found in _METHOD_OPTIONS.items()
}

SCOPES: Mapping[str, frozenset[str]] = _scope_table()
"""Every scope that a key can have, with the scopes that it cannot work without."""


def auth_type(method: str) -> v2.AuthType.ValueType:
    """The kind of credential that a method asks for."""
    return _AUTH_TYPES[method]  # type: ignore[no-any-return]


def depending_scopes(method: str) -> frozenset[str]:
    """Names of the scopes that a key needs for a method."""
    return _METHOD_SCOPES[method]


def expand(names: Iterable[str]) -> frozenset[str] | None:
    """Scopes with all that they depend on; None where they allow everything."""
    found: set[str] = set()
    todo = [name.replace(":", "_") for name in names]
    if "All" in todo:
        return None
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += SCOPES.get(name, ())
    return frozenset(found)
