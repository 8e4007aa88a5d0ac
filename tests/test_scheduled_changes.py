"""docs/scheduled-changes.md against the tests that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "scheduled-changes.md"
TESTS = "tests/local/test_scheduled_changes.py"
# When the service made its changes, by its own page.
DATES = """
2019-09-11 2019-09-24 2019-09-30 2019-11-20 2020-02-01 2020-02-03 2020-02-12 2020-02-24 2020-02-27
2020-10-16 2020-10-20 2021-02-12 2021-11-24 2022-01-20 2022-11-22 2023-01-04 2023-01-20 2023-01-26
2023-03-30
"""


def dates() -> list[str]:
    """The first column of the table."""
    return re.findall(r"^\| (20[\d-]+) \|", PAGE.read_text(), re.MULTILINE)


def lines() -> list[tuple[str, str]]:
    """The lines of the list of tests: a date, and what follows it."""
    return re.findall(r"^- (20[\d-]+): (.+)$", PAGE.read_text(), re.MULTILINE)


def functions_of(file: str) -> set[str]:
    """Names of the test functions of a file."""
    return {
        node.name
        for node in ast.parse((ROOT / file).read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
    }


def named(line: str) -> list[tuple[str, str]]:
    """The tests that a line names, with their files."""
    found = re.findall(r"`(test_\w+)`(?: \(`([\w/.]+)`\))?", line)
    return [(name, file or TESTS) for name, file in found]


def test_every_change_is_listed() -> None:
    assert sorted(dates()) == DATES.split()
    assert [date for date, _ in lines()] == dates()


def test_every_change_has_tests_that_exist() -> None:
    for date, line in lines():
        assert named(line), date
        for name, file in named(line):
            assert name in functions_of(file), (date, name)


def test_every_test_of_a_change_is_named() -> None:
    names = {name for _, line in lines() for name, file in named(line) if file == TESTS}
    assert names == functions_of(TESTS)
