"""The page "Architecture": its drawing is that of the code, and its names are real.

A path of a call is a table whose first column names functions, in the order in which one call
enters them.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from xml.etree import ElementTree

import PIL.Image
import pytest

from clarigrpc import Client, errors, image
from clarigrpc.local import LocalServer
from docs import layers_drawing

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
DRAWN = re.findall(r"^```\{layers\} (\S+)$", PAGE, re.MULTILINE)
# Modules, functions and attributes, written from the package on: `_rpc.plan`, `media.image`.
NAMED = sorted(set(re.findall(r"`((?:_\w+|media)(?:\.\w+)*)`", PAGE)))


def _found(name: str) -> Any:
    """What a name of the page stands for."""
    return pkgutil.resolve_name(f"clarigrpc.{name}")


def _functions(heading: str) -> list[str]:
    """The first column of the table that follows a line of the page."""
    rows = PAGE[PAGE.index(heading) :].split("\n\n")[1].splitlines()[2:]
    return [row.split("|")[1].strip(" `") for row in rows]


def test_names_exist() -> None:
    assert len(NAMED) > 15
    missing = []
    for name in NAMED:
        try:
            _found(name)
        except (AttributeError, ImportError):
            missing.append(name)
    assert missing == []


class _Entered:
    """The functions that this thread enters, in order, as (file, qualified name)."""

    def __init__(self) -> None:
        self.functions: list[tuple[str, str]] = []

    def __enter__(self) -> list[tuple[str, str]]:
        sys.setprofile(self._see)
        return self.functions

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.functions.append((frame.f_code.co_filename, frame.f_code.co_qualname))


def _assert_entered(expected: list[str], entered: list[tuple[str, str]]) -> None:
    """Each function, or one that it made before, was entered after the function before it."""
    functions = iter(entered)
    for name in expected:
        code = inspect.unwrap(_found(name)).__code__
        made = f"{code.co_qualname}.<locals>."
        assert any(
            file == code.co_filename and (one == code.co_qualname or one.startswith(made))
            for file, one in functions
        ), f"docs/architecture.md: {name} is not entered, or not in this place"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "cat.png"
    PIL.Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    return path


def _predict(client: Client, picture: Path) -> None:
    model = client.model("color-recognition", user_id="clarifai", app_id="main")
    model.predict(image(picture))


def test_a_predict_takes_the_path_that_is_described(server: LocalServer, picture: Path) -> None:
    path = _functions("passes through:")
    assert len(path) > 5
    with server.client() as client:
        _predict(client, picture)
        with _Entered() as entered:
            _predict(client, picture)
    _assert_entered(path, entered)


def test_a_failure_takes_the_path_that_is_described(server: LocalServer, picture: Path) -> None:
    from_rpc, from_response, retry = _functions("If the call fails")
    with server.client() as client:
        _predict(client, picture)
        server.faults.unavailable_next = 1
        with _Entered() as entered:
            _predict(client, picture)
        _assert_entered([from_rpc, retry], entered)
        with _Entered() as entered, pytest.raises(errors.NotFoundError):
            client.inputs.get("no-such-input")
        _assert_entered([from_response, retry], entered)


def test_an_assertion_fails_where_the_order_is_another() -> None:
    here = ("clarigrpc", "x")
    with pytest.raises(AssertionError, match="not in this place"):
        _assert_entered(["media.image"], [here])


@pytest.mark.parametrize("package", DRAWN)
def test_the_drawing_shows_every_package_above_what_it_imports(package: str) -> None:
    layers = layers_drawing.layers_of(package)
    rows = list(layers.texts)
    init = pkgutil.resolve_name(package).__file__
    for part, imported in layers.imports.items():
        assert all(rows.index(part) < rows.index(other) for other in imported), part
        assert layers.texts[part], f"{package}.{part} has no docstring"
    drawing = ElementTree.fromstring(layers_drawing.svg(package, "title"))
    names = [text.text for text in drawing.iter("text") if text.get("class") == "name"]
    assert names == rows
    files = {path.stem for path in Path(init).parent.iterdir() if _is_module(path)}
    assert set(rows) == files


def _is_module(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()


def test_the_drawing_follows_from_the_imports() -> None:
    """Of an import that other arrows imply no arrow is drawn, of any other one is."""
    layers = layers_drawing.Layers(
        texts=dict.fromkeys("abcd", "text"),
        imports={
            "a": frozenset("bcd"),
            "b": frozenset("c"),
            "c": frozenset(),
            "d": frozenset("c"),
        },
    )
    assert layers.importers() == {"b": ["a"], "d": ["a"], "c": ["b", "d"]}
