"""A delay line: a proxy that hands on every byte a fixed time after it came.

Its bandwidth has no limit unless one is given, which all connections share, a direction each. It
loses nothing, so that what a client makes of a distance is its own doing and that of the protocol:
round trips, windows, connections. TCP's own slow start and loss are not in it.
``python -m benchmarks.delay_line ROUND_TRIP MBIT PORT ...`` prints a port for each of 127.0.0.1's
ports, pins itself to the server's core and serves until it is terminated. MBIT is megabits a
second, 0 without a limit.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from benchmarks.harness import SERVER_CORE, pin
from benchmarks.servers import running


class _Direction:
    """One direction of the line: what is sent at the same time waits for what came before."""

    def __init__(self, delay: float, mbit: float) -> None:
        self._delay = delay
        self._bytes_per_second = mbit * 1e6 / 8
        self._free_at = 0.0

    def arrival(self, now: float, size: int) -> float:
        """When the last of some bytes that are sent now comes to the other end."""
        if self._bytes_per_second:
            now = self._free_at = max(now, self._free_at) + size / self._bytes_per_second
        return now + self._delay


class _End(asyncio.Protocol):
    """One side of a connection; what it receives, the other side sends later."""

    def __init__(self, direction: _Direction) -> None:
        self._direction = direction
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.transport: Any = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting.append((self._direction.arrival(self._loop.time(), len(data)), data))
        if self._timer is None:
            self._timer = self._loop.call_at(self._waiting[0][0], self._hand_on)

    def eof_received(self) -> bool:
        self.data_received(b"")  # hands on the end as well
        return True

    def _hand_on(self) -> None:
        self._timer = None
        assert self.other is not None
        now = self._loop.time()
        while self._waiting:
            due, data = self._waiting[0]
            if due > now:
                self._timer = self._loop.call_at(due, self._hand_on)
                return
            self._waiting.popleft()
            if data:
                self.other.transport.write(data)
            else:
                with suppress(OSError):  # the connection is gone by now
                    self.other.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Near(_End):
    """The side of the client; connects to the server."""

    def __init__(self, there: _Direction, back: _Direction, port: int) -> None:
        super().__init__(there)
        self._back = back
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        task = self._loop.create_task(self._connect())
        task.add_done_callback(lambda done: done.exception())

    async def _connect(self) -> None:
        try:
            _, far = await self._loop.create_connection(
                lambda: _End(self._back), "127.0.0.1", self._port
            )
        except OSError:
            self.transport.abort()
            return
        far.other, self.other = self, far
        self.transport.resume_reading()


@contextmanager
def delay_line(round_trip: float, *ports: int, mbit: float = 0) -> Iterator[list[int]]:
    """Ports that lead to others after half the round trip in seconds, and back after the rest.

    ``mbit`` is the bandwidth of each direction in megabits a second; 0 has no limit.
    """
    numbers = map(str, (round_trip, mbit, *ports))
    with running([sys.executable, "-m", "benchmarks.delay_line", *numbers]) as line:
        yield list(map(int, line.split()))


async def _serve(round_trip: float, mbit: float, ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    there, back = (_Direction(round_trip / 2, mbit) for _ in range(2))
    fronts = [
        await loop.create_server(lambda port=port: _Near(there, back, port), "127.0.0.1", 0)  # type: ignore[misc]
        for port in ports
    ]
    print(*(front.sockets[0].getsockname()[1] for front in fronts), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    for front in fronts:
        front.close()


if __name__ == "__main__":
    pin(SERVER_CORE)
    asyncio.run(_serve(float(sys.argv[1]), float(sys.argv[2]), list(map(int, sys.argv[3:]))))
