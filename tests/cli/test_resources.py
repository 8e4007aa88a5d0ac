"""Resources on the command line: list, get, create, delete, and what each kind has besides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clarigrpc.local import LocalServer
from tests.cli.conftest import Result, Run, one_line


class Talker:
    def speak(self, text: str) -> Iterator[str]:
        """A word at a time."""
        yield from text.split()

    def total(self, numbers: list[float], scale: float = 1.0) -> float:
        return sum(numbers) * scale


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(models={"talker": Talker}) as running:
        yield running


def _lines(result: Result) -> list[Any]:
    assert (result.code, result.err) == (0, "")
    return [json.loads(line) for line in result.out.splitlines()]


def _ids(result: Result) -> list[str]:
    return [one["id"] for one in _lines(result)]


@pytest.mark.parametrize("kind", ["apps", "concepts", "datasets", "models", "workflows"])
def test_a_kind_of_resources(cli: Run, tmp_path: Path, kind: str) -> None:
    fields = {"id": f"{kind}-b"}
    if kind == "workflows":
        public = {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"}
        fields["nodes"] = [{"id": "node", "model": public}]  # type: ignore[assignment]
    (created,) = _lines(cli(kind, "create", json.dumps(fields | {"id": f"{kind}-a"})))
    assert created["id"] == f"{kind}-a"
    (tmp_path / "b.yaml").write_text(json.dumps(fields))
    assert _ids(cli(kind, "create", f"@{tmp_path / 'b.yaml'}")) == [f"{kind}-b"]
    assert {f"{kind}-a", f"{kind}-b"} <= set(_ids(cli(kind, "list", "--per-page", "1")))
    assert len(_ids(cli(kind, "list", "--limit", "1"))) == 1
    table = cli(kind, "list", "--table")
    assert (table.code, table.out.split()[0]) == (0, "Id")
    assert f"{kind}-a" in table.out
    assert _ids(cli(kind, "get", f"{kind}-a")) == [f"{kind}-a"]
    shown = cli(kind, "get", f"{kind}-a", "--table")
    assert shown.out.splitlines()[0].split() == ["id", f"{kind}-a"]
    missing = cli(kind, "get", "missing")
    assert (missing.code, missing.out) == (1, "")
    one_line(missing.err)
    if kind == "concepts":
        return  # the service does not delete them
    refused = cli(kind, "delete", f"{kind}-a")
    assert refused.code == 2
    assert "--yes" in refused.err
    deleted = cli(kind, "delete", f"{kind}-a", f"{kind}-b", "--yes")
    assert (deleted.code, deleted.out) == (0, "")
    assert f"deleted 2 {kind}" in deleted.err
    assert not {f"{kind}-a", f"{kind}-b"} & set(_ids(cli(kind, "list")))


@pytest.mark.parametrize(
    ("resource", "text"), [("{", "not JSON"), ("{1}", "not JSON"), ("@missing", "missing")]
)
def test_malformed_resources(cli: Run, resource: str, text: str) -> None:
    result = cli("datasets", "create", resource)
    assert result.code in (1, 2)
    assert text in result.err
    assert "Traceback" not in result.err


def test_a_file_that_is_no_resource(cli: Run, tmp_path: Path) -> None:
    for number, content in enumerate(("[1]", "a: [", "\x00", "9" * 5000)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(content)
        result = cli("workflows", "create", f"@{path}")
        assert result.code == 2, content
        assert str(path) in result.err


def test_a_table_has_a_limit_and_says_so(cli: Run) -> None:
    for number in range(3):
        assert cli("datasets", "create", f"many-{number}").code == 0
    both = ("datasets", "list", "--search", "many-")
    assert len(_ids(cli(*both))) == 3
    assert len(cli(*both, "--table", "--limit", "2").out.splitlines()) == 4
    nothing = cli("datasets", "list", "--search", "no such thing", "--table")
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing found" in nothing.err
    assert cli("datasets", "list", "--search", "no such thing", "--table", "-q").err == ""


def test_a_narrow_table_goes_without_the_dispensable(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("datasets", "create", f"long-{'x' * 40}").code == 0
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    assert "Created" in cli("datasets", "list", "--table").out
    monkeypatch.setenv("COLUMNS", "50")
    narrow = cli("datasets", "list", "--table").out
    assert "Created" not in narrow
    assert f"long-{'x' * 40}" in narrow


def test_of_others(cli: Run) -> None:
    (model,) = _lines(cli("models", "get", "clarifai/main/color-recognition"))
    assert (model["user_id"], model["app_id"]) == ("clarifai", "main")
    assert _lines(cli("models", "show", "clarifai/main/color-recognition")) == [model]
    found = _ids(cli("models", "versions", "clarifai/main/color-recognition"))
    assert model["model_version"]["id"] in found
    wrong = cli("models", "get", "a/b")
    assert wrong.code == 2
    assert "USER/APP/ID" in wrong.err


def test_methods_of_a_model(cli: Run) -> None:
    found = {one["method"]: one for one in _lines(cli("models", "methods", "talker"))}
    assert found.keys() == {"speak", "total"}
    assert found["speak"]["signature"] == "speak(text: str) -> Iterator[str]"
    assert found["speak"]["description"] == "A word at a time."
    table = cli("models", "methods", "talker", "--table")
    assert "total(numbers: list[float], scale: float = 1.0) -> float" in table.out
    none = cli("models", "methods", "clarifai/main/color-recognition")
    assert none.code == 1
    one_line(none.err)


def test_ready(cli: Run, server: LocalServer) -> None:
    assert _lines(cli("models", "ready", "talker")) == [{"model": "talker", "ready": True}]
    server.faults.deploy_seconds = 60
    result = cli("models", "ready", "talker")
    server.faults.deploy_seconds = 0
    assert (result.code, json.loads(result.out)["ready"]) == (1, False)
    assert "deployed" in one_line(result.err)


def test_inputs_of_a_dataset(cli: Run, process: Run, server: LocalServer) -> None:
    assert cli("datasets", "create", "set").code == 0
    assert cli("inputs", "add", "--text", "one", "--id", "in-set", "--wait").code == 0
    assert cli("datasets", "add", "set", "in-set").code == 0
    again = process("datasets", "add", "set", "-", stdin="in-set\n\n")
    assert again.code == 1
    one_line(again.err)
    (found,) = _lines(cli("datasets", "inputs", "set"))
    assert found["input"]["id"] == "in-set"
    assert "text one" in cli("datasets", "inputs", "set", "--table").out
    assert _lines(cli("datasets", "versions", "set")) == []
    assert cli("datasets", "remove", "set", "in-set").code == 0
    assert _lines(cli("datasets", "inputs", "set")) == []
