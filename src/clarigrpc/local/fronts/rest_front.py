"""The REST front: an HTTP server in a thread of its own."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.fronts.http_connections import ConnectionBounds
from clarigrpc.local.fronts.http_messages import MAX_BODY_BYTES
from clarigrpc.local.fronts.listen_address import host_and_port
from clarigrpc.local.fronts.rest_gateway import CallServer, RestGateway
from clarigrpc.local.served_call import WaitingShare

WORKERS = 32
"""Calls that run at the same time, by default."""

# Long queries come in the request line; httpx sends URLs of up to 64 KiB.
_MAX_HEAD_BYTES = 256 * 1024
# Longer than clients keep idle connections, so that it is they who close them.
_SERVER_KEEP_ALIVE_SECONDS = 75


class RestFront:
    """Serves the gateway over HTTP/1.1 from a thread of its own.

    The socket is bound when the object is made, so ``base`` is known and another process that
    has the port is an ``OSError`` at once.

    Args:
        service: What the gRPC front serves too. It is not closed here.
        host: Address to listen on.
        port: Port to listen on, 0 for any.
        workers: Calls that run at the same time; further ones wait.
        max_body_bytes: Longest request body.
        budget: What all calls may hold; None for a budget of its own.
        mounts: Prefix of paths -> the application that serves them instead of the gateway.
        cors: Origins whose web pages may call it, such as ``http://localhost:3000``.
    """

    def __init__(
        self,
        service: CallServer,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        workers: int = WORKERS,
        max_body_bytes: int = MAX_BODY_BYTES,
        budget: ByteBudget | None = None,
        mounts: Mapping[str, ASGIApp] | None = None,
        cors: Sequence[str] = (),
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=1024)
        # Connections inherit it. asyncio leaves it out for sockets made by create_server, and head
        # and body of a response are two writes, of which the second would wait 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket_name: tuple[str, int] = self._socket.getsockname()[:2]
        self._closed = False
        self._expired = threading.Event()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="clarigrpc-rest-worker")
        app: ASGIApp = RestGateway(
            service,
            self._executor,
            max_body_bytes=max_body_bytes,
            budget=budget,
            is_closing=self._expired.is_set,
            waiting=WaitingShare(workers),
            mounts=mounts,
        )
        if cors:
            app = CORSMiddleware(
                app,
                allow_origins=cors,
                # Pages of these origins may send the cookies that media are fetched with.
                allow_credentials="*" not in cors,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["*"],
                expose_headers=["*"],
            )
        config = uvicorn.Config(
            # Without a router before it: that of Starlette has no place for ids with a newline.
            app,
            # Declared as a class, and called like one.
            http=ConnectionBounds().protocol,  # type: ignore[arg-type]
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_SERVER_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="clarigrpc-rest", daemon=True
        )

    @property
    def base(self) -> str:
        """``http://host:port``."""
        return f"http://{host_and_port(*self._socket_name)}"

    def start(self) -> None:
        """Begin to serve; requests that come before it has begun wait."""
        self._thread.start()

    def close(self, grace: float = 5.0) -> None:
        """Stop: running calls have ``grace`` seconds. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._thread.ident is not None:
            self._server.config.timeout_graceful_shutdown = math.ceil(grace)
            self._server.should_exit = True
            self._thread.join()
        self._socket.close()
        self._expired.set()
        self._executor.shutdown()
