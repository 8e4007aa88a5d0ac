"""Annotations of a model's Python function as the types of its arguments and results.

How values cross is the same on both sides, see ``clarigrpc._named_methods.values``. Without an
annotation a value is taken for what its data shows, which cannot tell 0 or "" from nothing:
annotate. dict, list and Any without arguments cross as JSON.
"""

from __future__ import annotations

import collections.abc
import enum
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from clarigrpc import v2
from clarigrpc._named_methods import values
from clarigrpc._named_methods.values import DataType, MediaReader

_BY_CLASS: dict[Any, DataType.ValueType] = {
    str: v2.ModelTypeField.STR,
    bytes: v2.ModelTypeField.BYTES,
    int: v2.ModelTypeField.INT,
    float: v2.ModelTypeField.FLOAT,
    bool: v2.ModelTypeField.BOOL,
    dict: v2.ModelTypeField.JSON_DATA,
    list: v2.ModelTypeField.JSON_DATA,
    v2.Image: v2.ModelTypeField.IMAGE,
    v2.Text: v2.ModelTypeField.TEXT,
    v2.Audio: v2.ModelTypeField.AUDIO,
    v2.Video: v2.ModelTypeField.VIDEO,
    v2.Concept: v2.ModelTypeField.CONCEPT,
    v2.Region: v2.ModelTypeField.REGION,
    v2.Frame: v2.ModelTypeField.FRAME,
}
# By name: neither package is imported for models that do not use it.
_BY_CLASS_NAME: dict[tuple[str, str], DataType.ValueType] = {
    ("numpy", "ndarray"): v2.ModelTypeField.NDARRAY,
    ("PIL.Image", "Image"): v2.ModelTypeField.IMAGE,
}
_ASYNC_ITERATORS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)
_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)


class MethodInputError(Exception):
    """The data of a request is not what a method takes; the text says why."""


class Converter:
    """Converts the values of one argument or result.

    Args:
        name: Its name; ``return`` for a result.
        annotation: Its type, None where there is none. An iterator of T is a stream of T.

    Attributes:
        field: What signatures say of it.
        is_async: Whether it is a stream for asynchronous code.

    Raises:
        TypeError: The annotation is none of the types above.
    """

    def __init__(self, name: str, annotation: Any) -> None:
        self.field: v2.ModelTypeField = v2.ModelTypeField(name=name)
        origin = typing.get_origin(annotation)
        self.is_async: bool = origin in _ASYNC_ITERATORS
        if self.is_async or origin in _ITERATORS:
            self.field.iterator = True
            annotation = typing.get_args(annotation)[0]
        self._annotation = _not_optional(annotation)
        self._nullable = annotation in (None, types.NoneType, Any) or (
            self._annotation is not annotation
        )
        if self._nullable:
            self.field.placeholder = values.NULLABLE
        self._choices = _choices(self._annotation)
        if self._choices:
            self._annotation = _type_of_choices(name, self._choices)
            for choice in self._choices:
                self.field.model_type_enum_options.add(id=str(choice))
        _describe(self.field, self._annotation, name)

    def raw(self, value: Any) -> Any:
        """A value as it crosses: that of a member of an enumeration."""
        return _raw(value) if self._choices else value

    def encode(self, value: Any) -> v2.Data:
        """The data for a value; TypeError for one that no data can hold."""
        data = v2.Data()
        if value is None:
            values.encode_none(data)
        else:
            values.encode(self.raw(value), self.field, data)
        return data

    def decode(self, data: v2.Data, reader: MediaReader) -> Any:
        """The value of the data; MethodInputError for data that is not of the type."""
        if self._annotation is v2.Data:
            return data
        if self._annotation is v2.Image:  # as it is, not decoded
            return data.image
        if values.is_none(data) and not self._nullable:
            raise MethodInputError(f"{self.field.name} may not be None")
        try:
            value = values.decode(data, self.field, reader)
            return self._chosen(value) if self._choices and value is not None else value
        except ValueError as error:
            raise MethodInputError(f"{self.field.name}: {error}") from error

    def _chosen(self, value: Any) -> Any:
        try:
            return self._choices[value]
        except KeyError:
            allowed = ", ".join(map(repr, self._choices))
            raise ValueError(f"{value!r} is none of {allowed}") from None


def _choices(annotation: Any) -> dict[Any, Any]:
    """What a Literal or an enumeration allows, by the values that cross; empty for other types."""
    if typing.get_origin(annotation) is Literal:
        return {_raw(one): one for one in typing.get_args(annotation)}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {_raw(member): member for member in annotation}
    return {}


def _raw(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _type_of_choices(name: str, choices: Iterable[Any]) -> Any:
    kinds = {type(choice) for choice in choices}
    if kinds not in ({str}, {int}):
        raise TypeError(f"{name}: all values of a Literal or an Enum must be str, or all int")
    return kinds.pop()


def _not_optional(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not types.NoneType]
        if len(inner) == 1:
            return inner[0]
    return annotation


def _type_of_class(annotation: Any) -> DataType.ValueType | None:
    known = _BY_CLASS.get(annotation)
    if known is None and isinstance(annotation, type):
        known = _BY_CLASS_NAME.get((annotation.__module__, annotation.__name__))
    return known


def _describe(field: v2.ModelTypeField, annotation: Any, name: str) -> None:
    """Writes the data type of an annotation into the field."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, types.NoneType, v2.Data):
        return
    if annotation is Any:
        field.type = v2.ModelTypeField.JSON_DATA
    elif (kind := _type_of_class(annotation)) is not None:
        field.type = kind
    elif origin is dict:
        field.type = v2.ModelTypeField.JSON_DATA
    elif origin is list:
        field.type = v2.ModelTypeField.LIST
        _describe(field.type_args.add(), _not_optional(args[0]), name)
    elif origin is tuple and Ellipsis not in args:
        field.type = v2.ModelTypeField.TUPLE
        for index, arg in enumerate(args):
            _describe(field.type_args.add(name=str(index)), _not_optional(arg), name)
    elif (kind := _type_of_class(origin)) is not None:  # numpy.typing.NDArray
        field.type = kind
    else:
        raise TypeError(
            f"{name}: values of {annotation!r} cannot be sent; take a dict or str instead, and "
            "convert it in the method"
        )
