"""An HTTP/2 server that ends gRPC calls, and connections, in ways that gRPC's server does not.

    with Http2Server([refuse, take(response)]) as server:
        ...
    assert server.taken == 1

Each call that arrives gets the next ending. Those that stand for a server that has worked on the
request count it as taken.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, RstStreamFrame

from tests.socket_server import server_that

REFUSED_STREAM = 7
_ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


class Call:
    """A request that has arrived as a whole.

    Attributes:
        stream: Id of its HTTP/2 stream.
    """

    def __init__(self, server: Http2Server, sock: socket.socket, http2: H2Connection) -> None:
        self.stream = 0
        self._server = server
        self._sock = sock
        self._http2 = http2

    def take(self) -> None:
        """Count the request as worked on."""
        with self._server.lock:
            self._server.taken += 1

    def answer(self, response: bytes) -> None:
        """Send a response and OK."""
        self._http2.send_headers(self.stream, _ANSWER)
        self._http2.send_data(self.stream, struct.pack(">BI", 0, len(response)) + response)
        self._http2.send_headers(self.stream, [("grpc-status", "0")], end_stream=True)
        self._flush()

    def fail(self, text: str) -> None:
        """Send UNAVAILABLE with this text."""
        status = [*_ANSWER, ("grpc-status", "14"), ("grpc-message", text)]
        self._http2.send_headers(self.stream, status, end_stream=True)
        self._flush()

    def begin(self) -> None:
        """Send the headers of a response."""
        self._http2.send_headers(self.stream, _ANSWER)
        self._flush()

    def goaway(self, last: int) -> None:
        """Announce the end of the connection; ``last`` is the last stream that was taken."""
        self.send(GoAwayFrame(0, last_stream_id=last, error_code=0, additional_data=b"bye"))

    def send(self, *frames: Frame) -> None:
        """Send frames that h2 would not send, in one piece."""
        self.write(b"".join(frame.serialize() for frame in frames))

    def write(self, data: bytes) -> None:
        """Send what need not be HTTP/2."""
        self._sock.sendall(data)

    def close(self) -> None:
        """Close the connection."""
        self._sock.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        self.write(self._http2.data_to_send())


Ending = Callable[[Call], None]


def take(response: bytes) -> Ending:
    """Work on the request and answer."""

    def end(call: Call) -> None:
        call.take()
        call.answer(response)

    return end


def refuse(call: Call) -> None:
    """Go away without the request; the connection stays open."""
    call.goaway(call.stream - 1)


def refuse_and_close(call: Call) -> None:
    """Go away without the request, as a server that restarts."""
    call.goaway(call.stream - 1)
    call.close()


def announce_then_refuse(call: Call) -> None:
    """Go away in two steps, as servers that let late requests in."""
    call.goaway(2**31 - 1)
    call.goaway(call.stream - 1)


def lose(call: Call) -> None:
    """Work on the request, go away, and close before the answer."""
    call.take()
    call.goaway(call.stream)
    call.close()


def lose_announced(call: Call) -> None:
    """The same, where every stream may still be taken."""
    call.take()
    call.goaway(2**31 - 1)
    call.close()


def lose_garbled(call: Call) -> None:
    """Work on the request, go away, and break HTTP/2."""
    call.take()
    call.goaway(call.stream)
    broken = PingFrame(0, b"12345678").serialize()
    call.write((3).to_bytes(3) + broken[3:9] + b"123")


def reset(call: Call) -> None:
    """End the stream with REFUSED_STREAM."""
    frame = RstStreamFrame(call.stream)
    frame.error_code = REFUSED_STREAM
    call.send(frame)


def reset_after_headers(call: Call) -> None:
    """Work on the request, begin the answer, and break HTTP/2 with REFUSED_STREAM."""
    call.take()
    call.begin()
    reset(call)


def pass_on(text: str) -> Ending:
    """Work on the request, and pass on what gRPC said of a call of the server's own."""

    def end(call: Call) -> None:
        call.take()
        call.fail(text)

    return end


class Http2Server:
    """A server on a free port of 127.0.0.1 for as long as the ``with`` block runs.

    Args:
        endings: What becomes of each call, in the order of their arrival.

    Attributes:
        base: Base address for a client.
        arrived: Requests that arrived.
        taken: Requests that were worked on.
        lock: Guards the counts.
    """

    def __init__(self, endings: Iterable[Ending]) -> None:
        self.arrived = self.taken = 0
        self.lock = threading.Lock()
        self._endings = iter(endings)
        self._running = server_that(self._serve)

    def __enter__(self) -> Self:
        self.base = f"http://127.0.0.1:{self._running.__enter__()}"
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.__exit__(None, None, None)

    def _serve(self, sock: socket.socket) -> None:
        http2 = H2Connection(H2Configuration(client_side=False))
        http2.initiate_connection()
        with contextlib.suppress(ProtocolError):  # the client has gone
            sock.sendall(http2.data_to_send())
            while data := sock.recv(65536):
                for event in http2.receive_data(data):
                    if isinstance(event, StreamEnded):
                        call = Call(self, sock, http2)
                        call.stream = event.stream_id
                        with self.lock:
                            self.arrived += 1
                            ending = next(self._endings)
                        ending(call)
                sock.sendall(http2.data_to_send())
