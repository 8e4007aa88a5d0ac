"""Which tests carry the marker ``measures``: those that a busy machine can make fail."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def calls(node: ast.AST, names: set[str]) -> bool:
    """Whether a function of one of these names is called without arguments."""
    return any(
        isinstance(one, ast.Call)
        and isinstance(one.func, ast.Attribute)
        and one.func.attr in names
        and not one.args
        for one in ast.walk(node)
    )


def is_span(node: ast.AST) -> bool:
    """Whether this is the time since something, as in ``time.monotonic() - began``."""
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and calls(node, CLOCKS)


def measures(function: Function) -> bool:
    """Whether a span of time has to be below a bound, or threads or memory are counted."""
    spans = {
        target.id
        for one in ast.walk(function)
        if isinstance(one, ast.Assign) and is_span(one.value)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    for one in ast.walk(function):
        if isinstance(one, ast.Assert) and calls(one, {"active_count"}):
            return True
        if isinstance(one, ast.Compare):
            operands = [one.left, *one.comparators]
            for operand, sign in zip(operands, one.ops, strict=False):
                taken = is_span(operand) or (isinstance(operand, ast.Name) and operand.id in spans)
                if taken and isinstance(sign, ast.Lt | ast.LtE):
                    return True
    return calls(function, {"get_traced_memory"})


def unmarked(source: str) -> Iterator[str]:
    """Names of the test functions that measure and do not say so."""
    for one in ast.walk(ast.parse(source)):
        if isinstance(one, Function) and one.name.startswith("test_") and measures(one):
            marks = [ast.unparse(decorator) for decorator in one.decorator_list]
            if "pytest.mark.measures" not in marks:
                yield one.name


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.name)
def test_what_measures_is_marked(path: Path) -> None:
    assert list(unmarked(path.read_text())) == []


@pytest.mark.parametrize(
    ("check", "found"),
    [
        ("assert time.monotonic() - began < 2", True),
        ("assert 0.1 <= time.perf_counter() - began <= 2", True),
        ("taken = time.time() - began\n    assert taken < 2", True),
        ("assert (error.code, time.monotonic() - began < 5) == (3, True)", True),
        ("assert threading.active_count() == before", True),
        ("before = tracemalloc.get_traced_memory()[0]", True),
        ("assert time.monotonic() - began >= 0.1", False),
        ("assert time.monotonic() < deadline", False),
        ("assert len(found) - 1 < 3", False),
    ],
)
def test_what_counts_as_measuring(check: str, found: bool) -> None:
    source = f"def test_it():\n    {check}\n"
    assert list(unmarked(source)) == ["test_it"] * found
    assert list(unmarked(f"@pytest.mark.measures\n{source}")) == []
