"""``python -m tests.parts [pytest's arguments]``: all tests, in two parts.

First those without the marker ``measures``, on two workers. Then those with it, one after the
other with nothing beside them: they compare time, memory or a number of threads with a bound, and
a busy machine can make them fail for nothing. Only they are tried again, at most twice, and each
repetition is reported. The closing line counts both parts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

Part = tuple[str, str, tuple[str, ...]]
BESIDE: Part = ("tests beside each other", "not measures", ("-n2", "--dist=loadfile"))
ALONE: Part = ("tests that measure, alone", "measures", ("-n0", "--reruns=2", "--reruns-delay=1"))
PYTEST = (sys.executable, "-m", "pytest", "-p", "tests.parts")
# Pytest's words for what can become of a test, in the order of its closing line.
OUTCOMES = ("failed", "passed", "skipped", "xfailed", "xpassed", "error", "rerun")
ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--counts FILE``: write the outcomes there, for the sum of both parts."""
    parser.addoption("--counts", type=Path, help="write the number of tests by outcome as JSON")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count as the closing line does."""
    path: Path | None = terminalreporter.config.getoption("--counts")
    if path is not None:
        found = terminalreporter.stats
        path.write_text(json.dumps({name: len(found.get(name, ())) for name in OUTCOMES}))


def told(counts: Counter[str], seconds: float) -> str:
    """Counts in the form of pytest's closing line."""
    found = [
        f"{counts[name]} {name}" + ("s" if name == "error" and counts[name] > 1 else "")
        for name in OUTCOMES
        if counts[name]
    ]
    return f"{', '.join(found) or 'no tests ran'} in {seconds:.2f}s"


def main() -> int:
    """Run both parts and add them up."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", dest="marks", default="")
    own, others = parser.parse_known_args()
    lines, codes, total = [], [], Counter[str]()
    for title, mark, options in (BESIDE, ALONE):
        print(f"\n== {title}", flush=True)
        start = time.monotonic()
        marks = f"({own.marks}) and {mark}" if own.marks else mark
        with tempfile.NamedTemporaryFile("r", suffix=".json") as counted:
            command = [*PYTEST, f"--counts={counted.name}", *options, *others, "-m", marks]
            code = subprocess.run(command, check=False).returncode
            if code not in ENDED:  # interrupted, or called wrongly
                return code
            counts = Counter[str](json.load(counted))
        codes.append(code)
        total += counts
        lines.append(f"{title}: {told(counts, time.monotonic() - start)}")
        if code == pytest.ExitCode.TESTS_FAILED and {"-x", "--exitfirst"} & {*others}:
            break
    print("", *lines, sep="\n")
    print(f" {told(total, time.monotonic() - began)} ".center(80, "="))
    if pytest.ExitCode.TESTS_FAILED in codes:
        return pytest.ExitCode.TESTS_FAILED
    return min(codes)  # "no tests" only when neither part had one


if __name__ == "__main__":
    sys.exit(main())
