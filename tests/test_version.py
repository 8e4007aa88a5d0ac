"""The version, which is written down once."""

from __future__ import annotations

import asyncio
import re
import socket
from importlib.metadata import version

import pytest

import clarigrpc
from clarigrpc import RetryPolicy, errors, v2
from tests.conftest import Connect
from tests.scripted import ScriptedServer, reply

REQUEST = v2.GetModelRequest(model_id="m")


def test_of_the_package_and_of_the_installation() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc|\.dev)\d+)?", clarigrpc.__version__)
    assert clarigrpc.__version__ == version("clarigrpc")


async def test_user_agent_over_grpc(connect: Connect, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", reply("GetModel"))
    await connect(scripted.base).call("GetModel", REQUEST)
    first, second = scripted.seen[0].metadata["user-agent"].split()[:2]
    assert first == f"clarigrpc/{clarigrpc.__version__}"
    assert second.startswith("grpc-python")


async def test_user_agent_over_rest(connect: Connect) -> None:
    def headers() -> bytes:
        connection, _ = server.accept()
        connection.settimeout(30)
        with connection:
            found = b""
            while b"\r\n\r\n" not in found:
                found += (received := connection.recv(65536))
                assert received, f"the end after {found!r}"
        return found.lower()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        accepted = asyncio.create_task(asyncio.to_thread(headers))
        base = f"http://127.0.0.1:{server.getsockname()[1]}"
        both = connect(base, transport="rest", retry=RetryPolicy(max_attempts=1), timeout=10)
        with pytest.raises(errors.UnavailableError):
            await both.call("GetModel", REQUEST)
        expected = f"\r\nuser-agent: clarigrpc-rest/{clarigrpc.__version__}\r\n"
        assert expected.encode() in await accepted
