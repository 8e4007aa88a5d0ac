"""Our descriptors against the contract tables, in both directions."""

from __future__ import annotations

from collections import Counter
from importlib import import_module

from google.protobuf.descriptor import FileDescriptor

from clarigrpc import v2
from clarigrpc.v2 import _index
from tests.contract import tables

# Bindings that the service's reference documents and the table does not have.
RUNNERS = "/v2/users/{user_app_id.user_id}/runners"
EXTRA_BINDINGS = {
    "PostRunners": (f"POST {RUNNERS} body=*",),
    "DeleteRunners": (f"DELETE {RUNNERS} body=*",),
    "ListRunnerItems": (f"GET {RUNNERS}/{{runner_id}}/items",),
    "PostRunnerItemOutputs": (
        f"POST {RUNNERS}/{{runner_id}}/items/{{runner_item_id}}/outputs body=*",
    ),
}


def test_tables_are_complete() -> None:
    sizes = {
        name: len(tables.read(f"{name}.tsv")) for name in ("rpcs", "fields", "enums", "extensions")
    }
    assert sizes == {"rpcs": 304, "fields": 3044, "enums": 892, "extensions": 11}
    assert len(tables.table_messages()) == 757


def test_methods(own_files: list[FileDescriptor]) -> None:
    expected = {
        name: row._replace(bindings=row.bindings + EXTRA_BINDINGS.get(name, ()))
        for name, row in tables.table_methods().items()
    }
    tables.assert_same(expected, tables.methods(own_files))
    services = {s.full_name for file in own_files for s in file.services_by_name.values()}
    assert services == {"clarifai.api.V2"}


def test_fields(own_files: list[FileDescriptor]) -> None:
    tables.assert_same(tables.table_fields(), tables.fields(own_files))


def test_messages(own_files: list[FileDescriptor]) -> None:
    messages = {message.full_name: message for message in tables.messages_of(own_files)}
    assert messages.keys() == tables.table_messages()
    empty = {name for name, message in messages.items() if not message.fields}
    assert empty == tables.table_empty_messages()


def test_messages_that_only_retired_methods_use_are_deprecated(
    own_files: list[FileDescriptor],
) -> None:
    rows = tables.read("fields.tsv")
    current = {row["message"] for row in rows if row["era"] == "current"}
    retired = {row["message"] for row in rows} - current
    assert retired
    kept = {
        message.full_name
        for message in tables.messages_of(own_files)
        if message.full_name in retired and not message.GetOptions().deprecated
    }
    assert not kept


def test_enums(own_files: list[FileDescriptor]) -> None:
    tables.assert_same(tables.table_enum_values(), tables.enum_values(own_files))


def test_enums_with_two_names_for_a_number_allow_aliases(own_files: list[FileDescriptor]) -> None:
    numbers = Counter((enum, row.number) for (enum, _), row in tables.table_enum_values().items())
    expected = {enum for (enum, _), count in numbers.items() if count > 1}
    actual = {e.full_name for e in tables.enums_of(own_files) if e.GetOptions().allow_alias}
    assert actual == expected == {"clarifai.api.status.StatusCode"}


def test_extensions(own_files: list[FileDescriptor]) -> None:
    tables.assert_same(tables.table_extensions(), tables.extensions(own_files))


def test_files_use_proto3(own_files: list[FileDescriptor]) -> None:
    # A field without `optional` has no presence in proto3; editions and proto2 differ.
    scalars = [
        field.full_name
        for message in tables.messages_of(own_files)
        for field in message.fields
        if field.has_presence and field.message_type is None and field.containing_oneof is None
    ]
    assert scalars == []


def test_index_names_every_top_level_type(own_files: list[FileDescriptor]) -> None:
    expected = {"V2Stub": "service_pb2_grpc"}
    for file in own_files:
        module = file.name.removeprefix("clarigrpc/v2/").removesuffix(".proto") + "_pb2"
        for name in (*file.message_types_by_name, *file.enum_types_by_name):
            assert name not in expected, f"two top-level types named {name}"
            expected[name] = module
    assert expected == _index.MODULES
    assert sorted(expected) == import_module("clarigrpc.v2").__all__
    assert set(expected) <= set(dir(v2))


def test_index_names_resolve_to_the_class_of_the_descriptor(
    own_files: list[FileDescriptor],
) -> None:
    for file in own_files:
        for name, message in file.message_types_by_name.items():
            assert getattr(v2, name).DESCRIPTOR is message
        for name, enum in file.enum_types_by_name.items():
            assert getattr(v2, name).DESCRIPTOR is enum


def test_index_of_methods(own_files: list[FileDescriptor]) -> None:
    actual = {}
    for method in tables.methods_of(own_files):
        user_app_id = method.input_type.fields_by_name.get("user_app_id")
        actual[method.name] = (
            method.input_type.name,
            method.output_type.name,
            bool(method.client_streaming),
            bool(method.server_streaming),
            user_app_id is not None
            and user_app_id.message_type is not None
            and user_app_id.message_type.full_name == "clarifai.api.UserAppIDSet",
            bool(method.GetOptions().deprecated),
        )
    tables.assert_same({k: v[:6] for k, v in _index.METHODS.items()}, actual)


def test_index_item_field_is_repeated_and_its_items_have_a_status(
    own_files: list[FileDescriptor],
) -> None:
    for method in tables.methods_of(own_files):
        item_field = _index.METHODS[method.name][6]
        candidates = [
            field.name
            for field in method.output_type.fields
            if field.is_repeated
            and field.message_type is not None
            and any(
                f.message_type is not None and f.message_type.full_name.endswith(".status.Status")
                for f in field.message_type.fields
            )
        ]
        assert item_field == (candidates[0] if candidates else ""), method.name
