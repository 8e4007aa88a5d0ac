"""Latency under load: calls that start at a constant rate, whatever becomes of those before them.

The limit of a client is what it gets done when calls start faster than that: at its rate in a
closed loop, which is higher, as calls that wait for each other are woken together. Then calls start
at a share of it, and a latency counts from the moment when the call was due: a client that falls
behind cannot hide it by asking less (no coordinated omission).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from benchmarks.harness import CHOICE, Report, Sample, measured, percentile, rounds_of
from benchmarks.servers import canned
from benchmarks.workers import Worker, Workers, ours, rest, workers

SHARES = (0.2, 0.5, 0.8)
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("load")
    unary = ours("apredict", "await predict", in_flight=32)
    variants = [
        unary,
        unary.again(),
        ours("coalesced", "await predict, coalesce=True", in_flight=128),
        rest("aiohttp", in_flight=32),
    ]
    if CHOICE.get().against is not None:
        return report
    with canned() as (plain, _), workers(plain, variants, report=report) as running:
        closed = {
            name: statistics.median(sample.value("rate") for sample in samples)
            for name, samples in running.measure(9 if full else 3, 0.5).items()
        }
        flooded = _paced(running, closed, full)
        limits = {
            name: statistics.median(sample.value("rate") for sample in samples)
            for name, samples in flooded.items()
        }
        limits[variants[1].name] = limits[unary.name]
        for name, limit in limits.items():
            report.notes.append(f"limit of {name}: {limit:.0f} a second")
        for share in SHARES:
            paces = {name: limit * share for name, limit in limits.items()}
            found = measured(
                report,
                f"{share:.0%} of the limit",
                partial(_paced, running, paces, full),
                first=unary.name,
                again=variants[1].name,
                quantities=["p99"],
            )
            for name, samples in found.samples.items():
                latencies = sorted(one for sample in samples for one in sample.latencies)
                for label, part in PERCENTILES.items():
                    line = report.series.setdefault(f"{name}: {label}", [])
                    line.append((share, percentile(latencies, part)))
            if found.samples:
                found.against(variants[-1], "p99")
                found.row(variants[2].name, unary.name, "p99")
    return report


def _paced(running: Workers, paces: dict[str, float], full: bool) -> dict[str, list[Sample]]:
    seconds = 3 if full else 1

    def slice_of(worker: Worker, pace: float) -> Callable[[], Sample]:
        return lambda: worker.run(round(pace * seconds), rate=pace)

    slices = {name: slice_of(worker, paces[name]) for name, worker in running.items()}
    return rounds_of(slices, 9 if full else 3)
