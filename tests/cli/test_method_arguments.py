"""Methods of models on the command line: arguments, streams and results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc.cli.message_json import request_of_words
from clarigrpc.cli.method_arguments import plain
from clarigrpc.local import LocalServer
from tests.cli.conftest import Run, one_line


class Everything:
    """A method for each kind of argument."""

    def text(self, value: str) -> str:
        return f"<{value}>"

    def numbers(self, whole: int, real: float = 0.5, flag: bool = False) -> list[float]:
        return [float(whole), real, float(flag)]

    def optional(self, value: int | None = 3) -> str:
        return repr(value)

    def size(self, picture: PIL.Image.Image) -> list[int]:
        return list(picture.size)

    def raw(self, value: bytes) -> bytes:
        return value[::-1]

    def total(self, values: list[float]) -> float:
        return sum(values)

    def shape(self, values: np.ndarray) -> list[int]:
        return list(values.shape)

    def tree(self, value: dict) -> dict:  # type: ignore[type-arg]
        return {"got": value}

    def words(self, text: str) -> Iterator[str]:
        yield from text.split()

    def join(self, lines: Iterator[str]) -> str:
        return "+".join(lines)

    def double(self, values: Iterator[int]) -> Iterator[int]:
        for value in values:
            yield 2 * value

    def nan(self) -> float:
        return math.nan

    def fail(self) -> str:
        raise ValueError("it failed")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(models={"all": Everything}) as running:
        yield running


def _call(cli: Run, method: str, *words: str) -> Any:
    result = cli("predict", "--model", "all", "--method", method, *words)
    assert (result.code, result.err) == (0, "")
    return [json.loads(line) for line in result.out.splitlines()]


def test_arguments_of_every_kind(cli: Run, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    (tmp_path / "file").write_text("of a file")
    assert _call(cli, "text", "value=a=b c") == ["<a=b c>"]
    assert _call(cli, "text", f"value=@{tmp_path / 'file'}") == ["<of a file>"]
    assert _call(cli, "numbers", "whole=-7", "real=1e3", "flag=true") == [[-7, 1000, True]]
    assert _call(cli, "optional", "value=4") == ["4"]
    assert _call(cli, "optional", "value=null") == ["None"]
    assert _call(cli, "optional") == ["3"]
    for path in (f"{tmp_path / 'picture.png'}", f"@{tmp_path / 'picture.png'}"):
        assert _call(cli, "size", f"picture={path}") == [[30, 20]]
    assert _call(cli, "raw", "value=abc") == ["Y2Jh"]
    assert _call(cli, "total", "values=[1, 2.5]") == [3.5]
    assert _call(cli, "shape", "values=[[1, 2, 3]]") == [[1, 3]]
    assert _call(cli, "tree", 'value={"a": [1, null]}') == [{"got": {"a": [1, None]}}]
    assert _call(cli, "nan") == ["nan"]


def test_streams(cli: Run, process: Run) -> None:
    assert _call(cli, "words", "text=one two") == ["one", "two"]
    shown = cli("predict", "--model", "all", "--method", "words", "text=one two", "--table")
    assert shown.out == "onetwo\n"
    lines = process("predict", "--model", "all", "--method", "join", "lines=-", stdin="a\nb\n")
    assert (lines.code, json.loads(lines.out)) == (0, "a+b")
    assert _call(cli, "double", "values=[1, 2]") == [2, 4]
    assert _call(cli, "double", "values=3") == [6]


@pytest.mark.parametrize(
    ("method", "words", "text"),
    [
        ("nothing", (), "its methods are"),
        ("text", (), "missing argument 'value'"),
        ("text", ("other=1",), "no argument 'other'"),
        ("text", ("value",), "is not ARGUMENT=VALUE"),
        ("text", ("value=@missing",), "missing"),
        ("numbers", ("whole=1.5",), "whole number"),
        ("numbers", (f"whole={'9' * 5000}",), "whole number"),
        ("numbers", (f"whole={'9' * 30}",), "out of range"),
        ("numbers", ("whole=1", "flag=maybe"), "true or false"),
        ("size", ("picture=missing.png",), "no such file"),
        ("total", ("values=[1",), "not JSON"),
        ("total", ("values=[NaN]",), "not JSON"),
        ("total", (f"values={'[' * 100_000}",), "nested"),
        ("shape", ("values=[[1], [1, 2]]",), "array"),
        ("fail", (), "it failed"),
    ],
)
def test_what_does_not_fit(cli: Run, method: str, words: tuple[str, ...], text: str) -> None:
    result = cli("predict", "--model", "all", "--method", method, *words)
    assert result.code in (1, 2)
    assert result.out == ""
    assert text in result.err
    assert "Traceback" not in result.err


def test_results_of_every_kind() -> None:
    picture = PIL.Image.new("RGB", (1, 1))
    concept = v2.Concept(id="a", value=1.0)
    found = plain({"a": (b"x", np.arange(2.0), picture, concept, None, [-math.inf])})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["a"][:2] == ["eA==", [0.0, 1.0]]
    assert found["a"][3:] == [{"id": "a", "value": 1.0}, None, ["-inf"]]


_text = st.text(min_size=1).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text))


@given(
    user=_text,
    name=_text,
    page=st.integers(0, 2**32 - 1),
    trained=st.booleans(),
    licence=st.sampled_from(v2.LicenseType.keys()),
    fields=st.lists(_text, max_size=3),
)
def test_requests_of_words(
    user: str, name: str, page: int, trained: bool, licence: str, fields: list[str]
) -> None:
    words = [
        f"user_app_id.user_id={user}",
        f"name={name}",
        f"page={page}",
        f"trained_only={json.dumps(trained)}",
        f"license_type={licence}",
        f"input_fields={json.dumps(fields)}",
    ]
    assert request_of_words(methods.lookup("ListModels"), words) == v2.ListModelsRequest(
        user_app_id=v2.UserAppIDSet(user_id=user),
        name=name,
        page=page,
        trained_only=trained,
        license_type=v2.LicenseType.Value(licence),
        input_fields=fields,
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nope=1",), "has no field 'nope'"),
        (("page=x",), "not JSON"),
        (("page=-1",), "ListModelsRequest"),
        (("page=1", "bare"), "FIELD=VALUE"),
        (("page.x=1",), "no fields of its own"),
        (("user_app_id.nope=1",), "UserAppIDSet has no field"),
        (("license_type=NOPE",), "NOPE"),
        ((f"page={'9' * 5000}",), "page"),
        (("{}", "{}"), "one request"),
    ],
)
def test_words_that_are_no_request(cli: Run, words: tuple[str, ...], text: str) -> None:
    result = cli("call", "ListModels", *words)
    assert (result.code, result.out) == (2, "")
    assert text in result.err


def test_a_request_of_words(cli: Run) -> None:
    owner = ("user_app_id.user_id=clarifai", "user_app_id.app_id=main")
    result = cli("call", "ListModels", "per_page=2", *owner)
    assert len(json.loads(result.out)["models"]) == 2
    missing = cli("call", "GetModel", "model_id=missing")
    assert missing.code == 1
    one_line(missing.err)
