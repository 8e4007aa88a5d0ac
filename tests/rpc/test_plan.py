"""Plans, and the two drivers that run them."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest

from clarigrpc._rpc.plan import (
    Item,
    ItemPlan,
    Plan,
    Sleep,
    async_iterator,
    async_method,
    sync_iterator,
    sync_method,
)
from clarigrpc._rpc.plan import call as step


class Multicallable:
    """Answers a request with ``answer(request)``, blocking or awaiting."""

    def __init__(self, method: str, *, encoded: bool, awaited: bool) -> None:
        self.method = method
        self.encoded = encoded
        self.awaited = awaited

    def __call__(self, request: Any, *, timeout: float | None, **options: Any) -> Any:
        answer = self._later if self.awaited else self._now
        return answer(request, timeout, options)

    async def _later(self, *call: Any) -> Any:
        await asyncio.sleep(0)
        return self._now(*call)

    def _now(self, request: Any, timeout: float | None, options: Any) -> Any:
        if request == "fail":
            raise ValueError("it failed")
        return (self.method, self.encoded, request, timeout, options)


class Operations:
    awaited = False

    def __init__(self) -> None:
        self.closed: list[str] = []

    def _unary(self, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        return Multicallable(method, encoded=encoded, awaited=self.awaited)

    def _pause(self, seconds: float) -> Any:
        return (asyncio.sleep if self.awaited else time.sleep)(seconds)

    def _two(self, first: Any, *, timeout: float | None = None) -> Plan[list[Any]]:
        """Ask twice."""
        one = yield from step("One", first, timeout=timeout)
        two = yield from step("Two", b"bytes", option=1)
        return [one, two]

    def _nothing(self) -> Plan[None]:
        """Ask nobody."""
        return None
        yield

    def _sleep(self, seconds: float) -> Plan[str]:
        yield Sleep(seconds)
        return "slept"

    def _recover(self) -> Plan[str]:
        try:
            yield from step("One", "fail")
        except ValueError as error:
            yield from step("Two", "fine")
            return f"recovered: {error}"
        return "no failure"

    def _fail(self) -> Plan[str]:
        yield from step("One", "fail")
        return "not reached"

    def _count(self, upto: int) -> ItemPlan[int]:
        """Count."""
        try:
            for number in range(upto):
                yield from step("One", number)
                yield Item(number)
                if number == 3:
                    raise KeyError(number)
        finally:
            self.closed.append("count")


class Sync(Operations):
    two = sync_method(Operations._two)
    nothing = sync_method(Operations._nothing)
    sleep = sync_method(Operations._sleep)
    recover = sync_method(Operations._recover)
    fail = sync_method(Operations._fail)
    count = sync_iterator(Operations._count)


class Async(Operations):
    awaited = True
    two = async_method(Operations._two)
    nothing = async_method(Operations._nothing)
    sleep = async_method(Operations._sleep)
    recover = async_method(Operations._recover)
    fail = async_method(Operations._fail)
    count = async_iterator(Operations._count)


@pytest.fixture(params=[Sync, Async])
def resource(request: pytest.FixtureRequest) -> Any:
    return request.param()


async def result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def following(items: Any) -> Any:
    """The next item of an iterator of either kind, or None at its end."""
    return await anext(items, None) if hasattr(items, "__anext__") else next(items, None)


async def test_calls_and_their_results(resource: Any) -> None:
    assert await result(resource.two("first", timeout=5)) == [
        ("One", False, "first", 5, {}),
        ("Two", True, b"bytes", None, {"option": 1}),
    ]


async def test_a_plan_without_a_step(resource: Any) -> None:
    assert await result(resource.nothing()) is None


@pytest.mark.measures
async def test_sleeping(resource: Any) -> None:
    began = time.monotonic()
    assert await result(resource.sleep(0.05)) == "slept"
    assert 0.04 < time.monotonic() - began < 1


async def test_a_plan_decides_about_failures(resource: Any) -> None:
    assert await result(resource.recover()) == "recovered: it failed"
    with pytest.raises(ValueError, match="it failed"):
        await result(resource.fail())


async def test_items(resource: Any) -> None:
    items = resource.count(3)
    assert [await following(items) for _ in range(4)] == [0, 1, 2, None]
    assert resource.closed == ["count"]


async def test_an_iteration_that_is_left_is_closed(resource: Any) -> None:
    items = resource.count(10)
    assert await following(items) == 0
    await result(items.aclose() if hasattr(items, "aclose") else items.close())
    assert resource.closed == ["count"]


async def test_an_error_of_the_plan_comes_after_its_items(resource: Any) -> None:
    items = resource.count(10)
    assert [await following(items) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError):
        await following(items)
    assert resource.closed == ["count"]


def test_names_texts_and_signatures() -> None:
    for owner, returned in ((Sync, "list[Any]"), (Async, "list[Any]")):
        two: Any = owner.two
        assert two.__name__ == "two"
        assert two.__doc__ == "Ask twice."
        assert list(inspect.signature(two).parameters) == ["self", "first", "timeout"]
        assert inspect.signature(two).return_annotation == returned
    assert inspect.signature(Sync.count).return_annotation == "Listing[int]"
    assert inspect.signature(Async.count).return_annotation == "AsyncListing[int]"
    assert asyncio.iscoroutinefunction(Async.two)
    assert not asyncio.iscoroutinefunction(Sync.two)


async def test_cancelling_closes_the_plan() -> None:
    closed: list[bool] = []

    class Slow(Operations):
        awaited = True

        def _wait(self) -> Plan[None]:
            try:
                yield Sleep(60)
            finally:
                closed.append(True)

        wait = async_method(_wait)

    task = asyncio.ensure_future(Slow().wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]
