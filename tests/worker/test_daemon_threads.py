"""Threads that a process does not wait for at its end."""

from __future__ import annotations

import threading

import pytest

from clarigrpc._worker.daemon_threads import DaemonThreads
from tests.refused_threads import refused_threads


def test_what_was_refused_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = DaemonThreads("clarigrpc-test")
    over = threading.Event()
    with (
        refused_threads(monkeypatch, "clarigrpc-test"),
        pytest.raises(RuntimeError, match="new thread"),
    ):
        threads.submit(over.wait, 60)
    try:
        assert threads.submit(lambda: "ran").result(20) == "ran"
    finally:
        over.set()
        threads.shutdown()
