"""The walk over the fields of serialized messages agrees with protobuf's own parser."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._rpc.request_facts import facts_of
from clarigrpc._wire_format import fields, varint
from clarigrpc.local.fronts.field_count import has_too_many_fields

# Five in ten bytes, with bits above the 64th, which the parser drops.
_LONG_FIVE = b"\x85" + b"\x80" * 8 + b"\x7e"


def _flat(found: Any) -> list[tuple[int, int]]:
    """Number and wire type of each, those in groups and the ends of groups included."""
    flat = []
    for one in found:
        flat.append((one.field_number, one.wire_type))
        if one.wire_type == 3:
            flat += [*_flat(one.data), (one.field_number, 4)]
    return flat


def _pieces() -> st.SearchStrategy[bytes]:
    odd = st.builds(
        lambda value, more: varint(value)[:-1] + bytes([varint(value)[-1] | 0x80]) + more,
        st.integers(0, 1 << 20),
        st.sampled_from([b"\x00", b"\x80\x00", b"\x80" * 7 + b"\x7e", b"\x7f"]),
    )
    number = st.one_of(st.integers(0, 1 << 34).map(varint), odd)
    return st.one_of(number, st.sampled_from([b"\x0a", b"\x0b", b"\x0c", _LONG_FIVE]), st.binary())


@settings(max_examples=400, deadline=None)
@given(st.lists(_pieces(), max_size=12).map(b"".join))
@example(b"\x0a" + _LONG_FIVE + b"xxxxx" + b"\x08\x01")
@example(b"\x0b\x08\x01\x0c\x10\x02")
def test_what_the_parser_accepts_is_walked_to_its_end(encoded: bytes) -> None:
    walked = [*fields(encoded)]
    try:
        parsed: Any = UnknownFieldSet(Empty.FromString(encoded))
    except DecodeError:
        return
    assert [(number, kind) for number, kind, _, _ in walked] == _flat(parsed)
    assert not walked or walked[-1][-1] == len(encoded)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_no_bytes_break_it(encoded: bytes, start: int, size: int) -> None:
    end = min(len(encoded), start + size)
    for _, _, begin, stop in fields(encoded, start, end):
        assert start < begin <= stop <= end


def test_an_odd_length_hides_no_fields() -> None:
    encoded = (
        b"\x7a"
        + _LONG_FIVE
        + b"xxxxx"
        + v2.PostInputsRequest(
            inputs=[v2.Input(id=str(number)) for number in range(100)]
        ).SerializeToString()
    )
    with contextlib.suppress(DecodeError):  # some releases of protobuf refuse such a length
        assert len(v2.PostInputsRequest.FromString(encoded).inputs) == 100
    assert has_too_many_fields(v2.PostInputsRequest.DESCRIPTOR, encoded, 199)
    assert facts_of(methods.lookup("PostInputs"), encoded).items == 100


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, (1 << 64) - 1])
def test_numbers(value: int) -> None:
    ((number, _, begin, end),) = fields(b"\x08" + varint(value))
    assert (number, begin, end) == (1, 1, 1 + len(varint(value)))
