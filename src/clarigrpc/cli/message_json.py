"""Messages as JSON, and requests out of JSON or of ``FIELD=VALUE``."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from clarigrpc._contract.methods import Method
from clarigrpc._descriptor_pool import POOL

_WRITTEN_AS_TEXT = {
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
}


def to_json(message: Message, *, indent: int | None = None) -> str:
    """A message as proto3 JSON with the names of the protos; on one line without ``indent``.

    Raises:
        ClickException: It holds a value without a JSON form, such as NaN in metadata.
    """
    try:
        return json_format.MessageToJson(
            message,
            preserving_proto_field_name=True,
            indent=indent,
            ensure_ascii=False,
            descriptor_pool=POOL,
        )
    except (json_format.Error, ValueError, OverflowError) as error:
        raise click.ClickException(f"the response cannot be written as JSON: {error}") from error


def to_tree(message: Message) -> Any:
    """A message as the plain values of its JSON.

    Raises:
        ClickException: It holds a value without a JSON form, such as NaN in metadata.
    """
    return json.loads(to_json(message))


def request_of_json(row: Method, text: str) -> Message:
    """The request of a method that a JSON text describes.

    Raises:
        UsageError: It is not JSON, or no request of the method.
    """
    tree = json_of(text, "the request")
    if not isinstance(tree, dict):
        raise click.UsageError(f"a {row.request_name} is written as a JSON object: {{...}}")
    return _request_of_tree(row, tree)


def json_of(text: str, what: str) -> Any:
    """The value of a JSON text; ``what`` names it in errors.

    Raises:
        UsageError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:  # an integer of thousands of digits, too
        raise click.UsageError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise click.UsageError(f"{what} is nested too deeply") from None


def request_of_words(row: Method, words: Sequence[str]) -> Message:
    """The request of a method that words like ``page=2`` or ``user_app_id.user_id=me`` describe.

    Raises:
        UsageError: A word is no assignment, names no field, or its value does not fit.
    """
    tree: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"{word!r} is neither JSON, @FILE, - nor FIELD=VALUE")
        _assign(tree, row.request_class().DESCRIPTOR, path, value)
    return _request_of_tree(row, tree)


def _assign(tree: dict[str, Any], descriptor: Descriptor, path: str, text: str) -> None:
    *outer, last = path.split(".")
    for name in outer:
        field = _field(descriptor, name)
        if not has_fields(field):
            raise click.UsageError(f"{name!r} has no fields of its own; give it as JSON")
        assert field.message_type is not None
        tree = tree.setdefault(name, {})
        descriptor = field.message_type
    field = _field(descriptor, last)
    if field.is_repeated and not is_map(field):
        value = json_of(text, path) if text.startswith("[") else [_scalar(field, path, text)]
        tree[last] = [*tree.get(last, []), *value]
    else:
        tree[last] = _scalar(field, path, text)


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor:
    field = descriptor.fields_by_name.get(name)
    if field is None:
        known = ", ".join(one.name for one in descriptor.fields)
        raise click.UsageError(f"{descriptor.name} has no field {name!r}; it has {known}")
    return field


def has_fields(field: FieldDescriptor) -> bool:
    """Whether the fields inside a field can be assigned one by one."""
    return (
        field.message_type is not None
        and not field.is_repeated
        and not field.message_type.full_name.startswith("google.protobuf.")
    )


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _scalar(field: FieldDescriptor, path: str, text: str) -> Any:
    """The JSON value of a field that a word gives."""
    if field.type == field.TYPE_BYTES and text.startswith("@"):
        return base64.b64encode(Path(text[1:]).read_bytes()).decode()
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_ENUM):
        return text
    if field.message_type is not None and field.message_type.full_name in _WRITTEN_AS_TEXT:
        return text
    return json_of(text, path)


def _request_of_tree(row: Method, tree: dict[str, Any]) -> Message:
    message: Message = row.request_class()()
    try:
        return json_format.ParseDict(tree, message, descriptor_pool=POOL)
    except (json_format.ParseError, OverflowError, RecursionError) as error:
        raise click.UsageError(f"not a valid {row.request_name}: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
