"""Several addresses and several connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import trustme

from clarigrpc import Client, errors, text
from clarigrpc._config.addresses import Target, parse_bases
from tests.bulk.service import METHOD, outputs, script
from tests.conftest import Connect
from tests.scripted import ScriptedServer
from tests.socket_server import kept_port

PAT = "x" * 20


@contextlib.contextmanager
def backends(count: int, **options: Any) -> Iterator[list[ScriptedServer]]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer(**options)) for _ in range(count)]
        for server in servers:
            server.always(METHOD, script(outputs))
        yield servers


async def wait_for_all(predict: Any, servers: list[ScriptedServer]) -> None:
    """Predict until every server was asked: gRPC connects to them one after the other."""
    async with asyncio.timeout(30):
        while not all(server.calls(METHOD) for server in servers):
            await predict(text("x"))


@pytest.mark.parametrize("how", ["single", "many"])
async def test_a_dying_backend_among_three_costs_no_predict(connect: Connect, how: str) -> None:
    with backends(3) as servers:
        both = connect([server.base for server in servers], timeout=20)
        model = both.client.model("m")

        async def predict(value: Any) -> Any:
            return await both.run(model.predict, value)

        await wait_for_all(predict, servers)

        async def kill() -> None:
            await asyncio.sleep(0.05)
            await asyncio.to_thread(servers[1].close)

        killing = asyncio.create_task(kill())
        if how == "single":
            for start in range(0, 300, 10):
                values = [text(str(start + number)) for number in range(10)]
                found = await asyncio.gather(*map(predict, values))
                assert [one.data.text.raw for one in found] == [one.data.text.raw for one in values]
        else:
            stream = model.predict_many((text(str(n)) for n in range(1500)), batch_size=5)
            results = await both.collect(stream)
            assert [result.index for result in results] == list(range(1500))
            assert not [result.error for result in results if result.error]
        await killing
        assert all(server.calls(METHOD) for server in servers)


async def test_all_addresses_of_a_name(connect: Connect) -> None:
    with backends(1) as (server,):
        for base in (f"dns:///localhost:{server.port}", [f"http://localhost:{server.port}"]):
            both = connect(base)
            output = await both.run(both.client.model("m").predict, text("a"))
            assert output.data.text.raw == "a"


async def test_addresses_with_tls(connect: Connect) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())]
    )
    with backends(2, credentials=credentials) as servers:
        both = connect(
            [server.base for server in servers], root_certificates=authority.cert_pem.bytes()
        )

        async def predict(value: Any) -> Any:
            return await both.run(both.client.model("m").predict, value)

        await wait_for_all(predict, servers)


def test_what_base_can_be() -> None:
    four = Target("10.0.0.1", 80, tls=True)
    six = Target("::1", 80, tls=True)
    assert parse_bases("https://10.0.0.1:80") == ((four,), False)
    assert parse_bases(["https://10.0.0.1:80"]) == ((four,), True)
    assert parse_bases(["10.0.0.1:80", "10.0.0.1:80"]) == ((four, four), True)
    assert parse_bases(["[::1]:80", "[::1]:80"]) == ((six, six), True)
    assert parse_bases("dns:///api.example") == ((Target("api.example", 443, tls=True),), True)
    assert parse_bases("dns:///localhost:1") == ((Target("localhost", 1, tls=False),), True)


@pytest.mark.parametrize(
    "base",
    [
        [],
        ["http://127.0.0.1:1", "https://127.0.0.1:2"],
        ["127.0.0.1:1", "[::1]:2"],
        ["api.example", "other.example"],
        ["127.0.0.1:1", ""],
        "dns:///",
        "dns:///a/b",
    ],
)
def test_what_base_cannot_be(base: Any) -> None:
    with pytest.raises(errors.ConfigurationError):
        parse_bases(base)


@pytest.mark.parametrize(
    "settings",
    [
        {"connections": 0},
        {"hedge": 1.0},
        {"hedge": 0.1},
        {"transport": "rest", "connections": 2},
        {"transport": "rest", "base": ["http://127.0.0.1:1", "http://127.0.0.1:2"]},
        {"base": ["http://127.0.0.1:1", "http://10.0.0.1:2"]},  # plaintext to another machine
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError):
        Client(pat=PAT, **({"base": "http://127.0.0.1:1"} | settings))


async def test_connections_are_used_round_robin(connect: Connect) -> None:
    peers = set()

    def peer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        peers.add(context.peer())
        yield outputs(next(requests))

    with backends(1) as (server,):
        server.always(METHOD, peer)
        server.always("GenerateModelOutputs", peer)
        both = connect(server.base, connections=3)
        model = both.client.model("m")
        for _ in range(6):
            await both.run(model.predict, text("a"))
        assert len(peers) == 3
        results = await both.collect(model.predict_many([text("a")] * 50, batch_size=5))
        assert not [result.error for result in results if result.error]
        request = server.seen[0].request
        for _ in range(3):
            assert len(await both.collect(both.open("GenerateModelOutputs", request))) == 1
        assert len(peers) == 3


async def test_waiting_for_a_connection(connect: Connect) -> None:
    with kept_port() as port:
        both = connect(f"http://127.0.0.1:{port}", wait_for_ready=True, timeout=20)
        call = asyncio.create_task(both.run(both.client.model("m").predict, text("a")))
        await asyncio.sleep(0.3)
        with backends(1, port=port):
            assert (await call).data.text.raw == "a"
