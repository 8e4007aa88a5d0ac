"""Every method, message and enum says what it is for, also in the `.pyi` files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

import build_protos
from clarigrpc.v2._docs import DOCS
from tests.contract import tables

Path_ = tuple[int, ...]


def test_docs_have_every_top_level_message_and_enum(own_files: list[FileDescriptor]) -> None:
    names = {
        name
        for file in own_files
        for name in (*file.message_types_by_name, *file.enum_types_by_name)
    }
    assert names - DOCS.keys() == set()


def test_docs_have_every_method(own_files: list[FileDescriptor]) -> None:
    names = {f"V2.{method.name}" for method in tables.methods_of(own_files)}
    assert len(names) == 304
    assert names - DOCS.keys() == set()


def test_docs_have_nothing_else(own_files: list[FileDescriptor]) -> None:
    names = {
        name
        for file in own_files
        for name in (*file.message_types_by_name, *file.enum_types_by_name)
    } | {f"V2.{method.name}" for method in tables.methods_of(own_files)}
    assert DOCS.keys() - names == set()


def test_docs_are_sentences() -> None:
    bad = {name: text for name, text in DOCS.items() if len(text) < 12 or text[-1] not in ".)"}
    assert bad == {}


def test_nested_messages_enums_and_extensions_have_comments(tmp_path: Path) -> None:
    missing = [
        name
        for file in _compiled(tmp_path).file
        for name, path in _elements(file)
        if path not in _commented(file)
    ]
    assert missing == []


def _compiled(directory: Path) -> FileDescriptorSet:
    output = directory / "descriptors.bin"
    arguments = [
        "protoc",
        *(f"-I{path}" for path in build_protos._include_directories()),
        "--include_source_info",
        f"--descriptor_set_out={output}",
        *sorted(
            str(p.relative_to(build_protos.PROTOS)) for p in build_protos.PROTOS.rglob("*.proto")
        ),
    ]
    assert protoc.main(arguments) == 0
    return FileDescriptorSet.FromString(output.read_bytes())


def _commented(file: FileDescriptorProto) -> set[Path_]:
    return {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip() or location.trailing_comments.strip()
    }


def _elements(file: FileDescriptorProto) -> Iterator[tuple[str, Path_]]:
    """Name and source path of each message, enum, extension and service of a file."""
    for index, message in enumerate(file.message_type):
        yield from _message_elements(message, (4, index))
    for index, enum in enumerate(file.enum_type):
        yield enum.name, (5, index)
    for index, service in enumerate(file.service):
        yield service.name, (6, index)
    for index, extension in enumerate(file.extension):
        yield extension.name, (7, index)


def _message_elements(message: DescriptorProto, path: Path_) -> Iterator[tuple[str, Path_]]:
    yield message.name, path
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message_elements(nested, (*path, 3, index))
    for index, enum in enumerate(message.enum_type):
        yield enum.name, (*path, 4, index)
