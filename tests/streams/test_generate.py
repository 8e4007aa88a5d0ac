"""Outputs while a model makes them, with both clients."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import errors, text, v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.scripted import Answer, Fail, ScriptedServer, refuse, reply
from tests.waiting import until

Code = v2.StatusCode
GENERATE = "GenerateModelOutputs"


class Slow:
    """Says one word at a time, the next only when it may."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.gone = threading.Event()

    def generate(self, prompt: str) -> Iterator[str]:
        try:
            for word in prompt.split():
                self.go.acquire(timeout=30)
                yield word
        finally:
            self.gone.set()


def token(raw: str, code: int = Code.SUCCESS) -> Any:
    status = v2.Status(code=code)  # type: ignore[arg-type]
    return v2.Output(data=v2.Data(text=v2.Text(raw=raw)), status=status)


def said(outputs: list[Any]) -> list[str]:
    return [output.data.text.raw for output in outputs]


async def test_outputs_one_by_one(connect: Connect) -> None:
    with LocalServer() as server:
        both = connect(server.base, pat=server.pat)
        model = both.client.model("text-stream", user_id="clarifai", app_id="main")
        assert said(await both.collect(model.generate(text("to be or")))) == ["to", " be", " or"]


async def test_the_first_output_does_not_wait_for_the_second(connect: Connect) -> None:
    model = Slow()
    with LocalServer(models={"slow": model}) as server:
        both = connect(server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id)
        model.go.release()
        stream = both.client.model("slow").generate(text("one two"))
        found: list[Any] = []
        reading = asyncio.ensure_future(both.collect(stream, found))
        async with asyncio.timeout(30):
            while not found:
                await asyncio.sleep(0.005)
        assert not reading.done()
        model.go.release()
        await reading
        assert len(found) == 2


async def test_cancel_reaches_the_model(connect: Connect) -> None:
    model = Slow()
    with LocalServer(models={"slow": model}) as server:
        both = connect(server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id)
        for _ in range(3):
            model.go.release()
        stream = both.client.model("slow").generate(text("one two three four"))
        found: list[Any] = []
        reading = asyncio.ensure_future(both.collect(stream, found))
        async with asyncio.timeout(30):
            while len(found) < 3:
                await asyncio.sleep(0.005)
        stream.cancel()
        with pytest.raises(errors.CancelledError):
            await asyncio.wait_for(reading, 20)
        model.go.release()
        assert await asyncio.to_thread(model.gone.wait, 30)


@pytest.mark.measures
async def test_the_deadline(both: Both, scripted: ScriptedServer) -> None:
    scripted.on(GENERATE, Answer([reply(GENERATE, outputs=[token("x")])], delay=5))
    started = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError):
        await both.collect(both.client.model("m").generate(text("a"), timeout=0.3))
    assert time.monotonic() - started < 2


async def test_a_failure_comes_after_the_outputs_before_it(
    both: Both, scripted: ScriptedServer
) -> None:
    tokens = [reply(GENERATE, outputs=[token(raw)]) for raw in "abc"]
    scripted.on(GENERATE, Answer(tokens, fail=Fail(grpc.StatusCode.UNAVAILABLE)))
    found: list[Any] = []
    with pytest.raises(errors.UnavailableError):
        await both.collect(both.client.model("m").generate(text("a")), found)
    assert said(found) == ["a", "b", "c"]


async def test_an_output_that_failed(both: Both, scripted: ScriptedServer) -> None:
    broken = refuse(GENERATE, Code.FAILURE, outputs=[token("", Code.MODEL_PREDICTION_FAILED)])
    scripted.on(GENERATE, [reply(GENERATE, outputs=[token("a")]), broken])
    found: list[Any] = []
    with pytest.raises(errors.ApiError) as caught:
        await both.collect(both.client.model("m").generate(text("a")), found)
    assert caught.value.code == Code.MODEL_PREDICTION_FAILED
    assert said(found) == ["a"]


async def test_cancel_while_it_waits_to_try_again(both: Both, scripted: ScriptedServer) -> None:
    again = Fail(grpc.StatusCode.UNAVAILABLE, trailing=[("retry-after", "15")])
    scripted.on(GENERATE, again)
    stream = both.client.model("m").generate(text("a"))
    reading = asyncio.ensure_future(both.collect(stream))
    await asyncio.to_thread(until, lambda: scripted.seen)
    await asyncio.sleep(0.2)
    stream.cancel()
    with pytest.raises(errors.CancelledError):
        await asyncio.wait_for(reading, 10)


@pytest.mark.measures
def test_no_thread_is_needed() -> None:
    with LocalServer() as server, server.client() as client:
        model = client.model("text-stream", user_id="clarifai", app_id="main")
        model.predict(text("warm"))
        before = threading.active_count()
        for _ in model.generate(text("a b c")):
            ours = [t for t in threading.enumerate() if "clarigrpc-local" not in t.name]
            assert len(ours) <= before
            assert not [t for t in ours if "consume" in t.name or "channel" in t.name]


async def test_over_rest(connect: Connect) -> None:
    with LocalServer(rest_port=0) as server:
        both = connect(server.rest_base, pat=server.pat, transport="rest")
        model = both.client.model("text-stream", user_id="clarifai", app_id="main")
        assert said(await both.collect(model.generate(text("to be")))) == ["to", " be"]
