"""A predict that is slower than most is sent a second time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import errors, text
from clarigrpc._transports.hedging import Latencies
from tests.bulk.service import METHOD, outputs, script
from tests.conftest import Connect
from tests.transports.test_balancing import backends


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
