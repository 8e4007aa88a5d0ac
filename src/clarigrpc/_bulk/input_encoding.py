"""Inputs of an upload as they are sent, with an id each. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain

from clarigrpc import v2
from clarigrpc._rpc.encoding import element, tag
from clarigrpc._wire_format import varint

_ID_TAG = tag(v2.Input, "id")
_INPUT_TAG = tag(v2.PostInputsRequest, "inputs")


def content_id(encoded: bytes) -> str:
    """The id of an input without one: the first 32 hexadecimal digits of its message's SHA-256."""
    return hashlib.sha256(encoded).hexdigest()[:32]


def encode_input(message: v2.Input) -> tuple[str, bytes]:
    """The id of an input, derived from its content if it has none, and its serialized form.

    The message is not changed: in protobuf, a field can be appended to the serialized form.
    """
    if message.id:
        return message.id, message.SerializeToString()
    encoded = message.SerializeToString(deterministic=True)
    derived = content_id(encoded)
    return derived, b"".join((encoded, _ID_TAG, varint(len(derived)), derived.encode()))


def is_derived(message: v2.Input) -> bool:
    """Whether the id of an input is derived from its content."""
    bare = v2.Input()
    bare.CopyFrom(message)
    bare.ClearField("id")
    return bool(message.id == content_id(bare.SerializeToString(deterministic=True)))


def encode_post(constant: bytes, inputs: Sequence[bytes]) -> bytes:
    """A serialized ``PostInputsRequest``.

    Args:
        constant: The serialized request without inputs.
        inputs: The serialized inputs to add.
    """
    elements = [element(_INPUT_TAG, one) for one in inputs]
    return b"".join((constant, *chain.from_iterable(elements)))
