"""``clarigrpc call --describe``: what a method takes, returns and needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from clarigrpc import v2
from clarigrpc._contract.method_scopes import auth_type, depending_scopes
from clarigrpc._contract.methods import Method
from clarigrpc._transports.transcoding import bindings
from clarigrpc.cli.message_json import is_map
from clarigrpc.cli.output import terminal
from clarigrpc.v2 import _docs, _field_docs

_SCALAR_NAMES = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}
_CREDENTIALS = {
    "KeyAuth": "API key, personal access token or session token",
    "PATAuth": "personal access token or session token",
    "SessionTokenAuth": "session token",
    "NoAuth": "none",
}
# Messages that are a single value as JSON.
_WRAPPED: Mapping[str, Any] = {
    "google.protobuf.BoolValue": False,
    "google.protobuf.BytesValue": "",
    "google.protobuf.StringValue": "",
} | {
    f"google.protobuf.{name}Value": 0
    for name in ("Double", "Float", "Int32", "Int64", "UInt32", "UInt64")
}
_SKELETON_DEPTH = 2
_SKELETON_FIELDS = 8


def as_tree(row: Method) -> dict[str, Any]:
    """The description of a method as plain values, for JSON."""
    request, response = row.request_class().DESCRIPTOR, row.response_class().DESCRIPTOR
    return {
        "method": row.name,
        "path": row.path,
        "description": row.documentation(),
        "deprecated": row.deprecated,
        "request_streaming": row.request_streaming,
        "response_streaming": row.response_streaming,
        "idempotent": row.idempotent,
        "scopes": sorted(depending_scopes(row.name)),
        "credential": _credential(row),
        "http": _addresses(row),
        "request": {"message": row.request_name, "fields": fields_of(request)},
        "response": {"message": row.response_name, "fields": fields_of(response)},
        "skeleton": skeleton(request),
    }


def show(row: Method) -> None:
    """Print the description of a method."""
    console = terminal()
    for part in _parts(row):
        # Addresses and JSON are copied: a terminal may wrap them, but no line end comes in.
        console.print(part, soft_wrap=isinstance(part, Text))


def skeleton(descriptor: Descriptor, depth: int = _SKELETON_DEPTH) -> dict[str, Any]:
    """A message to fill in, as plain values; of alternatives it has the first."""
    found: dict[str, Any] = {}
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and field != oneof.fields[0]:
            continue
        if not _is_deprecated(field):
            value = _example(field, depth)
            found[field.name] = [value] if field.is_repeated and not is_map(field) else value
    return found


def _credential(row: Method) -> str:
    name = v2.AuthType.Name(auth_type(row.name))
    return _CREDENTIALS.get(name, name)


def _addresses(row: Method) -> list[str]:
    return [f"{one.verb} {one.template}" for one in bindings(row.name)]


def _example(field: FieldDescriptor, depth: int) -> Any:
    message = field.message_type
    if message is not None:
        if message.full_name == "google.protobuf.Timestamp":
            return "2030-01-31T12:00:00Z"
        if message.full_name == "google.protobuf.Duration":
            return "60s"
        if message.full_name == "google.protobuf.FieldMask":
            return ""
        if message.full_name in _WRAPPED:
            return _WRAPPED[message.full_name]
        if message.full_name.startswith("google.protobuf.") or is_map(field):
            return [] if message.name == "ListValue" else {}
        if depth <= 0 or len(message.fields) > _SKELETON_FIELDS * depth:
            return {}
        return skeleton(message, depth - 1)
    if field.enum_type is not None:
        return field.enum_type.values[0].name
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        return ""
    if field.type == field.TYPE_BOOL:
        return False
    return 0


def _is_deprecated(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().deprecated)


def _type_of(field: FieldDescriptor) -> str:
    if field.message_type is not None and is_map(field):
        entry = field.message_type.fields_by_name
        return f"map<{_type_of(entry['key'])}, {_type_of(entry['value'])}>"
    if field.message_type is not None:
        name = name_of(field.message_type)
    elif field.enum_type is not None:
        name = name_of(field.enum_type)
    else:
        name = _SCALAR_NAMES.get(field.type, str(field.type))
    return f"repeated {name}" if field.is_repeated else name


def name_of(kind: Descriptor | EnumDescriptor) -> str:
    """The name of a message or enum, behind that of the message that it is written in."""
    name = str(kind.name)
    outer = kind.containing_type
    return name if outer is None else f"{outer.name}.{name}"


def fields_of(descriptor: Descriptor) -> list[dict[str, Any]]:
    """The fields of a message as plain values: name, type, description, whether deprecated."""
    return [
        {
            "name": field.name,
            "type": _type_of(field),
            "description": _comment(descriptor, field),
            "deprecated": _is_deprecated(field),
        }
        for field in descriptor.fields
    ]


def _comment(descriptor: Descriptor, field: FieldDescriptor) -> str:
    """The comment of a field, or that of its type."""
    own = _field_docs.FIELD_DOCS.get(f"{descriptor.name}.{field.name}", "")
    kind = field.message_type or field.enum_type
    return own or (_docs.DOCS.get(kind.name, "") if kind is not None else "")


def _parts(row: Method) -> Iterator[RenderableType]:
    yield Text(row.name, style="bold")
    yield Padding(Text(row.documentation()), (0, 0, 1, 2), expand=False)
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(row):
        facts.add_row(name, Text(text))
    yield Padding(facts, (0, 0, 0, 2), expand=False)
    if addresses := _addresses(row):
        yield Text("\nHTTP", style="bold")
        yield from (Text(f"  {address}") for address in addresses)
    for heading, name, message in (
        ("Request", row.request_name, row.request_class()),
        ("Response", row.response_name, row.response_class()),
    ):
        yield from _message(heading, name, message.DESCRIPTOR)
    yield Text("\nA request to fill in", style="bold")
    yield Text(json.dumps(skeleton(row.request_class().DESCRIPTOR), indent=2))


def _facts(row: Method) -> Iterator[tuple[str, str]]:
    if row.deprecated:
        yield "Deprecated", "yes"
    if row.request_streaming:
        yield "Takes", "a stream of requests, a line of JSON each"
    if row.response_streaming:
        yield "Returns", "a stream of responses"
    yield "Credential", _credential(row)
    yield "Scopes", ", ".join(sorted(depending_scopes(row.name))) or "none"
    yield (
        "Sent again",
        "after failures that may pass" if row.idempotent else "only if it was not sent",
    )


def _message(heading: str, name: str, descriptor: Descriptor) -> Iterator[RenderableType]:
    yield Text.assemble((f"\n{heading}: ", "bold"), (name, "bold"))
    if text := _docs.DOCS.get(name):
        yield Padding(Text(text), (0, 0, 0, 2), expand=False)
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    table.add_column(ratio=1)
    for field in fields_of(descriptor):
        note = "Deprecated. " if field["deprecated"] else ""
        table.add_row(field["name"], field["type"], Text(note + field["description"]))
    if descriptor.fields:
        yield table
    else:
        yield Padding(Text("no fields"), (1, 0, 1, 2))
