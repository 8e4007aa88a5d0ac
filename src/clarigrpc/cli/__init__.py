"""The command ``clarigrpc``. It needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = [
    "main",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: success; 1: failure, explained on stderr in one line; 2: wrong usage; 130: interrupted.

    Args:
        arguments: The words after ``clarigrpc``. None uses those of the process.
    """
    try:
        from clarigrpc.cli.app import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print(
            "clarigrpc: the command line needs click and rich: pip install 'clarigrpc[cli]'",
            file=sys.stderr,
        )
        return 1
    return run(arguments)
