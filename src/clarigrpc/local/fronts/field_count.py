"""How many fields a serialized message has, found without building it.

A field of two bytes becomes an object of a hundred, so a message of 100 MB that is all fields would
take gigabytes, and seconds in which no other thread runs.
"""

from __future__ import annotations

from typing import Any

MAX_FIELDS = 200_000
"""Fields of a message, those of the messages in it included."""

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)


def has_too_many_fields(descriptor: Any, payload: bytes, most: int = MAX_FIELDS) -> bool:
    """Whether a message has more fields than ``most``.

    What is malformed does not count; the parser refuses it.

    Args:
        descriptor: Type of the message.
        payload: The message.
        most: Largest number of fields.
    """
    count = 0
    waiting = [(descriptor, 0, len(payload))]
    while waiting:
        inside, place, end = waiting.pop()
        while place < end:
            count += 1
            if count > most:
                return True
            tag, place = _varint(payload, place, end)
            form = tag & 7
            if form == _BYTES:
                size, place = _varint(payload, place, end)
                field = inside.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None and place + size <= end:
                    waiting.append((field.message_type, place, place + size))
                place += size
            elif form == _VARINT:
                _, place = _varint(payload, place, end)
            elif form == _FIXED64:
                place += 8
            elif form == _FIXED32:
                place += 4
            elif form not in (_GROUP, _END_GROUP):
                break
    return False


def _varint(payload: bytes, place: int, end: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    number = shift = 0
    while place < end:
        byte = payload[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            return number, end
    return number, place
