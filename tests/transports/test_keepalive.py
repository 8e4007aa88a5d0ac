"""A peer that falls silent in the middle of a call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from clarigrpc import errors
from clarigrpc._transports import grpc_transport
from clarigrpc.local import LocalServer
from tests.both import Both, ClientKind
from tests.faults.proxy import FaultProxy


def echo(words: str) -> str:
    return words


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(models={"echo": echo}) as running:
        yield running


@pytest.mark.measures
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_peer_that_falls_silent(
    server: LocalServer, kind: ClientKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed after the time of the pings and the time to answer one, not at the deadline."""
    shorter = tuple((name, value // 60) for name, value in grpc_transport._KEEPALIVE)
    monkeypatch.setattr(grpc_transport, "_KEEPALIVE", shorter)
    host, _, port = server.address.rpartition(":")
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(host, int(port)))
        settings = {"pat": server.pat, "user_id": server.user_id, "app_id": server.app_id}
        both = Both(kind, base=proxy.base, retry=False, timeout=40, **settings)
        stack.push_async_callback(both.run, both.client.close)
        model = both.client.model("echo")
        await both.run(model.call, "predict", words="a")
        proxy.blackhole()
        began = time.monotonic()
        with pytest.raises(errors.UnavailableError):
            await both.run(model.call, "predict", words="b")
        assert time.monotonic() - began < 30
