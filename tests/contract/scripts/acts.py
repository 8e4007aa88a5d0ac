"""Runs acts one after the other in the peer's interpreter, and reports how each one went.

Printed is a JSON object: name of the act -> "" or why it failed.
"""

import json
import os
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
        return {prefix + act.__name__: failure_of(act) for act in self._acts}


def failure_of(act: Callable[[], object]) -> str:
    """Why an act failed; "" if it did not."""
    try:
        act()
    except Exception as error:  # noqa: BLE001  # of whatever kind the peer raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:600]
        return f"{type(error).__name__}: {text} (line {where.lineno} of {where.filename})"
    return ""


def report(results: dict[str, str]) -> None:
    """Print the results and leave, without waiting for threads that the peer leaves behind."""
    os.write(1, json.dumps(results).encode())
    os._exit(0)
