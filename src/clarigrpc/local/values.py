"""Python values of a model's method, as the data that crosses the wire, and back.

=====================  ==============  ====================================================
Python                 data type       field of Data
=====================  ==============  ====================================================
str                    STR             string_value
bytes                  BYTES           bytes_value
int, float, bool       INT, ...        int_value, float_value, bool_value
numpy.ndarray          NDARRAY         ndarray
PIL.Image.Image        IMAGE           image.base64, as PNG (any format, or a URL, is read)
dict, list, Any        JSON_DATA       string_value, as JSON (struct_value is read, too)
list[T], tuple[...]    LIST, TUPLE     parts, one an element, their index as id
v2.Text, v2.Image,     TEXT, IMAGE,    the field of that message
v2.Audio, v2.Video     AUDIO, VIDEO
v2.Concept, v2.Region, CONCEPT, ...    the first of concepts, regions, frames; a list of them
v2.Frame                               fills the field
=====================  ==============  ====================================================

Without an annotation a value is taken for what its data shows, which cannot tell 0 or "" from
nothing: annotate.
"""

from __future__ import annotations

import collections.abc
import io
import json
import types
import typing
from typing import Any

import numpy as np
import PIL.Image
from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc.local import media
from clarigrpc.local.core import ServiceError
from clarigrpc.local.fetch import Fetcher

_Field = v2.ModelTypeField
_Type = v2.ModelTypeField.DataType

_SCALARS: dict[_Type.ValueType, str] = {
    _Field.STR: "string_value",
    _Field.BYTES: "bytes_value",
    _Field.INT: "int_value",
    _Field.FLOAT: "float_value",
    _Field.BOOL: "bool_value",
}
_MESSAGES: dict[_Type.ValueType, str] = {
    _Field.TEXT: "text",
    _Field.AUDIO: "audio",
    _Field.VIDEO: "video",
}
_REPEATED: dict[_Type.ValueType, str] = {
    _Field.CONCEPT: "concepts",
    _Field.REGION: "regions",
    _Field.FRAME: "frames",
}
_BY_CLASS: dict[Any, _Type.ValueType] = {
    str: _Field.STR,
    bytes: _Field.BYTES,
    int: _Field.INT,
    float: _Field.FLOAT,
    bool: _Field.BOOL,
    dict: _Field.JSON_DATA,
    list: _Field.JSON_DATA,
    np.ndarray: _Field.NDARRAY,
    PIL.Image.Image: _Field.IMAGE,
    v2.Image: _Field.IMAGE,
    v2.Text: _Field.TEXT,
    v2.Audio: _Field.AUDIO,
    v2.Video: _Field.VIDEO,
    v2.Concept: _Field.CONCEPT,
    v2.Region: _Field.REGION,
    v2.Frame: _Field.FRAME,
}
_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)


class Converter:
    """Converts the values of one argument or result.

    Args:
        name: Its name; ``return`` for a result.
        annotation: Its type, None where there is none. An iterator of T is a stream of T.

    Raises:
        TypeError: The annotation is none of the types above.
    """

    def __init__(self, name: str, annotation: Any) -> None:
        self.field = _Field(name=name)
        origin = typing.get_origin(annotation)
        if origin in _ITERATORS:
            self.field.iterator = True
            annotation = typing.get_args(annotation)[0]
        self._annotation = _not_optional(annotation)
        _describe(self.field, self._annotation, name)

    def encode(self, value: Any) -> v2.Data:
        """The data for a value; TypeError for one that no data can hold."""
        data = v2.Data()
        _encode(value, self.field, data)
        return data

    def decode(self, data: v2.Data, fetcher: Fetcher) -> Any:
        """The value of the data; ServiceError for data that is not of the type."""
        if self._annotation is v2.Data:
            return data
        if self._annotation is v2.Image:  # as it is, not decoded
            return data.image
        return _decode(data, self.field, fetcher)


def _not_optional(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not types.NoneType]
        if len(inner) == 1:
            return inner[0]
    return annotation


def _describe(field: v2.ModelTypeField, annotation: Any, name: str) -> None:
    """Writes the data type of an annotation into the field."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, types.NoneType, v2.Data):
        return
    if annotation is Any:
        field.type = _Field.JSON_DATA
    elif annotation in _BY_CLASS:
        field.type = _BY_CLASS[annotation]
    elif origin is dict:
        field.type = _Field.JSON_DATA
    elif origin is list:
        field.type = _Field.LIST
        _describe(field.type_args.add(), _not_optional(args[0]), name)
    elif origin is tuple and Ellipsis not in args:
        field.type = _Field.TUPLE
        for index, arg in enumerate(args):
            _describe(field.type_args.add(name=str(index)), _not_optional(arg), name)
    elif origin is np.ndarray:
        field.type = _Field.NDARRAY
    else:
        raise TypeError(f"{name}: models cannot have values of type {annotation!r}")


def _encode(value: Any, field: v2.ModelTypeField, data: v2.Data) -> None:
    kind = field.type or _type_of(value)
    if value is None:
        return
    if isinstance(value, v2.Data):
        data.CopyFrom(value)
    elif kind == _Field.JSON_DATA:
        data.string_value = json.dumps(value)
    elif kind in _SCALARS:
        if isinstance(value, np.generic):
            value = value.item()
        setattr(data, _SCALARS[kind], value)
    elif kind == _Field.NDARRAY:
        array = np.ascontiguousarray(value)
        data.ndarray.buffer = array.tobytes()
        data.ndarray.shape.extend(np.shape(value))
        data.ndarray.dtype = array.dtype.str
    elif kind == _Field.IMAGE and not isinstance(value, v2.Image):
        file = io.BytesIO()
        value.save(file, "PNG")
        data.image.base64 = file.getvalue()
    elif kind == _Field.IMAGE:
        data.image.CopyFrom(value)
    elif kind in _MESSAGES:
        getattr(data, _MESSAGES[kind]).CopyFrom(value)
    elif kind in _REPEATED:
        getattr(data, _REPEATED[kind]).append(value)
    elif kind == _Field.LIST and field.type_args and field.type_args[0].type in _REPEATED:
        getattr(data, _REPEATED[field.type_args[0].type]).extend(value)
    else:
        args = field.type_args
        for index, item in enumerate(value):
            inner = args[min(index, len(args) - 1)] if args else _Field()
            _encode(item, inner, data.parts.add(id=str(index)).data)


def _type_of(value: Any) -> _Type.ValueType:
    """The data type for a value without an annotation."""
    if isinstance(value, (bool, np.bool_)):
        return _Field.BOOL
    if isinstance(value, np.integer):
        return _Field.INT
    if isinstance(value, np.floating):
        return _Field.FLOAT
    if isinstance(value, (list, tuple)):
        return _Field.LIST
    if value is None or isinstance(value, v2.Data):
        return _Field.NOT_SET
    for class_, kind in _BY_CLASS.items():
        if isinstance(value, class_):
            return kind
    raise TypeError(f"a model cannot return {type(value).__name__}")


def _decode(data: v2.Data, field: v2.ModelTypeField, fetcher: Fetcher) -> Any:
    kind = field.type or _shown(data)
    if kind == _Field.STR and data.HasField("text"):  # what media values look like
        return media.content_of(data, fetcher).decode()
    if kind == _Field.FLOAT and data.int_value and not data.float_value:
        return float(data.int_value)
    if kind in _SCALARS:
        return getattr(data, _SCALARS[kind])
    if kind == _Field.NDARRAY:
        return _array(data.ndarray)
    if kind == _Field.JSON_DATA:
        return _json(data)
    if kind == _Field.IMAGE:
        if not data.HasField("image"):
            raise _invalid(f"{field.name}: there is no image")
        return media.open_image(media.content_of(data, fetcher))
    if kind in _MESSAGES:
        return getattr(data, _MESSAGES[kind])
    if kind in _REPEATED:
        found = getattr(data, _REPEATED[kind])
        if not found:
            raise _invalid(f"{field.name}: {_REPEATED[kind]} is empty")
        return found[0]
    args = field.type_args
    if kind == _Field.LIST and args and args[0].type in _REPEATED:
        return list(getattr(data, _REPEATED[args[0].type]))
    if kind == _Field.TUPLE and len(args) != len(data.parts):
        raise _invalid(f"{field.name}: {len(data.parts)} parts for a tuple of {len(args)}")
    if kind in (_Field.LIST, _Field.TUPLE):
        items = [
            _decode(part.data, args[min(index, len(args) - 1)] if args else _Field(), fetcher)
            for index, part in enumerate(data.parts)
        ]
        return tuple(items) if kind == _Field.TUPLE else items
    return None


def _shown(data: v2.Data) -> _Type.ValueType:
    """The data type that the data itself shows."""
    if data.HasField("image"):
        return _Field.IMAGE
    if data.HasField("text"):
        return _Field.STR
    if data.HasField("ndarray"):
        return _Field.NDARRAY
    if data.HasField("struct_value"):
        return _Field.JSON_DATA
    if data.parts:
        return _Field.LIST
    for kind, name in (*_SCALARS.items(), *_MESSAGES.items(), *_REPEATED.items()):
        if any(field.name == name for field, _ in data.ListFields()):
            return kind
    return _Field.NOT_SET


def _json(data: v2.Data) -> Any:
    if data.HasField("struct_value"):
        return json_format.MessageToDict(data.struct_value)
    try:
        return json.loads(data.string_value) if data.string_value else None
    except ValueError as error:
        raise _invalid(f"string_value is no JSON: {error}") from error


def _array(array: v2.NDArray) -> np.ndarray[Any, Any]:
    try:
        dtype = np.dtype(array.dtype)
        if dtype.kind not in "biufc":
            raise _invalid(f"arrays of {array.dtype!r} are not taken")
        flat = np.frombuffer(array.buffer, dtype)
        return flat.reshape(tuple(array.shape)).copy()
    except (ValueError, TypeError) as error:
        raise _invalid(f"the array does not fit its shape and dtype: {error}") from error


def _invalid(details: str) -> ServiceError:
    return ServiceError(v2.StatusCode.INPUT_INVALID_ARGUMENT, details)
