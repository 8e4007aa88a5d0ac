"""Hypothesis strategies for protobuf messages, built from their descriptors.

    from tests.strategies import messages

    @given(messages(v2.PostInputsRequest))
    def test_something(request: v2.PostInputsRequest) -> None: ...

Every kind of field is covered: scalars, enums, nested messages, oneofs (at most one member is
set), maps, packed and unpacked repeated fields, and the well-known types with values that their
JSON form can express.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, Literal, TypeVar, cast

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)
Draw = Callable[[st.SearchStrategy[Any]], Any]

JSON_SCALARS = (
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
JSON_VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
JSON_OBJECTS = st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=3)

# The range that google/protobuf/timestamp.proto and duration.proto allow, in seconds.
TIMESTAMP_SECONDS = st.integers(-62_135_596_800, 253_402_300_799)
DURATION_SECONDS = st.integers(0, 315_576_000_000)
NANOS = st.integers(0, 999_999_999)

_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_UINT32 = st.integers(0, 2**32 - 1)
_UINT64 = st.integers(0, 2**64 - 1)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_INT64: _INT64,
    FieldDescriptor.CPPTYPE_UINT32: _UINT32,
    FieldDescriptor.CPPTYPE_UINT64: _UINT64,
}


def messages(
    message: type[M] | Descriptor,
    *,
    depth: int = 4,
    max_fields: int = 4,
    max_items: int = 3,
    exclude: Collection[str] = (),
    hostile: bool = False,
) -> st.SearchStrategy[M]:
    """Messages of a class, or of the class of a descriptor.

    ``depth`` levels of messages are filled, those below stay empty; a message sets up to
    ``max_fields`` fields (a oneof counts as one), a repeated field or map has 1 to ``max_items``
    items. ``exclude`` has full names of fields that are never set (``clarifai.api.Input.id``).
    ``hostile`` adds what JSON cannot carry: NaN, infinities and enum numbers without a name.
    """
    descriptor: Any = message if isinstance(message, Descriptor) else message.DESCRIPTOR
    excluded = frozenset(exclude)

    @st.composite
    def build(draw: Draw) -> M:
        new: Any = message_factory.GetMessageClass(descriptor)()
        _Filler(draw, max_fields, max_items, excluded, hostile).fill(new, depth)
        return cast(M, new)

    return build()


class _Filler:
    """Draws the content of one message and of those below it."""

    def __init__(
        self,
        draw: Draw,
        max_fields: int,
        max_items: int,
        exclude: frozenset[str],
        hostile: bool,
    ) -> None:
        self._draw = draw
        self._max_fields = max_fields
        self._max_items = max_items
        self._exclude = exclude
        self._hostile = hostile

    def fill(self, message: Any, depth: int) -> None:
        well_known = _WELL_KNOWN.get(message.DESCRIPTOR.full_name)
        if well_known is not None:
            well_known(self._draw, message)
            return
        if depth == 0:
            return
        slots = _slots(message.DESCRIPTOR, self._exclude)
        if not slots:
            return
        chosen = self._draw(
            st.lists(st.sampled_from(range(len(slots))), max_size=self._max_fields, unique=True)
        )
        for index in chosen:
            slot = slots[index]
            self._set(
                message, slot[0] if len(slot) == 1 else self._draw(st.sampled_from(slot)), depth
            )

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if not field.is_repeated:
            if field.message_type is None:
                setattr(message, field.name, self._scalar(field))
            else:
                child = getattr(message, field.name)
                child.SetInParent()
                self.fill(child, depth - 1)
            return
        container = getattr(message, field.name)
        count = self._draw(st.integers(1, self._max_items))
        if field.message_type is None:
            container.extend([self._scalar(field) for _ in range(count)])
        elif field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            for _ in range(count):
                if value.message_type is None:
                    container[self._scalar(key)] = self._scalar(value)
                else:
                    self.fill(container[self._scalar(key)], depth - 1)
        else:
            for _ in range(count):
                self.fill(container.add(), depth - 1)

    def _scalar(self, field: FieldDescriptor) -> Any:
        return self._draw(_scalars(field, self._hostile))


@cache
def _slots(
    descriptor: Descriptor, exclude: frozenset[str]
) -> tuple[tuple[FieldDescriptor, ...], ...]:
    """The fields of a message, those of one oneof together."""
    slots: dict[str, list[FieldDescriptor]] = {}
    for field in descriptor.fields:
        if field.full_name not in exclude:
            group = field.containing_oneof.full_name if field.containing_oneof else field.full_name
            slots.setdefault(group, []).append(field)
    return tuple(tuple(slot) for slot in slots.values())


@cache
def _scalars(field: FieldDescriptor, hostile: bool) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind in _INTEGERS:
        return _INTEGERS[kind]
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        width: Literal[32, 64] = 32 if kind == FieldDescriptor.CPPTYPE_FLOAT else 64
        if not hostile:
            return st.floats(width=width, allow_nan=False, allow_infinity=False)
        # One NaN only: which payload bits survive is a matter of the processor.
        return st.floats(width=width, allow_nan=False) | st.just(math.nan)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        named = st.sampled_from(sorted(field.enum_type.values_by_number))
        return named | _INT32 if hostile else named
    return (
        st.binary(max_size=64) if field.type == FieldDescriptor.TYPE_BYTES else st.text(max_size=16)
    )


def _fill_struct(draw: Draw, message: Any) -> None:
    json_format.ParseDict(draw(JSON_OBJECTS), message)


def _fill_list(draw: Draw, message: Any) -> None:
    json_format.ParseDict(draw(st.lists(JSON_VALUES, max_size=3)), message)


def _fill_value(draw: Draw, message: Any) -> None:
    json_format.ParseDict(draw(JSON_VALUES), message)


def _fill_timestamp(draw: Draw, message: Any) -> None:
    message.seconds, message.nanos = draw(TIMESTAMP_SECONDS), draw(NANOS)


def _fill_duration(draw: Draw, message: Any) -> None:
    sign = draw(st.sampled_from((1, -1)))
    message.seconds = sign * draw(DURATION_SECONDS)
    # At the end of the range there is no room for a fraction.
    message.nanos = 0 if abs(message.seconds) == 315_576_000_000 else sign * draw(NANOS)


_WELL_KNOWN: dict[str, Callable[[Draw, Any], None]] = {
    "google.protobuf.Struct": _fill_struct,
    "google.protobuf.ListValue": _fill_list,
    "google.protobuf.Value": _fill_value,
    "google.protobuf.Timestamp": _fill_timestamp,
    "google.protobuf.Duration": _fill_duration,
}
