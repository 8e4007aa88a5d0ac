"""Arguments of a model's method as they stand on a command line, and its results as JSON."""

from __future__ import annotations

import base64
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._descriptor_pool import POOL
from clarigrpc._named_methods.signatures import signature_text
from clarigrpc._named_methods.values import NULLABLE, Field
from clarigrpc.cli.media_sources import STDIN, media_of
from clarigrpc.cli.message_json import json_of, to_tree

_FILE_KINDS = {Field.IMAGE: "image", Field.AUDIO: "audio", Field.VIDEO: "video"}
_MESSAGE_TYPES: Mapping[Any, type[Message]] = {
    Field.CONCEPT: v2.Concept,
    Field.REGION: v2.Region,
    Field.FRAME: v2.Frame,
}
_NUMBER_TYPES: Mapping[Any, type[int] | type[float]] = {Field.INT: int, Field.FLOAT: float}
_BOOLS = {"true": True, "false": False}


def arguments_of(signature: v2.MethodSignature, words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a method that words like ``text=hello`` give.

    ``NAME=@FILE`` takes the content of a file; ``NAME=-`` the lines of standard input, for an
    argument that is a stream.

    Raises:
        UsageError: A word is no assignment, names no argument, or its value does not fit.
    """
    fields = {field.name: field for field in signature.input_fields}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"{word!r} is not ARGUMENT=VALUE")
        if name not in fields:
            raise click.UsageError(
                f"{signature.name}() has no argument {name!r}; it is {signature_text(signature)}"
            )
        found[name] = _argument(name, value, fields[name])
    return found


def plain(value: Any) -> Any:
    """A result as values that JSON has: bytes and images in base64, arrays as lists."""
    if isinstance(value, Message):
        return to_tree(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no number for it
    if callable(getattr(value, "tolist", None)):
        return plain(value.tolist())
    if callable(getattr(value, "save", None)):
        content = io.BytesIO()
        value.save(content, "PNG")
        return base64.b64encode(content.getvalue()).decode()
    return value


def _argument(name: str, value: str, field: v2.ModelTypeField) -> Any:
    if not field.iterator:
        return _value(name, value, field)
    if value == STDIN:
        return _lines(name, field)
    if value.startswith("["):
        return iter([_typed(name, one, field) for one in json_of(value, name)])
    return iter([_value(name, value, field)])


def _lines(name: str, field: v2.ModelTypeField) -> Iterator[Any]:
    for line in sys.stdin:
        yield _value(name, line.rstrip("\n"), field)


def _value(name: str, value: str, field: v2.ModelTypeField) -> Any:
    kind = field.type
    if value == "null" and field.placeholder == NULLABLE:
        return None
    if kind in _FILE_KINDS:
        return media_of(_FILE_KINDS[kind], value.removeprefix("@"))
    if value.startswith("@"):
        content = Path(value[1:]).read_bytes()
        if kind == Field.BYTES:
            return content
        try:
            value = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise click.UsageError(f"{name}: {value[1:]} is not UTF-8 text") from None
    if kind in (Field.STR, Field.TEXT):
        return value
    if kind == Field.BYTES:
        return value.encode()
    if kind == Field.BOOL:
        if value.lower() not in _BOOLS:
            raise click.UsageError(f"{name} is true or false, not {value!r}")
        return _BOOLS[value.lower()]
    if kind in _NUMBER_TYPES:
        try:
            return _NUMBER_TYPES[kind](value)
        except ValueError:
            what = "a whole number" if kind == Field.INT else "a number"
            shown = value if len(value) < 40 else f"{value[:40]}…"
            raise click.UsageError(f"{name} is {what}, not {shown!r}") from None
    if kind == Field.NOT_SET:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return _typed(name, json_of(value, name), field)


def _typed(name: str, value: Any, field: v2.ModelTypeField) -> Any:
    """A value of JSON as the type of an argument wants it."""
    kind = field.type
    if kind in _FILE_KINDS and isinstance(value, str):
        return media_of(_FILE_KINDS[kind], value)
    if kind in _MESSAGE_TYPES:
        try:
            return json_format.ParseDict(value, _MESSAGE_TYPES[kind](), descriptor_pool=POOL)
        except (json_format.ParseError, OverflowError, RecursionError, TypeError) as error:
            raise click.UsageError(f"{name}: {error}") from None
    if kind == Field.NDARRAY:
        import numpy as np

        try:
            return np.array(value)
        except (ValueError, OverflowError) as error:
            raise click.UsageError(f"{name} is no array: {error}") from None
    if kind == Field.FLOAT and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (Field.LIST, Field.TUPLE) and isinstance(value, list) and field.type_args:
        kinds = field.type_args
        return [
            _typed(name, one, kinds[min(index, len(kinds) - 1)]) for index, one in enumerate(value)
        ]
    if kind == Field.NAMED_FIELDS and isinstance(value, dict):
        members = {member.name: member for member in field.type_args}
        return {
            key: _typed(key, one, members[key]) if key in members else one
            for key, one in value.items()
        }
    return value
