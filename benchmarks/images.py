"""Image bytes: against base64 in JSON, the published SDK, and the limit without protobuf."""

from __future__ import annotations

import random
from dataclasses import replace

from benchmarks.harness import Report
from benchmarks.servers import Server, canned
from benchmarks.workers import Variant, lines, ours, rest, scene

# Size -> (rate against requests, CPU against the SDK).
GOALS = {
    100_000: (">= 4", "<= 0.85"),
    1_000_000: (">= 12", "<= 0.55"),
    10_000_000: (">= 9", "<= 0.35"),
}
IN_FLIGHT = 32
BATCH = 8


def _content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _label(size: int) -> str:
    return f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} KB"


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("images")
    rounds = 20 if full else 7
    us, requests = ours("predict"), rest("requests")
    sdk = Variant("clarifai predict_by_bytes", "published", "predict_by_bytes", "clarifai")
    limit = ours("identity", "limit without protobuf")
    by_hand = replace(rest("by_hand"), name="HTTP by hand, raw body")
    with canned() as (plain, _):
        for size, (rate, cpu) in GOALS.items():
            found = scene(
                report,
                _label(size),
                plain,
                [us, requests, sdk, limit, by_hand],
                rounds=rounds,
                payload=_content(size),
            )
            found.against(requests, "rate", rate)
            found.against(sdk, "cpu", cpu)
            found.against(limit, "cpu", "<= 1.2" if size == 1_000_000 else "")
            found.against(by_hand, "cpu")
        size = 100_000
        awaited = ours("apredict", in_flight=IN_FLIGHT)
        aiohttp = rest("aiohttp", in_flight=IN_FLIGHT)
        found = scene(
            report,
            f"{_label(size)}, asyncio, {IN_FLIGHT} in flight",
            plain,
            [awaited, aiohttp],
            rounds=rounds,
            payload=_content(size),
        )
        found.against(aiohttp, "rate", ">= 2")
        _series(report, plain, full)
    return report


def _series(report: Report, server: Server, full: bool) -> None:
    """Images a second by their size."""
    variants = {
        "gRPC unary": ours("predict"),
        f"gRPC batches of {BATCH}": ours("predict_list", batch=BATCH),
        "gRPC stream": ours("stream", in_flight=BATCH),
        "REST (requests)": rest("requests"),
    }
    sizes = (1000, 10_000, 100_000, 1_000_000, 10_000_000) if full else (1000, 1_000_000)
    points = [(size, 0, _content(size)) for size in sizes]
    lines(report, server, variants, points, rounds=7 if full else 3)
