"""Runs acts one after the other in the peer's interpreter, and reports how each one went.

Printed is a JSON object: name of the act -> "" or why it failed.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable


class Acts:
    """Acts in their order. What one leaves in ``kept``, later ones find there."""

    def __init__(self) -> None:
        self._acts: list[Callable[[], None]] = []
        self.kept: dict[str, object] = {}

    def __call__(self, act: Callable[[], None]) -> Callable[[], None]:
        self._acts.append(act)
        return act

    def run(self, prefix: str = "") -> dict[str, str]:
        """Run all acts; one that fails stops none of the others."""
        return {prefix + act.__name__: _how_it_went(act) for act in self._acts}


def _how_it_went(act: Callable[[], None]) -> str:
    try:
        act()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:600]
        return f"{type(error).__name__}: {text} (line {where.lineno} of {where.filename})"
    return ""


def report(results: dict[str, str]) -> None:
    """Print the results and leave, without waiting for threads that the peer leaves behind."""
    sys.__stdout__.write(json.dumps(results))
    sys.__stdout__.flush()
    os._exit(0)
