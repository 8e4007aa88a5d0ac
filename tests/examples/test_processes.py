"""The examples that use many processes, against a local server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clarigrpc.local import LocalServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


def environment(server: LocalServer) -> dict[str, str]:
    return {
        **os.environ,
        "CLARIFAI_API_BASE": server.base,
        "CLARIFAI_PAT": server.pat,
        "CLARIFAI_USER_ID": "clarifai",
        "CLARIFAI_APP_ID": "main",
    }


def predicted(server: LocalServer, lines: list[str]) -> list[list[str]]:
    """What the example prints for lines, in columns."""
    script = str(EXAMPLES / "predict_in_processes.py")
    done = subprocess.run(
        [sys.executable, script, "text-sentiment", "--processes", "2", "--chunk", "7"],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(server),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_predictions_of_many_processes_come_in_order(server: LocalServer) -> None:
    moods = ["positive", "negative", "neutral"]
    texts = ["what a lovely day", "this is horrible", "a table"] * 20
    found = predicted(server, texts)
    assert [(number, mood) for number, mood, _ in found] == [
        (str(index + 1), moods[index % 3]) for index in range(60)
    ]


def test_a_text_that_fails_is_a_line_of_its_own(server: LocalServer) -> None:
    lines = ["what a lovely day", "", "this is horrible"]
    first, second, third = predicted(server, lines)
    assert (first[1], third[1]) == ("positive", "negative")
    assert second[0] == "2"
    assert second[1].startswith("error: ")


@pytest.fixture(scope="module")
def service(server: LocalServer) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of the web service in two processes, and the process that started them."""
    script = str(EXAMPLES / "serve_in_processes.py")
    command = [sys.executable, script, "text-sentiment", "--port", "0", "--processes", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(server)
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def asked(base: str, words: str) -> dict[str, Any]:
    """One request on a connection of its own."""
    answer: dict[str, Any] = httpx.post(f"{base}/predict", content=words, timeout=60).json()
    return answer


def test_every_process_of_a_web_service_answers(
    service: tuple[str, subprocess.Popen[str]],
) -> None:
    base, process = service
    end = time.monotonic() + 60
    answered: set[int] = set()
    while len(answered) < 2 and time.monotonic() < end:
        try:
            answer = asked(base, "what a lovely day")
        except httpx.ConnectError:
            time.sleep(0.05)  # neither listens yet
            continue
        assert max(answer["concepts"], key=answer["concepts"].get) == "positive"
        answered.add(answer["process"])
    assert len(answered) == 2
    assert process.pid not in answered

    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    for pid in answered:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
