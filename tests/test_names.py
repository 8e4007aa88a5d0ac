"""One word, one meaning: modules do not share the names of what they define.

A class, type alias or constant that two modules call the same makes a reader ask which one is
meant. The sync and the async module of a pair may share names: their classes are counterparts.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import clarigrpc

ROOT = Path(clarigrpc.__file__).parent
GENERATED = "v2"

SHARED = {
    "BACKGROUND_TASKS": "the tasks of a module of handlers in the local server, and all of them",
    "DUPLEX": "its handlers of bidi streams, and all of them",
    "PRIVATE_NAMES": "what the module takes from inside of grpcio",
    "SERVER_STREAM": "its handlers of server streams, and all of them",
    "UNARY": "its handlers of unary methods, and all of them",
    "logger": "the logger of the package, and of a module of the local server",
}


def modules() -> Iterator[Path]:
    """The hand-written modules."""
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] != GENERATED:
            yield path


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under an ``if`` or ``try`` included."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            yield from statements(statement.body + statement.orelse)
        else:
            yield statement


def is_type_variable(value: ast.expr | None) -> bool:
    """Whether a value is ``TypeVar(...)`` or ``ParamSpec(...)``, which cannot be told by a name."""
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in ("ParamSpec", "TypeVar")
    )


def defined(path: Path) -> set[str]:
    """The classes, aliases and constants of a module, without leading underscores."""
    found: set[str] = set()
    for statement in statements(ast.parse(path.read_text()).body):
        targets: list[ast.expr] = []
        if isinstance(statement, ast.ClassDef):
            found.add(statement.name.lstrip("_"))
        elif isinstance(statement, ast.Assign) and not is_type_variable(statement.value):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        nodes = [node for target in targets for node in ast.walk(target)]
        found |= {
            node.id.lstrip("_")
            for node in nodes
            if isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and not node.id.endswith("__")
        }
    return found


def meaning(path: Path) -> str:
    """The module, the same for the two of a sync and async pair."""
    name = path.name.removeprefix("async_").removeprefix("sync_")
    return str(path.with_name(name).relative_to(ROOT))


def shared_names() -> dict[str, set[str]]:
    """The modules by the names that more than one of them defines."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in modules():
        for name in defined(path):
            found[name].add(meaning(path))
    return {name: where for name, where in found.items() if len(where) > 1}


def test_the_definitions_are_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import x\n"
        "class A: ...\n"
        "T = TypeVar('T')\n"
        "_B, (C, D) = 1, (2, 3)\n"
        "if x:\n    E: int = 1\nelse:\n    try:\n        F = x.f = 5\n    finally:\n        pass\n"
        "__all__ = []\n"
        "def f():\n    G = 1\n"
    )
    assert defined(module) == {"A", "B", "C", "D", "E", "F"}


def test_no_two_modules_share_a_name() -> None:
    found = shared_names()
    assert {name: where for name, where in found.items() if name not in SHARED} == {}
    assert SHARED.keys() <= found.keys(), "a reason without a name"
