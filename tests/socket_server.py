"""Ports of 127.0.0.1: a TCP server that does as told, and a port without a server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from tests.waiting import join


@contextlib.contextmanager
def server_that(behaves: Callable[[socket.socket], object]) -> Iterator[int]:
    """Run a server on a free port of 127.0.0.1, the port of which is yielded.

    Each connection has a thread of its own, and is shut down when ``behaves`` returns or raises
    OSError, and at the end of the block, so that no client can keep ``behaves`` waiting.

    Raises:
        AssertionError: ``behaves`` goes on after the end of its connection.
    """
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def end(connection: socket.socket) -> None:
        # It is closed later: with data that nobody has read, that would be a reset.
        with contextlib.suppress(OSError):  # the client has ended it
            connection.shutdown(socket.SHUT_RDWR)

    def serve(connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # the client has gone, or the block ends
                behaves(connection)
        finally:
            end(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):  # shut down
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            join(accepting)  # first: a connection accepted later would not be ended
            for connection in connections:
                end(connection)
            for thread in threads:
                join(thread)
            for connection in connections:
                connection.close()


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """Keep a port: nobody else gets it, and it refuses connections while no server listens.

    A server that sets SO_REUSEADDR, as those of gRPC do, can listen on it.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes (MSG_WAITALL does not work with a timeout).

    Raises:
        AssertionError: The connection ends before.
    """
    data = b""
    while len(data) < size:
        got = connection.recv(size - len(data))
        assert got, "the connection ended early"
        data += got
    return data


def drain(connection: socket.socket) -> None:
    """Read until the other side ends the connection."""
    while connection.recv(65536):
        pass
