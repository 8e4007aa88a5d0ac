"""What users may import: its names, where it says it is from, and what its texts speak of."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import dataclasses
import datetime
import inspect
import pickle
import re
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import clarigrpc
from clarigrpc import errors, types, v2
from tests import public_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [row.split("\t") for row in public_names.FILE.read_text().splitlines()]
# For the parts of a client, or of a local server, among themselves.
INTERNAL = {
    *("child", "close_with", "encoder", "raises_on_partial", "unary"),
    *("before", "cut", "deploying", "fail_input", "mix", "respond"),
}


def defined() -> list[Any]:
    """The public classes and functions."""
    objects = {id(one): one for one in (getattr(import_module(m), n) for m, n in NAMES)}
    return [one for one in objects.values() if inspect.isclass(one) or inspect.isfunction(one)]


def members(owner: Any) -> Iterator[tuple[str, Any]]:
    """The public attributes of a class, or a function itself."""
    if not inspect.isclass(owner):
        yield owner.__name__, owner
        return
    for name in dir(owner):
        if not name.startswith("_") and name not in INTERNAL:
            yield f"{owner.__name__}.{name}", getattr(owner, name)


def test_the_public_names_are_those_of_the_file() -> None:
    assert public_names.rows() == public_names.FILE.read_text().splitlines(), (
        "if this is meant: python -m tests.public_names, and a line in CHANGELOG.md"
    )


@pytest.mark.parametrize("module", [clarigrpc, types, clarigrpc.local])
def test_type_checkers_and_programs_see_the_same_names(module: Any) -> None:
    tree = ast.parse(inspect.getsource(module))
    (branch,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {}
    for statement in branch.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            assert alias.name == alias.asname  # exported, for them
            seen[alias.name] = statement.module
    assert sorted(seen) == vars(module)["__all__"]
    assert set(seen) <= set(dir(module))
    for name, place in seen.items():
        assert getattr(module, name) is getattr(import_module(str(place)), name), name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    for module in (clarigrpc, types, clarigrpc.local):
        with pytest.raises(AttributeError, match=f"'{module.__name__}' has no attribute 'Modell'"):
            getattr(module, "Modell")  # noqa: B009


def test_classes_and_functions_say_where_users_import_them_from() -> None:
    for one in defined():
        found = getattr(import_module(one.__module__), one.__qualname__)
        assert found is one
        assert [one.__module__, one.__name__] in NAMES, one
        if inspect.isclass(one):
            assert f"'{one.__module__}.{one.__name__}'" in repr(one)


def test_results_can_be_pickled() -> None:
    status = v2.Status(code=v2.StatusCode.SUCCESS)
    report = types.UploadReport(
        taken=1, failed_inputs=[types.FailedInput(0, "i", status, v2.Input(id="i"))]
    )
    for one in (
        types.PredictSuccess(0, v2.Output(id="o")),
        report,
        types.UploadResult("v", status, 1, "", 0),
        types.UploadProgress(1, 2, 50.0, 1.0, 1.0),
        clarigrpc.RetryPolicy(max_attempts=2),
    ):
        stored = pickle.dumps(one)
        assert b"clarigrpc._" not in stored
        assert pickle.loads(stored) == one
    failure = types.PredictFailure(3, None, errors.NotFoundError("gone", method="GetModel"))
    loaded = pickle.loads(pickle.dumps(failure))
    assert (loaded.index, str(loaded.error)) == (3, "GetModel: gone")


def test_annotations_of_classes_can_be_evaluated() -> None:
    for one in defined():
        if dataclasses.is_dataclass(one):
            typing.get_type_hints(one)


def known_names() -> set[str]:
    """What the annotations of public signatures may name."""
    known = {name for _, name in NAMES} | {"V2AsyncStub", *dir(v2)}
    for module in (builtins, collections.abc, datetime, typing):
        known |= set(vars(module))
    return known | {
        "NDArray",
        "Path",
        "builtins",
        "grpc",
        "np",
        "os",
        "pa",
        "pd",
        *("Duration", "Message", "Struct", "Timestamp", "Value"),
        # Of OpenTelemetry.
        *("MeterProvider", "TextMapPropagator", "TracerProvider"),
    }


def annotations_of(function: Any) -> Iterator[str]:
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.annotation is not parameter.empty and parameter.name != "self":
            yield text_of(parameter.annotation)
    if signature.return_annotation is not signature.empty:
        yield text_of(signature.return_annotation)


def text_of(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def test_signatures_name_public_types_only() -> None:
    known = known_names()
    unknown: dict[str, set[str]] = {}
    for owner in defined():
        for name, member in members(owner):
            function = member.fget if isinstance(member, property) else member
            if not inspect.isfunction(function):
                continue
            for annotation in annotations_of(function):
                for node in ast.walk(ast.parse(annotation, mode="eval")):
                    if not isinstance(node, ast.Name) or node.id in known:
                        continue
                    if not isinstance(function.__globals__.get(node.id), typing.TypeVar):
                        unknown.setdefault(name, set()).add(node.id)
    assert unknown == {}


def test_texts_name_no_private_module() -> None:
    private = re.compile(r"clarigrpc\._\w+")
    for page in PAGES:
        assert private.findall(page.read_text(encoding="utf-8")) == [], page
    for module in public_names.modules():
        assert private.findall(inspect.getdoc(module) or "") == [], module
    for owner in defined():
        for name, member in [(owner.__name__, owner), *members(owner)]:
            assert private.findall(inspect.getdoc(member) or "") == [], name
