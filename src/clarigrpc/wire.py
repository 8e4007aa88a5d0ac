"""The hot encodings: requests assembled from serialized pieces.

Field numbers come from the descriptors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clarigrpc import v2

_LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """``value`` (not negative) as a protobuf varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(message: type[Any], field: str) -> bytes:
    """The tag that precedes an element of a length-delimited field."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | _LENGTH_DELIMITED)


class PredictEncoder:
    """``PostModelOutputsRequest``s that share everything but their inputs.

    The shared part is serialized once. A request is that part, followed by each input behind its
    tag and length: what protobuf itself would write, without a copy of the inputs' bytes into a
    message first.
    """

    def __init__(self, constant: v2.PostModelOutputsRequest) -> None:
        self._constant = constant.SerializeToString()
        self._tag = tag(v2.PostModelOutputsRequest, "inputs")

    def encode(self, inputs: Iterable[v2.Input]) -> bytes:
        """The serialized request with these inputs."""
        pieces = [self._constant]
        for one in inputs:
            encoded = one.SerializeToString()
            pieces += (self._tag, varint(len(encoded)), encoded)
        return b"".join(pieces)
