"""Measure variants against each other: interleaved, pinned, as ratios with their spread."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CLIENT_CORE, SERVER_CORE = 0, 1


@dataclass(frozen=True)
class Sample:
    """One slice of one variant: seconds by the clock and of CPU (user + system), and its calls."""

    wall: float
    cpu: float
    calls: int


@dataclass(frozen=True)
class Row:
    """A ratio between two variants of the same run.

    Attributes:
        question: What is compared.
        ratio: Median over the slices of (variant / reference).
        low, high: 95 % interval of that median, by bootstrap.
        per_call_us: Medians of the measured quantity a call, in microseconds: variant, reference.
        goal: What the ratio should be, as text (``<= 1.05``), or "".
    """

    question: str
    ratio: float
    low: float
    high: float
    per_call_us: tuple[float, float]
    goal: str = ""

    @property
    def same(self) -> bool:
        """Whether the difference is inside the noise."""
        return self.low <= 1.0 <= self.high

    @property
    def met(self) -> bool:
        """Whether the goal, if any, is reached."""
        if not self.goal:
            return True
        relation, bound = self.goal.split()
        return self.ratio <= float(bound) if relation == "<=" else self.ratio >= float(bound)


@dataclass
class Report:
    """The rows of a benchmark with what is needed to judge them."""

    name: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The report as text for a terminal."""
        head = ("", "ratio", "95 %", "us/call", "reference", "goal", "")
        lines = [head]
        for row in self.rows:
            lines.append(
                (
                    row.question,
                    f"{row.ratio:.3f}",
                    f"{row.low:.3f}-{row.high:.3f}",
                    f"{row.per_call_us[0]:.1f}",
                    f"{row.per_call_us[1]:.1f}",
                    row.goal,
                    "same" if row.same else ("" if row.met else "MISSED"),
                )
            )
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        body = (
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
        return "\n".join([self.name, *body, *self.notes])

    def missed(self) -> list[str]:
        """The rows whose goal is not reached."""
        return [
            f"{self.name}: {row.question}: {row.ratio:.3f}, goal {row.goal}"
            for row in self.rows
            if not row.met
        ]

    def save(self, directory: Path) -> Path:
        """Write the report as JSON with the versions it was measured with."""
        directory.mkdir(exist_ok=True)
        path = directory / f"{self.name}.json"
        path.write_text(json.dumps({**asdict(self), "environment": environment()}, indent=1) + "\n")
        return path


def environment() -> dict[str, Any]:
    """Versions of everything that the figures depend on."""
    packages = {}
    for name in ("clarigrpc", "grpcio", "protobuf", "clarifai-grpc", "httpx", "requests"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": packages,
    }


def pin(core: int) -> None:
    """Keep this process, and the threads it will make, on one core."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


@contextmanager
def server(kind: str, *arguments: str) -> Iterator[str]:
    """A server of ``benchmarks.servers`` in a process of its own, on its core; its address."""
    command = [sys.executable, "-m", "benchmarks.servers", kind, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the {kind} server did not start")
        yield address
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def timed(run: Callable[[], int]) -> Sample:
    """Run a slice; it returns the number of its calls."""
    wall, cpu = time.perf_counter(), time.process_time()
    calls = run()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu, calls)


def interleave(
    variants: dict[str, Callable[[], int]], rounds: int, seed: int = 1
) -> dict[str, list[Sample]]:
    """Slices of all variants, in a new random order every round, after one round to warm up."""
    order = list(variants)
    shuffle = random.Random(seed).shuffle
    samples: dict[str, list[Sample]] = {name: [] for name in order}
    for number in range(rounds + 1):
        shuffle(order)
        for name in order:
            sample = timed(variants[name])
            if number:
                samples[name].append(sample)
    return samples


def compare(
    question: str,
    variant: list[Sample],
    reference: list[Sample],
    *,
    quantity: str = "cpu",
    goal: str = "",
) -> Row:
    """The row for two variants of one interleaved run; ``quantity``: ``cpu``, ``wall`` or ``rate``.

    For ``cpu`` and ``wall`` less is better (the goal is an upper bound); ``rate`` is calls a
    second, where more is better.
    """

    def value(sample: Sample) -> float:
        if quantity == "rate":
            return sample.calls / sample.wall
        return float(getattr(sample, quantity)) / sample.calls

    ratios = [value(a) / value(b) for a, b in zip(variant, reference, strict=True)]
    low, high = _interval(ratios)

    def per_call(samples: list[Sample]) -> float:
        attribute = "wall" if quantity == "rate" else quantity
        return statistics.median(float(getattr(s, attribute)) / s.calls for s in samples) * 1e6

    return Row(
        question,
        statistics.median(ratios),
        low,
        high,
        (per_call(variant), per_call(reference)),
        goal,
    )


def _interval(values: list[float], repetitions: int = 2000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median."""
    draw = random.Random(1).choices
    medians = sorted(statistics.median(draw(values, k=len(values))) for _ in range(repetitions))
    return medians[int(repetitions * 0.025)], medians[int(repetitions * 0.975)]
