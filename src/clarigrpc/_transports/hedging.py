"""Hedging: a call that is slower than most is sent a second time, and the first response wins."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

import grpc

from clarigrpc._contract.methods import CallKind
from clarigrpc._fork_lock import ForkLock
from clarigrpc._transports.transport import AsyncTransport, SyncTransport

HEDGED = "/clarifai.api.V2/PostModelOutputs"
"""The method whose slow calls are sent a second time; it may be served twice."""

_WINDOW = 200
_ENOUGH = 20


class Latencies:
    """The latencies of the last 200 calls, and one of their quantiles.

    Args:
        quantile: 0 to 1.
    """

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._lock = ForkLock()
        self._count = 0
        self.threshold: float | None = None
        """The quantile in seconds, brought up to date every 20 calls; None before the first 20."""

    def add(self, seconds: float) -> None:
        """Count a call that took so long."""
        with self._lock.get():
            self._seconds.append(seconds)
            self._count += 1
            if self._count % _ENOUGH == 0:
                known = sorted(self._seconds)
                self.threshold = known[min(len(known) - 1, int(len(known) * self._quantile))]


class Budget(Protocol):
    """What limits second requests: the retry budget of the client."""

    def spend(self) -> bool:
        """Take the token for a request; False when there is none."""


class Hedge:
    """When to send a second request, and whether it may be sent.

    Args:
        quantile: Calls that take longer than this quantile of the latencies are sent again.
        budget: Gives the token for each second request.
    """

    def __init__(self, quantile: float, budget: Budget) -> None:
        self.latencies = Latencies(quantile)
        self.budget = budget


class SyncHedging(SyncTransport):
    """Hedges the calls of a sync transport."""

    def __init__(self, transport: SyncTransport, hedge: Hedge) -> None:
        self._transport = transport
        self._hedge = hedge
        self.channels = transport.channels

    def multicallable(self, kind: CallKind, path: str) -> Any:
        made = self._transport.multicallable(kind, path)
        return _HedgedMulticallable(made, self._hedge) if path == HEDGED else made

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        return self._transport.connectivity()

    def close(self) -> None:
        self._transport.close()


class AsyncHedging(AsyncTransport):
    """Hedges the calls of an async transport."""

    def __init__(self, transport: AsyncTransport, hedge: Hedge) -> None:
        self._transport = transport
        self._hedge = hedge
        self.channels = transport.channels

    def multicallable(self, kind: CallKind, path: str) -> Any:
        made = self._transport.multicallable(kind, path)
        return _AsyncHedgedMulticallable(made, self._hedge) if path == HEDGED else made

    def for_streams(self) -> SyncTransport | None:
        return self._transport.for_streams()

    def connectivity(self) -> grpc.ChannelConnectivity | None:
        return self._transport.connectivity()

    async def close(self, grace: float | None) -> None:
        await self._transport.close(grace)


class _HedgedMulticallable:
    """A sync multicallable with one request and one response, hedged. Futures are not."""

    def __init__(self, real: Any, hedge: Hedge) -> None:
        self._real = self.unhedged = real
        self._hedge = hedge
        self.future = real.future

    def with_call(self, request: bytes, timeout: float, *options: Any) -> tuple[Any, Any]:
        latencies = self._hedge.latencies
        delay = latencies.threshold
        began = time.monotonic()
        if delay is None or delay >= timeout:
            found: tuple[Any, Any] = self._real.with_call(request, timeout, *options)
            latencies.add(time.monotonic() - began)
            return found
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        calls: list[Any] = []

        def start(seconds: float) -> None:
            calls.append(self._real.future(request, seconds, *options))
            calls[-1].add_done_callback(ended.put)

        try:
            start(timeout)
            try:
                call = ended.get(timeout=delay)
            except queue.Empty:
                if self._hedge.budget.spend():
                    start(max(0.0, timeout - (time.monotonic() - began)))
                call = ended.get()
                if len(calls) > 1 and call.code() is not grpc.StatusCode.OK:
                    call = ended.get()
            response = call.result()
        finally:
            for one in calls:
                one.cancel()
        latencies.add(time.monotonic() - began)
        return response, call


class _AsyncHedgedMulticallable:
    """An async multicallable with one request and one response, hedged."""

    def __init__(self, real: Any, hedge: Hedge) -> None:
        self._real = self.unhedged = real
        self._hedge = hedge

    def __call__(self, request: bytes, *, timeout: float, **options: Any) -> Any:
        def start(seconds: float) -> Any:
            return self._real(request, timeout=seconds, **options)

        return _AsyncHedgedCall(start, timeout, self._hedge)


class _AsyncHedgedCall:
    """A call that has begun; everything but its response is that of the request that counts."""

    def __init__(self, start: Callable[[float], Any], timeout: float, hedge: Hedge) -> None:
        self._start = start
        self._timeout = timeout
        self._hedge = hedge
        self._began = time.monotonic()
        self._call = start(timeout)
        self._second: Any = None
        self._race: asyncio.Task[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._race is None:  # one race, however many tasks wait for the call
            self._race = asyncio.ensure_future(self._run())
        return self._race.__await__()

    def cancel(self) -> bool:
        """Cancel both requests."""
        cancelled = bool(self._call.cancel())
        if self._second is not None:
            cancelled = bool(self._second.cancel()) or cancelled
        return cancelled

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    async def _run(self) -> Any:
        latencies = self._hedge.latencies
        delay = latencies.threshold
        if delay is None or delay >= self._timeout:
            response = await self._call
        else:
            response = await self._hedged(delay)
        latencies.add(self._elapsed())
        return response

    async def _hedged(self, delay: float) -> Any:
        async def response(call: Any) -> Any:
            return await call

        racing = {asyncio.ensure_future(response(self._call)): self._call}
        try:
            ended, _ = await asyncio.wait(racing, timeout=max(0.0, delay - self._elapsed()))
            if not ended:
                if not self._call.done() and self._hedge.budget.spend():
                    self._second = self._start(max(0.0, self._timeout - self._elapsed()))
                    racing[asyncio.ensure_future(response(self._second))] = self._second
                ended, rest = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                if rest and all(one.cancelled() or one.exception() for one in ended):
                    ended, _ = await asyncio.wait(rest)
            winner = min(ended, key=lambda one: one.cancelled() or one.exception() is not None)
            self._call = racing[winner]
            return winner.result()
        finally:
            for one in racing:
                one.cancel()
            await asyncio.gather(*racing, return_exceptions=True)
