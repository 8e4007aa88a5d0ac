"""The proxies that the environment names, for httpx."""

from __future__ import annotations

import importlib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clarigrpc._config.addresses import Target
from clarigrpc.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx


def proxy_for(url: str) -> httpx.Proxy | None:
    """The proxy that calls to a server go through, None for none.

    Read from HTTPS_PROXY or HTTP_PROXY by the scheme of the server's URL, ALL_PROXY and NO_PROXY.
    Servers on this machine have none.

    Raises:
        ConfigurationError: It cannot be used.
    """
    import httpx

    server = httpx.URL(url)
    if Target(server.host, 0, tls=False).is_loopback or urllib.request.proxy_bypass(server.host):
        return None
    proxies = urllib.request.getproxies()
    address = proxies.get(server.scheme) or proxies.get("all")
    if not address:
        return None
    with environment_proxies():
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
        if proxy.url.scheme.startswith("socks"):
            importlib.import_module("socksio")  # httpcore would miss it at the first call
    return proxy


@contextmanager
def environment_proxies() -> Iterator[None]:
    """Make a client of httpx, which reads the variables.

    Raises:
        ConfigurationError: It cannot use a proxy that they name.
    """
    import httpx

    try:
        yield
    except (httpx.InvalidURL, ValueError, ImportError) as error:
        raise unusable_proxy(error) from None  # its frames may hold the proxy's password


def unusable_proxy(error: Exception) -> ConfigurationError:
    """The error for what httpx raised; its text does not quote the address."""
    return ConfigurationError(
        "the proxy of the environment (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) cannot be used: "
        f"{' '.join(str(error).split())}"
    )
