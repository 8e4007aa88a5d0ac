"""Ray Data: how the rate grows with the actors of ``clarigrpc.ray.predict``.

Through a line with a round trip and few requests in flight, the service's time is what an actor
waits for, as with models that take their time: twice the actors should do nearly twice as much.
Without it, the cores of this machine are the limit, and more actors only share them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.delay_line import delay_line
from benchmarks.harness import CHOICE, Report, measured, rounds_of
from benchmarks.servers import Server, canned
from benchmarks.workers import Variant, workers

SOURCE = Path(__file__).parent.parent / "src"
"""The environment of Ray has no clarigrpc of its own."""
ACTORS = (1, 2, 4)
AWAY = 0.1
"""Seconds of the round trip."""
IN_FLIGHT = 4
"""Requests in flight of a batch of rows."""


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("ray_actors")
    if CHOICE.get().against is not None:
        return report
    with canned() as (plain, _), delay_line(AWAY, int(plain.grpc.rpartition(":")[2])) as (port,):
        far = replace(plain, grpc=f"127.0.0.1:{port}")
        _growth(report, f"round trip of {AWAY * 1000:.0f} ms", far, 16_384, full, "rate")
        if full:
            _growth(report, "no distance", plain, 100_000, full, "")
    return report


def _growth(report: Report, title: str, server: Server, rows: int, full: bool, goal: str) -> None:
    if CHOICE.get().only not in title:
        return
    # "batch" carries the requests in flight: the slices say how many actors.
    driver = Variant("actors", "ray_data", "actors", "ray", batch=IN_FLIGHT, source=SOURCE)
    with workers(server, [driver], report=report) as running:
        (worker,) = running.values()
        slices = {_named(count): partial(worker.run, rows * count, count) for count in ACTORS}
        slices["1 actor, again"] = partial(worker.run, rows, 1)
        found = measured(
            report,
            title,
            lambda: rounds_of(slices, 5 if full else 2),
            first=_named(1),
            again="1 actor, again",
            quantities=("rate",),
        )
    for count in ACTORS[1:]:
        found.row(_named(count), _named(1), "rate", f">= {0.8 * count:g}" if goal else "")


def _named(count: int) -> str:
    return "1 actor" if count == 1 else f"{count} actors"
