"""Modules whose names are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    module: str, definitions: Mapping[str, Iterable[str]], submodules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a module.

    Type checkers have to see ordinary imports instead (``if TYPE_CHECKING:``): for them a module
    with a ``__getattr__`` has every name.

    Args:
        module: Name of the module.
        definitions: Module -> the names to import from it.
        submodules: Modules in this one, which is a package.
    """
    places = {name: place for place, names in definitions.items() for name in names}
    public = sorted({*places, *submodules})
    namespace = sys.modules[module].__dict__

    def __getattr__(name: str) -> Any:
        if name in submodules:
            return import_module(f"{module}.{name}")
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = namespace[name] = getattr(import_module(places[name]), name)
        return value

    def __dir__() -> list[str]:
        return [*(name for name in namespace if name.startswith("__")), *public]

    return __getattr__, __dir__, public
