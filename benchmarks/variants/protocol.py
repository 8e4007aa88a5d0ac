"""The child's end of a benchmark: run slices of a variant on command, and say what they took.

Scripts of this folder run in the interpreter of the peer that they call, so this module needs
nothing but the standard library. ``script.py CONFIG`` (JSON, see ``Config``) prints one JSON line
when it is ready, with the answer it got to its first call; then for every line ``N IN_FLIGHT RATE``
on stdin, it does N calls and prints one JSON line: wall, cpu, calls, latencies, peak_mb. If RATE is
above 0, calls start at that rate, whatever becomes of those before them.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

MOST_LATENCIES = 2000  # of a slice; more would only make the pipe the benchmark

Slice = Callable[[int, int], "tuple[int, list[float]]"]
"""Takes the number of calls and how many may be in flight; returns calls done and latencies."""


@dataclass(frozen=True)
class Config:
    """What a variant is told.

    Attributes:
        variant: Its name in the script.
        server: See ``benchmarks.servers.Server``.
        payload: The image to predict; empty: a short text.
        file: Where the payload is; "" without one.
        batch: Inputs a request.
        connections: How many the client may open.
        core: Where to run.
    """

    variant: str
    server: dict[str, Any]
    payload: bytes
    file: str
    batch: int
    connections: int
    core: int

    @property
    def text(self) -> str:
        """What is predicted when there is no image."""
        return "a short text"

    @property
    def tls(self) -> bool:
        """Whether the server speaks TLS."""
        return bool(self.server["certificate"])

    @property
    def base(self) -> str:
        """Address of the gRPC front, as a URL."""
        return f"{'https' if self.tls else 'http'}://{self.server['grpc']}"

    @property
    def rest_base(self) -> str:
        """Address of the REST front, as a URL."""
        return f"{'https' if self.tls else 'http'}://{self.server['http']}"

    @property
    def path(self) -> str:
        """The REST path of a prediction."""
        place = self.server
        return (
            f"/v2/users/{place['user_id']}/apps/{place['app_id']}"
            f"/models/{place['model_id']}/outputs"
        )

    def certificate(self) -> bytes | None:
        """The PEM to trust, None without TLS."""
        return Path(self.server["certificate"]).read_bytes() if self.tls else None


@dataclass(frozen=True)
class Variant:
    """A way to do the same thing: what it answers, and how to do many.

    Attributes:
        answer: What the first call was answered.
        run: Does a slice of calls in a closed loop.
        paced: Does calls at a rate: takes their number and the rate, and returns latencies from
            the moment when a call was due; None where there is no such way.
    """

    answer: Any
    run: Slice
    paced: Callable[[int, float], list[float]] | None = None


def blocking(call: Callable[[], Any]) -> Slice:
    """Slices of calls one after the other."""

    def run(calls: int, in_flight: int) -> tuple[int, list[float]]:
        clock, latencies = time.perf_counter, []
        for _ in range(calls):
            start = clock()
            call()
            latencies.append(clock() - start)
        return calls, latencies

    return run


def awaiting(runner: asyncio.Runner, call: Callable[[], Awaitable[Any]]) -> Slice:
    """Slices of calls by so many tasks as are in flight."""

    async def worker(calls: int, latencies: list[float]) -> None:
        clock = time.perf_counter
        for _ in range(calls):
            start = clock()
            await call()
            latencies.append(clock() - start)

    async def workers(calls: int, in_flight: int) -> tuple[int, list[float]]:
        latencies: list[float] = []
        share = max(1, calls // in_flight)
        await asyncio.gather(*(worker(share, latencies) for _ in range(in_flight)))
        return len(latencies), latencies

    def run(calls: int, in_flight: int) -> tuple[int, list[float]]:
        return runner.run(workers(calls, in_flight))

    return run


class _Timer:
    """A file that can be read whenever the next call is due (``timerfd_create``).

    The timers of asyncio are up to a millisecond late, which is more than many calls take.
    """

    def __init__(self, interval: float) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.file = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)
        seconds, nanoseconds = divmod(round(interval * 1e9), 10**9)
        # struct itimerspec: the interval, and when it first ends.
        times = (ctypes.c_long * 4)(seconds, nanoseconds, seconds, nanoseconds)
        if self.file < 0 or self._libc.timerfd_settime(self.file, 0, times, None):
            raise OSError(ctypes.get_errno(), "timerfd")

    def due(self) -> int:
        """How many calls have become due since the last question."""
        try:
            return int.from_bytes(os.read(self.file, 8), sys.byteorder)
        except BlockingIOError:
            return 0


def paced(
    runner: asyncio.Runner, call: Callable[[], Awaitable[Any]]
) -> Callable[[int, float], list[float]]:
    """Calls in an open loop: they start when they are due, not when others are answered."""

    async def run(calls: int, rate: float) -> list[float]:
        loop, clock = asyncio.get_running_loop(), time.perf_counter
        latencies: list[float] = []
        running: set[asyncio.Task[None]] = set()
        ended = loop.create_future()
        started = 0

        async def one(due: float) -> None:
            await call()
            latencies.append(clock() - due)

        def done(task: asyncio.Task[None]) -> None:
            running.discard(task)
            error = None if task.cancelled() else task.exception()
            if ended.done():
                return
            if error:
                ended.set_exception(error)
            elif len(latencies) == calls:
                ended.set_result(None)

        def start() -> None:
            nonlocal started
            for _ in range(min(timer.due(), calls - started)):
                started += 1
                task = asyncio.ensure_future(one(begin + started / rate))
                running.add(task)
                task.add_done_callback(done)
            if started == calls:
                loop.remove_reader(timer.file)

        timer, begin = _Timer(1 / rate), clock()
        loop.add_reader(timer.file, start)
        try:
            await ended
        finally:
            loop.remove_reader(timer.file)
            os.close(timer.file)
            for task in running:  # after an error
                task.cancel()
        return latencies

    return lambda calls, rate: runner.run(run(calls, rate))


def counting(items: Callable[[int, int], int]) -> Slice:
    """Slices of something that has no single calls: it returns how many items it did."""
    return lambda calls, in_flight: (items(calls, in_flight), [])


MakeVariant: TypeAlias = Callable[[Config], Variant]
"""Gets a variant ready to be measured."""


def serve(variants: Mapping[str, MakeVariant], packages: Iterable[str]) -> None:
    """Run the variant that the command line names."""
    given = json.loads(sys.argv[1])
    given["payload"] = Path(given["file"]).read_bytes() if given["file"] else b""
    config = Config(**given)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[config.core % len(cores)]})
    variant = variants[config.variant](config)
    _say({"answer": variant.answer, "packages": _versions(packages)})
    for line in sys.stdin:
        number, width, pace = line.split()
        calls, in_flight, rate = int(number), int(width), float(pace)
        wall, cpu = time.perf_counter(), time.process_time()
        if rate:
            assert variant.paced is not None
            latencies = variant.paced(calls, rate)
            done = calls
        else:
            done, latencies = variant.run(calls, in_flight)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # The tail of a paced slice is what it is for.
        step = 1 if rate else len(latencies) // MOST_LATENCIES + 1
        _say(
            {
                "wall": wall,
                "cpu": cpu,
                "calls": done,
                "latencies": latencies[::step],
                "peak_mb": memory("VmHWM"),
            }
        )
    # What is left open dies with the process: some peers have no way to close in order.
    os._exit(0)


def memory(kind: str) -> float:
    """MB by a line of /proc/self/status. (getrusage would include the parent's, before exec.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(kind)


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def embedding_answer(rows: Any) -> dict[str, Any]:
    """What is compared of embeddings; ``rows`` has a shape and a sum, as arrays do."""
    return {"shape": list(rows.shape), "sum": round(float(rows.sum(dtype="float64")), 2)}
