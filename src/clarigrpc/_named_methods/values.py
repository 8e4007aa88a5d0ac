"""Python values of a model's methods <-> ``v2.Data``.

docs/predict.md has the table of types. Also accepted: str for TEXT, bytes of a file or an array for
IMAGE, bytes for AUDIO and VIDEO, and for all four the inputs made by ``image()``, ``text()`` etc.
NumPy scalars count as int, float and bool. Without a type in the signature (NOT_SET), the type is
derived from the value or the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from io import BytesIO
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from clarigrpc import media, v2, wellknown
from clarigrpc._extras import NeedsExtra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Field = v2.ModelTypeField
DataType = v2.ModelTypeField.DataType

SCALARS: Mapping[DataType.ValueType, str] = {
    Field.STR: "string_value",
    Field.BYTES: "bytes_value",
    Field.INT: "int_value",
    Field.FLOAT: "float_value",
    Field.BOOL: "bool_value",
}
MEDIA_FIELDS: Mapping[DataType.ValueType, str] = {
    Field.TEXT: "text",
    Field.IMAGE: "image",
    Field.AUDIO: "audio",
    Field.VIDEO: "video",
}
REPEATED: Mapping[DataType.ValueType, str] = {
    Field.CONCEPT: "concepts",
    Field.REGION: "regions",
    Field.FRAME: "frames",
}
_TYPE_NAMES: Mapping[DataType.ValueType, str] = {
    Field.STR: "str",
    Field.BYTES: "bytes",
    Field.INT: "int",
    Field.FLOAT: "float",
    Field.BOOL: "bool",
    Field.NDARRAY: "numpy.ndarray",
    Field.JSON_DATA: "JSON",
    Field.TEXT: "Text",
    Field.IMAGE: "Image",
    Field.CONCEPT: "Concept",
    Field.REGION: "Region",
    Field.FRAME: "Frame",
    Field.AUDIO: "Audio",
    Field.VIDEO: "Video",
}
_NUMERIC_KINDS = "biufc"
"""``dtype.kind`` of the arrays that are supported: bool, integers, floats, complex."""
# np.dtype() evaluates parts of other texts as Python, and warns about some of them.
_DTYPE = re.compile(
    r"[<>=|]?(?:[?bBhHiIlLqQpPnNefdgFDG]|[biufc][0-9]{1,2})|[a-z]{3,11}_?[0-9]{0,3}"
)
_MESSAGES: Mapping[type[Any], DataType.ValueType] = {
    v2.Text: Field.TEXT,
    v2.Image: Field.IMAGE,
    v2.Audio: Field.AUDIO,
    v2.Video: Field.VIDEO,
    v2.Concept: Field.CONCEPT,
    v2.Region: Field.REGION,
    v2.Frame: Field.FRAME,
}


NULLABLE = "None"
"""Placeholder of a field whose value may be None; servers of others leave it empty."""
_NONE = "_none"
"""Key of the metadata that stand for None: protobuf's 0 and "" are the same as nothing."""


def encode_none(data: v2.Data) -> None:
    """Write None into ``data``."""
    data.metadata.fields[_NONE].bool_value = True


def is_none(data: v2.Data) -> bool:
    """Whether ``encode_none`` wrote the data."""
    return _NONE in data.metadata.fields


def type_name(field: v2.ModelTypeField) -> str:
    """The type of a field in Python syntax."""
    args = [type_name(arg) for arg in field.type_args]
    if field.type == Field.LIST:
        name = f"list[{', '.join(args)}]" if args else "list"
    elif field.type == Field.TUPLE:
        name = f"tuple[{', '.join(args)}]"
    elif field.type == Field.NAMED_FIELDS:
        members = (f"{a.name}: {name}" for a, name in zip(field.type_args, args, strict=True))
        name = f"{{{', '.join(members)}}}"
    else:
        name = _TYPE_NAMES.get(field.type, "Any")
    return f"Iterator[{name}]" if field.iterator else name


class MediaReader:
    """Reads texts and images.

    Attributes:
        blocks: Whether it may wait, for a download say.
    """

    blocks: bool = False

    def text(self, data: v2.Data) -> str:
        """The text in ``data.text``."""
        return data.text.raw

    def image(self, data: v2.Data) -> Any:
        """A PIL image; a ``v2.Image`` if it is a URL or Pillow is not installed."""
        if not data.image.base64:
            return data.image
        try:
            import PIL.Image
        except ImportError:
            return data.image
        try:
            return PIL.Image.open(BytesIO(data.image.base64))
        except Exception as error:  # of Pillow's readers of foreign bytes, each with its own
            raise ValueError(f"the image cannot be read: {error}") from error


def encode(value: Any, field: v2.ModelTypeField, data: v2.Data) -> None:
    """Write a value of the field's type into ``data``.

    Raises:
        TypeError: The value has another type.
        ValueError: The value cannot be encoded, e.g. an integer of more than 64 bits.
        OverflowError: A whole number is larger than any float.
        RecursionError: Values for JSON are nested too deep.
    """
    kind = field.type
    if isinstance(value, v2.Data):
        data.CopyFrom(value)
        return
    if kind == Field.NOT_SET:
        if value is None:
            encode_none(data)
            return
        kind = type_of(value)
        if kind == Field.JSON_DATA:  # a string could not be told from the text of JSON
            data.struct_value.CopyFrom(wellknown.struct(value))
            return
    if kind in SCALARS:
        setattr(data, SCALARS[kind], _scalar(value, kind))
    elif kind == Field.JSON_DATA:
        data.string_value = json.dumps(value)
    elif kind == Field.NDARRAY:
        _encode_array(value, data)
    elif kind in MEDIA_FIELDS:
        _encode_media(value, kind, data)
    elif kind in REPEATED:
        if _MESSAGES.get(type(value)) != kind:
            raise _wrong(_TYPE_NAMES[kind], value)
        getattr(data, REPEATED[kind]).append(value)
    elif kind == Field.NAMED_FIELDS:
        _encode_members(value, field, data)
    else:
        _encode_elements(value, kind, field, data)


def type_of(value: Any) -> DataType.ValueType:
    """The data type of a value; raises TypeError if there is none."""
    if _is_bool(value):
        return Field.BOOL
    if isinstance(value, Integral):
        return Field.INT
    if isinstance(value, Real):
        return Field.FLOAT
    for plain, kind in ((str, Field.STR), (bytes, Field.BYTES), (dict, Field.JSON_DATA)):
        if isinstance(value, plain):
            return kind
    if isinstance(value, (list, tuple)):
        return Field.LIST
    if type(value) in _MESSAGES:
        return _MESSAGES[type(value)]
    if _is_array(value):
        return Field.NDARRAY
    if callable(getattr(value, "save", None)) and hasattr(value, "mode"):
        return Field.IMAGE
    raise TypeError(f"values of type {type(value).__name__} are not supported")


def _wrong(expected: str, value: Any) -> TypeError:
    return TypeError(f"expected {expected}, not {type(value).__name__}")


def _is_bool(value: Any) -> bool:
    # The name is "bool" in NumPy 2 and "bool_" in NumPy 1, which is not imported for this.
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def _is_array(value: Any) -> bool:
    return (
        hasattr(value, "__array_interface__")
        and hasattr(value, "dtype")
        and not _scalar_like(value)
    )


def _scalar_like(value: Any) -> bool:
    return isinstance(value, (Integral, Real)) or _is_bool(value)


def _scalar(value: Any, kind: DataType.ValueType) -> Any:
    good: bool
    if kind == Field.BOOL:
        good = _is_bool(value)
    elif kind == Field.INT:
        good = isinstance(value, Integral) and not isinstance(value, bool)
    elif kind == Field.FLOAT:
        good = isinstance(value, Real) and not isinstance(value, bool)
    elif kind == Field.STR:
        good = isinstance(value, str)
    else:
        good = isinstance(value, (bytes, bytearray, memoryview))
    if not good:
        raise _wrong(_TYPE_NAMES[kind], value)
    if kind == Field.BOOL:
        return bool(value)
    if kind == Field.INT:
        return int(value)
    if kind == Field.FLOAT:
        return float(value)
    return value if kind == Field.STR else bytes(value)


def _encode_array(value: Any, data: v2.Data) -> None:
    if not _is_array(value):
        raise _wrong("numpy.ndarray", value)
    if value.dtype.kind not in _NUMERIC_KINDS:
        raise TypeError(f"arrays of dtype {value.dtype} are not supported")
    data.ndarray.buffer = value.tobytes()
    data.ndarray.shape.extend(value.shape)
    data.ndarray.dtype = str(value.dtype)


def _encode_media(value: Any, kind: DataType.ValueType, data: v2.Data) -> None:
    name = MEDIA_FIELDS[kind]
    if isinstance(value, v2.Input) and value.data.HasField(name):  # type: ignore[arg-type]
        value = getattr(value.data, name)
    if _MESSAGES.get(type(value)) == kind:
        getattr(data, name).CopyFrom(value)
    elif kind == Field.TEXT:
        if not isinstance(value, str):
            raise _wrong("Text or str", value)
        data.text.raw = value
    elif isinstance(value, (bytes, bytearray, memoryview)):
        getattr(data, name).base64 = bytes(value)
    elif kind == Field.IMAGE and (_is_array(value) or callable(getattr(value, "save", None))):
        data.image.base64 = media.image(value).data.image.base64
    elif isinstance(value, str):
        raise TypeError(f"expected {_TYPE_NAMES[kind]}, not str; use {name}(...) for a path or URL")
    else:
        raise _wrong(_TYPE_NAMES[kind], value)


def _encode_members(value: Any, field: v2.ModelTypeField, data: v2.Data) -> None:
    if not isinstance(value, Mapping):
        raise _wrong(type_name(field), value)
    members = {member.name: member for member in field.type_args}
    for key in value:
        if key not in members:
            raise TypeError(f"unknown key {key!r}, expected {type_name(field)}")
    for name, member in members.items():
        if name in value:
            _encode_part(value[name], member, name, data)
        elif member.required:
            raise TypeError(f"missing key {name!r}, expected {type_name(field)}")


def _encode_elements(
    value: Any, kind: DataType.ValueType, field: v2.ModelTypeField, data: v2.Data
) -> None:
    if not isinstance(value, (list, tuple)):
        raise _wrong(type_name(field), value)
    args = field.type_args
    if kind == Field.TUPLE and len(args) != len(value):
        raise TypeError(f"expected {len(args)} elements, not {len(value)}")
    if kind == Field.LIST and args and args[0].type in REPEATED:
        for index, item in enumerate(value):
            if _MESSAGES.get(type(item)) != args[0].type:
                raise TypeError(f"at {index}: {_wrong(_TYPE_NAMES[args[0].type], item)}")
        getattr(data, REPEATED[args[0].type]).extend(value)
        return
    for index, item in enumerate(value):
        _encode_part(item, _element(field, index), str(index), data)


def _encode_part(value: Any, field: v2.ModelTypeField, part_id: str, data: v2.Data) -> None:
    try:
        encode(value, field, data.parts.add(id=part_id).data)
    except TypeError as error:
        raise TypeError(f"at {part_id}: {error}") from None


def _element(field: v2.ModelTypeField, index: int) -> v2.ModelTypeField:
    args = field.type_args
    if not args:
        return Field()
    return args[index] if field.type == Field.TUPLE else args[0]


def decode(data: v2.Data, field: v2.ModelTypeField, reader: MediaReader) -> Any:
    """The value of the field's type in ``data``.

    Raises:
        ValueError: The data contains no such value.
    """
    if is_none(data):
        return None
    kind = field.type or inferred_type(data)
    if kind == Field.STR and data.HasField("text"):
        return reader.text(data)
    if kind == Field.FLOAT and data.int_value and not data.float_value:
        return float(data.int_value)
    if kind in SCALARS:
        return getattr(data, SCALARS[kind])
    if kind == Field.NDARRAY:
        return _decode_array(data.ndarray)
    if kind == Field.JSON_DATA:
        return _decode_json(data)
    if kind == Field.IMAGE:
        if not data.HasField("image"):
            raise ValueError("image is not set")
        return reader.image(data)
    if kind in MEDIA_FIELDS:
        return getattr(data, MEDIA_FIELDS[kind])
    if kind in REPEATED:
        found = getattr(data, REPEATED[kind])
        if not found:
            raise ValueError(f"{REPEATED[kind]} is empty")
        return found[0]
    if kind == Field.NAMED_FIELDS:
        parts = {part.id: part.data for part in data.parts}
        return {
            m.name: decode(parts[m.name], m, reader) for m in field.type_args if m.name in parts
        }
    if kind in (Field.LIST, Field.TUPLE):
        return _decode_elements(data, kind, field, reader)
    return None


def _decode_elements(
    data: v2.Data, kind: DataType.ValueType, field: v2.ModelTypeField, reader: MediaReader
) -> Any:
    args = field.type_args
    if kind == Field.LIST and args and args[0].type in REPEATED:
        return list(getattr(data, REPEATED[args[0].type]))
    if kind == Field.TUPLE and len(args) != len(data.parts):
        raise ValueError(f"{len(data.parts)} parts for a tuple of {len(args)}")
    items = [
        decode(part.data, _element(field, index), reader) for index, part in enumerate(data.parts)
    ]
    return tuple(items) if kind == Field.TUPLE else items


def inferred_type(data: v2.Data) -> DataType.ValueType:
    """The data type inferred from the fields that are set; 0 and "" count as not set."""
    if data.HasField("text"):
        return Field.STR
    if data.HasField("ndarray"):
        return Field.NDARRAY
    if data.HasField("struct_value"):
        return Field.JSON_DATA
    if data.parts:
        return Field.LIST
    names = {field.name for field, _ in data.ListFields()}
    tables: Iterable[Mapping[DataType.ValueType, str]] = (MEDIA_FIELDS, SCALARS, REPEATED)
    for table in tables:
        for kind, name in table.items():
            if name in names:
                return kind
    return Field.NOT_SET


def _decode_json(data: v2.Data) -> Any:
    if data.HasField("struct_value"):
        try:
            return json_format.MessageToDict(data.struct_value)
        except (ValueError, json_format.Error) as error:
            raise ValueError(f"struct_value is not JSON: {error}") from error
    try:
        return json.loads(data.string_value) if data.string_value else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"string_value is not JSON: {error}") from error


def _decode_array(array: v2.NDArray) -> NDArray[Any]:
    with NeedsExtra("arrays", "an array as a result"):
        import numpy as np

    dtype = _dtype(array.dtype)
    try:
        return np.frombuffer(array.buffer, dtype).reshape(tuple(array.shape)).copy()
    except ValueError as error:
        raise ValueError(f"the array cannot be read: {error}") from error


def _dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of numbers with this name; ValueError if there is none."""
    import numpy as np

    if _DTYPE.fullmatch(name):
        try:
            dtype: np.dtype[Any] = np.dtype(name)
        except TypeError:
            pass
        else:
            if dtype.kind in _NUMERIC_KINDS:
                return dtype
    raise ValueError(f"arrays of dtype {name!r} are not supported")
