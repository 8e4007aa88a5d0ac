"""Fetches the URLs of inputs: http and https only, limited in size and time."""

from __future__ import annotations

import ipaddress
import socket
import time
from urllib.parse import urljoin, urlsplit

import httpx

from clarigrpc import v2
from clarigrpc.local.core import ServiceError

_REDIRECTS = 5
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_url(url: str) -> None:
    """Refuses a URL that no fetch could ever read; ServiceError 30106."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ServiceError(v2.StatusCode.INPUT_INVALID_URL, f"malformed URL: {error}") from error
    if parts.scheme.lower() not in _DEFAULT_PORTS or not good:
        raise ServiceError(
            v2.StatusCode.INPUT_INVALID_URL,
            f"the URL must be http:// or https://, not {url[:80]!r}",
        )


class Fetcher:
    """Downloads what inputs point to.

    Args:
        max_bytes: Largest body; more is INPUT_OVER_LIMIT.
        timeout: Seconds for one download as a whole.
        allow_loopback: Whether addresses of this machine may be fetched.
        allow_private: Whether other addresses that are not public may be.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 64 << 20,
        timeout: float = 20.0,
        allow_loopback: bool = True,
        allow_private: bool = False,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._allow_loopback = allow_loopback
        self._allow_private = allow_private
        # trust_env off: a proxy would resolve the name again and get around the address check.
        self._http = httpx.Client(trust_env=False, timeout=timeout, follow_redirects=False)

    def close(self) -> None:
        """Closes idle connections."""
        self._http.close()

    def get(self, url: str) -> bytes:
        """The body behind a URL.

        Raises:
            ServiceError: INPUT_INVALID_URL (30106) for a URL that is refused or does not
                resolve, INPUT_FAILED (30002) when the download fails, INPUT_OVER_LIMIT (30105)
                when it is too large.
        """
        end = time.monotonic() + self._timeout
        for _ in range(_REDIRECTS + 1):
            check_url(url)
            try:
                body, location = self._get_once(url, end)
            except httpx.HTTPError as error:
                raise _failed(f"{type(error).__name__}: {error}") from error
            except httpx.InvalidURL as error:
                raise ServiceError(v2.StatusCode.INPUT_INVALID_URL, str(error)) from error
            if location is None:
                return body
            url = urljoin(url, location)
        raise _failed(f"more than {_REDIRECTS} redirects")

    def _get_once(self, url: str, end: float) -> tuple[bytes, str | None]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        address = self._address(host, parts.port or _DEFAULT_PORTS[parts.scheme.lower()])
        # The request goes to the address that was checked, whatever the name resolves to next.
        request = self._http.build_request(
            "GET",
            httpx.URL(url).copy_with(host=address),
            headers={"host": parts.netloc.rpartition("@")[2], "user-agent": "clarigrpc-local"},
            extensions={"sni_hostname": host},
        )
        response = self._http.send(request, stream=True)
        try:
            if response.is_redirect:
                return b"", response.headers["location"]
            if not response.is_success:
                raise _failed(f"the server answered HTTP {response.status_code}")
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > self._max_bytes:
                    raise ServiceError(
                        v2.StatusCode.INPUT_OVER_LIMIT, f"more than {self._max_bytes} bytes"
                    )
                if time.monotonic() > end:
                    raise _failed(f"took longer than {self._timeout:g} s")
            return bytes(body), None
        finally:
            response.close()

    def _address(self, host: str, port: int) -> str:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ServiceError(
                v2.StatusCode.INPUT_INVALID_URL, f"cannot resolve {host}: {error}"
            ) from error
        addresses = [str(entry[4][0]) for entry in found]
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            if address.is_loopback:
                allowed = self._allow_loopback
            else:
                allowed = self._allow_private or address.is_global
            if not allowed:
                raise ServiceError(
                    v2.StatusCode.INPUT_INVALID_URL,
                    f"{host} is a private address, which this server does not fetch",
                )
        return addresses[0]


def _failed(reason: str) -> ServiceError:
    return ServiceError(v2.StatusCode.INPUT_FAILED, f"the download failed: {reason}")
