"""Would another transport pay? HTTP/2 in Rust (``pyqwest``, ``connectrpc``) beside clarigrpc.

Ratios are those of the other to clarigrpc. The bare sync calls of pyqwest cannot be ended before
their deadline; "on a thread" is what it takes to leave one. A transport of its own would be worth
it from a fifth of the CPU on, with all that a call needs: see ``docs/performance.md``.
"""

from __future__ import annotations

import random
from typing import Any

from benchmarks.harness import CHOICE, Report
from benchmarks.servers import Server, canned
from benchmarks.workers import Variant, ours, scene

IN_FLIGHT = 32
WINDOW = 32


def _rust(key: str, name: str, **options: Any) -> Variant:
    return Variant(name, "rust", key, "rust", **options)


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("transports")
    if CHOICE.get().against is not None:
        return report  # other benchmarks have what is ours
    rounds = 20 if full else 5
    sync = {
        "predict": "pyqwest",
        "cancellable": "pyqwest on a thread",
        "connect_predict": "connectrpc",
    }
    asyncio = {"apredict": "pyqwest", "connect_apredict": "connectrpc"}
    tokens = {"generate": "pyqwest", "connect_generate": "connectrpc"}
    with canned() as (plain, tls):
        _scene(report, "unary", plain, rounds, "predict", sync)
        _scene(report, "unary, TLS", tls, rounds, "predict", sync)
        for size, label in ((100_000, "100 KB"), (1_000_000, "1 MB"), (10_000_000, "10 MB")):
            payload = random.Random(size).randbytes(size)
            title = f"{label}, serialized in advance"
            _scene(report, title, plain, rounds, "identity", {"identity": "pyqwest"}, 1, payload)
        title = f"asyncio, {IN_FLIGHT} in flight"
        _scene(report, title, plain, rounds, "apredict", asyncio, IN_FLIGHT)
        for server, suffix in ((plain, ""), (tls, ", TLS")):
            _scene(report, f"generate{suffix}", server, rounds, "generate", tokens)
            title = f"stream, window of {WINDOW}{suffix}"
            _scene(report, title, server, rounds, "stream", {"stream": "pyqwest"}, WINDOW)
        _scene(report, "generate, asyncio", plain, rounds, "agenerate", {"agenerate": "pyqwest"})
    return report


def _scene(
    report: Report,
    title: str,
    server: Server,
    rounds: int,
    key: str,
    others: dict[str, str],
    in_flight: int = 1,
    payload: bytes = b"",
) -> None:
    """Compare the variants of Rust, by key and name, with one of clarigrpc."""
    us = ours(key, in_flight=in_flight)
    rust = [
        Variant(name, "rust", other, "rust", in_flight=in_flight) for other, name in others.items()
    ]
    found = scene(report, title, server, [us, *rust], rounds=rounds, payload=payload)
    for variant in rust:
        found.row(variant.name, us.name, "cpu")
        found.row(variant.name, us.name, "rate")
