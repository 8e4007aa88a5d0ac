"""``clarigrpc config``: the file that holds contexts, and what is shown of it."""

from __future__ import annotations

import io
import json
import os
import pty
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import Client, errors
from clarigrpc._config.context_file import ContextFile
from tests.cli.conftest import COMMAND, Result, Run, one_line

TOKEN = "0123456789abcdef0123456789abcdef"


Add = Callable[..., Result]


@pytest.fixture
def file(home: Path) -> Path:
    """The config file, which does not exist."""
    return home / ".config" / "clarifai" / "config"


@pytest.fixture
def add(cli: Run, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Run ``clarigrpc config add`` with a token on standard input."""

    def run(*arguments: str, token: str = TOKEN) -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{token}\n"))
        return cli("config", "add", *arguments)

    return run


def test_a_context_from_adding_to_removing(cli: Run, add: Add, file: Path) -> None:
    assert cli("config", "list").out == ""
    added = add("work", "--user-id", "me", "--base", "http://127.0.0.1:1")
    assert added.code == 0, added.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert add("other").code == 0
    rows = [json.loads(line) for line in cli("config", "list").out.splitlines()]
    assert [(row["name"], row["current"]) for row in rows] == [("work", True), ("other", False)]
    assert cli("config", "use", "other").code == 0
    assert yaml.safe_load(file.read_text())["current_context"] == "other"
    shown = json.loads(cli("config", "show", "work").out)
    assert shown == {
        "name": "work",
        "CLARIFAI_API_BASE": "http://127.0.0.1:1",
        "CLARIFAI_USER_ID": "me",
        "CLARIFAI_PAT": "********",
    }
    refused = add("work")
    assert (refused.code, "--replace" in refused.err) == (2, True)
    assert add("work", "--replace").code == 0
    assert cli("config", "remove", "other").code == 0
    gone = cli("config", "show")
    assert (gone.code, "no current context" in one_line(gone.err)) == (1, True)


def test_a_token_is_not_shown(cli: Run, add: Add, file: Path) -> None:
    printed = ""
    for result in (
        add("work"),
        cli("config", "list"),
        cli("config", "show"),
        cli("config", "show", "--table"),
        cli("config", "list", "--table"),
        cli("config", "use", "nothing"),
        add("work"),
        add("more", token=f"{TOKEN} {TOKEN}"),
    ):
        printed += result.out + result.err
    assert TOKEN in file.read_text()
    assert TOKEN[-4:] not in printed


def test_the_prompt_on_a_terminal(environment: dict[str, str], file: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "config", "add", "work"],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its controlling terminal
    ) as process:
        os.close(theirs)
        screen = ""
        for question, answer in (("User id", "me"), ("token", TOKEN)):
            # What is typed before the space after the colon may be dropped with the echo.
            while f"{question}: " not in screen:
                screen += os.read(ours, 1000).decode()
            os.write(ours, f"{answer}\n".encode())
        try:
            while part := os.read(ours, 1000).decode():
                screen += part
        except OSError:
            pass  # the process has gone
        assert process.wait(20) == 0, screen
    os.close(ours)
    assert TOKEN not in screen
    content = yaml.safe_load(file.read_text())
    assert content["contexts"]["work"]["CLARIFAI_PAT"] == TOKEN
    assert content["contexts"]["work"]["CLARIFAI_USER_ID"] == "me"


@pytest.mark.parametrize("content", ["", "{}", "current_context:\n"])
def test_a_file_without_contexts_gets_its_first(
    cli: Run, add: Add, file: Path, content: str
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content)
    missing = cli("config", "use", "work")
    assert missing.code == 1
    assert "has no contexts" in missing.err
    added = add("work")
    assert added.code == 0, added.err
    assert yaml.safe_load(file.read_text())["current_context"] == "work"


def test_what_others_wrote_stays(cli: Run, add: Add, file: Path) -> None:
    file.parent.mkdir(parents=True)
    before = {
        "current_context": "theirs",
        "contexts": {"theirs": {"env": {"CLARIFAI_PAT": TOKEN, "SOMETHING": 1}}},
        "more": ["of", "theirs"],
    }
    file.write_text(yaml.safe_dump(before))
    assert add("ours").code == 0
    after = yaml.safe_load(file.read_text())
    del after["contexts"]["ours"]
    assert after == before
    shown = json.loads(cli("config", "show").out)
    assert shown["CLARIFAI_PAT"] == shown["CLARIFAI_SOMETHING"] == "********"


@pytest.mark.parametrize("content", ["[", "1", "contexts: 3", "\x00", "contexts: {a: 1}"])
def test_a_damaged_file(cli: Run, add: Add, file: Path, content: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content)
    result = cli("config", "show", "a")
    assert (result.code, result.out) == (1, "")
    assert str(file) in one_line(result.err)
    assert file.read_text() == content


@pytest.mark.parametrize("token", ["", " ", "a b", "ü" * 20, "a\tb"])
def test_what_is_no_token(cli: Run, add: Add, file: Path, token: str) -> None:
    assert add("work", token=token).code == 2
    assert not file.exists()


@settings(max_examples=50, deadline=None)
@given(
    name=st.text(min_size=1, max_size=20).filter(str.isprintable),
    token=st.text("abcdefghijklmnopqrstuvwxyz0123456789:#'\"-", min_size=1),
)
def test_what_is_written_is_read_by_a_client(
    tmp_path_factory: pytest.TempPathFactory, name: str, token: str
) -> None:
    path = str(tmp_path_factory.mktemp("config") / "config")
    file = ContextFile(path)
    file.put(name, {"CLARIFAI_PAT": token, "CLARIFAI_USER_ID": name})
    file.use(name)
    file.save()
    assert ContextFile(path).variables(name)["CLARIFAI_PAT"] == token
    try:
        with Client(config_file=path) as client:
            assert client.settings.user_id == name
            assert token not in repr(client) or token in name or len(token) < 8
    except errors.ConfigurationError:
        assert token == "ENVVAR"
