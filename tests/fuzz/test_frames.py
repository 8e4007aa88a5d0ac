"""Malformed HTTP/2, gRPC and protobuf over a socket: the server ends the call and goes on."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame
from hypothesis import strategies as st

from clarigrpc import v2
from tests.fuzz.explore import Case, explore
from tests.fuzz.world import TIMEOUT, World
from tests.strategies import messages

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_METHODS = ("PostInputs", "PostModelOutputs", "GenerateModelOutputs", "StreamModelOutputs")
_INTERNAL = (grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.UNKNOWN.value[0])


def _headers(world: World, method: str, **extra: str) -> list[tuple[str, str]]:
    named = {name.replace("_", "-"): value for name, value in extra.items()}
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/clarifai.api.V2/{method}"),
        (":authority", world.server.address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *world.metadata,
        *named.items(),
    ]


def _message(payload: bytes, flag: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">BI", flag, len(payload) if length is None else length) + payload


class Answer:
    """How a call on the wire ended.

    Attributes:
        status: The ``grpc-status``, None where the stream or the connection was ended.
        text: All that the server said, as text.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.text = ""


def _exchange(world: World, method: str, body: bytes, **extra: str) -> Answer:
    """Sends a call with correct HTTP/2 and this body, and reads what becomes of it."""
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    answer = Answer()
    with _connect(world) as sock:
        connection.send_headers(1, _headers(world, method, **extra))
        connection.send_data(1, body, end_stream=True)
        sock.sendall(connection.data_to_send())
        for event in _events(sock, connection):
            if isinstance(event, ResponseReceived | TrailersReceived):
                found = dict(event.headers)
                answer.text += repr(found)
                if b"grpc-status" in found:
                    answer.status = int(found[b"grpc-status"])
            elif isinstance(event, DataReceived):
                answer.text += repr(event.data)
            elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                return answer
    return answer


def _connect(world: World) -> socket.socket:
    return socket.create_connection((world.server.host, world.server.port), TIMEOUT)


def _events(sock: socket.socket, connection: H2Connection) -> Iterator[Any]:
    while data := sock.recv(65536):
        try:
            yield from connection.receive_data(data)
        except ProtocolError:
            return
        sock.sendall(connection.data_to_send())


def test_payloads_that_are_no_messages(world: World) -> None:
    def check(drawn: tuple[str, Any, bytes, int]) -> None:
        method, message, noise, number = drawn
        payload = _mutate(message.SerializeToString(), noise, random.Random(number))
        answer = _exchange(world, method, _message(payload))
        world.check((method, payload))
        assert "Traceback" not in answer.text
        assert answer.status is not None
        assert answer.status not in _INTERNAL, (method, payload, answer.text)

    drawn = st.tuples(
        st.sampled_from(_METHODS),
        messages(v2.PostModelOutputsRequest, hostile=True),
        st.binary(max_size=20),
        st.integers(0, 2**32),
    )
    explore([Case("payloads", drawn, check)], share=0.04, examples=60)
    world.still_works()


def _mutate(payload: bytes, noise: bytes, dice: random.Random) -> bytes:
    """Cuts, overwrites or lengthens."""
    mutated = bytearray(payload)
    at = dice.randrange(len(mutated) + 1)
    if dice.random() < 0.3:
        del mutated[at:]
    elif dice.random() < 0.5:
        mutated[at : at + len(noise)] = noise
    else:
        mutated[at:at] = noise
    return bytes(mutated)


@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize(
    "payload", [b"\xff", b"\x0a\x7f", b"\x0b", b"\x0a\x02\xff\xfe", b"\x08" * 99]
)
def test_what_does_not_parse_is_an_invalid_argument(
    world: World, method: str, payload: bytes
) -> None:
    answer = _exchange(world, method, _message(payload))
    assert answer.status == grpc.StatusCode.INVALID_ARGUMENT.value[0], answer.text
    assert "not a Post" in answer.text


def test_wrong_lengths_and_compression(world: World) -> None:
    """Core itself answers these; gRPC's specification asks for INTERNAL on a compressed flag."""

    def check(drawn: tuple[str, bytes, int, int | None, str]) -> None:
        method, payload, flag, length, encoding = drawn
        extra = {"grpc_encoding": encoding} if encoding else {}
        answer = _exchange(world, method, _message(payload, flag, length), **extra)
        world.check(drawn)
        assert "Traceback" not in answer.text

    drawn = st.tuples(
        st.sampled_from(_METHODS),
        st.binary(max_size=64),
        st.sampled_from([0, 1, 1, 2, 255]),
        st.none() | st.sampled_from([0, 1, 100, 2**24, 2**32 - 1]),
        st.sampled_from(["", "gzip", "deflate", "identity", "br"]),
    )
    explore([Case("lengths", drawn, check)], share=0.03, examples=25)
    world.still_works()


_FRAMES = st.one_of(
    st.binary(max_size=64),
    st.tuples(
        st.integers(0, 2**14), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1)
    ).map(
        lambda f: struct.pack(">I", f[0])[1:] + struct.pack(">BBI", *f[1:]) + bytes(min(f[0], 64))
    ),
    st.just(SettingsFrame(0).serialize()),
    st.builds(lambda value: SettingsFrame(0, {4: value}).serialize(), st.integers(0, 2**32 - 1)),
    st.builds(
        lambda stream, data: HeadersFrame(stream, data, flags=["END_HEADERS"]).serialize(),
        st.sampled_from([1, 2, 3]),
        st.binary(max_size=40),
    ),
    st.builds(
        lambda stream, data: DataFrame(stream, data).serialize(),
        st.sampled_from([1, 3]),
        st.binary(max_size=40),
    ),
)


def test_malformed_frames(world: World) -> None:
    def check(drawn: tuple[bool, list[bytes], int]) -> None:
        preface, frames, cut = drawn
        sent = (_PREFACE + SettingsFrame(0).serialize() if preface else b"") + b"".join(frames)
        with _connect(world) as sock:
            try:
                sock.sendall(sent[: len(sent) - cut])
                sock.shutdown(socket.SHUT_WR)
                answer = bytearray()
                while chunk := sock.recv(65536):
                    answer += chunk
            except (ConnectionResetError, BrokenPipeError):
                return
        world.check(drawn)
        assert b"Traceback" not in answer

    drawn = st.tuples(
        st.booleans() | st.just(True), st.lists(_FRAMES, max_size=6), st.integers(0, 8)
    )
    explore([Case("frames", drawn, check)], share=0.03, examples=25)
    world.still_works()
