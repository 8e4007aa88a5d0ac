"""A child process that a test talks to over its pipes."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from typing import Any, Self

_SECONDS = 30.0


class ChildProcess:
    """A child process with pipes, which ends with its ``with`` block.

    Args:
        command: What to run.
        options: Those of ``subprocess.Popen``.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self._process: subprocess.Popen[Any] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def close(self) -> None:
        """End the input of the process and wait for its end; kill it where that does not come."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._stdout.close()

    def kill(self) -> None:
        """Kill it, as a machine that loses power does."""
        self._process.kill()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
