"""Models that are still being deployed: every way to predict waits, loses and doubles nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from clarigrpc import RetryPolicy, errors, text, v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.scripted import ScriptedServer, refuse, reply

SECONDS = 0.6
Code = v2.StatusCode


class Ears:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def predict(self, prompt: str) -> str:
        self.heard.append(prompt)
        return prompt

    def generate(self, prompt: str) -> Iterator[str]:
        yield self.predict(prompt)

    def stream(self, prompts: Iterator[str]) -> Iterator[str]:
        yield from map(self.predict, prompts)


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def server(ears: Ears) -> Iterator[LocalServer]:
    with LocalServer(models={"ears": ears}) as server:
        server.faults.deploy_seconds = SECONDS
        yield server


@pytest.fixture
def local(connect: Connect, server: LocalServer) -> Both:
    return connect(
        server.base,
        pat=server.pat,
        user_id=server.user_id,
        app_id=server.app_id,
        stream_timeout=20,
        retry=RetryPolicy(max_backoff=0.3),
    )


@pytest.mark.parametrize("drain_first", [False, True])
async def test_stream(
    local: Both,
    server: LocalServer,
    ears: Ears,
    caplog: pytest.LogCaptureFixture,
    drain_first: bool,
) -> None:
    server.faults.drain_first = drain_first
    wanted = [f"w{number}" for number in range(100)]
    started = time.monotonic()
    with caplog.at_level(logging.INFO, "clarigrpc"):
        model = local.client.model("ears")
        stream = model.stream((text(word) for word in wanted), drain_first=drain_first)
        found = [one.data.parts[0].data.string_value for one in await local.collect(stream)]
    assert time.monotonic() - started >= SECONDS
    assert found == wanted
    assert ears.heard == wanted
    assert "21351 MODEL_DEPLOYING" in caplog.text


async def test_generate(local: Both, ears: Ears, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "clarigrpc"):
        assert len(await local.collect(local.client.model("ears").generate(text("a")))) == 1
    assert ears.heard == ["a"]
    assert "MODEL_DEPLOYING" in caplog.text


async def test_predict(local: Both, ears: Ears, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "clarigrpc"):
        await local.run(local.client.model("ears").predict, text("a"))
    assert ears.heard == ["a"]
    assert "MODEL_DEPLOYING" in caplog.text


async def test_call(local: Both, ears: Ears) -> None:
    model = local.client.model("ears")
    if local.is_sync:
        found = await asyncio.to_thread(lambda: list(model.call("stream", prompts=["a", "b"])))
    else:
        found = [one async for one in model.call("stream", prompts=["a", "b"])]
    assert found == ears.heard == ["a", "b"]


@pytest.mark.parametrize(
    "code",
    [
        Code.MODEL_DEPLOYING,
        Code.MODEL_NOT_DEPLOYED,
        Code.MODEL_LOADING,
        Code.MODEL_BUSY_PLEASE_RETRY,
    ],
)
async def test_its_relatives(both: Both, scripted: ScriptedServer, code: int) -> None:
    method = "StreamModelOutputs"

    def not_yet(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        next(requests)
        yield refuse(method, code)

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            status = v2.Status(code=Code.SUCCESS)
            yield reply(method, outputs=[v2.Output(status=status, input=request.inputs[0])])

    scripted.on(method, not_yet, not_yet, serve)
    values = [text(str(number), id=str(number)) for number in range(40)]
    found = await both.collect(both.client.model("m").stream(values))
    assert [one.input.id for one in found] == [str(number) for number in range(40)]


async def test_a_source_that_waits_loses_nothing(server: LocalServer, ears: Ears) -> None:
    """The value that an attempt was waiting for when it ended goes to the next one."""

    async def values() -> AsyncIterator[v2.Input]:
        for number in range(5):
            yield text(str(number))
            await asyncio.sleep(0.2)

    async with server.async_client() as client:
        found = [one async for one in client.model("ears").stream(values())]
    assert len(found) == 5
    assert ears.heard == ["0", "1", "2", "3", "4"]


def test_a_source_that_waits_loses_nothing_blocking(server: LocalServer, ears: Ears) -> None:
    def values() -> Iterator[v2.Input]:
        for number in range(5):
            yield text(str(number))
            time.sleep(0.2)

    with server.client() as client:
        assert len(list(client.model("ears").stream(values()))) == 5
    assert ears.heard == ["0", "1", "2", "3", "4"]


@pytest.mark.measures
async def test_it_ends_at_the_deadline(local: Both, server: LocalServer, ears: Ears) -> None:
    server.faults.deploy_seconds = 60
    started = time.monotonic()
    # The second one where the deadline falls into the last attempt, and not into a wait.
    with pytest.raises((errors.NotReadyError, errors.DeadlineExceededError)):
        await local.collect(local.client.model("ears").stream([text("a")], timeout=0.8))
    assert time.monotonic() - started < 1.5
    assert ears.heard == []


async def test_cancel_while_it_waits(local: Both, server: LocalServer) -> None:
    server.faults.deploy_seconds = 60
    stream = local.client.model("ears").stream([text("a")])
    reading = asyncio.ensure_future(local.collect(stream))
    await asyncio.sleep(0.5)
    stream.cancel()
    with pytest.raises(errors.CancelledError):
        await asyncio.wait_for(reading, 10)
