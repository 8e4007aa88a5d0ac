"""Completion in shells."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Run

# Calls the completion as bash does, with the words as bash splits them.
_ASK = """
compopt() { printf 'compopt %s %s\\n' "$@"; }
complete() { :; }
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMPREPLY=()
_clarigrpc_completion clarigrpc
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "found", "no_space"),
    [
        (["inp"], ["inputs"], False),
        (["inputs", "st"], ["status", "stream"], False),
        (["call", "listinputsa"], ["ListInputsAddJobs"], False),
        (["call", "ListInputs", "pag"], ["page="], True),
        (["call", "ListInputs", "user_app_id.a"], ["user_app_id.app_id="], True),
        (["call", "PostInputs", "input_id_conflict_resolution", "=", "SK"], ["SKIP"], False),
        (["call", "PostInputs", "input_id_conflict_resolution", "="], None, False),
        (["call", "NoSuchMethod", "x"], [""], False),
        (["call", "ListInputs", "nope.x"], [""], False),
        (["predict", "--transport", "gr"], ["grpc"], False),
    ],
)
def test_bash(
    cli: Run,
    environment: dict[str, str],
    tmp_path: Path,
    words: list[str],
    found: list[str] | None,
    no_space: bool,
) -> None:
    script = tmp_path / "completion"
    script.write_text(cli("completion", "bash").out)
    program = tmp_path / "clarigrpc"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom clarigrpc.cli import main\nmain()\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", _ASK, "bash", str(script), "clarigrpc", *words],
        env=environment | {"PATH": f"{tmp_path}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    *options, last = done.stdout.split("compopt -o nospace\n")
    assert bool(options) is no_space
    if found is None:
        assert "SUFFIX" in last.split()
    else:
        assert last.splitlines() == found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_protocol_of_other_shells(cli: Run, environment: dict[str, str], shell: str) -> None:
    script = cli("completion", shell)
    assert (script.code, script.err) == (0, "")
    assert f"_CLARIGRPC_COMPLETE={shell}_complete" in script.out
    done = subprocess.run(
        [*COMMAND],
        env=environment
        | {
            "_CLARIGRPC_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": "clarigrpc call GetInputC",
            "COMP_CWORD": "GetInputC" if shell == "fish" else "2",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "GetInputCount" in done.stdout
    assert "Returns how many inputs" in done.stdout  # their help


def test_unknown_shell(cli: Run) -> None:
    assert cli("completion", "cmd").code == 2
