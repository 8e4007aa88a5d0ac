"""Streams: tokens of ``generate`` and outputs of ``stream``, against the published stub."""

from __future__ import annotations

from benchmarks.harness import Report
from benchmarks.servers import canned
from benchmarks.workers import ours, scene, stub

WINDOW = 32


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("streams")
    rounds = 20 if full else 7
    with canned() as (plain, tls):
        default = stub("generate")
        found = scene(report, "generate", plain, [ours("generate"), default], rounds=rounds)
        found.against(default, "rate", ">= 2")
        found.against(default, "cpu", "<= 0.45")
        found = scene(
            report, "generate, asyncio", plain, [ours("agenerate"), default], rounds=rounds
        )
        found.against(default, "rate", ">= 1.3")
        found.against(default, "cpu", "<= 0.8")
        default = stub("stream", in_flight=WINDOW)
        found = scene(
            report,
            f"stream, window of {WINDOW}",
            plain,
            [ours("stream", in_flight=WINDOW), default, ours("astream", in_flight=WINDOW)],
            rounds=rounds,
        )
        for variant in ("stream", "astream"):
            found.row(f"clarigrpc {variant}", default.name, "rate", ">= 1.2")
            found.row(f"clarigrpc {variant}", default.name, "cpu")
        for title, key in (("generate", "generate"), (f"stream, window of {WINDOW}", "stream")):
            default = stub(key, in_flight=WINDOW)
            us = ours(key, in_flight=WINDOW)
            found = scene(report, f"{title}, TLS", tls, [us, default], rounds=rounds)
            found.against(default, "rate")
            found.against(default, "cpu")
    return report
