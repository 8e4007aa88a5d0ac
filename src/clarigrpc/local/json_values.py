"""Values that have no JSON form: found in requests before anything is stored, replaced in answers.

In a ``Struct`` these are NaN and infinities, in times and durations what is out of range. JSON has
the texts "NaN" and "Infinity" for number fields, but a coordinate or a score that is one is a
mistake as well. Messages that are nested about as deep as protobuf reads are refused, too: an
answer has some messages more around what a request had.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum, auto
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode
from clarigrpc.wellknown import MAX_STRUCT_DEPTH

M = TypeVar("M", bound=Message)

MAX_MESSAGE_DEPTH = 90
"""Messages inside each other in a request, without those that hold neither numbers nor times."""

# Protobuf reads 100, and what is inside a hit of a search is one deeper than in a request.
_MAX_VALUE_DEPTH = 97
_MAX_PATH = 120

# google/protobuf/timestamp.proto: the years 1 to 9999. duration.proto: 10,000 years either way.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_MAX_SECONDS = 315_576_000_000
_SECOND_NANOS = 1_000_000_000

_NUMBERS = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})
# Arguments and results of programs, which compute with NaN. JSON has a text for it.
_ANY_NUMBER = frozenset({"clarifai.api.Data.float_value"})


class Flaw(NamedTuple):
    """A value without a JSON form.

    Attributes:
        place: Names of fields and keys, and indices, the last one first: ``(place, name)``.
        reason: What is wrong with it.
        clear: Replaces the value with null, or removes it.
    """

    place: _ValuePath
    reason: str
    clear: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    @property
    def path(self) -> str:
        """Of the field, at most so long that it can be read: ``inputs[0].data.metadata.score``."""
        names: list[str | int] = []
        place = self.place
        while place is not None:
            place, name = place
            names.append(name)
        text = "".join(
            f"[{name}]" if isinstance(name, int) else f".{name}" for name in reversed(names)
        ).lstrip(".")
        return text if len(text) <= _MAX_PATH else f"{text[:_MAX_PATH]}..."


# Linked, since it is made for every message and read for hardly any.
_ValuePath: TypeAlias = "tuple[_ValuePath, str | int] | None"
_Report: TypeAlias = Callable[[Flaw], object]


def check(request: Message) -> None:
    """Refuses a request with such a value, or one that is nested too deeply.

    Raises:
        ServiceError: CONN_INVALID_REQUEST, with the path of the field.
    """

    def refuse(flaw: Flaw) -> None:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, str(flaw))

    _in_message(request, None, 0, refuse, numbers=True)


def check_output(data: Message) -> None:
    """Refuses a model's output that has no JSON form. Numbers outside of structs may be any.

    Raises:
        ServiceError: MODEL_PREDICTION_FAILED, with the path of the field.
    """

    def refuse(flaw: Flaw) -> None:
        raise ServiceError(
            StatusCode.MODEL_PREDICTION_FAILED, f"the model's output has no JSON form: {flaw}"
        )

    _in_message(data, None, 0, refuse, numbers=False)


def with_nulls(message: M) -> tuple[M, list[str]]:
    """A copy where null stands for what has no JSON form, and the text of each such flaw."""
    copy = type(message)()
    copy.CopyFrom(message)
    flaws: list[str] = []

    def replace(flaw: Flaw) -> None:
        flaws.append(str(flaw))
        flaw.clear()

    _in_message(copy, None, 0, replace, numbers=False)
    return copy, flaws


def _in_message(
    message: Any, place: _ValuePath, depth: int, report: _Report, *, numbers: bool
) -> None:
    if depth > MAX_MESSAGE_DEPTH:
        reason = f"nested more than {MAX_MESSAGE_DEPTH} messages deep"
        report(Flaw(place, reason, message.Clear))
        return
    for name, form, search in _plan(message.DESCRIPTOR):
        if search is None:
            if numbers:
                _in_numbers(message, name, form, place, report)
            continue
        if form is _Form.ONE:
            if not message.HasField(name):
                continue
            items: Any = ((None, getattr(message, name)),)
        else:
            values = getattr(message, name)
            if not values:
                continue
            items = values.items() if form is _Form.MAP else enumerate(values)
        for key, item in items:
            here: _ValuePath = (place, name) if key is None else ((place, name), key)
            if search is _in_message:
                _in_message(item, here, depth + 1, report, numbers=numbers)
            elif search in _TIMES:
                reason = search(item)
                if reason:
                    clear = partial(message.ClearField, name) if key is None else item.Clear
                    report(Flaw(here, reason, clear))
            else:
                search(item, here, depth + 1, report)


def _in_numbers(message: Any, name: str, form: _Form, place: _ValuePath, report: _Report) -> None:
    value = getattr(message, name)
    if form is _Form.ONE:
        if not math.isfinite(value):
            _report_number(message, name, (place, name), value, report)
        return
    # Finite in sum, finite all; the other way round large ones may add up to an infinity.
    if not value or math.isfinite(sum(value.values() if form is _Form.MAP else value)):
        return
    for key, number in value.items() if form is _Form.MAP else enumerate(value):
        if not math.isfinite(number):
            _report_number(message, name, ((place, name), key), number, report)
            return


def _report_number(
    message: Any, name: str, place: _ValuePath, number: float, report: _Report
) -> None:
    report(Flaw(place, f"{number} is not a finite number", partial(message.ClearField, name)))


def _in_struct(struct: Any, place: _ValuePath, depth: int, report: _Report, level: int = 1) -> None:
    for key, value in struct.fields.items():
        _in_value(value, (place, key), depth + 2, report, level)


def _in_list(values: Any, place: _ValuePath, depth: int, report: _Report, level: int = 1) -> None:
    for index, value in enumerate(values.values):
        _in_value(value, (place, index), depth + 1, report, level)


def _in_value(value: Any, place: _ValuePath, depth: int, report: _Report, level: int = 0) -> None:
    kind = value.WhichOneof("kind")
    reason = ""
    if level > MAX_STRUCT_DEPTH or depth > _MAX_VALUE_DEPTH:
        reason = f"nested more than {MAX_STRUCT_DEPTH} levels deep"
    elif kind == "struct_value":
        _in_struct(value.struct_value, place, depth + 1, report, level + 1)
    elif kind == "list_value":
        _in_list(value.list_value, place, depth + 1, report, level + 1)
    elif kind == "number_value" and not math.isfinite(value.number_value):
        reason = f"{value.number_value} has no JSON form"
    if reason:
        report(Flaw(place, reason, lambda: setattr(value, "null_value", 0)))


def _wrong_time(time: Any) -> str:
    if not _FIRST_SECOND <= time.seconds <= _LAST_SECOND:
        return (
            f"{time.seconds} seconds since 1970 are not in the years 1 to 9999; "
            "a Timestamp counts seconds, not milliseconds"
        )
    if not 0 <= time.nanos < _SECOND_NANOS:
        return f"nanos is {time.nanos}; it must be 0 to 999999999"
    return ""


def _wrong_duration(span: Any) -> str:
    if abs(span.seconds) > _MAX_SECONDS:
        return f"{span.seconds} seconds are more than 10,000 years"
    if abs(span.nanos) >= _SECOND_NANOS or span.seconds * span.nanos < 0:
        return f"nanos is {span.nanos}; it must be less than a second, with the sign of seconds"
    return ""


_TIMES = frozenset({_wrong_time, _wrong_duration})
_SEARCHES: dict[str, Callable[..., Any]] = {
    "google.protobuf.Duration": _wrong_duration,
    "google.protobuf.ListValue": _in_list,
    "google.protobuf.Struct": _in_struct,
    "google.protobuf.Timestamp": _wrong_time,
    "google.protobuf.Value": _in_value,
}


class _Form(Enum):
    """How many values a field has."""

    ONE = auto()
    LIST = auto()
    MAP = auto()


@cache
def _plan(descriptor: Descriptor) -> tuple[tuple[str, _Form, Any], ...]:
    """The fields to look into, and the search in a value; None searches numbers."""
    plan: list[tuple[str, _Form, Any]] = []
    for field in descriptor.fields:
        entry = field.message_type
        form = _Form.LIST if field.is_repeated else _Form.ONE
        value = field
        if entry is not None and entry.GetOptions().map_entry:
            form, value = _Form.MAP, entry.fields_by_name["value"]
        if value.type in _NUMBERS:
            if field.full_name not in _ANY_NUMBER:
                plan.append((field.name, form, None))
        elif value.message_type is not None and _may_hold_flaws(value.message_type):
            search = _SEARCHES.get(value.message_type.full_name, _in_message)
            plan.append((field.name, form, search))
    return tuple(plan)


@cache
def _may_hold_flaws(descriptor: Descriptor) -> bool:
    inside = _reachable(descriptor)
    return descriptor in inside or any(
        each.full_name in _SEARCHES or any(field.type in _NUMBERS for field in each.fields)
        for each in {descriptor, *inside}
    )


@cache
def _reachable(descriptor: Descriptor) -> frozenset[Descriptor]:
    """The types of messages that one of this type may hold, at any depth."""
    found: set[Descriptor] = set()
    waiting = [descriptor]
    while waiting:
        for field in waiting.pop().fields:
            if field.message_type is not None and field.message_type not in found:
                found.add(field.message_type)
                waiting.append(field.message_type)
    return frozenset(found)
