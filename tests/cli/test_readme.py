"""The README: its examples run, and the files and names it speaks of exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clarigrpc
from clarigrpc import errors

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    ("number", "output"),
    [(0, "75.0% Red\n25.0% Blue\n11101 "), (1, "8 Red\n")],
)
def test_example(
    number: int, output: str, environment: dict[str, str], photo: Path, tmp_path: Path
) -> None:
    shutil.copy(photo, tmp_path / "cat.jpg")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[number]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(output)


def test_every_test_that_is_named_exists() -> None:
    promises = README[README.index("## What it promises") : README.index("## Names")]
    folder = ""
    for name in re.findall(r"`((?:tests/)?[\w/]*(?:/|\.py))`", promises):
        if name.startswith("tests/"):
            folder = name.rpartition("/")[0]
            assert (ROOT / name).exists(), name
        else:
            assert (ROOT / folder / name).is_file(), name


def test_the_tree_of_errors_is_complete() -> None:
    tree = README[README.index("## Errors") :]
    for name in dir(errors):
        value = getattr(errors, name)
        if isinstance(value, type) and issubclass(value, errors.ClarigrpcError):
            assert name in tree, name


def test_every_public_name_is_in_the_table() -> None:
    names = README[README.index("## Names") : README.index("## Settings")]
    public = vars(clarigrpc)["__all__"]
    assert [name for name in public if f"`{name}" not in names] == []
