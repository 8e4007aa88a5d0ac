"""How many fields a serialized message has, found without building it.

A field of two bytes becomes an object of a hundred, so a message of 100 MB that is all fields would
take gigabytes, and seconds in which no other thread runs.
"""

from __future__ import annotations

from typing import Any

from clarigrpc._wire_format import LENGTH_DELIMITED, fields

MAX_FIELDS = 200_000
"""Fields of a message, those of the messages in it included."""


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
        inside, start, end = waiting.pop()
        for number, wire_type, begin, stop in fields(payload, start, end):
            count += 1
            if count > most:
                return True
            if wire_type == LENGTH_DELIMITED:
                field = inside.fields_by_number.get(number)
                if field is not None and field.message_type is not None:
                    waiting.append((field.message_type, begin, stop))
    return False
