"""The public names of classes and functions that private modules define."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import get_annotations
from typing import TypeVar, get_type_hints, is_typeddict

T = TypeVar("T", bound=Callable[..., object])


def named_in(module: str) -> Callable[[T], T]:
    """A decorator for classes and functions: the public module from which they are imported.

    ``repr``, ``help()`` and pickles say it. The outermost decorator: that of dataclasses looks up
    names in the module where a class was written.
    """

    def named(definition: T) -> T:
        if isinstance(definition, type) and not is_typeddict(definition):
            # Whoever evaluates them afterwards looks up their names in the public module.
            types = get_type_hints(definition, include_extras=True)
            definition.__annotations__ = {name: types[name] for name in get_annotations(definition)}
        definition.__module__ = module
        return definition

    return named


def without_private(names: Iterable[str]) -> list[str]:
    """Names as ``dir()`` is to show them: without those that begin with one underscore."""
    return [name for name in names if name.startswith("__") or not name.startswith("_")]
