"""The inputs of an upload and the batches they are sent in. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from clarigrpc import v2
from clarigrpc._rpc.call import RetryLoop
from clarigrpc._rpc.encoding import tag, varint

_ID_TAG = tag(v2.Input, "id")
_INPUT_TAG = tag(v2.PostInputsRequest, "inputs")
_TAG_AND_LENGTH_BYTES = 8
"""Maximum bytes of an input's tag and length in a request."""


@dataclass(slots=True)
class PendingInput:
    """An input to be added.

    Attributes:
        index: Its position in the source.
        id: Its id, assigned before it is first sent.
        encoded: The serialized input, with the id.
        since: Start of the upload that first sent it, in seconds since the epoch.
        derived: Whether the id is derived from the content.
        unsure: Whether an earlier attempt may have added it.
        source: Path, or file and line, that it was read from.
    """

    index: int
    id: str
    encoded: bytes
    since: float = 0.0
    derived: bool = False
    unsure: bool = False
    source: str = ""

    @property
    def size(self) -> int:
        """Bytes of the input in a request."""
        return len(self.encoded) + _TAG_AND_LENGTH_BYTES

    @property
    def input(self) -> v2.Input:
        """The input as a message."""
        return v2.Input.FromString(self.encoded)


def pending_input(index: int, message: v2.Input, since: float) -> PendingInput:
    """The input to be added for a message, with an id derived from the content if it has none.

    The message is not changed: in protobuf, a field can be appended to the serialized form.
    """
    encoded = message.SerializeToString(deterministic=True)
    if message.id:
        return PendingInput(index, message.id, encoded, since)
    derived = content_id(encoded)
    named = b"".join((encoded, _ID_TAG, varint(len(derived)), derived.encode()))
    return PendingInput(index, derived, named, since, derived=True)


def unsure_input(index: int, message: v2.Input, since: float) -> PendingInput:
    """``pending_input`` for a message that may have been sent before, with its present id."""
    result = pending_input(index, message, since)
    result.unsure = True
    if not result.derived:
        bare = v2.Input()
        bare.CopyFrom(message)
        bare.ClearField("id")
        result.derived = message.id == content_id(bare.SerializeToString(deterministic=True))
    return result


def content_id(encoded: bytes) -> str:
    """The id of an input without one: the first 32 hexadecimal digits of its message's SHA-256."""
    return hashlib.sha256(encoded).hexdigest()[:32]


@dataclass(slots=True, eq=False)
class InputBatch:
    """The inputs of one request.

    Attributes:
        inputs: The inputs.
        checking: Whether the request lists the inputs with these ids instead of adding them.
        deadline: Deadline for all attempts together; None before the first one.
        retries: The retry loop of this batch; None before the first failure.
    """

    inputs: list[PendingInput]
    checking: bool = False
    deadline: float | None = None
    retries: RetryLoop | None = field(default=None, repr=False)

    @property
    def place(self) -> int:
        """Position of the batch in the source."""
        return self.inputs[0].index

    def halves(self) -> tuple[InputBatch, InputBatch]:
        """Two batches with half of the inputs each, and with retry loops of their own."""
        middle = len(self.inputs) // 2
        first, second = self.inputs[:middle], self.inputs[middle:]
        return (
            InputBatch(first, checking=self.checking, deadline=self.deadline),
            InputBatch(second, checking=self.checking, deadline=self.deadline),
        )


class InputBatcher:
    """Groups inputs into batches, in order.

    Args:
        max_inputs: Maximum inputs of a batch.
        max_bytes: Maximum bytes of a batch; a larger input is a batch of its own.
    """

    def __init__(self, max_inputs: int, max_bytes: int) -> None:
        self._max_inputs = max_inputs
        self._max_bytes = max_bytes
        self._inputs: list[PendingInput] = []
        self._size = 0

    def add(self, one: PendingInput) -> list[PendingInput]:
        """Add an input; returns the inputs of a batch that is complete, or an empty list."""
        ready: list[PendingInput] = []
        if self._inputs and self._size + one.size > self._max_bytes:
            ready = self.flush()
        self._inputs.append(one)
        self._size += one.size
        if not ready and len(self._inputs) >= self._max_inputs:
            ready = self.flush()
        return ready

    def flush(self) -> list[PendingInput]:
        """The inputs of the incomplete batch; may be empty."""
        ready, self._inputs, self._size = self._inputs, [], 0
        return ready


def encode_post(constant: bytes, inputs: Iterable[PendingInput]) -> bytes:
    """A serialized ``PostInputsRequest``.

    Args:
        constant: The serialized request without inputs.
        inputs: The inputs to add.
    """
    pieces = [constant]
    for one in inputs:
        pieces += (_INPUT_TAG, varint(len(one.encoded)), one.encoded)
    return b"".join(pieces)
