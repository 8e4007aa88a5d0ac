"""More processes, more cores: what a second client process adds, and what an input then costs.

On a machine of two cores, the second process shares its core with the server, which costs next to
nothing for each input. So the figure to look at is the CPU of an input: it must not grow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.harness import CHOICE, CLIENT_CORE, SERVER_CORE, Report, Sample, measured, rounds_of
from benchmarks.servers import canned
from benchmarks.workers import Worker, ours, workers

INPUTS = 50_000


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("processes")
    if CHOICE.get().against is not None:
        return report
    with canned() as (plain, _):
        for way, calls in (
            (ours("many", "predict_many"), INPUTS),
            (ours("apredict", "await predict, 32 in flight", in_flight=32), 2_000),
        ):
            variants = [replace(way, name=f"{core}", core=core) for core in _cores()]
            with workers(plain, variants, report=report) as running:
                all_of_them = list(running.values())
                numbers = [1, *(n for n in (2, 4, 8) if n <= len(all_of_them))]
                slices = {_named(n): _together(all_of_them[:n], calls) for n in numbers}
                slices["1 process, again"] = _together(all_of_them[:1], calls)
                found = measured(
                    report,
                    way.name,
                    partial(rounds_of, slices, 15 if full else 5),
                    first=_named(1),
                    again="1 process, again",
                )
            if found.samples:
                for n in numbers[1:]:
                    found.row(_named(n), _named(1), "rate")
                    found.row(_named(n), _named(1), "cpu", "<= 1.15")
    return report


def _named(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def _cores() -> list[int]:
    """One client a core; the one that the server has comes last."""
    others = [core for core in range(os.cpu_count() or 1) if core != SERVER_CORE]
    assert others[0] == CLIENT_CORE
    return [*others, SERVER_CORE]


def _together(running: list[Worker], calls: int) -> Callable[[], Sample]:
    """A slice of all workers at the same time."""

    def once() -> Sample:
        for worker in running:
            worker.begin(calls)
        found = [worker.end() for worker in running]
        return Sample(
            max(one.wall for one in found),
            sum(one.cpu for one in found),
            sum(one.calls for one in found),
        )

    return once
