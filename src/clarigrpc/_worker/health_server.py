"""Health and readiness over HTTP, for orchestrators."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PATHS = ("/healthz", "/readyz")


class HealthServer:
    """Answers ``GET /healthz`` and ``GET /readyz`` with 200 or 503, from a thread of its own.

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

        self._server = ThreadingHTTPServer((host, port), Handler)
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
