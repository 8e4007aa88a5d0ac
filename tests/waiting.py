"""Waiting for what happens a moment later, in another thread or process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


def until(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true result of a check.

    Raises:
        AssertionError: There is none in this time.
    """
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


def join(thread: threading.Thread, seconds: float = 60.0) -> None:
    """Wait for the end of a thread.

    Raises:
        AssertionError: It does not end in this time.
    """
    thread.join(seconds)
    assert not thread.is_alive(), f"{thread.name} does not end"
