"""What retries promise a program, against real servers that restart, are full, or fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from clarigrpc import Client, RetryPolicy, errors, text, v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import PAT, Connect
from tests.scripted import Fail, ScriptedServer
from tests.socket_server import kept_port

METHOD = "PostModelOutputs"
GOOD = v2.MultiOutputResponse(
    status=v2.Status(code=v2.StatusCode.SUCCESS),
    outputs=[v2.Output(status=v2.Status(code=v2.StatusCode.SUCCESS))],
)


def serve(answer: Callable[[Any, Any], Any], port: int, **options: Any) -> Any:
    """A server with one method."""
    server = grpc.server(ThreadPoolExecutor(80), options=[("grpc.so_reuseport", 0)], **options)
    handler = grpc.unary_unary_rpc_method_handler(
        answer, v2.PostModelOutputsRequest.FromString, v2.MultiOutputResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("clarifai.api.V2", {METHOD: handler})]
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


async def outcomes(both: Both, calls: int, at_once: int, timeout: float) -> Counter[str]:
    """How many calls ended how, made by so many callers."""
    model = both.client.model("m", user_id="u", app_id="a")
    left = iter(range(calls))
    found: Counter[str] = Counter()

    def one() -> None:
        for _ in left:
            try:
                model.predict(text("a"), timeout=timeout)
                found["ok"] += 1
            except errors.ApiError as error:
                found[f"{type(error).__name__}: {error}"] += 1

    async def one_async() -> None:
        for _ in left:
            try:
                await model.predict(text("a"), timeout=timeout)
                found["ok"] += 1
            except errors.ApiError as error:
                found[f"{type(error).__name__}: {error}"] += 1

    if both.is_sync:
        threads = [threading.Thread(target=one) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    else:
        await asyncio.gather(*(one_async() for _ in range(at_once)))
    return found


async def test_no_call_fails_when_the_server_restarts_twice(connect: Connect) -> None:
    def answer(request: Any, context: Any) -> Any:
        time.sleep(0.005)
        return GOOD

    with kept_port() as port:
        server = serve(answer, port)
        both = connect(f"http://127.0.0.1:{port}")
        calls = asyncio.create_task(outcomes(both, 2000, 64, 60))
        try:
            for _ in range(2):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.stop(None).wait)
                await asyncio.sleep(0.3)
                server = serve(answer, port)
            assert await calls == {"ok": 2000}
        finally:
            server.stop(None)


async def test_callers_wait_for_a_full_server(connect: Connect) -> None:
    def answer(request: Any, context: Any) -> Any:
        time.sleep(0.3)
        return GOOD

    with kept_port() as port:
        server = serve(answer, port, maximum_concurrent_rpcs=40)
        try:
            both = connect(f"http://127.0.0.1:{port}")
            assert await outcomes(both, 80, 80, 60) == {"ok": 80}
        finally:
            server.stop(None)


async def test_the_next_outage_is_bridged_after_ten(connect: Connect) -> None:
    with LocalServer() as server:
        both = connect(server.base, pat=server.pat)
        for _ in range(11):
            server.faults.unavailable_next = 3
            await both.run(both.client.inputs.status)


async def test_calls_that_fail_at_the_service_are_hardly_multiplied(
    connect: Connect, scripted: ScriptedServer
) -> None:
    scripted.always(METHOD, Fail(grpc.StatusCode.UNAVAILABLE, "overloaded"))
    both = connect(scripted.base, retry=RetryPolicy(initial_backoff=0.001))
    found = await outcomes(both, 300, 20, 10)
    assert set(found) & {"ok"} == set()
    assert len(scripted.seen) <= 1.2 * 300
    assert any("budget" in said for said in found)


@pytest.mark.parametrize("policy", [RetryPolicy(budget=None), RetryPolicy(budget_reserve=1000)])
async def test_the_budget_can_be_set(
    connect: Connect, scripted: ScriptedServer, policy: RetryPolicy
) -> None:
    scripted.always(METHOD, Fail(grpc.StatusCode.UNAVAILABLE, "overloaded"))
    both = connect(
        scripted.base,
        retry=RetryPolicy(
            initial_backoff=0.001, budget=policy.budget, budget_reserve=policy.budget_reserve
        ),
    )
    await outcomes(both, 30, 5, 10)
    assert len(scripted.seen) == 30 * 5


def test_the_budget_is_documented() -> None:
    assert "budget:" in (RetryPolicy.__doc__ or "")
    with Client(pat=PAT, base="http://127.0.0.1:1") as client:
        assert client.settings.retry.budget == 0.1


async def test_the_error_of_a_model_has_its_stack_trace(
    connect: Connect, scripted: ScriptedServer
) -> None:
    status = v2.Status(code=v2.StatusCode.FAILURE, details="boom", stack_trace=["a", "line 17"])
    scripted.always(METHOD, v2.MultiOutputResponse(status=status))
    both = connect(scripted.base)
    with pytest.raises(errors.ApiError, match="boom") as found:
        await both.run(both.client.model("m").predict, text("a"))
    assert found.value.stack_trace == "a\nline 17"
    assert found.value.status == status
