"""Several connections used in turn, and a second request where the first one is slow.

Wrappers of real channels, beneath ours: what is retried, checked and mapped above stays as it is,
and nothing here costs anything unless it was asked for.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import grpc
from grpc import aio

from clarigrpc._fork_lock import ForkLock

HEDGED = "/clarifai.api.V2/PostModelOutputs"
"""The method whose slow calls are sent a second time; it may be served twice."""

_SAMPLES = 200
_ENOUGH = 20


class Latencies:
    """How long the last calls took, and how long is unusual.

    Args:
        percentile: Share of the calls that are quicker than what is unusual, 0 to 1.
    """

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)
        self._lock = ForkLock()
        self._count = 0
        self.unusual: float | None = None
        """Seconds; None until enough calls were measured."""

    def add(self, seconds: float) -> None:
        """Count a call."""
        with self._lock.get():
            self._seconds.append(seconds)
            self._count += 1
            if self._count % _ENOUGH == 0:
                known = sorted(self._seconds)
                self.unusual = known[min(len(known) - 1, int(len(known) * self._percentile))]


class Budget(Protocol):
    """What limits second requests: the retry budget of the client."""

    def spend(self) -> bool:
        """Take the token for a request; False when there is none."""


class Hedge:
    """When to send a second request, and whether it may be sent."""

    def __init__(self, percentile: float, budget: Budget) -> None:
        self.latencies = Latencies(percentile)
        self.budget = budget

    def wrap(self, path: str, multicallable: Any, kind: Callable[..., Any]) -> Any:
        """The multicallable, hedged if it is of the method for that."""
        return kind(multicallable, self) if path == HEDGED else multicallable


class _Hedged:
    """A blocking multicallable whose slow calls are sent a second time; the first answer counts."""

    def __init__(self, real: Any, hedge: Hedge) -> None:
        self._real = real
        self._hedge = hedge
        self.future = real.future

    def __call__(self, request: bytes, timeout: float, *options: Any) -> Any:
        return self.with_call(request, timeout, *options)[0]

    def with_call(self, request: bytes, timeout: float, *options: Any) -> tuple[Any, Any]:
        latencies = self._hedge.latencies
        delay = latencies.unusual
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
                    start(max(0.0, timeout - delay))
                call = ended.get()
                if len(calls) > 1 and call.code() is not grpc.StatusCode.OK:
                    call = ended.get()
            response = call.result()
        finally:
            for one in calls:
                one.cancel()
        latencies.add(time.monotonic() - began)
        return response, call


class _AioHedged:
    """The same for asyncio."""

    def __init__(self, real: Any, hedge: Hedge) -> None:
        self._real = real
        self._hedge = hedge

    def __call__(self, request: bytes, *, timeout: float, **options: Any) -> Any:
        def start(seconds: float) -> Any:
            return self._real(request, timeout=seconds, **options)

        return _AioHedgedCall(start, timeout, self._hedge)


class _AioHedgedCall:
    """A call that has begun; everything but its response is that of the request that counts."""

    def __init__(self, start: Callable[[float], Any], timeout: float, hedge: Hedge) -> None:
        self._start = start
        self._timeout = timeout
        self._hedge = hedge
        self._began = time.monotonic()
        self._call = start(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._race().__await__()

    async def _race(self) -> Any:
        latencies = self._hedge.latencies
        delay = latencies.unusual
        if delay is None or delay >= self._timeout:
            response = await self._call
        else:
            response = await self._hedged(delay)
        latencies.add(time.monotonic() - self._began)
        return response

    async def _hedged(self, delay: float) -> Any:
        async def response(call: Any) -> Any:
            return await call

        racing = {asyncio.ensure_future(response(self._call)): self._call}
        try:
            ended, _ = await asyncio.wait(racing, timeout=delay)
            if not ended:
                if self._hedge.budget.spend():
                    second = self._start(max(0.0, self._timeout - delay))
                    racing[asyncio.ensure_future(response(second))] = second
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


class _Turns:
    """The same multicallable of several channels, used in turn."""

    def __init__(self, multicallables: Sequence[Any]) -> None:
        self._next = itertools.cycle(multicallables).__next__  # atomic

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._next()(*args, **options)

    def with_call(self, *args: Any, **options: Any) -> Any:
        return self._next().with_call(*args, **options)

    def future(self, *args: Any, **options: Any) -> Any:
        return self._next().future(*args, **options)


class _Methods:
    """The four kinds of multicallable over several channels, hedged where that was asked for."""

    _kind: type[Any]

    def __init__(self, channels: Sequence[Any], hedge: Hedge | None) -> None:
        self._channels = channels
        self._hedge = hedge

    def _method(self, kind: str, path: str) -> Any:
        made = [getattr(channel, kind)(path) for channel in self._channels]
        multicallable = made[0] if len(made) == 1 else _Turns(made)
        if self._hedge is None:
            return multicallable
        return self._hedge.wrap(path, multicallable, self._kind)

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return self._method("unary_unary", method)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return self._method("unary_stream", method)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return self._method("stream_unary", method)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return self._method("stream_stream", method)


class Multipath(_Methods, grpc.Channel):
    """A blocking channel of bytes over one or more others."""

    _kind = _Hedged

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        """Tell of the connectivity of the first channel."""
        self._channels[0].subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._channels[0].unsubscribe(callback)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Multipath:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AioMultipath(_Methods, aio.Channel):
    """An asyncio channel of bytes over one or more others."""

    _kind = _AioHedged

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The connectivity of the first channel."""
        state: grpc.ChannelConnectivity = self._channels[0].get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channels[0].wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        for channel in self._channels:
            await channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(*(channel.close(grace) for channel in self._channels))

    async def __aenter__(self) -> AioMultipath:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
