"""Variants in processes of their own, timed slice by slice on command."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import CLIENT_CORE, Report, Sample, compare, noise_of, rounds_of
from benchmarks.peers import interpreter
from benchmarks.servers import Server

SCRIPTS = Path(__file__).parent / "variants"


@dataclass(frozen=True)
class Variant:
    """What to run, and where.

    Attributes:
        name: As reports say it.
        script: ``ours``, ``published`` or ``rest``, of ``variants/``.
        key: Its name in the script.
        peer: The environment, see ``benchmarks.peers``; "": this one.
        batch: Inputs a request.
        in_flight: Calls in flight, where the variant has any.
        calls: Calls a slice; 0: as many as fit in the time of a slice.
    """

    name: str
    script: str
    key: str
    peer: str = ""
    batch: int = 1
    in_flight: int = 1
    calls: int = 0

    def again(self) -> Variant:
        """The same in another process: the control of a run."""
        return replace(self, name=f"{self.name}, again")


def ours(key: str, name: str = "", **options: Any) -> Variant:
    """A variant of clarigrpc."""
    return Variant(name or f"clarigrpc {key}", "ours", key, **options)


def stub(key: str = "stub", **options: Any) -> Variant:
    """The published generated stub."""
    return Variant("clarifai-grpc stub", "published", key, "clarifai-grpc", **options)


def rest(key: str = "requests", **options: Any) -> Variant:
    """A REST client."""
    return Variant(f"REST, {key}", "rest", key, "rest", **options)


def neutral_environment() -> dict[str, str]:
    """This process's environment without what would change how a client behaves."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CLARIFAI_", "GRPC_", "PYTHONDONTWRITEBYTECODE"))
        and not name.lower().endswith(("_proxy", "_ca_bundle"))
    }


class Worker:
    """A running variant."""

    def __init__(self, variant: Variant, server: Server, payload: Path | None) -> None:
        self.variant = variant
        config = {
            "variant": variant.key,
            "server": asdict(server),
            "payload": str(payload or ""),
            "batch": variant.batch,
            "core": CLIENT_CORE,
        }
        self._process = subprocess.Popen(
            [
                interpreter(variant.peer),
                str(SCRIPTS / f"{variant.script}.py"),
                json.dumps(config),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=neutral_environment(),
        )
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.answer: Any = ready["answer"]
        self.packages: dict[str, str] = ready["packages"]

    def run(self, calls: int, in_flight: int = 0) -> Sample:
        """Do a slice."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{calls} {in_flight or self.variant.in_flight}\n")
        self._process.stdin.flush()
        return Sample(**self._read())

    def calibrated(self, seconds: float, in_flight: int = 0) -> int:
        """How many calls fill a slice, after warming up."""
        wide = in_flight or self.variant.in_flight
        calls = max(4, self.variant.batch * 2, wide * 2)
        sample = self.run(calls, in_flight)
        while sample.wall < seconds / 4:
            calls *= 4
            sample = self.run(calls, in_flight)
        return max(1, math.ceil(sample.calls / sample.wall * seconds))

    def close(self) -> None:
        """End the process."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the variant {self.variant.name!r} failed")
        return json.loads(line)


class Workers(dict[str, Worker]):
    """Variants that run against one server, by name."""

    def measure(self, rounds: int, seconds: float, in_flight: int = 0) -> dict[str, list[Sample]]:
        """Interleaved slices of all of them, of about ``seconds`` each."""

        def slice_of(worker: Worker) -> Callable[[], Sample]:
            calls = worker.variant.calls or worker.calibrated(seconds, in_flight)
            return lambda: worker.run(calls, in_flight)

        return rounds_of({name: slice_of(worker) for name, worker in self.items()}, rounds)


@contextmanager
def workers(
    server: Server, variants: list[Variant], payload: bytes = b"", report: Report | None = None
) -> Iterator[Workers]:
    """Processes for the variants; all of them have to give the same answer."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="clarigrpc-bench-"))
        file = Path(folder, "payload") if payload else None
        if file is not None:
            file.write_bytes(payload)
        started = Workers()
        for variant in variants:
            worker = Worker(variant, server, file)
            stack.callback(worker.close)
            started[variant.name] = worker
            if report is not None:
                report.packages[variant.peer or "clarigrpc"] = worker.packages
        first = started[variants[0].name]
        for name, worker in started.items():
            if not _same(worker.answer, first.answer):
                raise RuntimeError(
                    f"{name} was answered {worker.answer}, {first.variant.name} {first.answer}"
                )
        yield started


def _same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, floating-point numbers to six digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


@dataclass(frozen=True)
class Scene:
    """Variants against one server, measured together, with a control.

    The first variant is the one that the others are compared with.
    """

    report: Report
    title: str
    samples: dict[str, list[Sample]]
    first: str
    noise: dict[str, float]

    def against(self, reference: Variant, quantity: str, goal: str = "") -> None:
        """Add the row: the first variant over ``reference``."""
        self.row(self.first, reference.name, quantity, goal)

    def row(self, variant: str, reference: str, quantity: str, goal: str = "") -> None:
        """Add a row."""
        what = {"rate": "rate", "cpu": "client CPU", "wall": "time", "p50": "median latency"}
        self.report.rows.append(
            compare(
                f"{self.title}: {variant} / {reference}, {what[quantity]}",
                self.samples[variant],
                self.samples[reference],
                quantity=quantity,
                goal=goal,
                noise=self.noise[quantity],
            )
        )


def scene(
    report: Report,
    title: str,
    server: Server,
    variants: list[Variant],
    *,
    rounds: int,
    seconds: float = 0.25,
    payload: bytes = b"",
) -> Scene:
    """Measure a scene, and add its control and its variants to the report."""
    first = variants[0]
    control = first.again()
    with workers(server, [*variants, control], payload, report) as running:
        samples = running.measure(rounds, seconds)
    noise = {}
    for quantity in ("rate", "cpu", "wall", "p50"):
        if quantity == "p50" and not samples[first.name][0].latencies:
            continue
        row = compare(
            f"{title}: control, {control.name}",
            samples[control.name],
            samples[first.name],
            quantity=quantity,
        )
        noise[quantity] = noise_of(row)
        if quantity == "rate":
            report.rows.append(row)
    del samples[control.name]
    report.add(title, samples)
    return Scene(report, title, samples, first.name, noise)
