"""Predict requests assembled from serialized pieces.

Field numbers come from the descriptors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeAlias

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.media import as_input

_LENGTH_DELIMITED = 2


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


def tag(message: type[Any], field: str) -> bytes:
    """The tag that precedes an element of a length-delimited field."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | _LENGTH_DELIMITED)


NUMBERED = "clarigrpc-"
"""Beginning of the ids that inputs without one are sent with, to recognise their outputs."""

_SHORT = 128
_SMALL = 64 * 1024
_MOST_KEPT = 32 * 1024 * 1024 - 64 * 1024  # glibc learns from blocks of less than 32 MiB


def keep_freed(size: int) -> None:
    """Have the C library keep freed memory for requests of up to ``size`` bytes.

    A request and gRPC's copy of it are freed after each call. glibc gives freed memory beyond a
    threshold back to the system, and then the next request pays a page fault for every 4 KiB: more
    than half of the CPU of a large image. It raises that threshold to twice the size of a block
    that is freed, so one is. It is never touched, so that it takes no memory and next to no time.
    Other C libraries are not disturbed by this.
    """
    bytes(min(2 * size, _MOST_KEPT))


Pieces: TypeAlias = tuple[bytes, bytes]
"""An element of a repeated field: tag and length with what else comes first, and the rest."""


def size_of(pieces: Pieces) -> int:
    """Bytes of an element."""
    return len(pieces[0]) + len(pieces[1])


def _numbered_id(number: int) -> tuple[str, bytes]:
    """The id of an input without one, and its field in a serialized input."""
    name = f"{NUMBERED}{number}"
    return name, tag(v2.Input, "id") + varint(len(name)) + name.encode()


@cache
def _small_ids() -> Sequence[tuple[str, bytes]]:
    return tuple(map(_numbered_id, range(MAX_ITEMS)))


class PredictEncoder:
    """``PostModelOutputsRequest``s that share everything but their inputs.

    The shared part is serialized once. A request is that part, followed by each input behind its
    tag and length: what protobuf itself would write. The bytes of an image are copied once, into
    the request that is sent.
    """

    def __init__(self, constant: v2.PostModelOutputsRequest) -> None:
        self.constant: bytes = constant.SerializeToString()
        self._inputs = tag(v2.PostModelOutputsRequest, "inputs")
        self._short = tuple(self._inputs + varint(length) for length in range(_SHORT))
        self._data = tag(v2.Input, "data")
        self._image = tag(v2.Data, "image")
        self._base64 = tag(v2.Image, "base64")
        self._kept = _SMALL

    def pieces(self, value: Any) -> Pieces:
        """One input as an element of ``inputs``, in two pieces to be joined.

        Args:
            value: The bytes of an image, or what ``media.as_input`` takes.

        Raises:
            TypeError: It is neither.
        """
        if type(value) is bytes and value:
            return self._image_pieces(value)
        one = value if isinstance(value, v2.Input) else as_input(value)
        return self._element(one.SerializeToString())

    def numbered(self, value: Any, number: int) -> tuple[str, Pieces]:
        """``pieces`` of an input among others, and the id that it is sent with.

        An input without an id gets one from its number. The value is not changed.
        """
        name, field = _small_ids()[number] if number < MAX_ITEMS else _numbered_id(number)
        if type(value) is bytes and value:
            return name, self._image_pieces(value, field)
        one = value if isinstance(value, v2.Input) else as_input(value)
        if one.id:
            return one.id, self._element(one.SerializeToString())
        # In protobuf, a field can be appended to the serialized form.
        return name, self._element(one.SerializeToString() + field)

    def _element(self, encoded: bytes) -> Pieces:
        length = len(encoded)
        if length < _SHORT:
            return self._short[length], encoded
        return self._inputs + varint(length), encoded

    def _image_pieces(self, content: bytes, first: bytes = b"") -> Pieces:
        """An input that is an image and nothing else but ``first``; the content is not copied."""
        image = self._base64 + varint(len(content))
        data = self._image + varint(len(image) + len(content)) + image
        one = first + self._data + varint(len(data) + len(content)) + data
        return self._inputs + varint(len(one) + len(content)) + one, content

    def request(self, inputs: Iterable[Pieces]) -> bytes:
        """The serialized request with these inputs."""
        encoded = b"".join((self.constant, *chain.from_iterable(inputs)))
        if len(encoded) > self._kept:
            self._kept = 2 * len(encoded)
            keep_freed(self._kept)
        return encoded

    def encode(self, values: Iterable[Any]) -> bytes:
        """The serialized request with these values."""
        return self.request(map(self.pieces, values))
