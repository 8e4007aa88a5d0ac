"""Health and readiness over HTTP, for orchestrators."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

logger = logging.getLogger("clarigrpc")

_PATHS = ("/healthz", "/readyz")
_MOST_CONNECTIONS = 32


class _BoundedServer(ThreadingHTTPServer):
    """A server with a thread for each of at most ``_MOST_CONNECTIONS`` connections.

    A further one takes the place of the oldest, so that peers that hold on to connections keep no
    probe from its answer.
    """

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.append(request)
            for oldest in self._open[:-_MOST_CONNECTIONS]:
                self._drop(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            if request in self._open:
                self._open.remove(request)
        super().shutdown_request(request)

    def drop_all(self) -> None:
        """End all connections."""
        with self._lock:
            for one in self._open[:]:
                self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        """Have the thread of a connection read its end."""
        self._open.remove(one)
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a connection for health failed", exc_info=True)


class HealthServer:
    """Answers ``GET /healthz`` and ``GET /readyz`` with 200 or 503, from threads of its own.

    It has at most 32 connections: a further one ends the oldest.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        is_alive: Whether the worker can still do its work.
        is_ready: Whether it takes items.

    Attributes:
        port: The port that it listens on.

    Raises:
        OSError: The port cannot be taken.
    """

    def __init__(
        self, host: str, port: int, is_alive: Callable[[], bool], is_ready: Callable[[], bool]
    ) -> None:
        checks = dict(zip(_PATHS, (is_alive, is_ready), strict=True))

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # of a peer that sends nothing

            def do_GET(self) -> None:
                check = checks.get(self.path.partition("?")[0])
                if check is None:
                    self._answer(404, f"one of {' '.join(_PATHS)}")
                else:
                    good = check()
                    self._answer(200 if good else 503, "ok" if good else "not ok")

            do_HEAD = do_GET

            def _answer(self, code: int, text: str) -> None:
                body = f"{text}\n".encode()
                self.send_response(code)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes are not logged."""

        self._server = _BoundedServer((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="clarigrpc-health",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.drop_all()
