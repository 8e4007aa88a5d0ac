"""What a request is about, for those who watch calls: its model, its items, its named method.

A serialized request is not parsed for that: its pictures would be copied. Its outermost fields are
walked over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from clarigrpc import v2
from clarigrpc._contract.methods import Method
from clarigrpc._rpc.encoding import LENGTH_DELIMITED

METHOD_NAME = "_method_name"
"""Key in the metadata of an input that holds the name of a model's method."""

_METHOD_NAME_BYTES = METHOD_NAME.encode()

# The other wire types of protobuf: a varint, and those of fixed size with their bytes.
_NUMBER = 0
_FIXED_SIZES = {1: 8, 5: 4}
_MOST_BITS = 70  # seven in a byte
_ID_FIELDS = ("model_id", "version_id", "workflow_id")


class RequestFacts(NamedTuple):
    """What a request is about; empty or 0 where the request does not say.

    Attributes:
        model_id: Id of the model.
        version_id: Id of its version.
        workflow_id: Id of the workflow.
        items: Number of the inputs, annotations or other things it sends.
        named_method: The method of the model that is called.
    """

    model_id: str = ""
    version_id: str = ""
    workflow_id: str = ""
    items: int = 0
    named_method: str = ""


class _Fields(NamedTuple):
    """The fields of a request that are looked at: names of ids by number, the field of items."""

    ids: dict[int, str]
    items: str
    items_number: int


@cache
def _fields(method: Method) -> _Fields:
    descriptor: Any = method.request_class().DESCRIPTOR
    ids = {
        descriptor.fields_by_name[name].number: name
        for name in _ID_FIELDS
        if name in descriptor.fields_by_name
    }
    if method.name.startswith(("Get", "List")):
        return _Fields(ids, "", 0)
    repeated = [field for field in descriptor.fields if field.is_repeated]
    # Messages before ids: ``inputs`` of PostInputs, ``ids`` of DeleteInputs.
    repeated.sort(key=lambda field: field.type != field.TYPE_MESSAGE)
    if not repeated:
        return _Fields(ids, "", 0)
    return _Fields(ids, repeated[0].name, repeated[0].number)


def facts_of(method: Method, request: Any) -> RequestFacts:
    """What a request is about.

    Args:
        method: The method that it is for.
        request: A message of its request type, or the serialized form of one. Of anything else,
            which is refused when it is to be sent, nothing is told.
    """
    fields = _fields(method)
    if isinstance(request, bytes):
        return _of_bytes(fields, request)
    if not isinstance(request, Message) or type(request).__name__ != method.request_name:
        return RequestFacts()
    # A message of another package may be of another version, without some of the fields.
    found = {name: getattr(request, name, "") for name in fields.ids.values()}
    items = getattr(request, fields.items, ()) if fields.items else ()
    return RequestFacts(**found, items=len(items), named_method=_named_method(items))


def _of_bytes(fields: _Fields, request: bytes) -> RequestFacts:
    found: dict[str, str] = {}
    items = 0
    named = ""
    for number, start, end in _walk(request):
        if number == fields.items_number:
            if not items and request.find(_METHOD_NAME_BYTES, start, end) >= 0:
                named = _named_method([_input(request[start:end])])
            items += 1
        elif number in fields.ids:
            found[fields.ids[number]] = request[start:end].decode("utf-8", "replace")
    return RequestFacts(**found, items=items, named_method=named)


def _input(encoded: bytes) -> v2.Input | None:
    try:
        return v2.Input.FromString(encoded)
    except DecodeError:
        return None


def _named_method(items: Sequence[Any]) -> str:
    """The method that the first of several items names, if it is an input that names one."""
    if not items or not isinstance(items[0], v2.Input):
        return ""
    metadata = items[0].data.metadata.fields
    return metadata[METHOD_NAME].string_value if METHOD_NAME in metadata else ""


def _walk(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields of a serialized message: number, start and end of the content.

    It ends early where the bytes are no message; that is found out elsewhere.
    """
    at, size = 0, len(encoded)
    try:
        while at < size:
            tag, at = _varint(encoded, at)
            kind = tag & 7
            if kind == LENGTH_DELIMITED:
                length, at = _varint(encoded, at)
                yield tag >> 3, at, at + length
                at += length
            elif kind == _NUMBER:
                _, at = _varint(encoded, at)
            elif kind in _FIXED_SIZES:
                at += _FIXED_SIZES[kind]
            else:
                return
    except (IndexError, ValueError):
        return


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it.

    Raises:
        IndexError: The bytes end within it.
        ValueError: It has more than 64 bits.
    """
    value = shift = 0
    while shift < _MOST_BITS:
        byte = encoded[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits")
