"""What the benchmarks conclude from their figures, and the line and the clock they measure with."""

from __future__ import annotations

import asyncio
import json
import math
import runpy
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

import benchmarks
from benchmarks.delay_line import delay_line
from benchmarks.docs import FIGURES, render
from benchmarks.harness import CHOICE, QUIET, Choice, Report, Row, Sample, closing, measured

LOUD = math.log(1.5)
VARIANTS = Path(benchmarks.__file__).parent / "variants"


def row(ratio: float, goal: str = "", noise: float = 0.0) -> Row:
    return Row("a / b", ratio, ratio * 0.99, ratio * 1.01, (ratio, 1.0), goal=goal, noise=noise)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row(2, ">= 1.5"), "reached"),
        (row(1.2, ">= 1.5"), "MISSED"),
        (row(1.2, "<= 1.5"), "reached"),
        (row(1.0), "same"),
        (row(1.05, noise=QUIET * 0.9), "same"),
        (row(2), ""),
        # Not quiet: only what is farther away than the noise counts.
        (row(2, ">= 1.5", LOUD), "not quiet"),
        (row(4, ">= 1.5", LOUD), "reached"),
        (row(0.5, ">= 1.5", LOUD), "MISSED"),
        (row(1.3, noise=LOUD), "not quiet"),
        (row(3, noise=LOUD), ""),
    ],
)
def test_the_verdict_of_a_row(found: Row, verdict: str) -> None:
    assert found.verdict == verdict


def slices(*cpu: float) -> list[Sample]:
    return [Sample(wall=1.0, cpu=one, calls=1) for one in cpu]


def test_what_is_not_quiet_is_measured_again_and_the_quietest_counts() -> None:
    attempts = iter([2.0, 1.3, 1.7])
    asked = []

    def measure() -> dict[str, list[Sample]]:
        asked.append(next(attempts))
        return {
            "a": slices(*[1.0] * 5),
            "a, again": slices(*[asked[-1]] * 5),
            "b": slices(*[asked[-1] * 10] * 5),
        }

    report = Report("x")
    found = measured(report, "scene", measure, first="a", again="a, again", quantities=["cpu"])
    found.row("b", "a", "cpu")
    assert asked == [2.0, 1.3, 1.7]
    (result,) = report.results
    assert result.ratio == pytest.approx(13)
    assert result.noise == pytest.approx(math.log(1.3))
    assert report.notes == ["scene: not quiet in 3 attempts"]
    assert [one.variant for one in report.measured] == ["a", "b"]
    assert "scene: b / a, client CPU" in closing([report])


def test_a_quiet_scene_is_measured_once_and_only_if_it_is_chosen() -> None:
    asked = []

    def measure() -> dict[str, list[Sample]]:
        asked.append(1)
        return {"a": slices(1.0, 1.0), "a, again": slices(1.01, 1.01)}

    report = Report("x")
    scene = partial(
        measured, report, "scene", measure, first="a", again="a, again", quantities=["cpu"]
    )
    token = CHOICE.set(Choice(only="other"))
    try:
        found = scene()
        found.row("a", "b", "cpu")  # says nothing
    finally:
        CHOICE.reset(token)
    assert (asked, report.rows) == ([], [])
    scene()
    assert (len(asked), len(report.rows), report.results) == (1, 1, [])


def test_pages_are_made_from_whatever_results_there_are(tmp_path: Path) -> None:
    page = "\n".join(f"<!-- figures: {name} -->\nold\n<!-- end -->" for name in FIGURES)
    assert "old" not in render(page, {})
    report = Report("batch")
    report.rows.append(row(2, ">= 1.5"))
    report.add("small inputs", {"predict_many": slices(0.5, 0.5)})
    content = json.loads(report.save(tmp_path, full=False).read_text())
    made = render(page, {"batch": content})
    assert "old" not in made
    assert "| a / b | 2.00 (1.98-2.02) | ≥ 1.5 | reached |" in made


@pytest.mark.parametrize(("mbit", "seconds"), [(0, 0.1), (4, 0.3)])
def test_a_delay_line_keeps_order_and_hands_on_the_end(mbit: float, seconds: float) -> None:
    """120 kB there and back take 0.24 s at 4 Mbit/s, overlapping."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def echo() -> None:
            connection, _ = listener.accept()
            connection.settimeout(30)
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=echo)
        thread.start()
        with (
            delay_line(0.1, listener.getsockname()[1], mbit=mbit) as (port,),
            socket.create_connection(("127.0.0.1", port)) as near,
        ):
            near.settimeout(30)
            start = time.monotonic()
            sent = b"".join(b"%06d" % number for number in range(20_000))
            near.sendall(sent)
            near.shutdown(socket.SHUT_WR)
            received = near.recv(1)
            first = time.monotonic() - start
            while data := near.recv(1 << 16):
                received += data
        thread.join(30)
    assert received == sent
    assert first >= 0.1
    assert time.monotonic() - start >= seconds


def test_calls_at_a_rate_count_from_when_they_were_due() -> None:
    """A loop that stands still makes those late that should have started in the meantime."""
    stood = False

    async def call() -> None:
        nonlocal stood
        if not stood:
            stood = True
            time.sleep(0.2)  # the whole loop

    # A folder of scripts, no package.
    protocol = runpy.run_path(str(VARIANTS / "protocol.py"))
    with asyncio.Runner() as runner:
        latencies = protocol["paced"](runner, call)(100, 1000.0)
    assert len(latencies) == 100
    assert sum(one > 0.05 for one in latencies) >= 50


EVERY_VARIANT = """
import os, sys
from benchmarks.servers import canned
sys.path.insert(0, sys.argv[1])
import many_calls, ours
from protocol import Config
assert not ours.VARIANTS.keys() & many_calls.VARIANTS.keys()
for answer in ("concepts", "embeddings"):
    with canned(answer, native=False) as (plain, tls):
        for key, make in (ours.VARIANTS | many_calls.VARIANTS).items():
            if "upload" in key or (key == "embeddings") != (answer == "embeddings"):
                continue
            server = tls if key == "predict" else plain
            found = make(Config(key, vars(server), b"", "", batch=2, connections=1, core=0))
            done, _ = found.run(4, 2)
            assert done >= 4, key
            if found.paced is not None:
                assert len(found.paced(4, 100.0)) == 4, key
            print(key, flush=True)
os._exit(0)  # variants do not close what they opened
"""


def test_every_variant_of_clarigrpc_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERY_VARIANT, str(VARIANTS)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10
