"""``clarigrpc inputs`` and ``clarigrpc search``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from clarigrpc.local import LocalServer
from tests.cli.conftest import Result, Run, one_line


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture(autouse=True)
def app(server: LocalServer, environment: dict[str, str], request: pytest.FixtureRequest) -> None:
    """An app of the test's own."""
    with server.client() as client:
        environment["CLARIFAI_APP_ID"] = client.apps.create(f"app-{abs(hash(request.node))}").id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two colours with two pictures each, and a file that is none."""
    for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            picture = PIL.Image.new("RGB", (16, 16 + number), color)
            picture.save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / "empty.png").touch()
    return tmp_path / "photos"


def _lines(result: Result) -> list[Any]:
    assert (result.code, result.err) == (0, "")
    return [json.loads(line) for line in result.out.splitlines()]


def test_a_folder_with_a_report(cli: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    options = ("--concepts-from-folders", "--report", str(path))
    result = cli("inputs", "add", str(folder), *options, "--wait")
    assert result.code == 1
    assert "1 of 5 inputs failed" in one_line(result.err)
    assert "empty.png" in result.err
    report = json.loads(path.read_text())
    assert report == json.loads(result.out)
    assert (report["taken"], report["added"], report["complete"]) == (5, 4, True)
    (failed,) = report["failed"]
    assert failed["source"] == str(folder / "empty.png")
    assert failed["code"] == "FAILURE"
    found = {one["id"]: one for one in _lines(cli("inputs", "list"))}
    assert found.keys() == set(report["added_ids"])
    assert sorted(one["data"]["concepts"][0]["id"] for one in found.values()) == [
        *("blue", "blue", "red", "red")
    ]
    again = cli("inputs", "add", str(folder), "--concepts-from-folders", "--table")
    assert again.code == 1
    assert "0 inputs added, 5 failed" in again.out
    assert "INPUT_DUPLICATE" in again.out


def test_what_every_input_gets(cli: Run, folder: Path) -> None:
    assert cli("datasets", "create", "set").code == 0
    result = cli(
        *("inputs", "add", str(folder / "red" / "0.png"), "--id", "mine", "--dataset", "set"),
        *("--concept", "cat", "--concept", "!dog", "--metadata", '{"n": {"a": 1}}', "--wait"),
    )
    assert _lines(result)[0]["added_ids"] == ["mine"]
    (found,) = _lines(cli("inputs", "get", "mine"))
    assert {one["id"]: one.get("value", 0) for one in found["data"]["concepts"]} == {
        "cat": 1,
        "dog": 0,
    }
    assert found["data"]["metadata"] == {"n": {"a": 1}}
    assert len(_lines(cli("datasets", "inputs", "set"))) == 1
    row = cli("inputs", "list", "--table").out.splitlines()[-1]
    assert "cat, !dog" in row


def test_tables_texts_and_standard_input(cli: Run, process: Run, folder: Path) -> None:
    (folder.parent / "table.csv").write_text(
        "path,text,id,concepts\nphotos/red/0.png,,a,x|y\n,words,b,\nphotos/missing.png,,c,\n"
    )
    result = cli("inputs", "add", str(folder.parent / "table.csv"), "--text", "more")
    assert result.code == 1
    assert "line 4" in one_line(result.err)
    assert json.loads(result.out)["added"] == 3
    piped = process("inputs", "add", "-", "--id", "piped", stdin="from a pipe")
    assert piped.code == 0, piped.err
    (found,) = _lines(cli("inputs", "get", "piped"))
    assert found["data"]["text"]["raw"] == "from a pipe"


def test_a_journal_goes_on(cli: Run, tmp_path: Path) -> None:
    journal = ("--journal", str(tmp_path / "journal"))
    first = json.loads(cli("inputs", "add", "--text", "one", *journal).out)
    again = json.loads(cli("inputs", "add", "--text", "one", *journal).out)
    assert (first["added"], again["added"], again["added_before"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "SOURCE"),
        (("--text", "a", "--metadata", "[1]"), "JSON object"),
        (("--text", "a", "--metadata", '{"a": NaN}'), "NaN"),
        (("--text", "a", "--text", "b", "--id", "one"), "--id"),
        (("no-such-file.png",), "no-such-file.png"),
    ],
)
def test_what_cannot_be_added(cli: Run, arguments: tuple[str, ...], text: str) -> None:
    result = cli("inputs", "add", *arguments)
    assert result.code in (1, 2)
    assert text in result.err
    assert "Traceback" not in result.err


def test_stream_goes_on_behind_an_input(cli: Run) -> None:
    for name in ("a", "b", "c"):
        assert cli("inputs", "add", "--text", name, "--id", name).code == 0
    assert [one["id"] for one in _lines(cli("inputs", "stream"))] == ["a", "b", "c"]
    assert [one["id"] for one in _lines(cli("inputs", "stream", "--after", "a"))] == ["b", "c"]
    assert [one["id"] for one in _lines(cli("inputs", "stream", "--limit", "1"))] == ["a"]


def test_delete(cli: Run, process: Run) -> None:
    for name in ("a", "b", "c"):
        assert cli("inputs", "add", "--text", name, "--id", name, "--wait").code == 0
    unsure = cli("inputs", "delete", "a")
    assert unsure.code == 2
    assert "deleting 1 input cannot be undone" in unsure.err
    assert cli("inputs", "delete", "a", "--all", "-y").code == 2
    assert cli("inputs", "delete", "-y").code == 2
    assert "deleted 2 inputs" in process("inputs", "delete", "-", "-y", stdin="a\nb\n").err
    (counts,) = _lines(cli("inputs", "status"))
    assert counts["processed"] + counts["to_process"] <= 3
    assert cli("inputs", "delete", "--all", "--yes").code == 0


def test_search(cli: Run, folder: Path) -> None:
    options = ("--concepts-from-folders", "--wait", "--quiet")
    assert cli("inputs", "add", str(folder / "red"), str(folder / "blue"), *options).code == 0
    assert cli("inputs", "add", "--text", "green", "--id", "t", "--wait").code == 0
    for command in (("search",), ("inputs", "search")):
        assert len(_lines(cli(*command))) == 5
    assert _lines(cli("search", "--count")) == [{"count": 5}]
    assert cli("search", "--count", "--table").out == "5\n"
    assert [hit["input"]["id"] for hit in _lines(cli("search", "--kind", "text"))] == ["t"]
    assert len(_lines(cli("search", "--since", "2020-01-01", "--until", "2021-01-01"))) == 0
    red = str(folder / "red" / "0.png")
    first, *others = _lines(cli("search", "--like", red, "--kind", "image"))
    assert len(others) == 3
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert len(_lines(cli("search", "--like", red, "--limit", "2"))) == 2
    assert "Score" in cli("search", "--like", red, "--table").out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--near", "1,2"),
        ("--near", "a,b,c"),
        ("--metadata", "{"),
        ("--since", "yesterday"),
        ("--min-value", "2"),
        ("--min-value", "nan"),
        ("--like", "no-such-file.png"),
        ("--near", "100,0,1"),
    ],
)
def test_malformed_searches(cli: Run, option: str, value: str) -> None:
    result = cli("search", option, value)
    assert result.code in (1, 2)
    assert result.out == ""
    assert result.err
    assert "Traceback" not in result.err
