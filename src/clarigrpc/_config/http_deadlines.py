"""HTTP for sync calls, with connections whose waits end with the deadline of the call.

httpx waits as long as a timeout says at each ``recv`` and ``send``: what comes, or is taken, in
pieces could make a call last for ever. A ``_TimeLeft`` knows the deadline that it was taken from,
and the connections here ask it before each wait, those through a proxy and over TLS as well.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx

from clarigrpc._config.environment_proxies import proxy_for

_WRITE_BYTES = 64 * 1024
"""What is sent with one timeout: httpcore repeats ``send`` until all of it is taken."""


class HttpDeadline(dict[str, float]):
    """The ``timeout`` extension of httpx, with what is left of the deadline for each step.

    Plain timeouts hold for each step (pool, connect, write, read) anew, so that a call could last
    several times as long as it may.
    """

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, None without a deadline."""
        return None if self._end is None else self._end - time.monotonic()

    def get(self, key: str, default: Any = None) -> Any:
        """The timeout of a step. Zero would mean not to wait at all, without an error."""
        remaining = self.remaining()
        if remaining is None:
            return default
        left = _TimeLeft(max(remaining, 0.001))
        left.deadline = self
        return left


class _TimeLeft(float):
    """Seconds until a deadline, for the first wait of a step.

    Attributes:
        deadline: Tells what is left for further waits.
    """

    __slots__ = ("deadline",)

    deadline: HttpDeadline


class DeadlineHttpTransport(httpx.BaseTransport):
    """A pool of connections to a server, or to the proxy that stands before it.

    Args:
        url: URL of the server.
        verify: How TLS is verified; False for not at all.
        limits: How many connections there are, and for how long.

    Raises:
        ConfigurationError: The proxy that the environment names cannot be used.
    """

    def __init__(self, url: str, verify: ssl.SSLContext | bool, limits: httpx.Limits) -> None:
        self._backend = _DeadlineBackend()
        arguments: dict[str, Any] = {
            "ssl_context": _ssl_context(verify),
            "max_connections": limits.max_connections,
            "max_keepalive_connections": limits.max_keepalive_connections,
            "keepalive_expiry": limits.keepalive_expiry,
            "network_backend": self._backend,
        }
        proxy = proxy_for(url)
        pool: type[httpcore.ConnectionPool] = httpcore.ConnectionPool
        if proxy is not None:
            socks = proxy.url.scheme.startswith("socks")
            pool = httpcore.SOCKSProxy if socks else httpcore.HTTPProxy
            arguments |= {"proxy_url": _url(proxy.url), "proxy_auth": proxy.raw_auth}
        self._pool = pool(**arguments)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        inner = httpcore.Request(
            request.method,
            _url(request.url),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _errors_of_httpx():
            response = self._pool.handle_request(inner)
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_ReceivedBody(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections; what waits for one of them ends."""
        self._backend.closed = True
        self._pool.close()


def _ssl_context(verify: ssl.SSLContext | bool) -> ssl.SSLContext | None:
    """How TLS is verified; None for httpcore's default, which is made at the first use."""
    return None if verify is True else httpx.create_ssl_context(verify=verify)


def _url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


@contextlib.contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Turn the errors of httpcore into those of httpx, which have the same names."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    ) as error:
        made: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
        raise made(str(error)) from error


class _ReceivedBody(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _errors_of_httpx():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _DeadlineBackend(httpcore.NetworkBackend):
    """Opens the connections of a pool.

    Attributes:
        closed: Whether the pool is.
    """

    closed = False

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if self.closed:
            raise httpcore.ConnectError("the client was closed")
        # One by one: all the addresses of a host would have the whole timeout each.
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _addresses(host, port):
            try:
                stream = self._backend.connect_tcp(
                    address,
                    port,
                    _left(timeout, httpcore.ConnectTimeout),
                    local_address,
                    socket_options,
                )
                return _DeadlineConnection(stream, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    return [str(address[0]) for *_, address in found]


def _left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """Seconds to wait now."""
    if not isinstance(timeout, _TimeLeft):
        return timeout
    left = timeout.deadline.remaining()
    if left is not None and left <= 0:
        raise error("the deadline of the call has passed")
    return left


class _DeadlineConnection(httpcore.NetworkStream):
    """A connection that asks for the time left before each wait."""

    def __init__(self, stream: httpcore.NetworkStream, timeout: float | None) -> None:
        self._stream = stream
        self._timeout = timeout
        self._process = os.getpid()

    def _left(self, timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
        """Seconds to wait; of a step without a timeout (a greeting of SOCKS) as for the last."""
        if timeout is None:
            timeout = self._timeout
        self._timeout = timeout
        return _left(timeout, error)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_BYTES):
            left = self._left(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _WRITE_BYTES], left)

    def close(self) -> None:
        # Wakes a thread that waits for it. The child of a fork shares it with the parent.
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._left(timeout, httpcore.ConnectTimeout)
        return _DeadlineConnection(
            self._stream.start_tls(ssl_context, server_hostname, left), timeout
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
