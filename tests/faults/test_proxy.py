"""The fault proxy and the server process: every fault has the effect that it is named after."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.processes import ServerProcess
from tests.faults.proxy import Counters, Direction, Fault, FaultProxy, FrameScanner, chaos_plan
from tests.socket_server import kept_port, receive
from tests.waiting import until

MIB = 1024 * 1024
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    # As in clarigrpc: after a GOAWAY, gRPC's transparent retries may go on until the deadline.
    ("grpc.enable_retries", 0),
]


def same(data: bytes) -> bytes:
    return data


class EchoServer:
    """A server whose four methods give back the bytes that they get, and remember them."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        pool = concurrent.futures.ThreadPoolExecutor(64)
        self._pool = pool
        self._server = grpc.server(pool, options=OPTIONS)
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "unary_unary": grpc.unary_unary_rpc_method_handler(self._unary_unary),
            "unary_stream": grpc.unary_stream_rpc_method_handler(self._unary_stream),
            "stream_unary": grpc.stream_unary_rpc_method_handler(self._stream_unary),
            "stream_stream": grpc.stream_stream_rpc_method_handler(self._stream_stream),
        }
        generic = grpc.method_handlers_generic_handler("Echo", handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(grace=None).wait()
        self._pool.shutdown()

    def _unary_unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.received.append(request)
        return request

    def _unary_stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.received.append(request)
        size = max(1, len(request) // 4)
        for start in range(0, len(request), size):
            yield request[start : start + size]

    def _stream_unary(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"".join(self._stream_stream(requests, context))

    def _stream_stream(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        for request in requests:
            self.received.append(request)
            yield request


@pytest.fixture
def server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.fixture
def channel(proxy: FaultProxy) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(proxy.address, options=OPTIONS) as channel:
        yield channel


def call(channel: grpc.Channel, kind: str, payload: bytes, timeout: float = 10.0) -> bytes:
    """Send a payload by one kind of call, in four messages where it streams; return the echo."""
    parts = [payload[index::4] for index in range(4)]
    path = f"/Echo/{kind}"
    if kind == "unary_unary":
        return bytes(channel.unary_unary(path, same, same)(payload, timeout=timeout))
    if kind == "unary_stream":
        return b"".join(channel.unary_stream(path, same, same)(payload, timeout=timeout))
    if kind == "stream_unary":
        return bytes(channel.stream_unary(path, same, same)(iter(parts), timeout=timeout))
    return b"".join(channel.stream_stream(path, same, same)(iter(parts), timeout=timeout))


def expected(kind: str, payload: bytes) -> bytes:
    if kind.startswith("unary"):
        return payload
    return b"".join(payload[index::4] for index in range(4))


def call_until_done(channel: grpc.Channel, kind: str, payload: bytes) -> bytes:
    """As `call`, again while UNAVAILABLE: gRPC may still try a connection that just broke."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call(channel, kind, payload)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def failure(channel: grpc.Channel, kind: str, payload: bytes, timeout: float = 10.0) -> object:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, kind, payload, timeout)
    return caught.value.code()


# Without faults


@pytest.mark.parametrize("kind", KINDS)
def test_large_messages_pass_unchanged(kind: str, channel: grpc.Channel, proxy: FaultProxy) -> None:
    payload = random.Random(kind).randbytes(20 * MIB + 7)
    assert call(channel, kind, payload, 30) == expected(kind, payload)
    counters = proxy.counters
    assert counters.connections == 1
    assert counters.bytes_to_server > len(payload)
    assert counters.bytes_to_client > len(payload)
    assert not counters.faults


def test_fifty_streams_at_once(channel: grpc.Channel, proxy: FaultProxy) -> None:
    payloads = [random.Random(seed).randbytes(50_000 + seed) for seed in range(50)]
    kinds = list(itertools.islice(itertools.cycle(KINDS), 50))
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(call, itertools.repeat(channel), kinds, payloads))
    assert answers == list(map(expected, kinds, payloads))
    assert proxy.counters.connections == 1


async def test_asyncio_client(proxy: FaultProxy) -> None:
    async with grpc.aio.insecure_channel(proxy.address, options=OPTIONS) as channel:
        assert (
            await channel.unary_unary("/Echo/unary_unary", same, same)(b"a" * MIB, timeout=10)
            == b"a" * MIB
        )
        proxy.cut_after(bytes=10_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/Echo/unary_unary", same, same)(b"a" * MIB, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# Cuts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("mid_message", [False, True])
@pytest.mark.parametrize("direction", list(Direction))
def test_cut_makes_one_call_unavailable(
    kind: str,
    reset: bool,
    mid_message: bool,
    direction: Direction,
    channel: grpc.Channel,
    proxy: FaultProxy,
) -> None:
    payload = random.Random(1).randbytes(2 * MIB)
    call(channel, kind, b"warm")
    before = proxy.counters
    proxy.cut_after(bytes=MIB, direction=direction, mid_message=mid_message, reset=reset)
    assert failure(channel, kind, payload) is grpc.StatusCode.UNAVAILABLE
    assert proxy.counters.faults == {Fault.CUT: 1}
    passed = transferred(proxy.counters, direction) - transferred(before, direction)
    # At that byte, or past the frames that are not messages; else at the end of the frame.
    assert MIB <= passed <= MIB + (200 if mid_message else 9 + 2 * MIB)
    assert call_until_done(channel, kind, payload) == expected(kind, payload)
    assert proxy.counters.connections == 2


def transferred(counters: Counters, direction: Direction) -> int:
    return (
        counters.bytes_to_server if direction is Direction.TO_SERVER else counters.bytes_to_client
    )


def test_small_message_is_cut_inside(
    channel: grpc.Channel, proxy: FaultProxy, server: EchoServer
) -> None:
    """A cut that is due between two messages waits for the middle of the next."""
    call(channel, "unary_unary", b"warm")
    proxy.cut_after(bytes=0)
    assert failure(channel, "unary_unary", b"abc") is grpc.StatusCode.UNAVAILABLE
    assert server.received == [b"warm"]


def test_cuts_repeat(channel: grpc.Channel, proxy: FaultProxy) -> None:
    payload = bytes(300_000)
    proxy.cut_after(bytes=100_000, times=None)

    def cut_three_times() -> bool:
        assert failure(channel, "unary_unary", payload) is grpc.StatusCode.UNAVAILABLE
        return proxy.counters.faults == {Fault.CUT: 3}

    until(cut_three_times)
    proxy.restore()
    assert call_until_done(channel, "unary_unary", payload) == payload


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", [FaultProxy.cut, FaultProxy.reset])
def test_running_call_is_cut_now(
    kind: str,
    action: Callable[[FaultProxy], None],
    channel: grpc.Channel,
    proxy: FaultProxy,
) -> None:
    proxy.throttle(MIB)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(failure, channel, kind, bytes(20 * MIB))
        until(lambda: proxy.counters.bytes_to_server > 100_000)
        action(proxy)
        assert running.result(5) is grpc.StatusCode.UNAVAILABLE
    proxy.restore()
    assert call_until_done(channel, kind, b"after") == expected(kind, b"after")


def test_fin_and_rst_are_what_arrives() -> None:
    """Both ends see the end of the stream after a cut, and an error after a reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for reset in (False, True):
            with (
                FaultProxy("127.0.0.1", listener.getsockname()[1]) as proxy,
                socket.create_connection(("127.0.0.1", proxy.port)) as client,
            ):
                peer, _ = listener.accept()
                with peer:
                    for end in (client, peer):
                        end.settimeout(5)
                    client.sendall(bytes(24))
                    assert receive(peer, 24) == bytes(24)
                    (proxy.reset if reset else proxy.cut)()
                    for end in (client, peer):
                        if reset:
                            with pytest.raises(ConnectionResetError):
                                end.recv(1)
                        else:
                            assert end.recv(1) == b""


# A request that arrives and an answer that does not


@pytest.mark.parametrize("kind", KINDS)
def test_cut_before_response_delivers_the_request(
    kind: str, channel: grpc.Channel, proxy: FaultProxy, server: EchoServer
) -> None:
    payload = random.Random(2).randbytes(MIB)
    messages = 4 if kind.startswith("stream") else 1
    proxy.cut_before_response()
    assert failure(channel, kind, payload) is grpc.StatusCode.UNAVAILABLE
    # The duplex method answers the first message before it reads the others.
    least = 1 if kind == "stream_stream" else messages
    assert least <= len(server.received) <= messages
    assert call_until_done(channel, kind, payload) == expected(kind, payload)
    assert least + messages <= len(server.received) <= 2 * messages
    assert proxy.counters.faults == {Fault.CUT_BEFORE_RESPONSE: 1}


def test_cut_before_a_given_answer_of_a_duplex_stream(
    channel: grpc.Channel, proxy: FaultProxy, server: EchoServer
) -> None:
    proxy.cut_before_response(half_closed=False, skip=2, reset=True)
    answered = threading.Semaphore(1)

    def requests() -> Iterator[bytes]:
        for number in range(10):
            assert answered.acquire(timeout=5)
            yield bytes([number])

    answers: list[bytes] = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in channel.stream_stream("/Echo/stream_stream", same, same)(
            requests(), timeout=10
        ):
            answers.append(answer)
            answered.release()
    answered.release()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert answers == [b"\0", b"\1"]
    assert server.received == [b"\0", b"\1", b"\2"]


def test_cut_before_the_status(channel: grpc.Channel, proxy: FaultProxy) -> None:
    """A stream that was sent every message but no status has not succeeded.

    (gRPC may drop messages that its user has not read when the connection breaks.)
    """
    proxy.cut_before_response(skip=4)
    answers = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in channel.unary_stream("/Echo/unary_stream", same, same)(b"abcd", timeout=10):
            answers.append(answer)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert answers == [b"a", b"b", b"c", b"d"][: len(answers)]
    assert proxy.counters.faults == {Fault.CUT_BEFORE_RESPONSE: 1}


# Blackhole, delay, throttle, refuse


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", [None, *Direction])
@pytest.mark.measures
def test_blackhole_ends_in_the_deadline(
    kind: str, direction: Direction | None, channel: grpc.Channel, proxy: FaultProxy
) -> None:
    call(channel, kind, b"warm")
    proxy.blackhole(direction)
    started = time.monotonic()
    assert failure(channel, kind, b"lost", 0.3) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.25 < time.monotonic() - started < 2
    # The time to connect is gRPC's default here: with ours it would be UNAVAILABLE sooner.
    with grpc.insecure_channel(proxy.address, options=OPTIONS[:1]) as fresh:
        assert failure(fresh, kind, b"lost", 0.3) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert proxy.counters.connections == 2
    proxy.restore()
    assert call(channel, kind, b"back") == expected(kind, b"back")


def test_what_the_blackhole_held_arrives_later(channel: grpc.Channel, proxy: FaultProxy) -> None:
    call(channel, "unary_unary", b"warm")
    proxy.blackhole()
    running = channel.unary_unary("/Echo/unary_unary", same, same).future(b"late", timeout=10)
    time.sleep(0.2)
    assert not running.done()
    proxy.restore()
    assert running.result() == b"late"
    assert proxy.counters.connections == 1


def test_blackhole_hides_the_end_of_a_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy("127.0.0.1", listener.getsockname()[1]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as client,
    ):
        peer, _ = listener.accept()
        proxy.blackhole()
        peer.close()
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.restore()
        client.settimeout(5)
        assert client.recv(1) == b""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.measures
def test_delay_adds_latency(kind: str, channel: grpc.Channel, proxy: FaultProxy) -> None:
    call(channel, kind, b"warm")
    proxy.delay(0.15)
    started = time.monotonic()
    assert call(channel, kind, b"slow") == expected(kind, b"slow")
    assert 0.3 <= time.monotonic() - started < 1.5
    proxy.delay(0, Direction.TO_SERVER)
    started = time.monotonic()
    assert call(channel, kind, b"slow") == expected(kind, b"slow")
    assert 0.15 <= time.monotonic() - started < 0.9


@pytest.mark.measures
def test_delay_does_not_add_up(channel: grpc.Channel, proxy: FaultProxy) -> None:
    """Chunks that come one after another are all late by the same time."""
    call(channel, "unary_unary", b"warm")
    proxy.delay(0.2, Direction.TO_SERVER)

    def requests() -> Iterator[bytes]:
        for number in range(20):
            yield bytes([number])
            time.sleep(0.02)

    started = time.monotonic()
    answers = list(channel.stream_stream("/Echo/stream_stream", same, same)(requests(), timeout=10))
    assert len(answers) == 20
    assert 0.6 <= time.monotonic() - started < 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.measures
def test_throttle_limits_the_rate(kind: str, channel: grpc.Channel, proxy: FaultProxy) -> None:
    call(channel, kind, b"warm")
    proxy.throttle(2 * MIB, Direction.TO_SERVER)
    started = time.monotonic()
    assert call(channel, kind, bytes(MIB)) == bytes(MIB)
    assert 0.45 < time.monotonic() - started < 1.5
    proxy.throttle(None)
    started = time.monotonic()
    assert call(channel, kind, bytes(MIB)) == bytes(MIB)
    assert time.monotonic() - started < 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_refused_connection(kind: str, proxy: FaultProxy, channel: grpc.Channel) -> None:
    call(channel, kind, b"warm")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    with grpc.insecure_channel(proxy.address, options=OPTIONS) as fresh:
        assert failure(fresh, kind, b"new") is grpc.StatusCode.UNAVAILABLE
        assert call(channel, kind, b"old") == expected(kind, b"old")
        proxy.restore()
        assert call_until_done(fresh, kind, b"new") == expected(kind, b"new")
    assert proxy.counters.faults == {Fault.REFUSE: 1}


def test_server_that_is_down(server: EchoServer) -> None:
    with (
        kept_port() as port,
        FaultProxy("127.0.0.1", port) as proxy,
        grpc.insecure_channel(proxy.address, options=OPTIONS) as channel,
    ):
        assert failure(channel, "unary_unary", b"lost") is grpc.StatusCode.UNAVAILABLE
        proxy.set_upstream(server.port)
        assert call_until_done(channel, "unary_unary", b"found") == b"found"


# GOAWAY


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("close_when_drained", [False, True])
def test_goaway_lets_the_running_call_finish(
    kind: str, close_when_drained: bool, channel: grpc.Channel, proxy: FaultProxy
) -> None:
    payload = random.Random(3).randbytes(MIB)
    proxy.throttle(4 * MIB)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, channel, kind, payload)
        until(lambda: proxy.counters.bytes_to_server > 100_000)
        proxy.goaway(close_when_drained=close_when_drained)
        until(lambda: proxy.counters.faults.get(Fault.GOAWAY) == 1)
        proxy.throttle(None)
        assert call_until_done(channel, kind, b"next") == expected(kind, b"next")
        assert proxy.counters.connections == 2
        assert running.result(10) == expected(kind, payload)
    until(lambda: proxy.counters.open_connections == 1)


def test_goaway_on_an_idle_connection(channel: grpc.Channel, proxy: FaultProxy) -> None:
    call(channel, "unary_unary", b"one")
    proxy.goaway()
    until(lambda: proxy.counters.open_connections == 0)
    assert call_until_done(channel, "unary_unary", b"two") == b"two"
    assert proxy.counters.connections == 2


def test_goaway_frame_and_drain() -> None:
    """The frame's bytes; later streams do not reach the server; the end comes when drained."""
    settings = bytes.fromhex("000000 04 00 00000000")

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return len(payload).to_bytes(3) + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy("127.0.0.1", listener.getsockname()[1]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as client,
    ):
        peer, _ = listener.accept()
        with peer:
            for end in (client, peer):
                end.settimeout(5)
            proxy.goaway(11, close_when_drained=True)
            time.sleep(0.05)
            proxy.restore()
            opened = bytes(24) + settings + frame(1, 4, 3, b"h")
            client.sendall(opened)
            assert receive(peer, len(opened)) == opened
            # Half of a frame: no GOAWAY before its end.
            peer.sendall(settings[:5])
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(5)
            peer.sendall(settings[5:])
            goaway = frame(7, 0, 0, struct.pack(">II", 3, 11))
            got = receive(client, 9 + len(goaway))
            assert got == settings + goaway
            client.sendall(frame(1, 5, 5, b"late") + frame(0, 1, 3, b"end"))
            end_of_request = frame(0, 1, 3, b"end")
            assert receive(peer, len(end_of_request)) == end_of_request
            trailers = frame(1, 5, 3, b"bye")
            peer.sendall(trailers)
            assert receive(client, len(trailers)) == trailers
            assert client.recv(1) == b""
            assert peer.recv(1) == b""


def test_goaway_never_makes_a_call_run_twice(
    channel: grpc.Channel, proxy: FaultProxy, server: EchoServer
) -> None:
    """Calls that race with a GOAWAY are sent again by us.

    Each arrives exactly once all the same.
    """
    proxy.delay(0.01)
    proxy.chaos(5, every_seconds=0.02, faults=[Fault.GOAWAY])
    payloads = [str(number).encode() for number in range(400)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        kinds = itertools.repeat("unary_unary")
        answers = list(pool.map(call_until_done, itertools.repeat(channel), kinds, payloads))
    assert answers == payloads
    assert sorted(server.received) == sorted(payloads)
    assert proxy.counters.faults[Fault.GOAWAY] > 5


# Chaos


def test_chaos_plan_is_the_seeds() -> None:
    def plan(seed: int, faults: Sequence[Fault] = tuple(Fault)) -> list[object]:
        return list(itertools.islice(chaos_plan(seed, faults, 100.0), 50))

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
    steps = list(itertools.islice(chaos_plan(1, tuple(Fault), 100.0), 200))
    assert {step.fault for step in steps} == set(Fault)
    assert all(50 <= step.gap <= 150 for step in steps)
    with pytest.raises(ValueError, match="empty"):
        next(chaos_plan(1, (), 1.0))


@pytest.mark.parametrize("by_bytes", [False, True])
def test_chaos_ends_in_results_or_errors(
    by_bytes: bool, channel: grpc.Channel, proxy: FaultProxy
) -> None:
    if by_bytes:
        proxy.chaos(7, every_bytes=200_000, lasting=0.05)
    else:
        proxy.chaos(7, every_seconds=0.03, lasting=0.05)
    rng = random.Random(7)
    codes: set[object] = set()
    for kind in itertools.cycle(KINDS):
        payload = rng.randbytes(100_000)
        try:
            assert call(channel, kind, payload, 2) == expected(kind, payload)
        except grpc.RpcError as error:
            codes.add(error.code())
        if sum(proxy.counters.faults.values()) >= 15:
            break
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert len(proxy.counters.faults) > 3
    proxy.restore()
    faults = proxy.counters.faults
    assert call_until_done(channel, "unary_unary", b"calm") == b"calm"
    assert proxy.counters.faults == faults


def test_chaos_stops_at_its_limit(channel: grpc.Channel, proxy: FaultProxy) -> None:
    proxy.chaos(1, every_seconds=0.01, faults=[Fault.DELAY], lasting=0.01, limit=3)
    until(lambda: proxy.counters.faults.get(Fault.DELAY) == 3)
    time.sleep(0.1)
    assert proxy.counters.faults == {Fault.DELAY: 3}


# The proxy itself


@pytest.mark.measures
def test_nothing_is_left_behind(server: EchoServer) -> None:
    def proxied(blackhole: bool) -> None:
        with FaultProxy("127.0.0.1", server.port) as proxy:
            sockets = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(10)]
            until(lambda: proxy.counters.bytes_to_client > 0)
            if blackhole:
                proxy.blackhole()
            proxy.chaos(1, every_bytes=10**9)
        for end in sockets:
            end.close()

    proxied(False)
    until(lambda: count_descriptors_to(server.port) == 0)
    gc.collect()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for number in range(4):
        proxied(bool(number % 2))
    assert threading.active_count() == threads
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def count_descriptors_to(port: int) -> int:
    """Established IPv4 connections of this machine with a local port."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "01" for row in rows)


def test_unexpected_error_is_raised_at_the_end(
    server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(scanner: FrameScanner, data: bytes) -> None:
        raise AssertionError("broken")

    monkeypatch.setattr(FrameScanner, "feed", broken)
    with (
        pytest.raises(ExceptionGroup) as caught,
        FaultProxy("127.0.0.1", server.port) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as client,
    ):
        client.settimeout(5)
        assert client.recv(1) == b""
    assert caught.group_contains(AssertionError, match="broken")


def test_arguments_are_checked(proxy: FaultProxy) -> None:
    wrong_calls: list[Callable[[], None]] = [
        lambda: proxy.cut_after(bytes=-1),
        lambda: proxy.cut_after(bytes=1, times=0),
        lambda: proxy.cut_before_response(skip=-1),
        lambda: proxy.delay(-1),
        lambda: proxy.throttle(0),
        lambda: proxy.chaos(1),
        lambda: proxy.chaos(1, every_bytes=1, every_seconds=1),
        lambda: proxy.chaos(1, every_seconds=0),
    ]
    for wrong in wrong_calls:
        with pytest.raises(ValueError):
            wrong()


@st.composite
def split_frames(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """The frames of two interleaved gRPC streams, and the same bytes split anywhere."""
    frames = [bytes.fromhex("000000 04 00 00000000")]
    for stream in draw(st.lists(st.sampled_from([1, 3]), max_size=8)):
        body = draw(st.binary(max_size=40))
        payload = b"\0" + len(body).to_bytes(4) + body
        middle = draw(st.integers(0, len(payload)))
        for part in (payload[:middle], payload[middle:]):
            frames.append(len(part).to_bytes(3) + b"\0\0" + stream.to_bytes(4) + part)
    whole = b"".join(frames)
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    chunks = [whole[a:b] for a, b in itertools.pairwise([0, *places, len(whole)])]
    return frames, chunks


@given(split_frames())
def test_scanner_finds_every_frame_and_message(split: tuple[list[bytes], list[bytes]]) -> None:
    frames, chunks = split
    scanner = FrameScanner(preface=False)
    found: list[bytes] = []
    messages = dict.fromkeys((1, 3), 0)
    sizes = dict.fromkeys((1, 3), 0)
    for chunk in chunks:
        buffer, pieces = scanner.feed(chunk)
        assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces)][:-1]
        for piece in pieces:
            part = bytes(buffer[piece.start : piece.end])
            if piece.first:
                found.append(part)
            else:
                found[-1] += part
            assert not piece.boundary or piece.first
            for segment in piece.messages:
                sizes[piece.stream] += segment.end - segment.start
                messages[piece.stream] += segment.complete
                assert segment.begins or sizes[piece.stream] > segment.end - segment.start
    assert found == frames
    assert scanner.held == b""
    assert scanner.at_boundary
    assert sum(messages.values()) == (len(frames) - 1) // 2
    assert sum(sizes.values()) == sum(len(frame) - 9 for frame in frames[1:])


# A server in a process

SCRIPT = """
import concurrent.futures, os, pathlib, signal, sys, grpc
port, data = int(sys.argv[1]), pathlib.Path(sys.argv[2])
if data.name == "broken":
    sys.exit("PAT=secret cannot start")
def append(request, context):
    with open(data / "log", "ab") as log:
        log.write(request)
    return (data / "log").read_bytes()
handlers = {"Append": grpc.unary_unary_rpc_method_handler(append)}
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Log", handlers),))
port = server.add_insecure_port(f"127.0.0.1:{port}")
signal.signal(signal.SIGTERM, lambda *_: server.stop(None))
server.start()
print(f"listening on http://127.0.0.1:{port}\\nPAT=secret", flush=True)
server.wait_for_termination()
"""


def script_command(port: int, data_dir: Path) -> Sequence[str]:
    return [sys.executable, "-c", SCRIPT, str(port), str(data_dir)]


def test_server_process_is_killed_and_restarted(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path, command=script_command) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        grpc.insecure_channel(proxy.address, options=OPTIONS) as channel,
    ):
        append = channel.unary_unary("/Log/Append", same, same)
        port, pid = server.port, server.pid
        assert server.base == f"http://127.0.0.1:{port}"
        assert server.pat == "secret"
        assert "secret" not in server.log()
        assert append(b"a", timeout=10) == b"a"
        with pytest.raises(RuntimeError, match="already"):
            server.start()
        server.kill()
        assert not server.running
        assert server.pid is None
        with pytest.raises(grpc.RpcError) as caught:
            append(b"lost", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        server.restart()
        assert server.port == port
        assert server.pid not in (None, pid)
        assert append(b"b", timeout=10, wait_for_ready=True) == b"ab"
        assert server.terminate() == 0
        with pytest.raises(RuntimeError, match="not running"):
            server.terminate()


def test_server_process_that_cannot_start(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "broken", command=script_command)
    with pytest.raises(RuntimeError, match="status 1") as caught, server:
        pass
    assert "PAT=*** cannot start" in str(caught.value)


def test_server_process_that_stays_silent(tmp_path: Path) -> None:
    def silent(port: int, data_dir: Path) -> Sequence[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    with pytest.raises(RuntimeError, match="no base address"):
        ServerProcess(tmp_path, command=silent, timeout=0.5).start()
