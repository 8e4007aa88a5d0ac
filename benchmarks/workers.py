"""Variants in processes of their own, timed slice by slice on command."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    CHOICE,
    CLIENT_CORE,
    NoRows,
    Report,
    Revision,
    Sample,
    Scene,
    comparing,
    measured,
    rounds_of,
)
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
        connections: How many the client may open.
        calls: Calls a slice; 0: as many as fit in the time of a slice.
        core: Where to run.
        source: Where to import another revision of clarigrpc from; None: this one.
    """

    name: str
    script: str
    key: str
    peer: str = ""
    batch: int = 1
    in_flight: int = 1
    connections: int = 1
    calls: int = 0
    core: int = CLIENT_CORE
    source: Path | None = None

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


def environment_of(source: Path | None) -> dict[str, str]:
    """The neutral environment, where clarigrpc is imported from ``source``; None: from here."""
    return neutral_environment() | ({} if source is None else {"PYTHONPATH": str(source)})


class VariantError(RuntimeError):
    """A variant that does not run."""


class Worker:
    """A running variant."""

    def __init__(self, variant: Variant, server: Server, payload: Path | None) -> None:
        self.variant = variant
        config = {
            "variant": variant.key,
            "server": asdict(server),
            "file": str(payload or ""),
            "batch": variant.batch,
            "connections": variant.connections,
            "core": variant.core,
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
            env=environment_of(variant.source),
        )
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.answer: Any = ready["answer"]
        self.packages: dict[str, str] = ready["packages"]

    def run(self, calls: int, in_flight: int = 0, rate: float = 0) -> Sample:
        """Do a slice; with a rate, calls start at it in an open loop."""
        self.begin(calls, in_flight, rate)
        return self.end()

    def begin(self, calls: int, in_flight: int = 0, rate: float = 0) -> None:
        """Let a slice begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{calls} {in_flight or self.variant.in_flight} {rate}\n")
        self._process.stdin.flush()

    def end(self) -> Sample:
        """Wait for the slice that has begun."""
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
            raise VariantError(f"the variant {self.variant.name!r} failed")
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


def scene(
    report: Report,
    title: str,
    server: Server,
    variants: list[Variant],
    *,
    rounds: int,
    seconds: float = 0.25,
    payload: bytes = b"",
    quantities: Sequence[str] = ("rate", "cpu"),
) -> Scene:
    """Measure variants against one server, and add a control and the variants to the report.

    The first variant is the one that others are compared with; ``quantities`` are those of the
    rows. Where revisions are compared, only clarigrpc is measured, here and there.
    """
    first, choice = variants[0], CHOICE.get()
    if choice.only not in title:
        return NoRows(report, title, {}, first.name, {})
    if choice.against is not None:
        there = choice.against
        _compare(report, title, server, variants, rounds, seconds, payload, there)
        return NoRows(report, title, {}, first.name, {})
    again = first.again()
    with workers(server, [*variants, again], payload, report) as running:
        return measured(
            report,
            title,
            lambda: running.measure(rounds, seconds),
            first=first.name,
            again=again.name,
            quantities=quantities,
        )


def lines(
    report: Report,
    server: Server,
    variants: dict[str, Variant],
    points: Sequence[tuple[float, int, bytes]],
    *,
    rounds: int,
) -> None:
    """Measure the points of a plot.

    Args:
        report: Where the points go.
        server: What is called.
        variants: A variant for each line of the plot.
        points: The x of each, calls in flight, and the payload.
        rounds: Slices a point.
    """
    if CHOICE.get().only or CHOICE.get().against is not None:
        return
    for x, in_flight, payload in points:
        with workers(server, list(variants.values()), payload, report) as running:
            samples = running.measure(rounds, 0.15, in_flight)
        for line, variant in variants.items():
            rates = [sample.value("rate") for sample in samples[variant.name]]
            report.series.setdefault(line, []).append((x, statistics.median(rates)))


def _compare(
    report: Report,
    title: str,
    server: Server,
    variants: list[Variant],
    rounds: int,
    seconds: float,
    payload: bytes,
    revision: Revision,
) -> None:
    for here in variants:
        if here.peer or here.key.startswith("stub"):
            continue  # not ours
        there = replace(here, name=f"{here.name} at {revision.name}", source=revision.source)
        try:
            with comparing():
                found = scene(
                    report,
                    title,
                    server,
                    [here, there],
                    rounds=rounds,
                    seconds=seconds,
                    payload=payload,
                )
        except VariantError as error:
            report.notes.append(f"{title}: {error}")
            continue
        for quantity in ("cpu", "rate"):
            found.against(there, quantity)
