"""Over distance: round trips of 20, 50 and 150 ms between client and server, by a delay line.

What calls in flight, connections, sharing requests and a window are worth there, and REST beside
them. The line has no limit of bandwidth and starts at full speed: real distances only add to this.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.delay_line import delay_line
from benchmarks.harness import CLIENT_CORE, Report, interleave, measured, pinned
from benchmarks.servers import Server, canned
from benchmarks.upload import MIB, Peer, counting_server, ways, write
from benchmarks.workers import ours, rest, scene

CALLERS = 256
IMAGES = 8


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("distance")
    with tempfile.TemporaryDirectory() as folder, canned() as (plain, _):
        path = Path(folder, "content")
        write(path, (128 if full else 16) * MIB)
        ports = [int(address.rpartition(":")[2]) for address in (plain.grpc, plain.http)]
        with counting_server(Path(folder)) as counting:
            for round_trip in (0.02, 0.05, 0.15) if full else (0.05,):
                with delay_line(round_trip, *ports, counting) as (grpc, http, counted):
                    far = replace(plain, grpc=f"127.0.0.1:{grpc}", http=f"127.0.0.1:{http}")
                    _at(report, far, round_trip, full)
                    _uploads(report, path, Peer(counted), round_trip, full)
    return report


def _at(report: Report, server: Server, round_trip: float, full: bool) -> None:
    away = f"{round_trip * 1000:.0f} ms"
    measure = partial(
        scene, report, server=server, rounds=7 if full else 3, seconds=10 * round_trip
    )
    one = ours("apredict", "await predict", in_flight=CALLERS)
    four = ours("apredict", "await predict, connections=4", in_flight=CALLERS, connections=4)
    shared = ours("coalesced", "await predict, coalesce=True", in_flight=CALLERS)
    requests = rest("aiohttp", in_flight=CALLERS)
    found = measure(f"{away}, {CALLERS} callers", variants=[one, four, shared, requests])
    for other in (four, shared):
        found.row(other.name, one.name, "rate")
    found.row(one.name, requests.name, "rate")
    found.row(one.name, requests.name, "cpu")

    adaptive = ours("many", "predict_many")
    fixed = [ours("amany", f"predict_many, in_flight={n}", batch=128, in_flight=n) for n in (1, 8)]
    found = measure(f"{away}, an iterable", variants=[adaptive, *fixed])
    for other in fixed:
        found.row(adaptive.name, other.name, "rate")

    payload = random.Random(1).randbytes(1_000_000)
    after = ours("predict", "predict, one after the other")
    one = ours("apredict", f"await predict, {IMAGES} in flight", in_flight=IMAGES)
    four = replace(one, name=f"{one.name}, connections=4", connections=4)
    requests = rest("aiohttp", in_flight=IMAGES)
    each = rest("requests")
    found = measure(
        f"{away}, images of 1 MB", variants=[one, four, after, requests, each], payload=payload
    )
    found.row(one.name, after.name, "rate")
    found.row(four.name, one.name, "rate")
    found.row(one.name, requests.name, "rate")
    found.row(after.name, each.name, "rate")


def _uploads(report: Report, path: Path, peer: Peer, round_trip: float, full: bool) -> None:
    uploads = ways(path, peer)
    names = ("sync", "sync, again", "requests")
    with pinned(CLIENT_CORE):
        found = measured(
            report,
            f"{round_trip * 1000:.0f} ms, an upload of {path.stat().st_size // MIB} MiB",
            partial(interleave, {name: uploads[name] for name in names}, 5 if full else 2),
            first="sync",
            again="sync, again",
            quantities=["rate"],
        )
    if found.samples:
        found.row("sync", "requests", "rate")
