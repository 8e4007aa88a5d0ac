"""Many small predicts at once: asyncio against aiohttp, sharing requests, and how rates grow."""

from __future__ import annotations

from benchmarks.harness import Report
from benchmarks.servers import canned
from benchmarks.workers import lines, ours, rest, scene

IN_FLIGHT = 32
CALLERS = 128
BATCH = 32


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("concurrency")
    rounds = 30 if full else 9
    with canned() as (plain, _):
        awaited = ours("apredict", in_flight=IN_FLIGHT)
        aiohttp = rest("aiohttp", in_flight=IN_FLIGHT)
        found = scene(
            report, f"asyncio, {IN_FLIGHT} in flight", plain, [awaited, aiohttp], rounds=rounds
        )
        found.against(aiohttp, "rate", ">= 1.1")
        found.against(aiohttp, "cpu")

        shared = ours("coalesced", in_flight=CALLERS)
        apart = ours("apredict", in_flight=CALLERS)
        found = scene(
            report,
            f"{CALLERS} callers",
            plain,
            [shared, apart],
            rounds=rounds,
            quantities=("rate", "cpu", "p50"),
        )
        found.against(apart, "rate", ">= 4")
        found.against(apart, "p50", "<= 1")

        variants = {
            "gRPC unary": ours("apredict"),
            f"gRPC batches of {BATCH}": ours("amany", batch=BATCH),
            "gRPC stream": ours("astream"),
            "REST (aiohttp)": rest("aiohttp"),
        }
        wide = (1, 2, 4, 8, 16, 32, 64, 128) if full else (1, 8, 64)
        points = [(in_flight, in_flight, b"") for in_flight in wide]
        lines(report, plain, variants, points, rounds=7 if full else 3)
    return report
