"""Addresses to listen on: also those of IPv6."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clarigrpc import Client, errors
from clarigrpc.local import LocalServer

_needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")


@_needs_ipv6
def test_ipv6() -> None:
    with LocalServer(host="::1", rest_port=0) as server:
        assert server.base == f"http://[::1]:{server.port}"
        assert server.address == f"[::1]:{server.port}"
        assert (server.rest_base or "").startswith("http://[::1]:")
        for transport in ("grpc", "rest"):
            with server.client(transport=transport) as client:
                assert client.inputs.status().processed == 0


@_needs_ipv6
def test_a_port_in_use_is_named_with_its_host() -> None:
    with LocalServer(host="::1") as server:
        second = LocalServer(host="::1", port=server.port)
        with pytest.raises(OSError, match=rf"cannot listen on \[::1\]:{server.port}"):
            second.start()


@pytest.fixture
def path() -> Iterator[str]:
    """Of a Unix domain socket, which takes some hundred bytes only."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield f"{folder}/s"


async def test_a_unix_domain_socket(path: str) -> None:
    with LocalServer(host=f"unix:{path}") as server:
        assert server.base == server.address == f"unix:{path}"
        with server.client() as client:
            assert client.inputs.status().processed == 0
        async with server.async_client() as awaiting:
            assert (await awaiting.inputs.status()).processed == 0
        with pytest.raises(OSError, match="another server listens there"):
            LocalServer(host=f"unix:{path}").start()
        with server.client() as client:  # it was not taken away
            assert client.inputs.status().processed == 0
    assert not Path(path).exists()


def test_what_a_killed_server_left_is_taken_over(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with LocalServer(host=f"unix:{path}") as server, server.client() as client:
        assert client.inputs.status().processed == 0


def test_what_is_no_unix_domain_socket() -> None:
    with pytest.raises(ValueError, match="use an IP address as host"):
        LocalServer(host="unix:/tmp/s", rest_port=0)
    with pytest.raises(ValueError, match="no absolute path"):
        LocalServer(host="unix:s")
    with pytest.raises(ValueError, match="write it as unix:/tmp/s"):
        LocalServer(host="/tmp/s")
    with pytest.raises(errors.ConfigurationError, match="no absolute path"):
        Client(base="unix:s", pat="p" * 20)
    with pytest.raises(errors.ConfigurationError, match="needs transport='grpc'"):
        Client(base="unix:/tmp/s", pat="p" * 20, transport="rest")


@pytest.mark.parametrize("name", ["port", "rest_port"])
@pytest.mark.parametrize("number", [-1, 65536, 70000])
def test_a_port_out_of_range_is_refused(name: str, number: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} has to be 0 to 65535, not {number}$"):
        LocalServer(**{name: number})  # type: ignore[arg-type]


def test_an_empty_data_folder_is_not_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="data_dir is an empty path"):
        LocalServer(data_dir="")
    assert not list(tmp_path.iterdir())
