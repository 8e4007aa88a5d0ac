"""The proxies that the environment names, as httpx reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clarigrpc.errors import ConfigurationError


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
