"""Inputs on their way, and how they are put together to requests. No I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from clarigrpc import v2
from clarigrpc._rpc.call import RetryLoop
from clarigrpc._rpc.encoding import tag, varint

_ID_TAG = tag(v2.Input, "id")
_INPUT_TAG = tag(v2.PostInputsRequest, "inputs")
_OVERHEAD = 8
"""Bytes of an input's tag and length in a request, at most."""


@dataclass(slots=True)
class Item:
    """An input that is to be added.

    Attributes:
        index: Its place in the source.
        id: Its id, which it has before it is first sent.
        encoded: It, serialized, with the id.
        since: When the upload that first sent it began, in seconds since the epoch.
        derived: Whether the id was made from the content.
        unsure: Whether an earlier try may have added it.
    """

    index: int
    id: str
    encoded: bytes
    since: float = 0.0
    derived: bool = False
    unsure: bool = False

    @property
    def size(self) -> int:
        """Bytes that it takes in a request."""
        return len(self.encoded) + _OVERHEAD

    @property
    def input(self) -> v2.Input:
        """The message."""
        return v2.Input.FromString(self.encoded)


def make_item(index: int, message: v2.Input, since: float) -> Item:
    """An item with the message's id, or else one made from all that the message says.

    The message itself is not changed: protobuf lets a field be appended to the serialized form.
    """
    encoded = message.SerializeToString(deterministic=True)
    if message.id:
        return Item(index, message.id, encoded, since)
    derived = content_id(encoded)
    named = b"".join((encoded, _ID_TAG, varint(len(derived)), derived.encode()))
    return Item(index, derived, named, since, derived=True)


def make_unsure_item(index: int, message: v2.Input, since: float) -> Item:
    """As ``make_item``, for a message that may have been sent before, with the id it has now."""
    item = make_item(index, message, since)
    item.unsure = True
    if not item.derived:
        bare = v2.Input()
        bare.CopyFrom(message)
        bare.ClearField("id")
        item.derived = message.id == content_id(bare.SerializeToString(deterministic=True))
    return item


def content_id(encoded: bytes) -> str:
    """The id for an input without one: 32 hexadecimal digits of the SHA-256 of its message."""
    return hashlib.sha256(encoded).hexdigest()[:32]


@dataclass(slots=True, eq=False)
class Batch:
    """Items that travel in one request.

    Attributes:
        items: The items.
        checking: Whether the request asks which of them are there, instead of adding them.
        deadline: When all tries have to be over; None until the first.
        retries: The retry loop of this batch; None until the first failure.
    """

    items: list[Item]
    checking: bool = False
    deadline: float | None = None
    retries: RetryLoop | None = field(default=None, repr=False)

    @property
    def place(self) -> int:
        """Where the batch stands in the source."""
        return self.items[0].index

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches, which have their retries for themselves."""
        middle = len(self.items) // 2
        first, second = self.items[:middle], self.items[middle:]
        return (
            Batch(first, checking=self.checking, deadline=self.deadline),
            Batch(second, checking=self.checking, deadline=self.deadline),
        )


class Batcher:
    """Puts items together, in their order, to batches.

    Args:
        max_items: Most items of a batch.
        max_bytes: Most bytes of a batch; an item that is larger goes alone.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: list[Item] = []
        self._size = 0

    def add(self, item: Item) -> list[Item]:
        """Take an item; returns a batch when one is complete, an empty list otherwise."""
        ready: list[Item] = []
        if self._items and self._size + item.size > self._max_bytes:
            ready = self.flush()
        self._items.append(item)
        self._size += item.size
        if not ready and len(self._items) >= self._max_items:
            ready = self.flush()
        return ready

    def flush(self) -> list[Item]:
        """What has gathered; perhaps nothing."""
        ready, self._items, self._size = self._items, [], 0
        return ready


def encode_post(constant: bytes, items: list[Item]) -> bytes:
    """A serialized ``PostInputsRequest`` that adds the items.

    Args:
        constant: The request without inputs, serialized.
        items: What is to be added.
    """
    pieces = [constant]
    for item in items:
        pieces += (_INPUT_TAG, varint(len(item.encoded)), item.encoded)
    return b"".join(pieces)
