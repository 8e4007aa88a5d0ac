"""Many callers of one client: threads with a call each, asyncio streams, one or many at once."""

from __future__ import annotations

from benchmarks.harness import Report
from benchmarks.servers import canned
from benchmarks.workers import Variant, scene

THREADS = 32
# Streams at once -> the goal for the client's CPU. Where each of them gets few messages a second,
# hardly any can be taken together.
STREAMS = {64: "<= 0.8", 256: ""}


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("many_calls")
    rounds = 20 if full else 7
    with canned() as (plain, _):
        us, stub = _pair("threads", THREADS)
        found = scene(report, f"{THREADS} threads, one client", plain, [us, stub], rounds=rounds)
        found.against(stub, "rate", ">= 1")
        found.against(stub, "cpu", "<= 0.95")
        us, stub = _pair("generates", 1)
        found = scene(report, "generate against grpc.aio", plain, [us, stub], rounds=rounds)
        found.against(stub, "rate", ">= 1.3")
        found.against(stub, "cpu", "<= 0.8")
        for streams, goal in STREAMS.items():
            us, stub = _pair("generates", streams)
            title = f"{streams} generate streams, one client"
            found = scene(report, title, plain, [us, stub], rounds=rounds, seconds=1.0)
            found.against(stub, "rate")
            found.against(stub, "cpu", goal)
    return report


def _pair(key: str, in_flight: int) -> tuple[Variant, Variant]:
    return (
        Variant(f"clarigrpc {key}", "many_calls", key, in_flight=in_flight),
        Variant(f"stub {key}", "many_calls", f"stub_{key}", in_flight=in_flight),
    )
