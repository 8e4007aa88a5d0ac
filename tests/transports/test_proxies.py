"""Proxies of the environment: traffic to this machine does not go through them."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import ClientCredentials, RetryPolicy, errors, v2
from clarigrpc._config.environment_proxies import proxy_for
from clarigrpc._resources import downloads
from tests.conftest import Connect
from tests.socket_server import server_that

GET = v2.GetModelRequest(model_id="m")
SECRET = "the-secret-0123456789abcdef"
VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "grpc_proxy")
ONCE = RetryPolicy(max_attempts=1)
HERE = ("127.0.0.1", "127.0.0.2", "localhost", "x.localhost", "LocalHost", "[::1]")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What the proxy of the environment has been told. It answers nobody."""
    told: list[bytes] = []

    with server_that(lambda connection: told.append(connection.recv(65536))) as port:
        for name in VARIABLES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield told


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("host", HERE)
async def test_plaintext_for_this_machine_stays_here(
    connect: Connect, proxied: list[bytes], transport: str, host: str
) -> None:
    both = connect(f"http://{host}:9", pat=SECRET, transport=transport, retry=ONCE)
    with pytest.raises(errors.ClarigrpcError):
        await both.call("GetModel", GET, timeout=3)
    assert proxied == []


@pytest.mark.parametrize("host", HERE)
async def test_client_secrets_for_this_machine_stay_here(
    connect: Connect, proxied: list[bytes], host: str
) -> None:
    oauth = ClientCredentials("id", SECRET, token_url=f"http://{host}:9/v1/token/", timeout=3)
    both = connect("http://127.0.0.1:9", oauth=oauth, retry=ONCE)
    with pytest.raises(errors.ClarigrpcError):
        await both.call("GetModel", GET, timeout=3)
    assert proxied == []


@pytest.mark.parametrize("transport", ["grpc", "rest"])
async def test_a_trusted_network_may_have_a_proxy(
    connect: Connect, proxied: list[bytes], transport: str
) -> None:
    both = connect(
        "http://192.0.2.1:80", pat=SECRET, transport=transport, allow_plaintext=True, retry=ONCE
    )
    with pytest.raises(errors.ClarigrpcError):
        await both.call("GetModel", GET, timeout=3)
    assert proxied


@pytest.mark.parametrize(
    ("server", "variables", "proxy"),
    [
        ("https://h.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://h.example", {"https_proxy": "p:1"}, "http://p:1"),
        ("https://h.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://h.example", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("https://h.example", {"all_proxy": "http://p:1"}, "http://p:1"),
        (
            "https://h.example",
            {"all_proxy": "http://q:1", "https_proxy": "http://p:1"},
            "http://p:1",
        ),
        ("https://h.example", {"https_proxy": ""}, None),
        ("https://h.example", {"https_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("https://a.h.example", {"https_proxy": "http://p:1", "no_proxy": "b, h.example"}, None),
        (
            "https://ah.example",
            {"https_proxy": "http://p:1", "no_proxy": "h.example"},
            "http://p:1",
        ),
        ("https://127.0.0.1:8", {"https_proxy": "http://p:1"}, None),
    ],
)
def test_which_proxy_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, server: str, variables: dict[str, str], proxy: str | None
) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxy_for(server)
    assert (found and str(found.url)) == proxy


@pytest.mark.parametrize(
    "proxy",
    ["http://user:{}@host:bad", "http://user:{}@[::1", "socks5://user:{}@h:9", "ftp://user:{}@h:9"],
)
@pytest.mark.parametrize("oauth", [False, True])
async def test_a_proxy_that_cannot_be_used_is_told(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str, oauth: bool
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.format(SECRET))
    settings: dict[str, Any] = {"pat": SECRET, "transport": "rest"}
    if oauth:
        settings = {
            "oauth": ClientCredentials("id", "secret", token_url="https://token.example/token")
        }
    both = connect("https://h.example", retry=ONCE, **settings)
    with pytest.raises(errors.ConfigurationError, match="the proxy of the environment") as caught:
        await both.call("GetModel", GET, timeout=3)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("host", HERE)
def test_downloads_from_this_machine_stay_here(
    proxied: list[bytes], host: str, tmp_path: Path
) -> None:
    url = f"http://{host}:9/export?signature={SECRET}"
    with pytest.raises(errors.UnavailableError) as caught:
        downloads.fetch(
            url, tmp_path / "x", size=0, deadline=time.monotonic() + 5, local=False, method="M"
        )
    assert proxied == []
    assert SECRET not in str(caught.value)
