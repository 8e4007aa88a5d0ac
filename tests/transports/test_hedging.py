"""A predict that is slower than most is sent a second time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import errors, text, v2
from clarigrpc._transports.hedging import Latencies
from tests.both import Both, ClientKind
from tests.bulk.service import METHOD, outputs, script
from tests.conftest import Connect
from tests.scripted import Answer, ScriptedServer, reply, when_ended
from tests.transports.test_balancing import backends
from tests.waiting import until


@pytest.mark.measures
async def test_a_slow_predict_is_sent_twice(connect: Connect) -> None:
    with backends(1) as (server,):
        both = connect(server.base, hedge=0.9)
        model = both.client.model("m")
        for _ in range(40):
            await both.run(model.predict, text("a"))
        before = len(server.seen)
        assert before <= 50  # the reserve of the budget, where the machine itself was slow

        def slow(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            (request,) = requests
            end = time.monotonic() + 5
            while context.is_active() and time.monotonic() < end:
                time.sleep(0.01)
            yield outputs(request)

        server.on(METHOD, slow)
        began = time.monotonic()
        output = await both.run(model.predict, text("b"))
        assert output.data.text.raw == "b"
        assert time.monotonic() - began < 3
        assert len(server.seen) == before + 2


async def test_the_retry_budget_caps_second_requests(connect: Connect) -> None:
    with backends(1) as (server,):
        both = connect(server.base, hedge=0.9)
        model = both.client.model("m")
        for _ in range(20):
            await both.run(model.predict, text("a"))

        def slower(request: Any) -> Any:
            time.sleep(0.05)
            return outputs(request)

        server.always(METHOD, script(slower))
        before = len(server.seen)
        for _ in range(40):
            await both.run(model.predict, text("a"))
        assert len(server.seen) - before <= 40 + 20 + 4 + 1


async def test_errors_pass_through_a_hedge(connect: Connect) -> None:
    with backends(1) as (server,):
        both = connect(server.base, hedge=0.5)
        model = both.client.model("m")
        for _ in range(20):
            await both.run(model.predict, text("a"))

        def silent(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            (request,) = requests
            while context.is_active():
                time.sleep(0.01)
            yield outputs(request)

        server.always(METHOD, silent)
        with pytest.raises(errors.DeadlineExceededError):
            await both.run(model.predict, text("a"), timeout=0.5)


PREDICT = v2.PostModelOutputsRequest(model_id="m")


async def hedging(connect: Connect, server: ScriptedServer, latency: float = 0.0) -> Both:
    """A client that knows how long predictions take."""
    both = connect(server.base, hedge=0.5)
    server.on(METHOD, *[Answer([reply(METHOD)], delay=latency)] * 20)
    await asyncio.gather(*[both.call(METHOD, PREDICT) for _ in range(20)])
    server.seen.clear()
    return both


@pytest.mark.parametrize("once", [{"idempotent": False}, {"retry": False}], ids=str)
@pytest.mark.parametrize("options", [{}, {"compression": grpc.Compression.Gzip}], ids=str)
async def test_what_may_be_sent_once_only_is_not_hedged(
    connect: Connect, scripted: ScriptedServer, once: dict[str, Any], options: dict[str, Any]
) -> None:
    both = await hedging(connect, scripted)
    scripted.always(METHOD, Answer([reply(METHOD)], delay=0.3))
    await both.call(METHOD, PREDICT, **once, **options)
    assert len(scripted.seen) == 1
    scripted.seen.clear()

    def together(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        list(requests)
        until(lambda: len(scripted.seen) == 2)
        yield reply(METHOD)

    scripted.always(METHOD, together)
    await both.call(METHOD, PREDICT, timeout=30, **options)
    assert len(scripted.seen) == 2


@pytest.mark.parametrize("client_kind", ["async"])
async def test_cancelling_a_hedged_call_ends_both_requests(
    client_kind: ClientKind, connect: Connect, scripted: ScriptedServer
) -> None:
    both = await hedging(connect, scripted)
    ended: list[bool] = []

    def silent(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        list(requests)
        over = threading.Event()
        when_ended(context, over.set)
        ended.append(over.wait(30))
        yield reply(METHOD)

    scripted.always(METHOD, silent)
    call = both.client.v2.PostModelOutputs(PREDICT, timeout=60)

    async def wait() -> Any:
        return await call

    waiting = asyncio.ensure_future(wait())
    await asyncio.to_thread(until, lambda: len(scripted.seen) == 2)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.cancelled()
    await asyncio.to_thread(until, lambda: ended == [True, True])


@pytest.mark.parametrize("client_kind", ["async"])
async def test_a_hedged_call_that_is_awaited_late_ends_at_its_deadline(
    client_kind: ClientKind, connect: Connect, scripted: ScriptedServer
) -> None:
    both = await hedging(connect, scripted, latency=0.1)
    scripted.always(METHOD, Answer([reply(METHOD)], delay=20))
    call = both.client.v2.PostModelOutputs(PREDICT, timeout=3)
    await asyncio.sleep(1)
    with pytest.raises(errors.DeadlineExceededError):
        await call
    assert scripted.seen[-1].seconds_left < 2.5
    assert len(scripted.seen) == 2


def test_latencies() -> None:
    latencies = Latencies(0.9)
    for number in range(19):
        latencies.add(number)
    assert latencies.threshold is None
    latencies.add(19)
    assert latencies.threshold == 18
    for _ in range(200):
        latencies.add(1.0)
    assert latencies.threshold == 1.0
