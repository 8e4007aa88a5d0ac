"""The public names of clarigrpc, as ``tests/data/public_names.tsv`` holds them.

``python -m tests.public_names`` writes the file anew: after a change of a name that is meant.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import clarigrpc

FILE = Path(__file__).resolve().parent / "data" / "public_names.tsv"


def modules() -> Iterator[ModuleType]:
    """The modules that users may import; what lies in their packages is not among them."""
    yield clarigrpc
    for found in pkgutil.iter_modules(clarigrpc.__path__):
        if not found.name.startswith("_"):
            yield import_module(f"clarigrpc.{found.name}")


def rows() -> list[str]:
    """``module<TAB>name`` of each public name, but those of the protos (``clarigrpc.v2``)."""
    return sorted(
        f"{module.__name__}\t{name}"
        for module in modules()
        if module.__name__ != "clarigrpc.v2"
        for name in vars(module)["__all__"]
    )


if __name__ == "__main__":
    FILE.write_text("".join(f"{row}\n" for row in rows()))
