"""The 100 REST endpoints of the reference pages match bindings and fields of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from clarigrpc.v2 import service_pb2
from tests.contract import tables

ENDPOINTS: list[dict[str, Any]] = json.loads((tables.DATA / "endpoints.json").read_text())
METHODS = service_pb2.DESCRIPTOR.services_by_name["V2"].methods_by_name

# Their numbers were reused with another meaning; the tables have the current one.
GONE_PROPERTIES = {("PostRunners", "cloudRegion"), ("PostRunners", "cloud")}

by_operation = pytest.mark.parametrize(
    "endpoint", ENDPOINTS, ids=[endpoint["operation_id"] for endpoint in ENDPOINTS]
)


def _camel(template: str) -> str:
    """A path template with its parameters as the reference writes them."""

    def parameter(match: re.Match[str]) -> str:
        return re.sub("_([a-z])", lambda m: m[1].upper(), match[0])

    return re.sub(r"\{[^}]*\}", parameter, template)


def _resolves(message: Descriptor | None, path: str) -> bool:
    """Whether a dotted path of JSON names leads to a field."""
    for name in path.split("."):
        if message is None:
            return False
        field = next((f for f in message.fields if f.json_name == name), None)
        if field is None:
            return False
        message = field.message_type
    return True


def _json_names(message: Descriptor) -> set[str]:
    """The JSON names of all fields of a message and of those below it."""
    seen: set[str] = set()

    def walk(current: Any) -> Iterator[str]:
        if current.full_name in seen:
            return
        seen.add(current.full_name)
        for field in current.fields:
            yield field.json_name
            if field.message_type is not None:
                yield from walk(field.message_type)

    return set(walk(message))


def test_there_are_100_endpoints() -> None:
    assert len(ENDPOINTS) == len({e["operation_id"] for e in ENDPOINTS}) == 100
    assert sum(len(e["body_properties"]) for e in ENDPOINTS) == 1883


@by_operation
def test_path_is_a_binding(endpoint: dict[str, Any]) -> None:
    has_body = " body=*" if endpoint["body_schema"] else ""
    expected = f"{endpoint['method']} {endpoint['path']}{has_body}"
    assert expected in {_camel(b) for b in tables.bindings(METHODS[endpoint["rpc"]])}


@by_operation
def test_parameters_resolve(endpoint: dict[str, Any]) -> None:
    request = METHODS[endpoint["rpc"]].input_type
    assert endpoint["path_params"] == re.findall(r"\{([^}]*)\}", endpoint["path"])
    parameters = endpoint["path_params"] + endpoint["query_params"]
    assert [name for name in parameters if not _resolves(request, name)] == []


def test_body_properties_resolve() -> None:
    unresolved = {
        (endpoint["rpc"], name)
        for endpoint in ENDPOINTS
        for name in set(endpoint["body_properties"])
        - _json_names(METHODS[endpoint["rpc"]].input_type)
    }
    assert unresolved == GONE_PROPERTIES
