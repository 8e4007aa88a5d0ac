"""Limits of the local server, and how the client lives with them, over gRPC and REST."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import RetryPolicy, errors, text, v2
from clarigrpc.local import Limits, LocalServer
from tests.conftest import Connect

Code = v2.StatusCode
LIST = v2.ListInputsRequest()
NO_RETRY = RetryPolicy(max_attempts=1)
ECHO = {"echo": lambda text: text}

Limited = Callable[..., LocalServer]


@pytest.fixture
def limited() -> Iterator[Limited]:
    """Starts servers with limits."""
    running: list[LocalServer] = []

    def start(limits: Limits | None = None, **settings: Any) -> LocalServer:
        running.append(LocalServer(rest_port=0, limits=limits, **settings).start())
        return running[-1]

    yield start
    for server in running:
        server.close(grace=0.2)


@pytest.fixture(params=["grpc", "rest"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def connected(connect: Connect, server: LocalServer, transport: str, **settings: Any) -> Any:
    base = server.base if transport == "grpc" else server.rest_base
    settings.setdefault("pat", server.pat)
    return connect(str(base), transport=transport, timeout=20, **settings)


async def test_too_many_requests_are_told_how_long_to_wait(
    connect: Connect, limited: Limited, transport: str
) -> None:
    server = limited(Limits(requests="3/minute"))
    both = connected(connect, server, transport, retry=NO_RETRY)
    for _ in range(3):
        await both.call("ListInputs", LIST)
    with pytest.raises(errors.RateLimitError) as found:
        await both.call("ListInputs", LIST)
    assert found.value.code == Code.CONN_THROTTLED
    assert found.value.retryable
    assert found.value.retry_after is not None
    assert 50 < found.value.retry_after <= 60
    assert "3 per 1 minute" in found.value.details


@pytest.mark.measures
async def test_the_client_waits_as_told(connect: Connect, limited: Limited, transport: str) -> None:
    server = limited(Limits(requests="4/second"))
    both = connected(connect, server, transport)
    began = time.monotonic()
    await asyncio.gather(*(both.call("ListInputs", LIST) for _ in range(6)))
    # The last two wait for a second window.
    assert 0.8 < time.monotonic() - began < 15


@pytest.mark.measures
async def test_what_may_not_be_repeated_is_told_and_not_done(
    connect: Connect, limited: Limited, transport: str
) -> None:
    server = limited(Limits(requests="1/minute"))
    both = connected(connect, server, transport)
    request = v2.PostInputsRequest()
    request.inputs.add(id="one").data.text.raw = "x"
    await both.call("PostInputs", request)
    request.inputs[0].id = "two"
    began = time.monotonic()
    with pytest.raises(errors.RateLimitError) as found:
        await both.call("PostInputs", request)
    assert found.value.retry_after is not None
    assert time.monotonic() - began < 3


@pytest.mark.measures
async def test_it_does_not_wait_past_the_deadline(
    connect: Connect, limited: Limited, transport: str
) -> None:
    server = limited(Limits(requests="1/minute"))
    both = connected(connect, server, transport, retry=RetryPolicy(max_retry_after=3600))
    await both.call("ListInputs", LIST)
    began = time.monotonic()
    with pytest.raises(errors.RateLimitError):
        await both.call("ListInputs", LIST, timeout=5)
    assert time.monotonic() - began < 3


@pytest.mark.measures
async def test_a_quota_counts_inputs_and_waiting_is_no_help(
    connect: Connect, limited: Limited, transport: str
) -> None:
    server = limited(Limits(inputs="5/month"), models=ECHO)
    both = connected(connect, server, transport, user_id=server.user_id, app_id=server.app_id)
    model = both.client.model("echo")
    for count in (3, 2):
        assert len(await both.run(model.predict, [text("x")] * count)) == count
    began = time.monotonic()
    with pytest.raises(errors.QuotaExceededError) as found:
        await both.run(model.predict, text("x"))
    assert found.value.code == Code.CONN_EXCEED_MONTHLY_LIMIT
    assert not found.value.retryable
    assert time.monotonic() - began < 3
    await both.call("ListInputs", LIST)  # which predicts nothing


async def test_what_was_refused_is_not_counted(
    connect: Connect, limited: Limited, transport: str
) -> None:
    server = limited(Limits(inputs="5/month"), models=ECHO)
    both = connected(connect, server, transport, user_id=server.user_id, app_id=server.app_id)
    model = both.client.model("echo")
    with pytest.raises(errors.QuotaExceededError) as found:
        await both.run(model.predict, [text("x")] * 6)
    assert found.value.retry_after is None  # six never fit
    assert len(await both.run(model.predict, [text("x")] * 5)) == 5


@pytest.mark.parametrize(
    ("window", "code", "error"),
    [
        ("1/hour", Code.CONN_EXCEED_HOURLY_LIMIT, errors.RateLimitError),
        ("1/day", Code.CONN_EXCEEDS_LIMITS, errors.QuotaExceededError),
        ("1/month", Code.CONN_EXCEED_MONTHLY_LIMIT, errors.QuotaExceededError),
    ],
)
async def test_long_windows_have_codes_of_their_own(
    connect: Connect, limited: Limited, transport: str, window: str, code: int, error: Any
) -> None:
    both = connected(connect, limited(Limits(requests=window)), transport)
    await both.call("ListInputs", LIST)
    with pytest.raises(error) as found:
        await both.call("ListInputs", LIST)
    assert found.value.code == code


async def test_calls_at_the_same_time(connect: Connect, limited: Limited, transport: str) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()

    def slow(text: str) -> str:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(timeout=20)
        return text

    server = limited(Limits(concurrent=1), models={"slow": slow})
    settings = {"user_id": server.user_id, "app_id": server.app_id}
    both = connected(connect, server, transport, retry=NO_RETRY, **settings)
    running = asyncio.ensure_future(both.run(both.client.model("slow").predict, text("x")))
    await asyncio.wait_for(entered.wait(), 10)
    with pytest.raises(errors.RateLimitError) as found:
        await both.call("ListInputs", LIST)
    assert (found.value.code, found.value.retry_after) == (Code.CONN_THROTTLED, 1.0)
    release.set()
    await running
    await both.call("ListInputs", LIST)


@pytest.mark.parametrize("transport", ["grpc"])
async def test_streams_are_counted_by_their_requests(
    connect: Connect, limited: Limited, transport: str
) -> None:
    server = limited(Limits(inputs="3/month", concurrent=1), models=ECHO)
    both = connected(connect, server, transport, user_id=server.user_id, app_id=server.app_id)
    requests = []
    for _ in range(4):
        requests.append(v2.PostModelOutputsRequest(model_id="echo"))
        requests[-1].inputs.add().data.text.raw = "x"
    answered: list[Any] = []
    with pytest.raises(errors.QuotaExceededError):
        await both.collect(both.open("StreamModelOutputs", requests), answered)
    assert len(answered) == 3
    # The stream has ended and counts no more.
    await both.call("ListInputs", LIST)


async def test_users_have_limits_of_their_own(connect: Connect, limited: Limited) -> None:
    users = [{"id": name, "pat": f"pat-of-{name}", "apps": [{"id": "a"}]} for name in ("ann", "bo")]
    server = limited(config={"users": users, "limits": {"requests": "1/hour"}})
    for name in ("ann", "bo"):
        both = connected(connect, server, "grpc", pat=f"pat-of-{name}")
        await both.call("ListInputs", LIST)
        with pytest.raises(errors.RateLimitError, match=name):
            await both.call("ListInputs", LIST)


def test_the_headers(limited: Limited) -> None:
    server = limited(Limits(requests="2/minute; 100/hour"))
    headers = {"authorization": f"Key {server.pat}"}
    with httpx.Client(base_url=str(server.rest_base), headers=headers) as http:
        answers = [http.get("/v2/inputs") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    left = [answer.headers.get("x-ratelimit-remaining-requests") for answer in answers]
    assert left == ["1", "0", None]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    wait = float(answers[2].headers["x-throttle-wait-seconds"])
    assert 50 < wait <= 60
    assert wait <= int(answers[2].headers["retry-after"]) < wait + 1
    assert answers[2].json()["status"]["code"] == Code.CONN_THROTTLED


def test_the_first_api_generation_is_throttled_alike(limited: Limited) -> None:
    server = limited(Limits(requests="1/minute"))
    form = {"grant_type": "client_credentials"}
    known = (server.client_id, server.client_secret)
    with httpx.Client(base_url=str(server.rest_base)) as http:
        token = http.post("/v1/token/", data=form, auth=known).json()["access_token"]
        headers = {"authorization": f"Bearer {token}"}
        image = {"url": "http://127.0.0.1:1/x.png"}
        last = http.get("/v1/tag/", params=image, headers=headers)
        assert last.status_code == 400
        assert last.headers["x-ratelimit-remaining-requests"] == "0"
        answer = http.get("/v1/tag/", params=image, headers=headers)
    assert answer.status_code == 429
    assert answer.json()["status_code"] == "THROTTLED"
    assert 50 < int(answer.headers["x-throttle-wait-seconds"]) <= 60
    assert answer.headers["retry-after"] == answer.headers["x-throttle-wait-seconds"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": "ten/second"},
        {"requests": "0/second"},
        {"inputs": 5},
        {"concurrent": 0},
        {"concurrent": "many"},
        {"speed": "10/second"},
        ["requests"],
    ],
)
def test_limits_that_are_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match="limits"):
        LocalServer(config={"limits": wrong})


@given(
    requests=st.lists(
        st.tuples(
            st.integers(1, 10_000), st.sampled_from(["second", "minute", "hour", "day", "month"])
        ),
        max_size=3,
    ),
    concurrent=st.none() | st.integers(1, 100),
)
def test_limits_as_options(requests: list[tuple[int, str]], concurrent: int | None) -> None:
    windows = "; ".join(f"{count}/{unit}" for count, unit in requests)
    options = [f"requests={windows}"] if windows else []
    options += [f"concurrent={concurrent}"] if concurrent else []
    assert Limits.parse(options) == Limits(requests=windows, concurrent=concurrent)
