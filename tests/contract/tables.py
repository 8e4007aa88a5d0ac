"""The contract tables of tests/data, and descriptors written down as rows of the same form.

Tables and descriptors are compared as dictionaries of equal rows, so one comparison finds what is
missing, what is different and what is too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
)

from clarigrpc._descriptor_pool import POOL
from clarigrpc.v2 import (
    auth_options_pb2,
    auth_scopes_pb2,
    auth_types_pb2,
    field_options_pb2,
)

DATA = Path(__file__).resolve().parent.parent / "data"
DEPRECATED = "deprecated"

K = TypeVar("K")
V = TypeVar("V")


class Field(NamedTuple):
    number: int
    type: str
    label: str
    oneof: str
    options: frozenset[str]


class EnumValue(NamedTuple):
    number: int
    options: tuple[str, ...]


class Extension(NamedTuple):
    number: int
    extendee: str
    type: str
    label: str


class Method(NamedTuple):
    request: str
    response: str
    request_kind: str
    response_kind: str
    bindings: tuple[str, ...]
    options: tuple[str, ...]


def read(name: str) -> list[dict[str, str]]:
    """The rows of a table by column name."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    # A row whose last columns are empty may be shorter.
    return [
        dict(zip(columns, [*cells, *[""] * (len(columns) - len(cells))], strict=True))
        for cells in (line.split("\t") for line in lines[1:])
    ]


def assert_same(expected: dict[K, V], actual: dict[K, V]) -> None:
    """Fail with one line for each key that is missing, unexpected or has another value."""
    lines = []
    for key in sorted(expected.keys() | actual.keys(), key=str):
        if key not in actual:
            lines.append(f"missing: {key}")
        elif key not in expected:
            lines.append(f"unexpected: {key}")
        elif expected[key] != actual[key]:
            lines.append(f"{key}: expected {expected[key]}, got {actual[key]}")
    assert not lines, "\n".join(lines)


# The tables.


def _options(row: dict[str, str], separator: str | None = None) -> list[str]:
    """Options of a row; a retired row is deprecated."""
    options = [option.strip() for option in row["options"].split(separator) if option.strip()]
    if row["era"] == "retired" and DEPRECATED not in options:
        options.insert(0, DEPRECATED)
    return options


def table_messages() -> set[str]:
    return {row["message"] for row in read("fields.tsv")}


def table_fields() -> dict[tuple[str, str], Field]:
    return {
        (row["message"], row["field"]): Field(
            int(row["number"]),
            row["type"],
            row["label"],
            row["oneof"],
            frozenset(_options(row)),
        )
        for row in read("fields.tsv")
        if row["field"]
    }


def table_empty_messages() -> set[str]:
    return {row["message"] for row in read("fields.tsv") if not row["field"]}


def table_enum_values() -> dict[tuple[str, str], EnumValue]:
    return {
        (row["enum"], row["value"]): EnumValue(int(row["number"]), tuple(_options(row, " ; ")))
        for row in read("enums.tsv")
    }


def table_extensions() -> dict[str, Extension]:
    return {
        row["extension"]: Extension(int(row["number"]), row["extendee"], row["type"], row["label"])
        for row in read("extensions.tsv")
    }


def table_methods() -> dict[str, Method]:
    return {
        row["rpc"]: Method(
            row["request"],
            row["response"],
            row["request_kind"],
            row["response_kind"],
            tuple(binding.strip() for binding in row["http"].split(" | ")),
            tuple(_options(row, " ; ")),
        )
        for row in read("rpcs.tsv")
    }


def retired_fields() -> frozenset[str]:
    """Full names of the fields that today's service does not list."""
    return frozenset(
        f"{row['message']}.{row['field']}" for row in read("fields.tsv") if row["era"] == "retired"
    )


def retired_methods() -> frozenset[str]:
    return frozenset(row["rpc"] for row in read("rpcs.tsv") if row["era"] == "retired")


# Descriptors.


def messages_of(files: Iterable[FileDescriptor]) -> Iterator[Descriptor]:
    """All messages, nested ones too, without the entry messages of maps."""

    def walk(message: Any) -> Iterator[Descriptor]:
        if message.GetOptions().map_entry:
            return
        yield message
        for nested in message.nested_types:
            yield from walk(nested)

    for file in files:
        for message in file.message_types_by_name.values():
            yield from walk(message)


def enums_of(files: Iterable[FileDescriptor]) -> Iterator[EnumDescriptor]:
    files = list(files)
    for file in files:
        yield from file.enum_types_by_name.values()
    for message in messages_of(files):
        yield from message.enum_types


def methods_of(files: Iterable[FileDescriptor]) -> Iterator[MethodDescriptor]:
    for file in files:
        for service in file.services_by_name.values():
            yield from service.methods


def fields(files: Iterable[FileDescriptor]) -> dict[tuple[str, str], Field]:
    return {
        (message.full_name, field.name): Field(
            field.number,
            _type(field),
            _label(field),
            _oneof(field),
            frozenset(_field_options(field)),
        )
        for message in messages_of(files)
        for field in message.fields
    }


def enum_values(files: Iterable[FileDescriptor]) -> dict[tuple[str, str], EnumValue]:
    return {
        (enum.full_name, value.name): EnumValue(value.number, tuple(_enum_value_options(value)))
        for enum in enums_of(files)
        for value in enum.values
    }


def extensions(files: Iterable[FileDescriptor]) -> dict[str, Extension]:
    return {
        extension.full_name: Extension(
            extension.number,
            str(extension.containing_type.full_name),
            _type(extension),
            "repeated" if extension.is_repeated else "optional",
        )
        for file in files
        for extension in file.extensions_by_name.values()
        if extension.containing_type is not None
    }


def methods(files: Iterable[FileDescriptor]) -> dict[str, Method]:
    return {
        method.name: Method(
            method.input_type.full_name,
            method.output_type.full_name,
            "stream" if method.client_streaming else "unary",
            "stream" if method.server_streaming else "unary",
            bindings(method),
            tuple(_method_options(method)),
        )
        for method in methods_of(files)
    }


def bindings(method: MethodDescriptor) -> tuple[str, ...]:
    """HTTP bindings as ``VERB path`` with `` body=*`` where there is a body, primary first."""
    rule = own_options(method).Extensions[_http()]
    return tuple(_binding(each) for each in (rule, *rule.additional_bindings))


def own_options(descriptor: Any) -> Any:
    """Options of a descriptor of any pool, with the extensions of our pool known."""
    options = descriptor.GetOptions()
    name = options.DESCRIPTOR.full_name
    return _options_class(name).FromString(options.SerializeToString())


@cache
def _options_class(full_name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


@cache
def _http() -> Any:
    return POOL.FindExtensionByName("google.api.http")


def _binding(rule: Any) -> str:
    verb = rule.WhichOneof("pattern")
    assert not rule.additional_bindings or verb is not None
    assert not rule.response_body
    body = f" body={rule.body}" if rule.body else ""
    return f"{verb.upper()} {getattr(rule, verb)}{body}"


_SCALARS = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        *("double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string"),
        *("bytes", "uint32", "sfixed32", "sfixed64", "sint32", "sint64"),
    )
}


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _type(field: FieldDescriptor) -> str:
    if _is_map(field):
        assert field.message_type is not None
        entry = field.message_type.fields_by_name
        return f"map<{_type(entry['key'])},{_type(entry['value'])}>"
    if field.message_type is not None:
        return str(field.message_type.full_name)
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    return _SCALARS[field.type]


def _label(field: FieldDescriptor) -> str:
    if _is_map(field):
        return "map"
    return "repeated" if field.is_repeated else "singular"


def _oneof(field: FieldDescriptor) -> str:
    oneof = field.containing_oneof
    if oneof is None:
        return ""
    # proto3 `optional` is a oneof of its own with this name.
    return "(optional)" if oneof.name == f"_{field.name}" else str(oneof.name)


def _field_options(field: FieldDescriptor) -> Iterator[str]:
    options = own_options(field)
    if options.deprecated:
        yield DEPRECATED
    if options.HasField("packed"):
        yield f"packed={str(options.packed).lower()}"
    for extension in (
        field_options_pb2.cl_show_if_empty,
        field_options_pb2.cl_moretags,
        field_options_pb2.cl_default_float,
        auth_options_pb2.cl_private_field,
    ):
        if options.HasExtension(extension):
            yield f"{extension.name}={options.Extensions[extension]}"


def _enum_value_options(value: Any) -> Iterator[str]:
    options = own_options(value)
    if options.deprecated:
        yield DEPRECATED
    if options.HasExtension(auth_scopes_pb2.clarfai_exposed):
        exposed = options.Extensions[auth_scopes_pb2.clarfai_exposed]
        yield f"clarifai.auth.scope.clarfai_exposed={exposed}"
    if scopes := options.Extensions[auth_scopes_pb2.clarifai_depending_scopes]:
        yield f"clarifai.auth.scope.clarifai_depending_scopes={_scopes(scopes)}"
    if options.HasExtension(field_options_pb2.description):
        text = options.Extensions[field_options_pb2.description]
        yield f"clarifai.api.utils.description={text}"


def _method_options(method: MethodDescriptor) -> Iterator[str]:
    options = own_options(method)
    if options.deprecated:
        yield DEPRECATED
    if options.HasExtension(auth_options_pb2.cl_private_rpc):
        private = options.Extensions[auth_options_pb2.cl_private_rpc]
        yield f"clarifai.auth.util.cl_private_rpc={private}"
    if scopes := options.Extensions[auth_options_pb2.cl_depending_scopes]:
        yield f"clarifai.auth.util.cl_depending_scopes={_scopes(scopes)}"
    if options.HasExtension(auth_options_pb2.cl_auth_type):
        auth_type = auth_types_pb2.AuthType.Name(options.Extensions[auth_options_pb2.cl_auth_type])
        yield f"clarifai.auth.util.cl_auth_type={auth_type}"


def _scopes(numbers: Iterable[Any]) -> str:
    return ",".join(auth_scopes_pb2.S.Name(number) for number in numbers)
