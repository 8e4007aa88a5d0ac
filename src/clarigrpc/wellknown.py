"""Plain Python values and public protobuf messages -> the messages of ``clarigrpc.v2``.

The generated modules live in a descriptor pool of their own, so ``google.protobuf.Struct`` and the
other well-known types exist twice in a process: the public ones (``google.protobuf.struct_pb2``)
and ours. Constructors and assignments take dicts, datetimes and timedeltas as they are; public
messages have to become ours first (a constructor takes a public ``Struct`` with some versions of
protobuf, with others not), and so has everything that is given to ``CopyFrom`` or ``append``,
which the functions here make::

    data.metadata.CopyFrom(wellknown.struct({"camera": 7}))
    v2.Input(created_at=wellknown.convert(public_timestamp))

Return types are those of the public classes, because the generated ``.pyi`` files declare the
fields so; at run time the classes are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from importlib import import_module
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from google.protobuf.message import Message

from clarigrpc._descriptor_pool import POOL, message_class
from clarigrpc.v2._index import MODULES

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.struct_pb2 import Struct, Value
    from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["convert", "duration", "struct", "timestamp", "value"]

M = TypeVar("M", bound=Message)

MAX_STRUCT_DEPTH = 30
"""Levels of a Struct: each is three messages, and protobuf reads 100 inside each other."""

# google/protobuf/duration.proto: at most 10,000 years of either sign.
_MAX_DURATION = timedelta(seconds=315_576_000_000)


def struct(mapping: Mapping[str, object] | Struct, *, skip_nan: bool = False) -> Struct:
    """A ``Struct`` with the content of ``mapping``.

    Values are None, bool, numbers (those of NumPy too), str, dates and datetimes (as ISO 8601), and
    lists, tuples and mappings of those. All numbers become doubles: integers beyond 2**53 lose
    digits.

    Raises TypeError for a key that is not a str or a value that JSON has no form for, ValueError
    for NaN, an infinity, a number too large, or values nested more than 30 levels deep; both say
    where in the mapping. With ``skip_nan``, keys whose value is NaN are left out, as pandas has NaN
    for what is missing.
    """
    if isinstance(mapping, Message):
        return cast("Struct", _convert_message(mapping))
    if not isinstance(mapping, Mapping):
        raise TypeError(f"a Struct is made of a mapping, not of {_type_name(mapping)}")
    message = cast("Struct", _new("google.protobuf.Struct"))
    _fill_struct(message, _without_nan(mapping) if skip_nan else mapping, "")
    return message


def _without_nan(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _without_nan(one) for key, one in item.items() if not _is_nan(one)}
    if isinstance(item, (list, tuple)):
        return [_without_nan(one) for one in item]
    return item


def _is_nan(item: Any) -> bool:
    return isinstance(item, Real) and math.isnan(item)


def value(obj: object) -> Value:
    """A ``Value``: what :func:`struct` takes as a value. None becomes JSON's null."""
    message = cast("Value", _new("google.protobuf.Value"))
    _fill_value(message, obj, "")
    return message


def timestamp(moment: datetime) -> Timestamp:
    """A ``Timestamp``, to the microsecond. A datetime without a timezone is taken as UTC."""
    if not isinstance(moment, datetime):
        raise TypeError(f"a Timestamp is made of a datetime, not of {_type_name(moment)}")
    message = cast("Timestamp", _new("google.protobuf.Timestamp"))
    message.FromDatetime(moment)
    return message


def duration(span: timedelta) -> Duration:
    """A ``Duration``, to the microsecond. ValueError beyond 10,000 years of either sign."""
    if not isinstance(span, timedelta):
        raise TypeError(f"a Duration is made of a timedelta, not of {_type_name(span)}")
    if abs(span) > _MAX_DURATION:
        raise ValueError(f"a Duration holds at most {_MAX_DURATION.days} days, got {span.days}")
    message = cast("Duration", _new("google.protobuf.Duration"))
    message.FromTimedelta(span)
    return message


@overload
def convert(source: M) -> M: ...
@overload
def convert(source: Mapping[str, object]) -> Struct: ...
@overload
def convert(source: datetime) -> Timestamp: ...
@overload
def convert(source: timedelta) -> Duration: ...
def convert(source: object) -> Message:
    """Our form of a dict, a datetime, a timedelta or a message of another descriptor pool.

    A message keeps its full name and all its content, unknown fields too; one that is ours
    already is returned as it is, not copied. TypeError when ``clarigrpc.v2`` has no message of
    that name, or for any other type.
    """
    if isinstance(source, Message):
        return _convert_message(source)
    if isinstance(source, Mapping):
        return struct(source)
    if isinstance(source, datetime):
        return timestamp(source)
    if isinstance(source, timedelta):
        return duration(source)
    raise TypeError(
        f"cannot make a message of {_type_name(source)}: "
        "give a message, a mapping, a datetime or a timedelta"
    )


def _convert_message(source: Message) -> Message:
    name = source.DESCRIPTOR.full_name
    message = _new(name)
    if message.DESCRIPTOR is source.DESCRIPTOR:
        return source
    message.ParseFromString(source.SerializeToString())
    return message


def _new(full_name: str) -> Message:
    """An empty message of our pool. Generated modules register on import, so that comes first."""
    for part in full_name.split("."):
        if part in MODULES:
            import_module(f"clarigrpc.v2.{MODULES[part]}")
            break
    else:
        import_module("clarigrpc.v2._google_files")
    try:
        descriptor = POOL.FindMessageTypeByName(full_name)
    except KeyError:
        raise TypeError(f"clarigrpc.v2 has no message {full_name}") from None
    return message_class(descriptor)()


def _fill_struct(message: Struct, mapping: Mapping[Any, object], path: str, depth: int = 1) -> None:
    for key, item in mapping.items():
        if not isinstance(key, str):
            raise TypeError(f"{path or 'mapping'}: key {key!r} is {_type_name(key)}, not str")
        _fill_value(message.fields[key], item, f"{path}.{key}" if path else key, depth)


def _fill_value(message: Value, item: Any, path: str, depth: int = 0) -> None:
    if depth > MAX_STRUCT_DEPTH:
        raise ValueError(
            f"{path[:60]}...: nested more than {MAX_STRUCT_DEPTH} levels deep, "
            "which no message can hold"
        )
    if type(item).__module__ == "numpy" and getattr(item, "ndim", None) == 0:
        item = item.item()
    if item is None:
        message.null_value = 0  # type: ignore[assignment]  # NULL_VALUE, the enum's only one
    elif isinstance(item, bool):
        message.bool_value = item
    elif isinstance(item, Real):
        message.number_value = _number(item, path)
    elif isinstance(item, str):
        message.string_value = item
    elif isinstance(item, Mapping):
        message.struct_value.SetInParent()
        _fill_struct(message.struct_value, item, path, depth + 1)
    elif isinstance(item, (list, tuple)):
        message.list_value.SetInParent()
        for index, element in enumerate(item):
            _fill_value(message.list_value.values.add(), element, f"{path}[{index}]", depth + 1)
    elif isinstance(item, date):  # and datetime, a subclass
        message.string_value = item.isoformat()
    else:
        raise TypeError(
            f"{path or 'value'}: {_type_name(item)} has no JSON form; "
            "give None, a bool, a number, a str, a date, a list or a mapping"
        )


def _number(item: Real, path: str) -> float:
    try:
        number = float(item)
    except OverflowError:
        raise ValueError(f"{path or 'value'}: the number is too large for a double") from None
    if not math.isfinite(number):
        hint = "; struct(..., skip_nan=True) leaves such keys out" if math.isnan(number) else ""
        raise ValueError(f"{path or 'value'}: {number} has no JSON form{hint}")
    return number


def _type_name(item: object) -> str:
    return type(item).__name__
