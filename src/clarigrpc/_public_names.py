"""The public names of classes that private modules define."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

C = TypeVar("C", bound="type[object]")


def named_in(module: str) -> Callable[[C], C]:
    """Have a class say (``__module__``, ``repr``, pickles) the module that users import it from.

    A decorator, the outermost one: that of dataclasses looks up names where a class was written.
    """

    def named(cls: C) -> C:
        cls.__module__ = module
        return cls

    return named
