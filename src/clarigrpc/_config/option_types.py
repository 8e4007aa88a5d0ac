"""The types of options: of a dataclass by its annotations, and of single ones."""

from __future__ import annotations

import collections.abc
import operator
import os
import types
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from clarigrpc.errors import ConfigurationError

_WORDS: dict[Any, str] = {
    bool: "True or False",
    bytes: "bytes",
    float: "a number",
    int: "a whole number",
    os.PathLike: "a path",
    str: "a string",
    collections.abc.Callable: "a callable",
    collections.abc.Sequence: "a list",
}


def check_types(options: Any, owner: str = "") -> None:
    """Check the fields of a dataclass that differ from their defaults.

    Args:
        options: The dataclass.
        owner: What the fields belong to, for the text of the error.

    Raises:
        ConfigurationError: A value is not of the field's type.
    """
    checked: Any = type(options)
    for name, (default, annotation) in _fields(checked).items():
        value = getattr(options, name)
        if value is not default and not _fits(value, annotation):
            field = f"{name} of {owner}" if owner else name
            raise ConfigurationError(
                f"{field} has to be {_in_words(annotation)}, not {_found(value, annotation)}"
            )


def whole_number(name: str, value: Any) -> int:
    """The value of an option that is an integer.

    Raises:
        TypeError: It is none.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} has to be an integer, not {type(value).__name__}") from None


@cache
def _fields(owner: Any) -> dict[str, tuple[Any, Any]]:
    hints = get_type_hints(owner)
    return {
        name: (field.default, hints[name]) for name, field in owner.__dataclass_fields__.items()
    }


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _choices(annotation: Any) -> bool:
    return get_origin(annotation) is Literal


def _fits(value: Any, annotation: Any) -> bool:
    if _is_union(annotation):
        return any(_fits(value, one) for one in get_args(annotation))
    if _choices(annotation):
        return any(type(value) is type(one) and value == one for one in get_args(annotation))
    origin = get_origin(annotation) or annotation
    if origin is float or origin is int:
        # Numbers of other packages are numbers, too.
        number = "__float__" if origin is float else "__index__"
        return hasattr(type(value), number) and not isinstance(value, bool)
    if origin is collections.abc.Sequence:
        (item,) = get_args(annotation)
        return (
            isinstance(value, collections.abc.Sequence)
            and not isinstance(value, (str, bytes))
            and all(_fits(one, item) for one in value)
        )
    if origin is tuple:
        items = get_args(annotation)
        return (
            isinstance(value, tuple) and len(value) == len(items) and all(map(_fits, value, items))
        )
    return isinstance(value, origin)


def _in_words(annotation: Any) -> str:
    """What an annotation allows, without None."""
    if _is_union(annotation):
        allowed = [one for one in get_args(annotation) if one is not type(None)]
        return _or([_in_words(one) for one in allowed])
    if _choices(annotation):
        return _or([repr(one) for one in get_args(annotation)])
    origin = get_origin(annotation) or annotation
    if origin is collections.abc.Sequence:
        (item,) = get_args(annotation)
        each = get_args(item) if _is_union(item) else (item,)
        return f"a list of {_or([_many(one) for one in each])}"
    if origin is tuple:
        return f"({', '.join(map(_in_words, get_args(annotation)))})"
    return _WORDS.get(origin) or f"a {origin.__name__}"


def _many(annotation: Any) -> str:
    return "strings" if annotation is str else _in_words(annotation).removeprefix("a ")


def _found(value: Any, annotation: Any) -> str:
    """What was given instead. Values are not shown, as they may be credentials."""
    if _choices(annotation):
        return repr(value)
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return f"a {kind} of {_or([type(one).__name__ for one in value]) or 'nothing'}"
    return kind


def _or(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
