"""Proxies of the environment: traffic to this machine does not go through them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from clarigrpc import ClientCredentials, RetryPolicy, errors, v2
from tests.conftest import Connect

GET = v2.GetModelRequest(model_id="m")
SECRET = "the-secret-0123456789abcdef"
VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "grpc_proxy")
ONCE = RetryPolicy(max_attempts=1)
HERE = ("127.0.0.1", "127.0.0.2", "localhost", "x.localhost", "LocalHost", "[::1]")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What the proxy of the environment has been told. It answers nobody."""
    told: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(1)
                    with contextlib.suppress(OSError):
                        told.append(connection.recv(65536))

    thread = threading.Thread(target=serve)
    thread.start()
    for name in VARIABLES:
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield told
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


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
