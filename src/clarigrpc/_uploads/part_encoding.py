"""Serialized messages of an upload, made without a message object and without a copy per part."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from typing import Any

from clarigrpc import v2
from clarigrpc._rpc.encoding import tag
from clarigrpc._wire_format import varint

SENDING = 2
"""Messages that gRPC holds at most: the one that it sends, and the one before."""


def _number_tag(field: str) -> bytes:
    number: int = v2.UploadContentPart.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3)


class PartEncoder:
    """Encodes requests that contain a part. The content is read into the memory that is sent.

    That memory is used again for later messages of the same length. A message that is still in use
    then stays as it is: the ``BytesIO`` it is from gets new memory, which costs a copy.

    Args:
        request_class: The request message.
        field: Name of its field for the part.
        head: Serialized fields before the part.
        buffers: Number of messages that are in use at the same time, the next one included.
    """

    def __init__(
        self,
        request_class: type[Any],
        field: str = "content_part",
        *,
        head: bytes = b"",
        buffers: int = SENDING + 1,
    ) -> None:
        self._head = head + tag(request_class, field)
        self._start = _number_tag("range_start")
        self._number = _number_tag("part_number")
        self._data = tag(v2.UploadContentPart, "data")
        self._buffers = deque([io.BytesIO()] * buffers)

    def encode(
        self, number: int, start: int, size: int, read_into: Callable[[int, memoryview], None]
    ) -> bytes:
        """The request as protobuf serializes it.

        Args:
            number: Number of the part.
            start: Its offset in the content.
            size: Its bytes.
            read_into: Fills a view with the content at an offset.
        """
        fields = self._start + varint(start) if start else b""
        fields += self._number + varint(number) + self._data + varint(size)
        head = self._head + varint(len(fields) + size) + fields
        length = len(head) + size
        buffer = self._buffers.popleft()
        if buffer.seek(0, io.SEEK_END) != length:
            buffer = io.BytesIO(bytes(length))
        self._buffers.append(buffer)
        with buffer.getbuffer() as view, view[len(head) :] as content:
            view[: len(head)] = head
            read_into(start, content)
        return buffer.getvalue()
