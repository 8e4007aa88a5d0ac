"""Predict requests assembled from serialized pieces.

Field numbers come from the descriptors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from operator import add
from typing import Any, NamedTuple, TypeAlias

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._wire_format import LENGTH_DELIMITED, varint
from clarigrpc.media import as_input, is_input


def tag(message: type[Any], field: str) -> bytes:
    """The tag that precedes an element of a length-delimited field."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | LENGTH_DELIMITED)


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


InputItem: TypeAlias = bytes | tuple[bytes, bytes]
"""A serialized input; of an image, what comes before its content, and the content."""

_TAG_AND_LENGTH_BYTES = 8
"""Maximum bytes of an input's tag and length in a request."""


class EncodedInputs(NamedTuple):
    """Inputs that are ready to be sent.

    Attributes:
        indexes: Positions of their values, ascending.
        ids: The ids that they have; empty for those without one.
        items: Their encoded forms.
        sizes: Bytes of each in a request, at most.
        errors: Why other values are not among them, by position.
    """

    indexes: Sequence[int]
    ids: list[str]
    items: list[Any]
    sizes: list[int]
    errors: dict[int, Exception]


@cache
def _numbered_ids() -> tuple[Sequence[str], Sequence[bytes]]:
    """The ids of inputs without one, by place, and their fields in a serialized input."""
    names = [f"{NUMBERED}{place}" for place in range(MAX_ITEMS)]
    start = tag(v2.Input, "id")
    return names, [start + varint(len(name)) + name.encode() for name in names]


def sent_ids(ids: Sequence[str]) -> list[str]:
    """The ids that the inputs of a request are sent with: their own, or one made of their place."""
    names = _numbered_ids()[0][: len(ids)]
    return [own or name for own, name in zip(ids, names, strict=True)] if any(ids) else [*names]


def size_of(item: InputItem) -> int:
    """Bytes of an input in a request, at most."""
    longest = _TAG_AND_LENGTH_BYTES + len(_numbered_ids()[1][-1])
    return longest + (len(item) if isinstance(item, bytes) else len(item[0]) + len(item[1]))


def element(start: bytes, *pieces: bytes) -> tuple[bytes, ...]:
    """The pieces of an element of a repeated field behind its tag and length.

    Args:
        start: The tag.
        pieces: The element.
    """
    return start + varint(sum(map(len, pieces))), *pieces


class PredictEncoder:
    """``PostModelOutputsRequest``s that share everything but their inputs.

    The shared part is serialized once. A request is that part, followed by each input behind its
    tag and length: what protobuf itself would write. The bytes of an image are copied once, into
    the request that is sent.
    """

    def __init__(
        self, constant: v2.PostModelOutputsRequest | v2.PostWorkflowResultsRequest
    ) -> None:
        self.constant: bytes = constant.SerializeToString()
        self._inputs = tag(type(constant), "inputs")
        self._short = tuple(self._inputs + varint(length) for length in range(_SHORT))
        self._data = tag(v2.Input, "data")
        self._image = tag(v2.Data, "image")
        self._base64 = tag(v2.Image, "base64")
        self._serialize = v2.Input.SerializeToString
        self._kept = _SMALL

    def item(self, value: Any) -> tuple[str, InputItem]:
        """The id of an input, empty if it has none, and its encoded form.

        Args:
            value: The bytes of an image, or what ``media.as_input`` takes.

        Raises:
            TypeError: It is neither.
        """
        if type(value) is bytes and value:
            return "", (self._before_image(len(value)), value)
        one = value if isinstance(value, v2.Input) or is_input(value) else as_input(value)
        return one.id, one.SerializeToString()

    def batch(self, values: Sequence[Any]) -> EncodedInputs:
        """The inputs of values, and why others are none; positions are those among ``values``.

        A value may be a function that makes one.
        """
        if {*map(type, values)} == {v2.Input}:
            items = [*map(self._serialize, values)]
            more = size_of(b"")
            sizes = [len(item) + more for item in items]
            return EncodedInputs(range(len(values)), [one.id for one in values], items, sizes, {})
        found = EncodedInputs([], [], [], [], {})
        places: list[int] = []
        for place, value in enumerate(values):
            try:
                name, item = self.item(value() if callable(value) else value)
            except Exception as error:  # noqa: BLE001 - whatever a user's picture or file raises
                found.errors[place] = error
                continue
            places.append(place)
            found.ids.append(name)
            found.items.append(item)
            found.sizes.append(size_of(item))
        return found._replace(indexes=places)

    def _before_image(self, size: int) -> bytes:
        """What comes before the content in an input that is an image and nothing else."""
        image = self._base64 + varint(size)
        data = self._image + varint(len(image) + size) + image
        return self._data + varint(len(data) + size) + data

    def request(self, items: Sequence[InputItem], ids: Sequence[str]) -> bytes:
        """The serialized request with inputs among others.

        Those without an id get one from their place: ``sent_ids``.
        """
        # In protobuf, a field can be added to the serialized form of a message.
        fields = _numbered_ids()[1][: len(items)]
        if any(ids):
            fields = [b"" if own else field for own, field in zip(ids, fields, strict=True)]
        pieces: Iterable[Sequence[bytes]]
        if {*map(type, items)} == {bytes}:
            lengths = map(add, map(len, items), map(len, fields))
            short, start = self._short, self._inputs
            heads = [short[n] if n < _SHORT else start + varint(n) for n in lengths]
            pieces = zip(heads, items, fields, strict=True)  # type: ignore[assignment]
        else:
            pieces = (
                element(self._inputs, item, field)
                if isinstance(item, bytes)
                else element(self._inputs, field, *item)
                for item, field in zip(items, fields, strict=True)
            )
        return self._joined((self.constant, *chain.from_iterable(pieces)))

    def _joined(self, pieces: Iterable[bytes]) -> bytes:
        encoded = b"".join(pieces)
        if len(encoded) > self._kept:
            self._kept = 2 * len(encoded)
            keep_freed(self._kept)
        return encoded

    def encode(self, values: Iterable[Any]) -> bytes:
        """The serialized request with these values, sent with the ids that they have."""
        pieces = [self.constant]
        for value in values:
            if type(value) is bytes and value:
                pieces += element(self._inputs, self._before_image(len(value)), value)
                continue
            one = value if isinstance(value, v2.Input) or is_input(value) else as_input(value)
            encoded = one.SerializeToString()
            length = len(encoded)
            head = self._short[length] if length < _SHORT else self._inputs + varint(length)
            pieces += (head, encoded)
        return self._joined(pieces)
