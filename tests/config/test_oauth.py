"""OAuth2 client credentials of the client against the tokens of a local server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from clarigrpc import ClientCredentials, errors, image, v2
from clarigrpc.local import LocalServer
from tests.conftest import Connect
from tests.local.conftest import png
from tests.socket_server import kept_port

LIST = v2.ListInputsRequest()


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def short() -> Iterator[LocalServer]:
    """A server whose tokens live for a few seconds."""
    with LocalServer(rest_port=0, token_seconds=4) as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def connected(connect: Connect, server: LocalServer, transport: str, **credentials: Any) -> Any:
    oauth = ClientCredentials(
        **{
            "client_id": server.client_id,
            "client_secret": server.client_secret,
            "token_url": server.token_url,
            **credentials,
        }
    )
    base = server.base if transport == "grpc" else server.rest_base
    return connect(str(base), oauth=oauth, transport=transport, user_id="", app_id="")


async def test_calls_with_a_bearer_token(
    connect: Connect, server: LocalServer, transport: str
) -> None:
    both = connected(connect, server, transport)
    await both.call("ListInputs", LIST)
    model = both.client.model("color-recognition", user_id="clarifai", app_id="main")
    output = await both.run(model.predict, image(png("red")))
    assert output.data.concepts[0].name == "Red"


async def test_a_token_is_renewed_when_it_ends(
    connect: Connect, short: LocalServer, transport: str
) -> None:
    both = connected(connect, short, transport, leeway=3.3)
    loop = asyncio.get_running_loop()
    end = loop.time() + 30
    tokens: list[Any] = []
    while len(set(tokens)) < 2:
        await both.call("ListInputs", LIST)  # none fails, across the end of a token
        if (token := both.client.settings.credentials.cached()) is not None:
            tokens.append(token)
        assert loop.time() < end
        await asyncio.sleep(0.02)
    await both.call("ListInputs", LIST)


async def test_a_token_that_the_server_forgot_is_replaced(connect: Connect, transport: str) -> None:
    with kept_port() as port, kept_port() as rest_port:
        known: dict[str, Any] = {"client_id": "c", "client_secret": "s"}
        known |= {"port": port, "rest_port": rest_port}
        with LocalServer(**known) as first:
            both = connected(connect, first, transport)
            await both.call("ListInputs", LIST)
        with LocalServer(**known):
            with pytest.raises(errors.AuthenticationError):
                await both.call("ListInputs", LIST)
            await both.call("ListInputs", LIST)


async def test_a_wrong_secret(connect: Connect, server: LocalServer, transport: str) -> None:
    secret = "not-the-secret-0123456789"
    both = connected(connect, server, transport, client_secret=secret)
    with pytest.raises(errors.AuthenticationError, match="refused the client credentials") as found:
        await both.call("ListInputs", LIST)
    assert "invalid_client" in found.value.details
    for text in (str(found.value), repr(found.value), repr(both.client)):
        assert secret not in text
