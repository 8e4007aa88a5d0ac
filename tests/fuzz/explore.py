"""How long fuzzing goes on: a few fixed examples of each case, or random ones for a time.

``FUZZ_SECONDS`` is the time for all fuzz tests together; without it each case has the same few
examples in every run.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

_ROUND = 20
"""Random examples of a case before the next case has its turn."""


class Case(NamedTuple):
    """What is tried: ``check`` with what ``strategy`` draws."""

    name: str
    strategy: st.SearchStrategy[Any]
    check: Callable[[Any], None]


def explore(
    cases: Sequence[Case],
    *,
    share: float,
    examples: int = 3,
    after: Callable[[str], None] = lambda name: None,
) -> None:
    """Tries all cases.

    Args:
        cases: What to try.
        share: Part of the time of ``FUZZ_SECONDS``.
        examples: How many of each without that time.
        after: Called with the name of each case that was tried.
    """
    seconds = float(os.environ.get("FUZZ_SECONDS") or 0) * share
    end = time.monotonic() + seconds
    while True:
        for case in random.sample(cases, len(cases)) if seconds else cases:
            _try(case, _ROUND if seconds else examples, fixed=not seconds)
            after(case.name)
            if seconds and time.monotonic() >= end:
                return
        if not seconds:
            return


def _try(case: Case, examples: int, *, fixed: bool) -> None:
    # Not shrunk: what the server has is another thing at each try.
    test = settings(
        max_examples=examples,
        derandomize=fixed,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(given(case.strategy)(lambda drawn: case.check(drawn)))
    try:
        test()
    except BaseException as error:
        error.add_note(f"while fuzzing {case.name}")
        raise
