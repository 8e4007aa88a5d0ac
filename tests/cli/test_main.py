"""Help, versions, failures and exit codes of the command line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import click
import pytest

import clarigrpc
from clarigrpc.cli.app import app
from clarigrpc.cli.commands import COMMANDS
from clarigrpc.cli.missing_extras import extra_for
from clarigrpc.local import LocalServer
from tests.cli.conftest import COMMAND, Run, one_line


def test_version(process: Run) -> None:
    result = process("--version")
    assert (result.code, result.out) == (0, f"clarigrpc, version {clarigrpc.__version__}\n")


@pytest.mark.parametrize("command", [(), ("serve",), ("predict",), ("call",)])
def test_help(cli: Run, command: tuple[str, ...]) -> None:
    result = cli(*command, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Usage: clarigrpc ")
    assert cli(*command, "-h").out == result.out


def _paths(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _paths(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("command", list(_paths(app)))
def test_help_fits_the_terminal(
    cli: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = cli(*command, "--help")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert max(len(line) for line in lines) <= min(columns, 100)
    # Several columns of options, the descriptions of which do not begin on a line of their own.
    options = [line for line in lines if line.startswith("  -")]
    assert options
    assert not re.search("x[<>]=?\\d|\\(a free", result.out)
    # No text in a list of commands is cut off.
    assert "..." not in result.out.replace("]...", "").replace("ID...", "").replace("E...]", "")


def test_every_command_has_its_line_in_the_table() -> None:
    listed = {name for commands in COMMANDS.values() for name in commands}
    assert listed == set(app.list_commands(click.Context(app)))
    for name in listed:
        command = app.get_command(click.Context(app), name)
        assert command is not None
        assert command.name == name
    assert app.get_command(click.Context(app), "nothing") is None


@pytest.mark.parametrize("name", ["call", "predict", "upload"])
def test_connection_options_have_a_heading_of_their_own(cli: Run, name: str) -> None:
    own, _, connection = cli(name, "--help").out.partition("\nConnection options:\n")
    for option in ("--base", "--pat", "--user-id", "--app-id", "--timeout", "--transport"):
        assert f"\n  {option} " in f"\n{connection}"
        assert f"\n  {option} " not in own
    assert "\n  -h, --help" in own


def test_the_installed_command() -> None:
    command = Path(sys.executable).with_name("clarigrpc")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert clarigrpc.__version__ in done.stdout


def test_unknown_command(cli: Run) -> None:
    result = cli("predicate")
    assert result.code == 2
    assert "No such command 'predicate'. Did you mean 'predict'?" in result.err
    assert "Did you mean" not in cli("qqqq").err


@pytest.mark.parametrize("base", ["http://", "ftp://x", "http://a b", "http://10.0.0.1"])
def test_wrong_settings(cli: Run, base: str) -> None:
    result = cli("call", "ListModels", "--base", base)
    assert (result.code, result.out) == (1, "")
    one_line(result.err)


def test_no_credential(process: Run, environment: dict[str, str]) -> None:
    del environment["CLARIFAI_PAT"]
    result = process("call", "ListModels")
    assert result.code == 1
    assert "CLARIFAI_PAT" in one_line(result.err)


def test_wrong_credential_is_not_shown(cli: Run) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    result = cli("call", "ListModels", "--pat", secret)
    assert result.code == 1
    assert "CONN_KEY" in one_line(result.err)
    assert secret not in result.err


def test_context_of_the_config_file(
    process: Run, environment: dict[str, str], server: LocalServer
) -> None:
    for name in [name for name in environment if name.startswith("CLARIFAI_")]:
        del environment[name]
    folder = Path(environment["HOME"], ".config", "clarifai")
    folder.mkdir(parents=True)
    (folder / "config").write_text(
        "current_context: other\n"
        "contexts:\n"
        "  other: {CLARIFAI_PAT: wrong-wrong-wrong}\n"
        f"  local: {{CLARIFAI_PAT: {server.pat}, CLARIFAI_API_BASE: '{server.base}'}}\n"
    )
    assert process("call", "ListModels", "--context", "local").code == 0
    assert process("call", "ListModels", "--base", server.base).code == 1


def test_no_server(cli: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        base = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = cli("call", "ListModels", "--base", base, "--timeout", "2")
    assert result.code == 1
    assert "nothing listens" in one_line(result.err)


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_long_wait_is_explained(process: Run, quiet: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        base = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = process("ping", "--base", base, "--timeout", "8", *quiet)
    *notes, error = result.err.splitlines()
    assert (result.code, result.out) == (1, "")
    assert "nothing listens" in error
    if quiet:
        assert not notes
    else:
        assert 1 <= len(notes) <= 2
        assert all("clarigrpc: trying again in " in note for note in notes)
        assert all("nothing listens" in note for note in notes)


@pytest.mark.measures
def test_timeout(cli: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        result = cli("call", "ListModels", "--base", base, "--timeout", "0.5")
    assert result.code == 1
    one_line(result.err)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "inf", "nan"])
def test_wrong_timeout(cli: Run, timeout: str) -> None:
    result = cli("call", "ListModels", "--timeout", timeout)
    assert result.code in (1, 2)
    assert "timeout" in result.err


def test_interrupt(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            [*COMMAND, "call", "ListModels", "--base", base],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                silent.settimeout(20)
                connection, _ = silent.accept()  # the call is on its way
                with connection:
                    process.send_signal(signal.SIGINT)
                    out, err = process.communicate(timeout=10)
            finally:
                process.kill()
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_a_reader_that_leaves(environment: dict[str, str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)  # before anything is written: what is there may fit into the pipe
    try:
        done = subprocess.run(
            [*COMMAND, "call", "--list"],
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", ["call --list", "config list", "completion bash", "--help"])
def test_a_closed_stdout_is_told(environment: dict[str, str], command: str) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *command.split()],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "stdout is closed" in one_line(done.stderr)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("click", "['--help']", "cli"),
        ("rich", "['predict', 'x.png', '--model', 'm']", "cli"),
        ("numpy", "['serve']", "local"),
        ("httpx", "['call', 'ListModels', '--transport', 'rest']", "rest"),
    ],
)
def test_missing_extra(
    environment: dict[str, str], module: str, arguments: str, extra: str
) -> None:
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"from clarigrpc.cli import main; sys.exit(main({arguments}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"pip install 'clarigrpc[{extra}]'" in one_line(done.stderr)


def test_the_extra_of_every_requirement_is_known() -> None:
    modules: dict[str, list[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(distribution.lower().replace("_", "-"), []).append(module)
    extras: dict[str, set[str]] = {}
    for line in requires("clarigrpc") or ():
        requirement = re.match(r"([\w.-]+).*extra == .(cli|local|rest)\b", line)
        if requirement is not None:
            extras.setdefault(requirement[1].lower(), set()).add(requirement[2])
    del extras["click"]  # without it there is no command line that could say anything
    assert len(extras) > 10
    for distribution, names in extras.items():
        known = {extra for module in modules[distribution] if (extra := extra_for(module))}
        assert len(known) == 1, distribution
        assert known <= names


def test_the_library_does_not_import_the_command_line() -> None:
    script = "import sys, clarigrpc; clarigrpc.Client; print('click' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
