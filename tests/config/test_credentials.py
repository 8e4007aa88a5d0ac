"""Credentials as the server sees them, and OAuth2 tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest

from clarigrpc import Client, ClientCredentials, errors, v2
from tests.both import ClientKind
from tests.conftest import Connect
from tests.scripted import Answer, ScriptedServer, reply
from tests.socket_server import server_that
from tests.waiting import until

GET = v2.GetModelRequest(model_id="m")
SECRET = "the-client-secret-0123456789"


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"pat": "p-0123456789ab"}, "authorization", "Key p-0123456789ab"),
        ({"api_key": "k-0123456789ab"}, "authorization", "Key k-0123456789ab"),
        ({"session_token": "t-0123456789ab"}, "x-clarifai-session-token", "t-0123456789ab"),
    ],
)
async def test_static_credentials(
    connect: Connect, scripted: ScriptedServer, given: dict[str, str], key: str, value: str
) -> None:
    both = connect(scripted.base, **given)
    scripted.on("GetModel", reply("GetModel"))
    await both.call("GetModel", GET)
    assert scripted.seen[0].metadata[key] == value
    other = {"authorization", "x-clarifai-session-token"} - {key}
    assert not other & scripted.seen[0].metadata.keys()


async def test_a_callable_is_asked_for_every_call(
    connect: Connect, scripted: ScriptedServer
) -> None:
    asked: list[str] = []

    def auth() -> list[tuple[str, str]]:
        asked.append(threading.current_thread().name)
        return [("Authorization", f"Custom {len(asked)}"), ("x-tenant", "t")]

    both = connect(scripted.base, auth=auth)
    scripted.on("GetModel", reply("GetModel"), reply("GetModel"))
    for _ in range(2):
        await both.call("GetModel", GET)
    assert [seen.metadata["authorization"] for seen in scripted.seen] == ["Custom 1", "Custom 2"]
    assert scripted.seen[0].metadata["x-tenant"] == "t"
    # On asyncio it must not block the loop; nobody knows what it does.
    assert threading.main_thread().name not in asked


async def test_a_callable_that_fails(connect: Connect, scripted: ScriptedServer) -> None:
    def auth() -> list[tuple[str, str]]:
        raise OSError("no vault")

    both = connect(scripted.base, auth=auth)
    with pytest.raises(OSError, match="no vault"):
        await both.call("GetModel", GET)


@pytest.mark.parametrize("client_kind", ["async"])
async def test_a_call_ends_in_time_where_the_loop_has_no_thread_to_ask_for_credentials(
    connect: Connect, scripted: ScriptedServer, client_kind: ClientKind
) -> None:
    both = connect(scripted.base, auth=lambda: [("authorization", "Key s")])
    over = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(over.wait, 60)
        try:
            with pytest.raises(errors.DeadlineExceededError, match="credentials"):
                call = both.call("GetModel", GET, timeout=0.1)
                await asyncio.wait_for(call, 30)
        finally:
            over.set()
    (counted,) = both.client.stats().methods.values()
    assert counted.errors == {"DeadlineExceededError": 1}
    assert not scripted.seen


@pytest.mark.parametrize(
    "returned", [None, 5, {"authorization": "Key s3cr3t"}, [("authorization",)], "Key s3cr3t"]
)
async def test_what_is_no_metadata_is_refused_without_a_word_of_it(
    connect: Connect, scripted: ScriptedServer, returned: Any
) -> None:
    both = connect(scripted.base, auth=lambda: returned)
    with pytest.raises(errors.ConfigurationError, match="a list of") as caught:
        await both.call("GetModel", GET)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    assert not scripted.seen


async def test_a_callable_that_returns_nonsense(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, auth=lambda: [("authorization", 5)])
    with pytest.raises(errors.ConfigurationError, match="no string for 'authorization'"):
        await both.call("GetModel", GET)


@pytest.mark.parametrize("pair", [("authorization", "two\nlines"), ("a key", "x")])
async def test_a_callable_that_returns_what_metadata_cannot_carry(
    connect: Connect, scripted: ScriptedServer, pair: tuple[str, str]
) -> None:
    both = connect(scripted.base, auth=lambda: [("authorization", "Key s3cr3t"), pair])
    with pytest.raises(errors.InvalidArgumentError, match="metadata") as caught:
        await both.call("GetModel", GET)
    assert "s3cr3t" not in str(caught.value)


async def test_a_callable_and_streams(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, auth=lambda: [("authorization", "Custom")])
    method = "StreamModelOutputs"
    scripted.on(method, [reply(method)])
    scripted.on("GenerateModelOutputs", [reply("GenerateModelOutputs")])
    request = v2.PostModelOutputsRequest()
    assert len(await both.collect(both.open(method, [request]))) == 1
    assert len(await both.collect(both.open("GenerateModelOutputs", request))) == 1
    assert {seen.metadata["authorization"] for seen in scripted.seen} == {"Custom"}


class Tokens:
    """An OAuth2 token endpoint.

    Attributes:
        requests: The form fields of every request.
        lifetime: ``expires_in`` of the tokens it hands out.
        delay: Seconds before it answers.
        status: HTTP status; other than 200 it refuses.
        answer: What it says instead of a token.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, list[str]]] = []
        self.lifetime = 3600.0
        self.delay = 0.0
        self.status = 200
        self.answer: dict[str, Any] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                outer.requests.append(parse_qs(body))
                time.sleep(outer.delay)
                answer = outer.answer or {
                    "access_token": f"token-{len(outer.requests)}",
                    "token_type": "Bearer",
                    "expires_in": outer.lifetime,
                }
                content = json.dumps(answer).encode()
                self.send_response(outer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # the client went away
                    self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/token/"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def credentials(self, **settings: Any) -> ClientCredentials:
        return ClientCredentials("the-id", SECRET, token_url=self.url, **settings)


@pytest.fixture
def tokens() -> Iterator[Tokens]:
    server = Tokens()
    yield server
    server.close()


Bearers = Callable[[], list[str]]


@pytest.fixture
def bearers(scripted: ScriptedServer) -> Bearers:
    scripted.always("GetModel", reply("GetModel"))
    return lambda: [seen.metadata["authorization"] for seen in scripted.seen]


async def test_a_token_is_fetched_once_and_shared(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens, bearers: Bearers
) -> None:
    tokens.delay = 0.1
    both = connect(scripted.base, oauth=tokens.credentials())
    await asyncio.gather(*[both.call("GetModel", GET) for _ in range(12)])
    await both.call("GetModel", GET)
    assert bearers() == ["Bearer token-1"] * 13
    (form,) = tokens.requests
    assert form == {
        "grant_type": ["client_credentials"],
        "client_id": ["the-id"],
        "client_secret": [SECRET],
    }


def test_a_token_is_shared_by_many_threads(
    scripted: ScriptedServer, tokens: Tokens, bearers: Bearers
) -> None:
    tokens.delay = 0.1
    with (
        Client(oauth=tokens.credentials(), base=scripted.base) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        list(pool.map(client.v2.GetModel, [GET] * 64))
    assert bearers() == ["Bearer token-1"] * 64
    assert len(tokens.requests) == 1


async def test_a_token_is_renewed_before_it_expires(
    connect: Connect,
    scripted: ScriptedServer,
    tokens: Tokens,
    bearers: Bearers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("clarigrpc._config.credentials.time", clock)
    tokens.lifetime = 3
    both = connect(scripted.base, oauth=tokens.credentials(leeway=1.5))
    await both.call("GetModel", GET)
    now[0] = 1.4
    await both.call("GetModel", GET)
    now[0] = 1.6  # 1.4 s before it expires
    await both.call("GetModel", GET)
    assert bearers() == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


async def test_refused_client_credentials(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens
) -> None:
    tokens.status, tokens.answer = 401, {"error": "invalid_client"}
    both = connect(scripted.base, oauth=tokens.credentials())
    with pytest.raises(errors.AuthenticationError, match="refused the client credentials") as found:
        await both.call("GetModel", GET)
    assert "invalid_client" in found.value.details
    assert SECRET not in str(found.value)
    tokens.status, tokens.answer = 200, None
    scripted.on("GetModel", reply("GetModel"))
    await both.call("GetModel", GET)  # a failure is not remembered


async def test_an_endpoint_that_repeats_the_secret(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens
) -> None:
    tokens.status = 401
    tokens.answer = {"error": "invalid_client", "error_description": f"{SECRET} is wrong"}
    both = connect(scripted.base, oauth=tokens.credentials())
    with pytest.raises(errors.AuthenticationError, match="<secret> is wrong") as found:
        await both.call("GetModel", GET)
    assert SECRET not in str(found.value) + repr(found.value)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"hello": 1}, 200),
        ({"access_token": "x"}, 200),
        ({"access_token": None, "expires_in": 3600}, 200),
        ({"access_token": "x", "expires_in": 10**400}, 200),
        ({"access_token": "x", "expires_in": float("inf")}, 200),
        ({"access_token": "x", "expires_in": float("nan")}, 200),
        ({"a": 1}, 302),
        ({"a": 1}, 500),
    ],
)
async def test_an_endpoint_that_hands_out_no_token(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens, answer: Any, status: int
) -> None:
    tokens.answer, tokens.status = answer, status
    both = connect(scripted.base, oauth=tokens.credentials())
    with pytest.raises(errors.AuthenticationError, match=f"no access token from {tokens.url}") as e:
        await both.call("GetModel", GET)
    assert e.value.retryable is (status == 500)
    assert scripted.seen == []


async def test_a_token_that_lives_shorter_than_the_leeway(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens
) -> None:
    tokens.lifetime = 30
    both = connect(scripted.base, oauth=tokens.credentials(leeway=60))
    with pytest.raises(errors.AuthenticationError, match="smaller leeway"):
        await both.call("GetModel", GET)


async def test_no_endpoint(connect: Connect, scripted: ScriptedServer, tokens: Tokens) -> None:
    both = connect(scripted.base, oauth=tokens.credentials())
    tokens.server.server_close()
    with pytest.raises(errors.AuthenticationError, match="no access token from") as caught:
        await both.call("GetModel", GET)
    assert caught.value.retryable


async def test_an_endpoint_that_answers_byte_by_byte_is_given_up_at_the_deadline(
    connect: Connect, scripted: ScriptedServer
) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while not over.wait(0.05):
            connection.sendall(b"a")

    with server_that(drip) as port:
        url = f"http://127.0.0.1:{port}/token"
        both = connect(scripted.base, oauth=ClientCredentials("i", SECRET, token_url=url))
        try:
            with pytest.raises(errors.DeadlineExceededError):
                await asyncio.wait_for(both.call("GetModel", GET, timeout=0.5), 20)
        finally:
            over.set()


def variables(error: BaseException | None) -> Iterator[str]:
    """The variables of all frames that an exception and those that led to it remember."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if f"{os.sep}tests{os.sep}" not in frame.f_code.co_filename:
                yield from (f"{name}={value!r}" for name, value in frame.f_locals.items())
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "answer",
    [
        "nobody",
        "late",
        {"error": "invalid_client", "error_description": f"{SECRET} is wrong"},
        {"hello": SECRET},
        {"access_token": f"{SECRET}-token", "token_type": "Bearer", "expires_in": 1},
        {"access_token": f"{SECRET}-\N{SNOWMAN}", "token_type": "Bearer", "expires_in": 999},
    ],
)
async def test_no_frame_shows_a_secret(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens, answer: Any
) -> None:
    both = connect(scripted.base, oauth=tokens.credentials(timeout=0.3), retry=None)
    if answer == "nobody":
        tokens.server.server_close()
    elif answer == "late":
        tokens.delay = 0.6
    else:
        tokens.answer = answer
    with pytest.raises(errors.ClarigrpcError) as caught:
        await both.call("GetModel", GET, timeout=2)
    assert not [found for found in variables(caught.value) if SECRET in found]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClientCredentials("i", SECRET, leeway="x"),  # type: ignore[arg-type]
        lambda: ClientCredentials(5, SECRET),  # type: ignore[arg-type]
        lambda: Client(pat=SECRET, base="nonsense//"),
        lambda: Client(oauth=ClientCredentials("i", SECRET), api_key=SECRET),
        lambda: Client(session_token=f"{SECRET} x"),
        lambda: Client(pat=SECRET, timeout=-1),
    ],
)
def test_no_frame_of_a_refused_option_shows_a_secret(make: Callable[[], object]) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        make()
    assert not [found for found in variables(caught.value) if SECRET in found]


def test_no_frame_of_a_broken_config_file_or_environment_shows_a_secret(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / ".config" / "clarifai" / "config"
    path.parent.mkdir(parents=True)
    path.write_text(f"current_context: a\ncontexts: {{a: {{CLARIFAI_API_KEY: {SECRET}}}}}")
    monkeypatch.setenv("CLARIFAI_PAT", SECRET)
    monkeypatch.setenv("CLARIFAI_SESSION_TOKEN", SECRET)
    for options in ({"context": "typo"}, {}, {"context": "a", "base": "nonsense//"}):
        with pytest.raises(errors.ConfigurationError) as caught:
            Client(**options)  # type: ignore[arg-type]
        assert not [found for found in variables(caught.value) if SECRET in found]


@pytest.mark.parametrize("client_kind", ["async"])
@pytest.mark.measures
async def test_fetching_a_token_does_not_block_the_loop(
    client_kind: ClientKind,
    connect: Connect,
    scripted: ScriptedServer,
    tokens: Tokens,
    bearers: Bearers,
) -> None:
    # The first of a process also imports what it needs, which may take longer than the bound.
    await connect(scripted.base, oauth=tokens.credentials()).call("GetModel", GET)
    tokens.delay = 0.5
    both = connect(scripted.base, oauth=tokens.credentials())
    call = asyncio.ensure_future(both.call("GetModel", GET))
    gaps: list[float] = []
    while not call.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        gaps.append(time.monotonic() - before)
    await call
    assert len(gaps) > 10
    assert max(gaps) < 0.4
    assert bearers() == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.measures
async def test_fetching_a_token_counts_towards_the_deadline(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens
) -> None:
    tokens.delay = 0.8
    scripted.always("GetModel", reply("GetModel"))
    both = connect(scripted.base, oauth=tokens.credentials())
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError):
        await both.call("GetModel", GET, timeout=0.2)
    assert time.monotonic() - began < 2


async def test_streams_get_a_token(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens
) -> None:
    both = connect(scripted.base, oauth=tokens.credentials())
    method = "GenerateModelOutputs"
    scripted.on(method, [reply(method)])
    assert await both.collect(both.open(method, v2.PostModelOutputsRequest()))
    assert scripted.seen[0].metadata["authorization"] == "Bearer token-1"


@pytest.mark.measures
async def test_what_a_callable_takes_counts_towards_the_deadline(
    connect: Connect, scripted: ScriptedServer
) -> None:
    def auth() -> list[tuple[str, str]]:
        time.sleep(1)
        return [("authorization", "x")]

    scripted.on("GetModel", Answer([reply("GetModel")], delay=5))
    both = connect(scripted.base, auth=auth)
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError):
        await both.call("GetModel", GET, timeout=1.3)
    assert time.monotonic() - began < 2.1


@pytest.mark.measures
async def test_who_waits_for_another_s_token_waits_within_the_deadline(
    connect: Connect, scripted: ScriptedServer, tokens: Tokens, bearers: Bearers
) -> None:
    tokens.delay = 1.5
    both = connect(scripted.base, oauth=tokens.credentials())
    patient = asyncio.ensure_future(both.call("GetModel", GET))
    await asyncio.to_thread(until, lambda: tokens.requests)
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError, match="no access token from"):
        await both.call("GetModel", GET, timeout=0.2)
    assert time.monotonic() - began < 1
    await patient
    assert bearers() == ["Bearer token-1"]
