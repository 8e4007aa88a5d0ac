"""A TCP proxy that injects faults between a gRPC client and a gRPC server.

It speaks plaintext HTTP/2 with prior knowledge, on 127.0.0.1 only, and is used in tests:

    with FaultProxy("127.0.0.1", server_port) as proxy:
        channel = grpc.insecure_channel(proxy.address)
        proxy.cut_after(bytes=100_000)

The proxy reads frame headers and the length prefixes of gRPC messages, so that a fault can be
placed exactly: inside a message, between two frames, or between a request and its answer. All
other bytes pass unchanged. It assumes DATA frames without padding, which is what gRPC sends.

The relay runs in one thread with its own event loop. Every method below may be called from any
thread, and its fault is in force when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.waiting import join

T = TypeVar("T")

_CHUNK = 128 * 1024
_QUEUED_CHUNKS = 32
_LINGER_SECONDS = 0.5
_CALL_SECONDS = 10.0

_PREFACE_SIZE = 24
_HEADER_SIZE = 9
_PREFIX_SIZE = 5

_PREFACE = -1
_DATA = 0x0
_HEADERS = 0x1
_RST_STREAM = 0x3
_PUSH_PROMISE = 0x5
_GOAWAY = 0x7
_CONTINUATION = 0x9
_END_STREAM = 0x1
_END_HEADERS = 0x4


class Direction(enum.StrEnum):
    """The way bytes travel."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


class Fault(enum.StrEnum):
    """The kinds of fault: the keys of `Counters.faults` and the choices of `chaos`."""

    CUT = "cut"
    RESET = "reset"
    CUT_BEFORE_RESPONSE = "cut_before_response"
    GOAWAY = "goaway"
    BLACKHOLE = "blackhole"
    DELAY = "delay"
    THROTTLE = "throttle"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Counters:
    """What a proxy has done so far."""

    connections: int
    """Connections accepted."""
    open_connections: int
    bytes_to_server: int
    bytes_to_client: int
    faults: Mapping[Fault, int]
    """Connections cut, reset or sent a GOAWAY; for the lasting faults, times switched on."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chaos plan: let `gap` bytes or seconds pass, then do `fault`."""

    gap: float
    fault: Fault
    direction: Direction
    reset: bool
    """Whether a cut ends with RST instead of FIN."""


def chaos_plan(seed: int, faults: Sequence[Fault], mean_gap: float) -> Iterator[Step]:
    """An endless plan, the same for the same arguments; gaps are 0.5 to 1.5 times `mean_gap`."""
    if not faults:
        raise ValueError("faults must not be empty")
    choice = random.Random(seed)
    while True:
        yield Step(
            gap=choice.uniform(0.5, 1.5) * mean_gap,
            fault=choice.choice(faults),
            direction=choice.choice(list(Direction)),
            reset=choice.random() < 0.5,
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of one gRPC message, its length prefix included, that lies in one piece."""

    start: int
    end: int
    begins: bool
    """The message's first byte is at `start`."""
    complete: bool
    """The message's last byte is just before `end`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A frame, or the part of one that arrived at once. Positions are offsets in the buffer."""

    start: int
    end: int
    type: int
    flags: int
    stream: int
    first: bool
    """It holds the frame's header."""
    last: bool
    """It holds the frame's last byte."""
    boundary: bool
    """Another frame may be put in before this piece."""
    messages: Sequence[Segment]

    @property
    def ends_stream(self) -> bool:
        return self.type in (_DATA, _HEADERS) and bool(self.flags & _END_STREAM)


class FrameScanner:
    """Follows HTTP/2 frames and gRPC messages through one direction of a connection.

    The bytes may be split at any place. The first bytes of a frame header that is not complete
    are held back until the rest is there; `held` has them.
    """

    def __init__(self, *, preface: bool) -> None:
        self.held = b""
        self._left = _PREFACE_SIZE if preface else 0
        self._type = _PREFACE
        self._flags = 0
        self._stream = 0
        self._in_headers = False
        self._greeted = False
        self._partial: dict[int, tuple[bytes, int]] = {}

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may be put in now: never before the peer's first (SETTINGS) frame."""
        return self._left == 0 and self._greeted and not self._in_headers

    def feed(self, data: bytes) -> tuple[memoryview, list[Piece]]:
        """Take the next bytes; return the buffer to forward and the pieces that cover it."""
        buffer = self.held + data if self.held else data
        pieces: list[Piece] = []
        position = 0
        while position < len(buffer):
            start = payload = position
            boundary = self.at_boundary
            first = self._left == 0
            if first:
                if len(buffer) - position < _HEADER_SIZE:
                    break
                payload += _HEADER_SIZE
                self._left = int.from_bytes(buffer[position : position + 3])
                self._type = buffer[position + 3]
                self._flags = buffer[position + 4]
                self._stream = int.from_bytes(buffer[position + 5 : payload]) & 0x7FFFFFFF
            position = min(payload + self._left, len(buffer))
            self._left -= position - payload
            messages = self._split(buffer, payload, position) if self._type == _DATA else ()
            last = self._left == 0
            if last:
                self._finish_frame()
            pieces.append(
                Piece(
                    start,
                    position,
                    self._type,
                    self._flags,
                    self._stream,
                    first,
                    last,
                    boundary,
                    messages,
                )
            )
        self.held = buffer[position:]
        return memoryview(buffer), pieces

    def forget(self, stream: int) -> None:
        """Drop what is known of an unfinished message: its stream has been reset."""
        self._partial.pop(stream, None)

    def _finish_frame(self) -> None:
        if self._type in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
            self._in_headers = not self._flags & _END_HEADERS
        if self._type != _PREFACE:
            self._greeted = True

    def _split(self, buffer: bytes, start: int, end: int) -> list[Segment]:
        segments: list[Segment] = []
        prefix, left = self._partial.pop(self._stream, (b"", 0))
        while start < end:
            position = start
            begins = not prefix
            if len(prefix) < _PREFIX_SIZE:
                position = min(start + _PREFIX_SIZE - len(prefix), end)
                prefix += buffer[start:position]
                left = int.from_bytes(prefix[1:])
            complete = False
            if len(prefix) == _PREFIX_SIZE:
                taken = min(left, end - position)
                position += taken
                left -= taken
                complete = left == 0
            segments.append(Segment(start, position, begins, complete))
            if complete:
                prefix = b""
            start = position
        if prefix:
            self._partial[self._stream] = (prefix, left)
        return segments


@dataclass(slots=True)
class _Cut:
    """A cut that is due once `left` more bytes have passed, on any connection."""

    bytes: int
    mid_message: bool
    reset: bool
    times: int | None
    left: int

    def find(self, piece: Piece) -> int | None:
        """Count the piece; return where to cut it, if the cut is due and fits in here."""
        size = piece.end - piece.start
        if self.left > size:
            self.left -= size
            return None
        due = piece.start + self.left
        if self.mid_message:
            for segment in piece.messages:
                at = max(due, segment.start + segment.begins)
                if at <= segment.end - segment.complete:
                    return at
        elif piece.last:
            return piece.end
        self.left = 0
        return None


@dataclass(slots=True)
class _AnswerCut:
    """A cut just before the next answer but `left` (a response message, or the final status)."""

    half_closed: bool
    skip: int
    reset: bool
    times: int | None
    left: int

    def find(self, piece: Piece, streams: Mapping[int, bool]) -> int | None:
        request_ended = streams.get(piece.stream)
        if request_ended is None or (self.half_closed and not request_ended):
            return None
        answers = [segment.start for segment in piece.messages if segment.begins]
        if piece.type == _HEADERS and piece.first and piece.ends_stream:
            answers.append(piece.start)
        if len(answers) > self.left:
            return answers[self.left]
        self.left -= len(answers)
        return None


@dataclass(frozen=True, slots=True)
class _GoAway:
    error_code: int
    last_stream_id: int | None
    close_when_drained: bool


class _End(enum.Enum):
    FIN = enum.auto()
    RST = enum.auto()


@dataclass(slots=True)
class _Side:
    """The faults of one direction, shared by all connections."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0
    rate: float | None = None
    next_free: float = 0.0
    cut: _Cut | None = None
    bytes: int = 0


class _Flow:
    """One direction of one connection: a reader that queues, and a writer that applies faults."""

    def __init__(
        self, link: _Link, direction: Direction, source: socket.socket, sink: socket.socket
    ) -> None:
        self.scanner = FrameScanner(preface=direction is Direction.TO_SERVER)
        self._link = link
        self._direction = direction
        self._source = source
        self._sink = sink
        self._side = link.proxy._sides[direction]
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[float, bytes, _End | None]] = asyncio.Queue(_QUEUED_CHUNKS)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read())
            # A broken sink ends this direction only: what it sent before still has to pass.
            with contextlib.suppress(ConnectionError):
                await self._write()
            reader.cancel()

    def wake(self) -> None:
        """Make an idle writer look for a GOAWAY to send."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((0.0, b"", None))

    async def _read(self) -> None:
        end: _End | None = None
        while end is None:
            try:
                data = await self._loop.sock_recv(self._source, _CHUNK)
                end = None if data else _End.FIN
            except OSError:
                data, end = b"", _End.RST
            await self._queue.put((self._loop.time(), data, end))

    async def _write(self) -> None:
        while True:
            arrived, data, end = await self._queue.get()
            if arrived and self._side.delay:
                await asyncio.sleep(arrived + self._side.delay - self._loop.time())
            await self._side.open.wait()
            if data and not await self._forward(data):
                return
            if self._direction is Direction.TO_CLIENT and self.scanner.at_boundary:
                await self._send_goaway()
                if self._link.drained:
                    self._link.end(_End.FIN)
                    return
            if end is _End.FIN:
                await self._send(memoryview(self.scanner.held))
                with contextlib.suppress(OSError):
                    self._sink.shutdown(socket.SHUT_WR)
                return
            if end is _End.RST:
                self._link.end(_End.RST)
                return

    async def _forward(self, data: bytes) -> bool:
        """Send on what may pass; return False if the connection has been cut."""
        buffer, pieces = self.scanner.feed(data)
        sent = passed = 0
        for piece in pieces:
            if piece.boundary and self._direction is Direction.TO_CLIENT and self._link.goaway:
                await self._send(buffer[sent : piece.start])
                sent = piece.start
                await self._send_goaway()
            if self._direction is Direction.TO_SERVER and self._link.is_refused(piece):
                await self._send(buffer[sent : piece.start])
                sent = passed = piece.end
                continue
            cut = self._link.proxy._find_cut(self._direction, piece, self._link.streams)
            if cut is not None:
                position, fault, reset = cut
                await self._send(buffer[sent:position])
                self._link.proxy._faults[fault] += 1
                self._link.end(_End.RST if reset else _End.FIN)
                return False
            self._link.follow(self._direction, piece)
            passed = piece.end
        await self._send(buffer[sent:passed])
        return True

    async def _send_goaway(self) -> None:
        frame = self._link.take_goaway()
        if frame is not None:
            await self._send(memoryview(frame))
            self._link.proxy._faults[Fault.GOAWAY] += 1

    async def _send(self, data: memoryview) -> None:
        while data:
            rate = self._side.rate
            size = len(data) if rate is None else max(1, int(rate / 50))
            part, data = data[:size], data[size:]
            await self._side.open.wait()
            await self._loop.sock_sendall(self._sink, part)
            self._link.proxy._count(self._side, len(part))
            if rate is not None:
                now = self._loop.time()
                self._side.next_free = max(self._side.next_free, now) + len(part) / rate
                await asyncio.sleep(self._side.next_free - now)


class _Link:
    """One accepted connection, its connection to the server, and the streams on it."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.streams: dict[int, bool] = {}
        """The open streams; True once the whole request has passed."""
        self.goaway: _GoAway | None = None
        self._client = client
        self._server: socket.socket | None = None
        self._flows: dict[Direction, _Flow] = {}
        self._ending: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self._highest = 0
        self._refused_above: int | None = None
        self._close_when_drained = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            relay = tasks.create_task(self._relay())
            either: set[asyncio.Future[Any]] = {relay, self._ending}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            relay.cancel()
        if self._ending.done() and self._ending.result() is _End.RST:
            for end in self._sockets():
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            await asyncio.gather(*(_finish(end) for end in self._sockets()))

    def close(self) -> None:
        for end in self._sockets():
            end.close()

    def end(self, how: _End) -> None:
        if not self._ending.done():
            self._ending.set_result(how)

    def send_goaway(self, goaway: _GoAway) -> None:
        self.goaway = goaway
        if self._flows:
            self._flows[Direction.TO_CLIENT].wake()

    def take_goaway(self) -> bytes | None:
        """The GOAWAY frame to send now, if one is due."""
        goaway, self.goaway = self.goaway, None
        if goaway is None:
            return None
        # The client takes later streams for not processed and sends them again elsewhere, so
        # the server must never see them. No HPACK state is lost: they are all later than ours.
        self._refused_above = self._highest
        self._close_when_drained = goaway.close_when_drained
        last = self._highest if goaway.last_stream_id is None else goaway.last_stream_id
        return (
            (8).to_bytes(3) + bytes([_GOAWAY, 0]) + struct.pack(">III", 0, last, goaway.error_code)
        )

    @property
    def drained(self) -> bool:
        """Whether the connection was to be closed once its streams had ended, and they have."""
        return self._close_when_drained and not self.streams

    def is_refused(self, piece: Piece) -> bool:
        return self._refused_above is not None and piece.stream > self._refused_above

    def follow(self, direction: Direction, piece: Piece) -> None:
        """Keep the table of streams, given a piece that passes."""
        stream = piece.stream
        if piece.type == _RST_STREAM and piece.last:
            self.streams.pop(stream, None)
            for flow in self._flows.values():
                flow.scanner.forget(stream)
        elif direction is Direction.TO_SERVER:
            if piece.type == _HEADERS and piece.first:
                self.streams[stream] = False
                self._highest = max(self._highest, stream)
            if piece.ends_stream and piece.last and stream in self.streams:
                self.streams[stream] = True
        elif piece.ends_stream and piece.last:
            self.streams.pop(stream, None)

    async def _relay(self) -> None:
        await self.proxy._sides[Direction.TO_SERVER].open.wait()
        self._server = server = _new_socket()
        try:
            await asyncio.get_running_loop().sock_connect(server, self.proxy._upstream)
        except OSError:
            self.end(_End.RST)
            return
        self._flows = {
            Direction.TO_SERVER: _Flow(self, Direction.TO_SERVER, self._client, server),
            Direction.TO_CLIENT: _Flow(self, Direction.TO_CLIENT, server, self._client),
        }
        async with asyncio.TaskGroup() as tasks:
            for flow in self._flows.values():
                tasks.create_task(flow.run())

    def _sockets(self) -> list[socket.socket]:
        return [self._client] if self._server is None else [self._client, self._server]


class FaultProxy:
    """A fault-injecting proxy on a free port of 127.0.0.1, for as long as the `with` block runs.

    Args:
        upstream_host: Address of the server.
        upstream_port: Port of the server; `set_upstream` changes it for new connections.

    Without faults it is transparent. Where a method takes `direction`, None means both. Faults
    last until `restore()` unless they say otherwise. An unexpected error inside the proxy closes
    all connections and is raised at the end of the `with` block.
    """

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self._upstream = (upstream_host, upstream_port)
        self._sides: dict[Direction, _Side] = {}
        self._faults: Counter[Fault] = Counter()
        self._connections = 0
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._answer_cut: _AnswerCut | None = None
        self._alarm: tuple[int, asyncio.Future[None]] | None = None
        self._chaos: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None
        self._started: Future[None] = Future()
        self._finished: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._tasks: asyncio.TaskGroup
        self._stop: asyncio.Event
        self._keeper: socket.socket
        self._thread: threading.Thread
        self._port = 0

    def __enter__(self) -> Self:
        # This socket is bound but never listens: it keeps the port while connections are refused.
        self._keeper = _new_socket(reuse=True)
        self._keeper.bind(("127.0.0.1", 0))
        self._port = self._keeper.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        self._started.result(_CALL_SECONDS)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed after an unexpected error
            self._loop.call_soon_threadsafe(self._stop.set)
        join(self._thread)
        self._keeper.close()
        self._finished.result()

    # What it is and what it did

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        """Target for a gRPC channel: "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self._port}"

    @property
    def base(self) -> str:
        """Base address for a client: "http://127.0.0.1:PORT"."""
        return f"http://{self.address}"

    @property
    def counters(self) -> Counters:
        """A snapshot of the counters."""
        return self._call(
            lambda: Counters(
                connections=self._connections,
                open_connections=len(self._links),
                bytes_to_server=self._sides[Direction.TO_SERVER].bytes,
                bytes_to_client=self._sides[Direction.TO_CLIENT].bytes,
                faults=Counter(self._faults),
            )
        )

    def set_upstream(self, port: int, host: str | None = None) -> None:
        """Send new connections to another server; those that are open stay where they are."""

        def apply() -> None:
            self._upstream = (host or self._upstream[0], port)

        self._call(apply)

    # Faults that strike once or a number of times

    def cut_after(
        self,
        *,
        bytes: int,
        direction: Direction = Direction.TO_SERVER,
        mid_message: bool = True,
        reset: bool = False,
        times: int | None = 1,
    ) -> None:
        """Cut the connection that carries the given byte of a direction, on both of its sides.

        Replaces an earlier cut of the same direction.

        Args:
            bytes: Bytes of that direction to let pass from now on, over all connections.
            direction: The direction that is counted.
            mid_message: Cut at the first place from there on that is inside a gRPC message;
                otherwise at the first end of a frame.
            reset: End with RST instead of FIN.
            times: Number of cuts, each `bytes` after the one before; None for no end.
        """
        if bytes < 0:
            raise ValueError("bytes must not be negative")
        cut = _Cut(bytes, mid_message, reset, _checked_times(times), left=bytes)

        def apply() -> None:
            self._sides[direction].cut = cut

        self._call(apply)

    def cut_before_response(
        self,
        *,
        half_closed: bool = True,
        skip: int = 0,
        reset: bool = False,
        times: int | None = 1,
    ) -> None:
        """Cut a connection when the server answers a request, before the client hears of it.

        The request has reached the server and was worked on, so a retry delivers it twice.
        Each response message and each final status is an answer. (A duplex method may answer
        while it has not read the whole request yet.)

        Args:
            half_closed: Count only answers on streams whose request has ended. False also
                counts the answers in the middle of a duplex stream.
            skip: Answers to let pass before each cut, over all connections.
            reset: End with RST instead of FIN.
            times: Number of cuts; None for no end.
        """
        if skip < 0:
            raise ValueError("skip must not be negative")
        cut = _AnswerCut(half_closed, skip, reset, _checked_times(times), left=skip)

        def apply() -> None:
            self._answer_cut = cut

        self._call(apply)

    def cut(self) -> None:
        """Close all open connections now, with FIN."""
        self._call(lambda: self._end_all(_End.FIN))

    def reset(self) -> None:
        """Close all open connections now, with RST."""
        self._call(lambda: self._end_all(_End.RST))

    def goaway(
        self,
        error_code: int = 0,
        last_stream_id: int | None = None,
        *,
        close_when_drained: bool = False,
    ) -> None:
        """Send a GOAWAY on every open connection, to the client, at the next frame boundary.

        Streams that the client opens later on such a connection do not reach the server. The
        others go on.

        Args:
            error_code: HTTP/2 error code; 0 is NO_ERROR.
            last_stream_id: Last stream that the server claims to have processed; by default
                the last that it was sent, which is the truth.
            close_when_drained: Close the connection once its streams have ended.
        """
        goaway = _GoAway(error_code, last_stream_id, close_when_drained)
        self._call(lambda: self._goaway_all(goaway))

    # Faults that last

    def blackhole(self, direction: Direction | None = None) -> None:
        """Forward nothing, the closing of connections included, and say nothing of it.

        New connections are accepted. What was sent meanwhile arrives after `restore()`.
        """
        self._call(lambda: self._set_blackhole(direction))

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Deliver everything `seconds` late, in each given direction; 0 ends it."""
        if seconds < 0:
            raise ValueError("seconds must not be negative")
        self._call(lambda: self._set_delay(seconds, direction))

    def throttle(self, bytes_per_second: float | None, direction: Direction | None = None) -> None:
        """Limit the rate of each given direction, over all connections; None ends it."""
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError("bytes_per_second must be positive")
        self._call(lambda: self._set_rate(bytes_per_second, direction))

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED); those that are open go on."""
        self._call(self._refuse)

    def chaos(
        self,
        seed: int,
        *,
        every_bytes: float | None = None,
        every_seconds: float | None = None,
        faults: Sequence[Fault] = tuple(Fault),
        lasting: float = 0.2,
        limit: int | None = None,
    ) -> None:
        """Do one fault after another, by a random plan that the seed decides (`chaos_plan`).

        Replaces an earlier plan.

        Args:
            seed: Seed of the plan.
            every_bytes: Mean number of bytes, of both directions, between two faults.
            every_seconds: Mean time between two faults. Give this or `every_bytes`.
            faults: The kinds to choose from.
            lasting: Seconds that a blackhole, delay (a tenth of it, on each chunk), throttle
                (to 256 KiB/s) or refusal lasts.
            limit: Number of faults; None for no end.
        """
        if (every_bytes is None) == (every_seconds is None):
            raise ValueError("give either every_bytes or every_seconds")
        if (every_bytes or every_seconds or 0) <= 0:
            raise ValueError("the mean gap must be positive")
        by_bytes = every_bytes is not None
        plan = chaos_plan(seed, faults, every_bytes or every_seconds or 0.0)
        steps = itertools.islice(plan, limit)

        def apply() -> None:
            self._stop_chaos()
            self._chaos = self._tasks.create_task(self._run_chaos(steps, by_bytes, lasting))

        self._call(apply)

    def restore(self) -> None:
        """End all faults, cuts that are still to come and chaos included."""
        self._call(self._restore)

    # Below: only in the proxy's thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again by __exit__ or __enter__
            if not self._started.done():
                self._started.set_exception(error)
            self._finished.set_exception(error)
        else:
            self._finished.set_result(None)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._sides = {direction: _Side() for direction in Direction}
        async with asyncio.TaskGroup() as self._tasks:
            try:
                self._restore()
                self._started.set_result(None)
                await self._stop.wait()
            finally:
                self._stop_listening()  # first: a connection accepted now would never end
                self._stop_chaos()
                for task in self._links.values():
                    task.cancel()

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function in the proxy's thread; called from any other."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(_CALL_SECONDS)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _new_socket(reuse=True)
            self._listener.bind(("127.0.0.1", self._port))
            self._listener.listen(128)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has gone again
            return
        _configure(client)
        self._connections += 1
        link = _Link(self, client)
        self._links[link] = task = self._tasks.create_task(link.run())
        # Not in the task itself: one that is cancelled before its first step never runs.
        task.add_done_callback(lambda _: self._forget(link))

    def _forget(self, link: _Link) -> None:
        link.close()
        del self._links[link]

    def _count(self, side: _Side, size: int) -> None:
        side.bytes += size
        if self._alarm is not None and self._total_bytes() >= self._alarm[0]:
            self._alarm[1].set_result(None)
            self._alarm = None

    def _total_bytes(self) -> int:
        return sum(side.bytes for side in self._sides.values())

    def _find_cut(
        self, direction: Direction, piece: Piece, streams: Mapping[int, bool]
    ) -> tuple[int, Fault, bool] | None:
        """Where to cut a piece, as what fault, and whether with RST; None to let it pass."""
        side = self._sides[direction]
        if side.cut is not None:
            cut = side.cut
            position = cut.find(piece)
            if position is not None:
                cut.left = cut.bytes
                cut.times = None if cut.times is None else cut.times - 1
                if cut.times == 0:
                    side.cut = None
                return position, Fault.CUT, cut.reset
        if self._answer_cut is not None and direction is Direction.TO_CLIENT:
            answer = self._answer_cut
            position = answer.find(piece, streams)
            if position is not None:
                answer.left = answer.skip
                answer.times = None if answer.times is None else answer.times - 1
                if answer.times == 0:
                    self._answer_cut = None
                return position, Fault.CUT_BEFORE_RESPONSE, answer.reset
        return None

    def _end_all(self, how: _End) -> None:
        for link in self._links:
            self._faults[Fault.RESET if how is _End.RST else Fault.CUT] += 1
            link.end(how)

    def _goaway_all(self, goaway: _GoAway) -> None:
        for link in self._links:
            link.send_goaway(goaway)

    def _chosen(self, direction: Direction | None) -> list[_Side]:
        return list(self._sides.values()) if direction is None else [self._sides[direction]]

    def _set_blackhole(self, direction: Direction | None) -> None:
        self._faults[Fault.BLACKHOLE] += 1
        for side in self._chosen(direction):
            side.open.clear()

    def _set_delay(self, seconds: float, direction: Direction | None) -> None:
        self._faults[Fault.DELAY] += bool(seconds)
        for side in self._chosen(direction):
            side.delay = seconds

    def _set_rate(self, rate: float | None, direction: Direction | None) -> None:
        self._faults[Fault.THROTTLE] += rate is not None
        for side in self._chosen(direction):
            side.rate = rate

    def _refuse(self) -> None:
        self._faults[Fault.REFUSE] += 1
        self._stop_listening()

    def _restore(self) -> None:
        self._stop_chaos()
        self._answer_cut = None
        for side in self._sides.values():
            side.cut = None
        self._end_lasting()

    def _end_lasting(self) -> None:
        for side in self._sides.values():
            side.delay = 0.0
            side.rate = None
            side.next_free = 0.0
            side.open.set()
        self._listen()

    def _stop_chaos(self) -> None:
        if self._chaos is not None:
            self._chaos.cancel()
            self._chaos = None
        self._alarm = None

    async def _let_bytes_pass(self, count: float) -> None:
        passed: asyncio.Future[None] = self._loop.create_future()
        self._alarm = (self._total_bytes() + int(count), passed)
        await passed

    async def _run_chaos(self, steps: Iterator[Step], by_bytes: bool, lasting: float) -> None:
        for step in steps:
            await (self._let_bytes_pass(step.gap) if by_bytes else asyncio.sleep(step.gap))
            match step.fault:
                case Fault.CUT:
                    self._sides[step.direction].cut = _Cut(0, True, step.reset, 1, left=0)
                case Fault.CUT_BEFORE_RESPONSE:
                    self._answer_cut = _AnswerCut(True, 0, step.reset, 1, left=0)
                case Fault.RESET:
                    self._end_all(_End.RST)
                case Fault.GOAWAY:
                    # Left open, as no server does, gRPC's core may try again and again to open a
                    # stream on this connection, and take all memory for that.
                    self._goaway_all(_GoAway(0, None, close_when_drained=True))
                case Fault.BLACKHOLE:
                    self._set_blackhole(step.direction)
                case Fault.DELAY:
                    self._set_delay(lasting / 10, None)
                case Fault.THROTTLE:
                    self._set_rate(256 * 1024, None)
                case Fault.REFUSE:
                    self._refuse()
            if step.fault in (Fault.BLACKHOLE, Fault.DELAY, Fault.THROTTLE, Fault.REFUSE):
                await asyncio.sleep(lasting)
                self._end_lasting()


def _checked_times(times: int | None) -> int | None:
    if times is not None and times < 1:
        raise ValueError("times must be at least 1")
    return times


def _new_socket(*, reuse: bool = False) -> socket.socket:
    new = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if reuse:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _configure(new)
    return new


def _configure(end: socket.socket) -> None:
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _finish(end: socket.socket) -> None:
    """Send FIN and read what still comes: closing with unread bytes would send RST instead."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        end.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_LINGER_SECONDS):
            while await loop.sock_recv(end, _CHUNK):
                pass
