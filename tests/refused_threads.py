"""A process that may have no more threads, for a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused_threads(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    """Have threads whose names begin so not start; Python says so as it does at the limit."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield
