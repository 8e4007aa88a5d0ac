"""The pre-fork service as its callers see it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import httpx
import pytest


def test_every_process_answers_and_ends(serve: Any) -> None:
    command = ("gunicorn", "prefork_service:app", "--workers", "2")
    with serve("prefork_service", *command, BIND="127.0.0.1:0") as service:
        answered: set[int] = set()
        end = time.monotonic() + 60
        while len(answered) < 2 and time.monotonic() < end:
            # A connection of its own: the processes take turns in accepting them.
            answer = httpx.post(f"{service.address}/predict", content="a lovely day", timeout=60)
            assert answer.status_code == 200
            found = answer.json()
            assert max(found["concepts"], key=found["concepts"].get) == "positive"
            answered.add(found["process"])
        assert len(answered) == 2
        assert service.process.pid not in answered

        assert httpx.post(f"{service.address}/predict", timeout=60).status_code == 422
        large = httpx.post(f"{service.address}/predict", content=bytes(200_000), timeout=60)
        assert large.status_code == 413
        assert httpx.get(service.address, timeout=60).status_code == 404

        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        for pid in answered:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
