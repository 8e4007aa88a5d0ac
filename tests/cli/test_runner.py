"""Mistakes with ``clarigrpc runner``; a runner at work is in tests/worker."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.cli.conftest import Run

MODEL = '''
def shout(text: str, times: int = 1) -> str:
    """Says it loudly."""
    return text.upper() * times

def untyped(*words): ...

number = 3
'''


def test_what_is_wrong_with_the_target(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text(MODEL)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    run = ("runner", "--runner", "r")
    for target, text in {
        "my_model": "'my_model' must be MODULE:NAME or FILE.py:NAME",
        f"{tmp_path}/none.py:shout": f"there is no file {tmp_path}/none.py",
        f"{file}:other": f"{file} has no other",
        f"{tmp_path}/broken.py:x": "broken.py, line 1: ZeroDivisionError: division by zero",
        "not_there:x": "not_there cannot be imported: ModuleNotFoundError",
        f"{file}:untyped": "argument words cannot be passed by name",
        f"{file}:number": "3 has no signature",
    }.items():
        result = cli(*run, target)
        assert result.code != 0, target
        assert text in " ".join(result.err.split()), (target, result.err)


def test_a_runner_has_to_exist_or_to_have_a_model(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text(MODEL)
    result = cli("runner", "--runner", "not-there", f"{file}:shout")
    assert result.code == 1
    assert "give the model, to have the runner created" in result.err


def test_options_out_of_range(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text(MODEL)
    result = cli("runner", "--runner", "r", "--max-batch", "4", f"{file}:shout")
    assert result.code == 1
    assert "no method marked with runner.batched" in result.err
    result = cli("runner", "--runner", "r", "--transport", "rest", f"{file}:shout")
    assert result.code == 1
    assert "transport='grpc'" in result.err


def test_a_port_for_health_that_is_taken(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text(MODEL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = cli("runner", "--runner", "new", "--health-port", port, f"{file}:shout")
    assert result.code == 1
    assert "Address already in use" in result.err
