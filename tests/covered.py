"""``python -m tests.covered [pytest's arguments]``: which lines of the package no test runs.

Fails when the tests do, or when they run less than ``BOUND`` of the client. What they leave out
stands there by file and function, with the source, so that one sees what it is: each run of missing
lines by its first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "clarigrpc"
BOUND = 92.0
# What is no part of the client, with a figure of its own.
BESIDE = ("cli", "local", "testing.py")
COVERAGE = (sys.executable, "-m", "coverage")


def runs(lines: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive lines."""
    found = []
    for _, group in groupby(enumerate(lines), lambda pair: pair[1] - pair[0]):
        run = [line for _, line in group]
        found.append((run[0], run[-1]))
    return found


def part_of(path: str) -> str:
    """``client``, or which part beside it a file belongs to."""
    top = Path(path).resolve().relative_to(SOURCES).parts[0]
    return top if top in BESIDE else "client"


def percent(files: list[dict[str, Any]]) -> float:
    """Lines that ran, of all lines of these files."""
    counts = [file["summary"] for file in files]
    covered: int = sum(count["covered_lines"] for count in counts)
    lines: int = sum(count["num_statements"] for count in counts)
    return 100 * covered / (lines or 1)


def print_missing(path: str, file: dict[str, Any]) -> None:
    """The missing lines of one file, by function."""
    source = Path(path).read_text().splitlines()
    name = Path(path).resolve().relative_to(SOURCES)
    print(f"\n{name}  {percent([file]):.1f} %, {len(file['missing_lines'])} lines missing")
    for function, region in file["functions"].items():
        for number, (first, last) in enumerate(runs(region["missing_lines"])):
            lines = f"{first}-{last}" if last > first else f"{first}"
            title = (function or "(module)") if not number else ""
            print(f"  {title:40} {lines:>9}  {source[first - 1].strip()}")


def main() -> int:
    """Run the tests, then say what they did not."""
    subprocess.run([*COVERAGE, "erase"], check=True)
    tests = [sys.executable, "-m", "tests.parts", *sys.argv[1:]]
    # Every interpreter that starts below measures itself: workers, commands, servers.
    here = {"COVERAGE_PROCESS_START": f"{ROOT / 'pyproject.toml'}"}
    here["COVERAGE_FILE"] = f"{ROOT / '.coverage'}"
    code = subprocess.run(tests, env={**os.environ, **here}, check=False).returncode
    subprocess.run([*COVERAGE, "combine", "--quiet"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        # Only of src: tests also import copies, which are gone by now.
        options = ("--quiet", f"--include={SOURCES}/*", "-o", str(report))
        subprocess.run([*COVERAGE, "json", *options], check=True)
        files: dict[str, dict[str, Any]] = json.loads(report.read_text())["files"]
    parts: dict[str, list[dict[str, Any]]] = {}
    for path, file in sorted(files.items()):
        parts.setdefault(part_of(path), []).append(file)
        if part_of(path) == "client" and file["missing_lines"]:
            print_missing(path, file)
    print()
    for part in BESIDE:
        print(f"{part:12} {percent(parts.get(part, [])):5.1f} %")
    found = percent(parts.get("client", []))
    print(f"{'client':12} {found:5.1f} %, at least {BOUND:g} %")
    return code or (1 if found < BOUND else 0)


if __name__ == "__main__":
    sys.exit(main())
