"""What a request is about, for those who watch calls: its model, its items, its named method.

A serialized request is not parsed for that: its pictures would be copied. Its outermost fields are
walked over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from clarigrpc import _wire_format, v2
from clarigrpc._contract.methods import Method

METHOD_NAME = "_method_name"
"""Key in the metadata of an input that holds the name of a model's method."""

_METHOD_NAME_BYTES = METHOD_NAME.encode()

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
    for number, wire_type, start, end in _wire_format.fields(request):
        if wire_type != _wire_format.LENGTH_DELIMITED:
            continue
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
