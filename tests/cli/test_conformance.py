"""``clarigrpc conformance``."""

from __future__ import annotations

import json

import grpc
import pytest

from clarigrpc import v2
from clarigrpc.cli.behaviour import load_facts
from clarigrpc.local import LocalServer
from tests.cli.conftest import Run, one_line
from tests.scripted import Fail, ScriptedServer, refuse, reply
from tests.waiting import until

LISTS = ("ListInputs", "ListModels", "ListDatasets", "ListWorkflows")


def test_it_only_reads_by_default(cli: Run, server: LocalServer) -> None:
    before = _content(server)
    result = cli("conformance", "--json")
    results = json.loads(result.out)
    assert results
    assert not any(entry["writes"] for entry in results)
    assert {entry["id"] for entry in results} == {
        fact.id for fact in load_facts().facts if not fact.writes
    }
    assert _content(server) == before


def test_it_deletes_what_it_made(cli: Run, server: LocalServer) -> None:
    with server.client() as client:
        client.apps.create("conformance-app")
    result = cli("conformance", "--write-app", "conformance-app", "--json", "--wait", "30")
    results = json.loads(result.out)
    assert {entry["id"] for entry in results} == {fact.id for fact in load_facts().facts}
    until(
        lambda: not _content(server, "conformance-app")["ListInputs"]
    )  # deleted in the background
    assert _content(server, "conformance-app") == {name: [] for name in LISTS}


def test_a_table_of_differences(
    cli: Run, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    _let_in(scripted)
    scripted.always(
        "GetInput", refuse("GetInput", v2.StatusCode.INPUT_DOES_NOT_EXIST, "No such input")
    )
    result = cli("conformance", "--base", scripted.base, "--only", "missing-input")
    assert result.code == 1
    assert "missing-input" in result.out
    assert "status.code: CONN_DOES_NOT_EXIST" in result.out
    assert "INPUT_DOES_NOT_EXIST (No such input)" in result.out
    assert result.out.endswith("1 fact: 0 as described, 1 differ, 0 could not be checked\n")


def test_no_differences(cli: Run, scripted: ScriptedServer) -> None:
    _let_in(scripted)
    gone = refuse("GetInput", v2.StatusCode.CONN_DOES_NOT_EXIST, "Resource does not exist")
    scripted.always("GetInput", gone)
    result = cli("conformance", "--base", scripted.base, "--only", "missing-input")
    assert result == (0, "1 fact: 1 as described, 0 differ, 0 could not be checked\n", "")


def test_what_is_not_answered_is_not_checked(cli: Run, scripted: ScriptedServer) -> None:
    _let_in(scripted)
    scripted.on("GetInput", Fail(grpc.StatusCode.UNIMPLEMENTED))
    result = cli("conformance", "--base", scripted.base, "--only", "missing-input", "--json")
    (entry,) = json.loads(result.out)
    assert (result.code, entry["verdict"]) == (1, "not checked")
    assert "UNIMPLEMENTED" in entry["reason"]


def test_list_calls_nothing(cli: Run) -> None:
    result = cli("conformance", "--list", "--base", "http://127.0.0.1:1")
    assert result.code == 0
    assert all(fact.id in result.out for fact in load_facts().facts)
    listed = json.loads(cli("conformance", "--list", "--json").out)
    assert [entry["id"] for entry in listed] == [fact.id for fact in load_facts().facts]
    assert all(entry["sources"] for entry in listed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "nope"), "no fact nope"),
        (("--only", "post-input"), "post-input: needs --write-app"),
        (("--wait", "0"), "--wait"),
    ],
)
def test_wrong_usage(cli: Run, arguments: tuple[str, ...], words: str) -> None:
    result = cli("conformance", *arguments)
    assert result.code == 2
    assert words in result.err


def test_what_would_look_like_a_difference_everywhere(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong token, address or app ends the command with one line."""
    for arguments, words in (
        (("--pat", "wrong"), "CONN_KEY_INVALID"),
        (("--base", "http://127.0.0.1:1", "--timeout", "2"), "127.0.0.1:1"),
        (("--app-id", "absent"), "does not exist"),
    ):
        result = cli("conformance", "--only", "me", *arguments)
        assert (result.code, result.out) == (1, "")
        assert words in one_line(result.err)
    monkeypatch.delenv("CLARIFAI_APP_ID")
    result = cli("conformance", "--only", "me")
    assert result.code == 2
    assert "--app-id" in result.err


def _let_in(scripted: ScriptedServer) -> None:
    """Answer what the command asks before it checks anything."""
    scripted.on("GetUser", reply("GetUser"))
    scripted.on("GetApp", reply("GetApp"))


def _content(server: LocalServer, app_id: str = "") -> dict[str, list[str]]:
    """Ids of what is in an app."""
    with server.client(app_id=app_id or server.app_id) as client:
        found = {}
        for name in LISTS:
            request = getattr(v2, f"{name}Request")()
            response = getattr(client.v2, name)(request)
            items = getattr(response, name.removeprefix("List").lower())
            found[name] = sorted(item.id for item in items)
        return found
