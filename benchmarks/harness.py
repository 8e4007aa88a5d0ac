"""What all benchmarks share: samples, ratios with their spread, the report."""

from __future__ import annotations

import json
import math
import os
import platform
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

CLIENT_CORE, SERVER_CORE = 0, 1
RESULTS = Path(__file__).parent / "results"

QUIET = math.log(1.10)
"""A run is quiet while its control, a variant against itself, says less than a tenth."""


@dataclass(frozen=True)
class Sample:
    """One slice of one variant.

    Attributes:
        wall, cpu: Seconds by the clock, and of CPU (user + system, all threads).
        calls: What was done in it: calls, or inputs, or tokens.
        latencies: Seconds of single calls, where the variant knows them.
        peak_mb: Peak resident memory of the process so far, in MB; 0: not measured.
    """

    wall: float
    cpu: float
    calls: int
    latencies: Sequence[float] = ()
    peak_mb: float = 0.0

    def value(self, quantity: str) -> float:
        """``rate`` (calls a second), ``cpu`` or ``wall`` (seconds a call), ``p50`` or ``p99``
        (seconds) or ``memory`` (MB)."""
        if quantity == "rate":
            return self.calls / self.wall
        if quantity in _PERCENTILES:
            return percentile(sorted(self.latencies), _PERCENTILES[quantity])
        if quantity == "memory":
            return self.peak_mb
        return float(getattr(self, quantity)) / self.calls


_PERCENTILES = {"p50": 0.5, "p99": 0.99}


def percentile(values: Sequence[float], share: float) -> float:
    """The value of a sorted sequence below which that share of it lies."""
    return values[min(len(values) - 1, int(len(values) * share))]


@dataclass(frozen=True)
class Measured:
    """One variant by itself, in a scene: what is compared within one run.

    Attributes:
        rate: Calls (or inputs, or tokens) a second, the median of the slices.
        cpu_us: Microseconds of client CPU for each.
        p50_us, p95_us, p99_us, p999_us: Latency of a call over all slices; None where a variant
            has no single calls, or too few for the last.
        peak_mb: Peak resident memory of its process; None where it shares one.
    """

    scene: str
    variant: str
    rate: float
    cpu_us: float
    p50_us: float | None = None
    p95_us: float | None = None
    p99_us: float | None = None
    peak_mb: float | None = None
    p999_us: float | None = None

    @staticmethod
    def of(scene: str, variant: str, samples: list[Sample]) -> Measured:
        """The summary of a variant's slices."""
        latencies = sorted(second for sample in samples for second in sample.latencies)

        def microseconds(share: float, least: int = 1) -> float | None:
            return percentile(latencies, share) * 1e6 if len(latencies) >= least else None

        return Measured(
            scene,
            variant,
            statistics.median(sample.value("rate") for sample in samples),
            statistics.median(sample.value("cpu") for sample in samples) * 1e6,
            microseconds(0.5),
            microseconds(0.95),
            microseconds(0.99),
            max(sample.peak_mb for sample in samples) or None,
            microseconds(0.999, least=10_000),
        )


@dataclass(frozen=True)
class Row:
    """A ratio between two variants of the same run.

    Attributes:
        question: What is compared.
        ratio: Median over the rounds of (variant / reference).
        low, high: 95 % interval of that median, by bootstrap.
        values: Medians of what is compared, for the variant and the reference, in ``unit``.
        goal: What the ratio should be, as text (``<= 1.05``), or "".
        noise: How far from 1, as a logarithm, the control of the same run (a variant against
            itself) may be.
        control: Whether this row is such a control.
    """

    question: str
    ratio: float
    low: float
    high: float
    values: tuple[float, float]
    unit: str = "us"
    goal: str = ""
    noise: float = 0.0
    control: bool = False

    @property
    def quiet(self) -> bool:
        """Whether the control stayed within ``QUIET``, so that the machine was quiet enough."""
        return self.noise <= QUIET

    @property
    def same(self) -> bool:
        """Whether the difference is inside the noise."""
        return self.low <= 1.0 <= self.high or abs(math.log(self.ratio)) <= self.noise

    @property
    def met(self) -> bool:
        """Whether the goal, if any, is reached."""
        if not self.goal:
            return True
        relation, bound = self.goal.split()
        return self.ratio <= float(bound) if relation == "<=" else self.ratio >= float(bound)

    @property
    def told(self) -> bool:
        """Whether the run can tell: it was quiet, or the goal is farther away than the noise."""
        if self.quiet:
            return True
        if not self.goal:
            return not self.same
        bound, spread = float(self.goal.split()[1]), math.exp(self.noise)
        return not self.low / spread <= bound <= self.high * spread

    @property
    def verdict(self) -> str:
        """``reached``, ``MISSED``, ``same`` (no difference found), ``not quiet`` or ""."""
        if not self.told:
            return "not quiet"
        if self.goal:
            return "reached" if self.met else "MISSED"
        return "same" if self.same else ""


@dataclass
class Report:
    """The rows of a benchmark with what is needed to judge them.

    Attributes:
        series: Points for the plots: line -> (x, rate) pairs.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    packages: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, scene: str, samples: dict[str, list[Sample]]) -> None:
        """Take the variants of a scene."""
        self.measured += [Measured.of(scene, name, found) for name, found in samples.items()]

    def table(self) -> str:
        """The report as text for a terminal."""
        rows = [
            (
                row.question,
                f"{row.ratio:.3f}",
                f"{row.low:.3f}-{row.high:.3f}",
                f"{_short(row.values[0])} {row.unit}",
                f"{_short(row.values[1])} {row.unit}",
                row.goal,
                "" if row.control else row.verdict,
            )
            for row in self.rows
        ]
        measured = [
            (
                f"{one.scene}: {one.variant}",
                _short(one.rate),
                _short(one.cpu_us),
                *map(_short, (one.p50_us, one.p95_us, one.p99_us, one.p999_us)),
                _short(one.peak_mb),
            )
            for one in self.measured
        ]
        lines = [
            f"== {self.name} ==",
            *_aligned(("", "ratio", "95 %", "this", "reference", "goal", ""), rows),
        ]
        if measured:
            head = ("", "rate/s", "CPU us", "p50 us", "p95 us", "p99 us", "p99.9 us", "peak MB")
            lines += ["", *_aligned(head, measured)]
        return "\n".join([*lines, *self.notes])

    @property
    def results(self) -> list[Row]:
        """The rows that are no control."""
        return [row for row in self.rows if not row.control]

    def save(self, directory: Path, *, full: bool) -> Path:
        """Write the report as JSON with the versions it was measured with."""
        directory.mkdir(exist_ok=True)
        path = directory / f"{self.name}.json"
        content = {**asdict(self), "full": full, "environment": environment()}
        path.write_text(json.dumps(_rounded(content), indent=1) + "\n")
        return path


def closing(reports: Sequence[Report]) -> str:
    """The rows of all reports in one table: goal, figure, interval, verdict."""
    rows = [
        (
            f"{report.name}: {row.question}",
            row.goal,
            f"{row.ratio:.2f}",
            f"{row.low:.2f}-{row.high:.2f}",
            f"{math.expm1(row.noise) * 100:.0f} %",
            row.verdict,
        )
        for report in reports
        for row in report.results
    ]
    verdicts = Counter(row.verdict for report in reports for row in report.results)
    lines = _aligned(("row", "goal", "figure", "95 %", "noise", "verdict"), rows)
    said = [f"{verdicts[one]} {one}" for one in ("reached", "MISSED", "not quiet", "same")]
    return "\n".join([*lines, "", ", ".join(said)])


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _rounded(value: Any) -> Any:
    """Five digits: more would only make every run differ everywhere."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return value


def _aligned(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def environment() -> dict[str, Any]:
    """Versions of everything that the figures depend on."""
    packages = {}
    for name in ("clarigrpc", "grpcio", "protobuf", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "packages": packages,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def pin(core: int) -> None:
    """Keep this process, and the threads it will make, on one core."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process on one core while the block runs."""
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def timed(run: Callable[[], int]) -> Sample:
    """Run a slice in this process; it returns the number of its calls."""
    wall, cpu = time.perf_counter(), time.process_time()
    calls = run()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu, calls)


def rounds_of(
    variants: Mapping[str, Callable[[], Sample]], rounds: int, seed: int = 1
) -> dict[str, list[Sample]]:
    """Slices of all variants, in a new random order every round, after one round to warm up."""
    order = list(variants)
    shuffle = random.Random(seed).shuffle
    samples: dict[str, list[Sample]] = {name: [] for name in order}
    for number in range(rounds + 1):
        shuffle(order)
        for name in order:
            sample = variants[name]()
            if number:
                samples[name].append(sample)
    return samples


def interleave(variants: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[Sample]]:
    """``rounds_of`` for variants in this process."""

    def slice_of(run: Callable[[], int]) -> Callable[[], Sample]:
        return lambda: timed(run)

    return rounds_of({name: slice_of(run) for name, run in variants.items()}, rounds)


_SCALES = {
    "rate": (1.0, "/s"),
    "cpu": (1e6, "us"),
    "wall": (1e6, "us"),
    "p50": (1e6, "us"),
    "p99": (1e6, "us"),
    "memory": (1.0, "MB"),
}


def compare(
    question: str,
    variant: list[Sample],
    reference: list[Sample],
    *,
    quantity: str = "cpu",
    goal: str = "",
    noise: float = 0.0,
) -> Row:
    """The row for two variants of one run.

    Args:
        question: What is compared.
        variant, reference: Their slices, round by round.
        quantity: ``cpu``, ``wall`` (both a call), ``p50``, ``p99`` (latency) or ``memory``, where
            less is better, or ``rate``, where more is.
        goal: ``<= 1.05`` or ``>= 2``.
        noise: Of the control of the run.
    """
    pairs = [
        (a.value(quantity), b.value(quantity)) for a, b in zip(variant, reference, strict=True)
    ]
    scale, unit = _SCALES[quantity]
    ratio, low, high = spread([a / b for a, b in pairs])
    values = tuple(statistics.median(column) * scale for column in zip(*pairs, strict=True))
    return Row(question, ratio, low, high, (values[0], values[1]), unit, goal, noise)


_WORDS = {
    "rate": "rate",
    "cpu": "client CPU",
    "wall": "time",
    "p50": "median latency",
    "p99": "99th percentile of latency",
    "memory": "memory",
}


class Named(Protocol):
    """What reports call by its name."""

    @property
    def name(self) -> str:
        """As reports say it."""


@dataclass(frozen=True)
class Scene:
    """Variants that were measured together, with a control.

    Attributes:
        samples: The slices of each variant.
        first: The variant that the others are compared with.
        noise: What the control says of each quantity.
    """

    report: Report
    title: str
    samples: dict[str, list[Sample]]
    first: str
    noise: dict[str, float]

    def against(self, reference: Named, quantity: str, goal: str = "") -> None:
        """Add the row: the first variant over ``reference``."""
        self.row(self.first, reference.name, quantity, goal)

    def row(self, variant: str, reference: str, quantity: str, goal: str = "") -> None:
        """Add the row: ``variant`` over ``reference``."""
        self.report.rows.append(
            compare(
                f"{self.title}: {variant} / {reference}, {_WORDS[quantity]}",
                self.samples[variant],
                self.samples[reference],
                quantity=quantity,
                goal=goal,
                noise=self.noise[quantity],
            )
        )


class NoRows(Scene):
    """A scene that was not measured as the benchmark has it: it adds no rows."""

    def row(self, variant: str, reference: str, quantity: str, goal: str = "") -> None:
        """Nothing."""


@dataclass(frozen=True)
class Revision:
    """Another revision of the project, built.

    Attributes:
        name: As it was asked for.
        source: The folder to import it from.
    """

    name: str
    source: Path


@dataclass(frozen=True)
class Choice:
    """What a run measures.

    Attributes:
        only: Scenes whose title contains this text; "" are all.
        against: Measure clarigrpc alone, here and in this revision.
        attempts: How often a scene may be measured that was not quiet; the quietest counts.
    """

    only: str = ""
    against: Revision | None = None
    attempts: int = 3


CHOICE: ContextVar[Choice] = ContextVar("choice", default=Choice())  # noqa: B039 - frozen
"""Set by the command before it runs benchmarks."""


@contextmanager
def comparing() -> Iterator[None]:
    """Inside, scenes are measured also where revisions are compared: they are made for that."""
    token = CHOICE.set(replace(CHOICE.get(), against=None))
    try:
        yield
    finally:
        CHOICE.reset(token)


def measured(
    report: Report,
    title: str,
    measure: Callable[[], dict[str, list[Sample]]],
    *,
    first: str,
    again: str,
    quantities: Sequence[str] = ("rate", "cpu"),
) -> Scene:
    """Measure a scene until its control is quiet, and add control and variants to the report.

    Args:
        report: Where rows go.
        title: Name of the scene.
        measure: One attempt: the slices of all variants.
        first, again: The variant that others are compared with, and the same once more.
        quantities: In what the control has to be quiet: what the rows will compare.
    """
    choice = CHOICE.get()
    if choice.only not in title or choice.against is not None:
        return NoRows(report, title, {}, first, {})
    found: list[tuple[float, dict[str, list[Sample]], dict[str, Row]]] = []
    for _ in range(choice.attempts):
        samples = measure()
        controls = {}
        for quantity in quantities:
            question = f"{title}: control, {again}, {_WORDS[quantity]}"
            row = compare(question, samples[again], samples[first], quantity=quantity)
            noise = max(abs(math.log(bound)) for bound in (row.low, row.high))
            controls[quantity] = replace(row, noise=noise, control=True)
        found.append((max(row.noise for row in controls.values()), samples, controls))
        if found[-1][0] <= QUIET:
            break
    loudest, samples, controls = min(found, key=itemgetter(0))
    if loudest > QUIET:
        report.notes.append(f"{title}: not quiet in {len(found)} attempts")
    report.rows += controls.values()
    del samples[again]
    report.add(title, samples)
    return Scene(
        report, title, samples, first, {quantity: row.noise for quantity, row in controls.items()}
    )


def spread(values: list[float], repetitions: int = 2000) -> tuple[float, float, float]:
    """The median, and its 95 % interval by bootstrap."""
    draw = random.Random(1).choices
    medians = sorted(statistics.median(draw(values, k=len(values))) for _ in range(repetitions))
    low, high = medians[int(repetitions * 0.025)], medians[int(repetitions * 0.975)]
    return statistics.median(values), low, high
