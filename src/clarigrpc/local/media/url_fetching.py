"""Fetches the URLs of inputs: http and https only, limited in size and time."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import httpx

from clarigrpc._transports.content_coding import ACCEPTED_CODINGS, BodyDecoder
from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.media.address_scopes import AddressScope, scope_of
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

_REDIRECTS = 5
_COUNTED_BYTES = 1 << 20
"""A download takes so much of the budget at a time."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_url(url: str) -> httpx.URL:
    """The URL taken apart; ServiceError 30106 for one that no fetch could ever read."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ServiceError(StatusCode.INPUT_INVALID_URL, f"malformed URL: {error}") from error
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.raw_host or parsed.port == 0:
        raise ServiceError(
            StatusCode.INPUT_INVALID_URL,
            f"the URL must be http:// or https://, not {url[:80]!r}",
        )
    return parsed


class Fetcher:
    """Downloads what inputs point to.

    Args:
        max_bytes: Largest body; more is INPUT_OVER_LIMIT.
        timeout: Seconds for one download as a whole, redirects included.
        allow_loopback: Whether addresses of this machine may be fetched.
        allow_private: Whether other addresses that are not public may be.
        budget: What all calls may hold; None for a budget of its own.

    Attributes:
        budget: Downloads take from it, and so does who unfolds what was downloaded.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 64 << 20,
        timeout: float = 20.0,
        allow_loopback: bool = True,
        allow_private: bool = False,
        budget: ByteBudget | None = None,
    ) -> None:
        self.budget: ByteBudget = budget or ByteBudget()
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._allow_loopback = allow_loopback
        self._allow_private = allow_private
        self._tls = httpx.create_ssl_context(trust_env=False)

    def get(self, url: str) -> bytes:
        """The body behind a URL. Blocks; for threads without an event loop.

        Raises:
            ServiceError: INPUT_INVALID_URL (30106) for a URL that is refused or does not
                resolve, INPUT_FAILED (30002) when the download fails, INPUT_OVER_LIMIT (30105)
                when it is too large.
            BudgetFullError: Other calls hold the memory.
        """
        # A blocking client can limit each read, and not all of them together.
        with ExitStack() as held:
            return asyncio.run(self._get(url, held))

    async def _get(self, url: str, held: ExitStack) -> bytes:
        try:
            # trust_env off: a proxy would resolve the name again, around the address check.
            http = httpx.AsyncClient(trust_env=False, verify=self._tls, timeout=self._timeout)
            async with asyncio.timeout(self._timeout), http as client:
                where = check_url(url)
                for _ in range(_REDIRECTS + 1):
                    body, location = await self._get_once(client, where, held)
                    if location is None:
                        return body
                    where = check_url(str(where.join(location)))
        except TimeoutError as error:
            raise _failed(f"took longer than {self._timeout:g} s") from error
        except httpx.InvalidURL as error:
            raise ServiceError(StatusCode.INPUT_INVALID_URL, str(error)) from error
        except httpx.HTTPError as error:
            raise _failed(f"{type(error).__name__}: {error}") from error
        raise _failed(f"more than {_REDIRECTS} redirects")

    async def _get_once(
        self, client: httpx.AsyncClient, url: httpx.URL, held: ExitStack
    ) -> tuple[bytes, str | None]:
        host = url.raw_host.decode("ascii")
        address = self._address(host, url.port or _DEFAULT_PORTS[url.scheme])
        # The request goes to the address that was checked, whatever the name resolves to next.
        request = client.build_request(
            "GET",
            url.copy_with(host=address),
            headers={
                "host": url.netloc.decode("ascii"),
                "user-agent": "clarigrpc-local",
                "accept-encoding": ACCEPTED_CODINGS,
            },
            extensions={"sni_hostname": host},
        )
        response = await client.send(request, stream=True)
        try:
            if response.has_redirect_location:
                return b"", response.headers["location"]
            if not response.is_success:
                if response.is_error:
                    raise ServiceError(StatusCode.INPUT_FAILED, _http_error(response, url))
                raise _failed(f"the server answered HTTP {response.status_code}")
            body = bytearray()
            counted = 0
            decoder = BodyDecoder(response.headers.get("content-encoding", ""))
            async for chunk in response.aiter_raw():
                for piece in decoder.pieces(chunk):
                    body += piece
                    if len(body) > counted:
                        # Blocks no other download: each has an event loop of its own.
                        held.enter_context(self.budget.take(_COUNTED_BYTES))
                        counted += _COUNTED_BYTES
                    if len(body) > self._max_bytes:
                        raise ServiceError(
                            StatusCode.INPUT_OVER_LIMIT, f"more than {self._max_bytes} bytes"
                        )
                    await asyncio.sleep(0)  # where the time-out is noticed
            return bytes(body), None
        except ValueError as error:
            raise _failed(str(error)) from error
        finally:
            await response.aclose()

    def _address(self, host: str, port: int) -> str:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ServiceError(
                StatusCode.INPUT_INVALID_URL, f"cannot resolve {host}: {error}"
            ) from error
        addresses = [str(entry[4][0]) for entry in found]
        for text in addresses:
            scope = scope_of(text)
            if scope is AddressScope.LOOPBACK:
                allowed = self._allow_loopback
            else:
                allowed = self._allow_private or scope is AddressScope.PUBLIC
            if not allowed:
                raise ServiceError(
                    StatusCode.INPUT_INVALID_URL,
                    f"{host} is a private address, which this server does not fetch",
                )
        return addresses[0]


def _http_error(response: httpx.Response, url: httpx.URL) -> str:
    """What the service says of an address that answers with an error."""
    side = "Client" if response.is_client_error else "Server"
    where = url.copy_with(userinfo=b"")
    return f"{response.status_code} {side} Error: {response.reason_phrase} for url: {where}"


def _failed(reason: str) -> ServiceError:
    return ServiceError(StatusCode.INPUT_FAILED, f"the download failed: {reason}")
