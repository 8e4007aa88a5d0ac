"""mypy --strict and pyright understand the generated types and refuse wrong use.

``snippets/good.py`` has no error; in ``snippets/bad.py.txt`` every line that ends in ``# error``,
and no other, has one. (It is not called ``.py`` so that the project's own checks pass over it.)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.peer import PEERS, ROOT

SNIPPETS = Path(__file__).resolve().parent / "snippets"


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("snippets")
    shutil.copy(SNIPPETS / "good.py", directory)
    shutil.copy(SNIPPETS / "bad.py.txt", directory / "bad.py")
    return directory


def _expected_errors() -> set[int]:
    lines = (SNIPPETS / "bad.py.txt").read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


def _output(directory: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        # pyright's node package is fetched once and kept with the other tools of the tests.
        env={**os.environ, "PYRIGHT_PYTHON_CACHE_DIR": str(PEERS / "pyright")},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def mypy_errors(snippets: Path) -> dict[str, dict[int, str]]:
    """Errors by file and line."""
    output = _output(
        snippets,
        *("-m", "mypy", "--strict", "--no-error-summary", "--config-file="),
        *("--cache-dir", str(ROOT / ".mypy_cache" / "snippets"), "good.py", "bad.py"),
    )
    errors: dict[str, dict[int, str]] = {"good.py": {}, "bad.py": {}}
    for line in output.splitlines():
        match = re.match(r"([^:]+):(\d+): error: (.*)", line)
        if match:
            errors[Path(match[1]).name][int(match[2])] = match[3]
    return errors


@pytest.fixture(scope="module")
def pyright_errors(snippets: Path) -> dict[str, dict[int, str]]:
    """Errors by file and line."""
    output = _output(snippets, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, ".")
    report = json.loads(output[output.index("{") :])
    assert report["summary"]["filesAnalyzed"] == 2
    errors: dict[str, dict[int, str]] = {"good.py": {}, "bad.py": {}}
    for diagnostic in report["generalDiagnostics"]:
        if diagnostic["severity"] == "error":
            line = diagnostic["range"]["start"]["line"] + 1
            errors[Path(diagnostic["file"]).name][line] = diagnostic["message"]
    return errors


def test_mypy(mypy_errors: dict[str, dict[int, str]]) -> None:
    assert mypy_errors["good.py"] == {}
    assert mypy_errors["bad.py"].keys() == _expected_errors(), mypy_errors["bad.py"]


def test_pyright(pyright_errors: dict[str, dict[int, str]]) -> None:
    assert pyright_errors["good.py"] == {}
    assert pyright_errors["bad.py"].keys() == _expected_errors(), pyright_errors["bad.py"]
