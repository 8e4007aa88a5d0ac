"""Protobuf's wire format: numbers written, and the fields of a serialized message walked over.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

LENGTH_DELIMITED = 2
"""The wire type of texts, bytes and messages."""

# The other wire types: a varint, those of fixed size with their bytes, both ends of a group.
_NUMBER = 0
_FIXED_SIZES = {1: 8, 5: 4}
_GROUP_ENDS = (3, 4)

_VARINT_BITS = 70  # seven in each of at most ten bytes
_VARINT_MASK = (1 << 64) - 1


WireField: TypeAlias = tuple[int, int, int, int]
"""Of a field: its number, its wire type, where its content begins and where it ends.

A plain tuple, as some requests have 100,000 of them.
"""


def varint(value: int) -> bytes:
    """``value`` (not negative) as a protobuf varint."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def fields(encoded: bytes, start: int = 0, end: int | None = None) -> Iterator[WireField]:
    """The outermost fields of a serialized message.

    A group, which the contract has none of, is not told from its surroundings: its two ends and the
    fields in it count as outermost.

    It ends where the bytes are no message, which the parser finds out. No message that the parser
    accepts ends it early: of a number of more than 64 bits both take the lowest 64.

    Args:
        encoded: Holds the message.
        start: Where it begins.
        end: Where it ends. None is the end of ``encoded``.
    """
    end = len(encoded) if end is None else end
    at = start
    try:
        while at < end:
            tag, at = _read_varint(encoded, at)
            wire_type = tag & 7
            begin = at
            if wire_type == LENGTH_DELIMITED:
                length, begin = _read_varint(encoded, at)
                at = begin + length
            elif wire_type == _NUMBER:
                _, at = _read_varint(encoded, at)
            elif wire_type in _FIXED_SIZES:
                at += _FIXED_SIZES[wire_type]
            elif wire_type not in _GROUP_ENDS:
                return
            if at > end:
                return
            yield tag >> 3, wire_type, begin, at
    except (IndexError, ValueError):
        return


def _read_varint(encoded: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it.

    Raises:
        IndexError: The bytes end within it.
        ValueError: It has more than ten bytes.
    """
    value = shift = 0
    while shift < _VARINT_BITS:
        byte = encoded[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _VARINT_MASK, at
        shift += 7
    raise ValueError("a number of more than ten bytes")
