"""Serialized messages of an upload stream, made without a message object per part."""

from __future__ import annotations

from typing import Any

from clarigrpc import v2
from clarigrpc._rpc.encoding import tag
from clarigrpc._uploads.upload_sources import PartData
from clarigrpc._wire_format import varint


def _number_tag(field: str) -> bytes:
    number: int = v2.UploadContentPart.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3)


class PartEncoder:
    """Encodes requests that contain a part.

    Args:
        request_class: The request message.
        field: Name of its field for the part.
    """

    def __init__(self, request_class: type[Any], field: str = "content_part") -> None:
        self._part = tag(request_class, field)
        self._start = _number_tag("range_start")
        self._number = _number_tag("part_number")
        self._data = tag(v2.UploadContentPart, "data")

    def encode(self, number: int, start: int, data: PartData) -> bytes:
        """The request as protobuf serializes it; copies ``data`` once."""
        head = self._start + varint(start) if start else b""
        head += self._number + varint(number) + self._data + varint(len(data))
        return b"".join((self._part, varint(len(head) + len(data)), head, data))
