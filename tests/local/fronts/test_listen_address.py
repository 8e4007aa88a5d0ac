"""Addresses to listen on: also those of IPv6."""

from __future__ import annotations

import socket

import pytest

from clarigrpc.local import LocalServer

pytestmark = pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")


def test_ipv6() -> None:
    with LocalServer(host="::1", rest_port=0) as server:
        assert server.base == f"http://[::1]:{server.port}"
        assert server.address == f"[::1]:{server.port}"
        assert (server.rest_base or "").startswith("http://[::1]:")
        for transport in ("grpc", "rest"):
            with server.client(transport=transport) as client:
                assert client.inputs.status().processed == 0


def test_a_port_in_use_is_named_with_its_host() -> None:
    with LocalServer(host="::1") as server:
        second = LocalServer(host="::1", port=server.port)
        with pytest.raises(OSError, match=rf"cannot listen on \[::1\]:{server.port}"):
            second.start()
