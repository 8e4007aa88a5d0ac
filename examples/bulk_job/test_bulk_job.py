"""The bulk job, killed in the middle and started again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from clarigrpc.local import LocalServer

SCRIPT = Path(__file__).with_name("bulk_job.py")


def test_a_killed_job_goes_on(
    tmp_path: Path, environment: dict[str, str], clarifai_local: LocalServer
) -> None:
    photos, results = tmp_path / "photos", tmp_path / "results.jsonl"
    (photos / "more").mkdir(parents=True)
    random = np.random.default_rng(1)
    for number in range(200):
        folder = photos if number % 2 else photos / "more"
        pixels = random.integers(0, 255, (8, 8, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("not for the job")
    command = [sys.executable, str(SCRIPT), str(photos), str(results)]

    clarifai_local.faults.latency_seconds = 0.2
    try:
        with subprocess.Popen(command, env=environment) as job:
            end = time.monotonic() + 60
            while not _lines(results) and time.monotonic() < end and job.poll() is None:
                time.sleep(0.01)
            job.kill()
    finally:
        clarifai_local.faults.latency_seconds = 0
    before = _lines(results)
    assert before
    paid = sum("concepts" in line for line in before)  # the broken one may be among them
    with results.open("a") as lines:
        lines.write('{"file": "more/0')  # what a crash can leave of a line

    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    assert f"1 failed, {paid} done before" in done.stdout
    found = [json.loads(line) for line in _lines(results)]
    predicted = Counter(one["file"] for one in found if "concepts" in one)
    assert len(predicted) == 200
    assert set(predicted.values()) == {1}
    failed: list[Any] = [one for one in found if "error" in one]
    assert {one["file"] for one in failed} == {"broken.jpg"}

    (photos / "broken.jpg").unlink()
    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (again.returncode, again.stdout) == (0, "0 predicted, 0 failed, 200 done before\n")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
