"""The README: its example runs. The pages that it leads to name files and names that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import clarigrpc
from clarigrpc import errors

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"


def test_example(environment: dict[str, str], photo: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copy(photo, tmp_path / "cat.jpg")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("75.0% Red\n25.0% Blue\n11101 ")


def test_every_page_that_is_linked_exists() -> None:
    for name in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / name).exists(), name


def test_every_test_that_is_named_exists() -> None:
    promises = (DOCS / "promises.md").read_text()
    folder = ""
    for name in re.findall(r"`((?:tests/)?[\w/]*(?:/|\.py))`", promises):
        if name.startswith("tests/"):
            folder = name.rpartition("/")[0]
            assert (ROOT / name).exists(), name
        else:
            assert (ROOT / folder / name).is_file(), name


def test_the_tree_of_errors_is_complete() -> None:
    tree = (DOCS / "errors.md").read_text()
    for name in dir(errors):
        value = getattr(errors, name)
        if isinstance(value, type) and issubclass(value, errors.ClarigrpcError):
            assert name in tree, name


def test_every_public_name_is_in_the_table() -> None:
    page = (DOCS / "api.md").read_text()
    names = page[page.index("## At a glance") : page.index("## Clients")]
    public = vars(clarigrpc)["__all__"]
    assert [name for name in public if f"`{name}" not in names] == []
