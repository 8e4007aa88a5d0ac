"""Everything that the published package has exists in ours, the same."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.descriptor import FileDescriptor

from tests.contract import tables
from tests.contract.test_tables import EXTRA_BINDINGS

K = TypeVar("K")
V = TypeVar("V")


def _shared(ours: dict[K, V], theirs: dict[K, V]) -> dict[K, V]:
    return {key: value for key, value in ours.items() if key in theirs}


def test_messages(own_files: list[FileDescriptor], peer_files: list[FileDescriptor]) -> None:
    ours = {message.full_name for message in tables.messages_of(own_files)}
    theirs = {message.full_name for message in tables.messages_of(peer_files)}
    assert len(theirs) > 600
    assert theirs - ours == set()


def test_fields(own_files: list[FileDescriptor], peer_files: list[FileDescriptor]) -> None:
    theirs = tables.fields(peer_files)
    assert len(theirs) > 2500
    tables.assert_same(theirs, _shared(tables.fields(own_files), theirs))


def test_json_names(own_files: list[FileDescriptor], peer_files: list[FileDescriptor]) -> None:
    def json_names(files: list[FileDescriptor]) -> dict[str, str]:
        return {
            field.full_name: field.json_name
            for message in tables.messages_of(files)
            for field in message.fields
        }

    theirs = json_names(peer_files)
    tables.assert_same(theirs, _shared(json_names(own_files), theirs))


def test_presence_and_packing(
    own_files: list[FileDescriptor], peer_files: list[FileDescriptor]
) -> None:
    def wire_forms(files: list[FileDescriptor]) -> dict[str, tuple[bool, bool]]:
        return {
            field.full_name: (field.has_presence, field.is_packed)
            for message in tables.messages_of(files)
            for field in message.fields
        }

    theirs = wire_forms(peer_files)
    tables.assert_same(theirs, _shared(wire_forms(own_files), theirs))


def test_enum_values(own_files: list[FileDescriptor], peer_files: list[FileDescriptor]) -> None:
    def enum_values(files: list[FileDescriptor]) -> dict[tuple[str, str], tables.EnumValue]:
        # Texts for users are prose, and not part of the contract.
        return {
            key: row._replace(options=tuple(o for o in row.options if ".description=" not in o))
            for key, row in tables.enum_values(files).items()
        }

    theirs = enum_values(peer_files)
    assert len(theirs) > 800
    tables.assert_same(theirs, _shared(enum_values(own_files), theirs))


def test_extensions(own_files: list[FileDescriptor], peer_files: list[FileDescriptor]) -> None:
    theirs = tables.extensions(peer_files)
    assert len(theirs) == 11
    tables.assert_same(theirs, tables.extensions(own_files))


def test_methods(own_files: list[FileDescriptor], peer_files: list[FileDescriptor]) -> None:
    theirs = {
        name: row._replace(bindings=row.bindings + EXTRA_BINDINGS.get(name, ()))
        for name, row in tables.methods(peer_files).items()
    }
    assert len(theirs) == len(tables.table_methods()) - len(tables.retired_methods())
    tables.assert_same(theirs, _shared(tables.methods(own_files), theirs))


def test_only_retired_rows_are_ours_alone(
    own_files: list[FileDescriptor], peer_files: list[FileDescriptor]
) -> None:
    fields = tables.fields(own_files).keys() - tables.fields(peer_files).keys()
    assert {".".join(key) for key in fields} == tables.retired_fields() - {
        f"{message}." for message in tables.table_empty_messages()
    }
    methods = tables.methods(own_files).keys() - tables.methods(peer_files).keys()
    assert methods == tables.retired_methods()
