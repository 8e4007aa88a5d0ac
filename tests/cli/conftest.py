"""The command line, run in this process where that is enough, and as a process where not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import pytest

from clarigrpc.cli import main
from clarigrpc.local import LocalServer

COMMAND = (sys.executable, "-c", "import sys; from clarigrpc.cli import main; sys.exit(main())")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="package")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as running:
        yield running


@pytest.fixture(scope="package")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three quarters red, one quarter blue."""
    path = tmp_path_factory.mktemp("photos") / "red.png"
    picture = PIL.Image.new("RGB", (40, 40), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 20, 20))
    picture.save(path)
    return path


@pytest.fixture
def environment(server: LocalServer, tmp_path: Path) -> dict[str, str]:
    """What ``clarigrpc serve`` would export, and none of this machine's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLARIFAI_")}
    return kept | {
        "HOME": str(tmp_path),
        "CLARIFAI_API_BASE": server.base,
        "CLARIFAI_PAT": server.pat,
        "CLARIFAI_USER_ID": server.user_id,
        "CLARIFAI_APP_ID": server.app_id,
    }


@pytest.fixture
def cli(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the command line here and return its exit code, stdout and stderr."""
    for name in [name for name in os.environ if name.startswith("CLARIFAI_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def process(environment: dict[str, str]) -> Run:
    """Run the command line as a process and return its exit code, stdout and stderr."""

    def run(*arguments: str, stdin: str = "") -> Result:
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def one_line(err: str) -> str:
    """The text of an error, which has to be a single line with the name of the program."""
    assert err.startswith("clarigrpc: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err
