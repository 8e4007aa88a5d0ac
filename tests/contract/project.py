"""Copies of the project, to build in: what a clone has, without the generated files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.contract.peer import ROOT


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def succeed(project: Path, *arguments: str) -> str:
    done = run(project, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_of_the_project(target: Path) -> Path:
    """A copy in the new folder ``target``, which is returned."""
    # With .gitignore, which hides the generated files from hatchling as it does in a clone.
    for name in ("pyproject.toml", "README.md", "LICENSE", "build_protos.py", ".gitignore"):
        target.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, target)
    shutil.copytree(ROOT / "protos", target / "protos")
    generated = str(ROOT / "src" / "clarigrpc" / "v2")
    shutil.copytree(
        ROOT / "src",
        target / "src",
        ignore=lambda path, names: (
            set(names) if path == generated else {n for n in names if n == "__pycache__"}
        ),
    )
    return target


def build_distributions(home: Path) -> Path:
    """A folder in ``home`` with an sdist, and a wheel built from the unpacked sdist."""
    project = copy_of_the_project(home / "project")
    dist = home / "dist"
    succeed(project, "-m", "hatchling", "build", "-t", "sdist", "-d", str(dist))
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(home / "unpacked", filter="data")
    (unpacked,) = (home / "unpacked").iterdir()
    succeed(unpacked, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist))
    return dist
