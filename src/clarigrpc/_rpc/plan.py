"""One logic, sync and async: operations as plans that two drivers run.

A plan is a generator that yields what has to be waited for (a ``Call``, a ``Sleep``, a ``Run``)
and returns its result. Written once, it is run by a sync and by an async driver::

    def _get(self, input_id: str) -> Plan[v2.Input]:
        response = yield from call("GetInput", v2.GetInputRequest(input_id=input_id))
        return response.input

    class Inputs(InputOperations):      get = sync_method(InputOperations._get)
    class AsyncInputs(InputOperations): get = async_method(InputOperations._get)

A plan that yields ``Item`` objects becomes an iterator instead (a ``Listing``, an
``AsyncListing``), which also knows the ``PageInfo`` that the plan yielded last. The classes of
``clarigrpc._resources`` have their plans bound by the decorators of
``clarigrpc._resources.sync_async``, which apply these.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Protocol, Self, TypeVar

from clarigrpc._public_names import named_in

T = TypeVar("T")
P = ParamSpec("P")


class Call(NamedTuple):
    """Send a request and wait for its response, which the plan is sent.

    Attributes:
        method: Name of a method with one request and one response.
        request: Its request message, or the serialized form of one.
        timeout: Seconds; None: the client's.
        options: Further arguments of the multicallable (``idempotent=`` ...).
    """

    method: str
    request: Any
    timeout: float | None = None
    options: dict[str, Any] | None = None


class Sleep(NamedTuple):
    """Wait for so many seconds."""

    seconds: float


class Run(NamedTuple):
    """Call a function that reads or writes files; the plan is sent what it returns."""

    function: Callable[[], Any]


class Item(NamedTuple, Generic[T]):
    """Hand a value to whoever iterates."""

    value: T


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class PageInfo:
    """The page that the last item of a listing is from.

    Attributes:
        page: Its number, from 1.
        per_page: Maximum number of items on a page; 0 if the method has no pages.
        count: Number of items on this page.
        is_last: Whether no page comes after it. Where the service leaves it open, a full page is
            not taken for the last one.
        total: Number of items on all pages, as estimated by the service; None if it does not say.
        last_id: Id of the last item on the page, the cursor of ``inputs.stream``. Empty if there is
            none.
    """

    page: int
    per_page: int
    count: int
    is_last: bool
    total: int | None
    last_id: str


Plan = Generator[Call | Sleep | Run, Any, T]
ItemPlan = Generator[Call | Sleep | Run | Item[T] | PageInfo, Any, None]


class Resource(Protocol):
    """What a driver needs of the object whose method is a plan."""

    def _unary(self, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        """The multicallable of a method; ``encoded``: for requests that are serialized."""

    def _pause(self, seconds: float) -> Any:
        """Wait between calls; ``ClosedError`` when the client is closed. Async: to be awaited."""


def call(method: str, request: Any, *, timeout: float | None = None, **options: Any) -> Plan[Any]:
    """Yield a ``Call`` and return its response."""
    return (yield Call(method, request, timeout, options))


def _invoke(resource: Resource, step: Call) -> Any:
    multicallable = resource._unary(step.method, encoded=isinstance(step.request, bytes))
    return multicallable(step.request, timeout=step.timeout, **(step.options or {}))


class _PageHolder:
    """Keeps the page that a plan reached: apart from the iterator, which would hold itself."""

    page_info: PageInfo | None = None


def _drive(
    resource: Resource, steps: ItemPlan[T], reached: _PageHolder | None = None
) -> Generator[T, None, None]:
    """The sync driver."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Item):
                yield step.value
                step = next(steps)
                continue
            value = None
            try:
                if isinstance(step, Call):
                    value = _invoke(resource, step)
                elif isinstance(step, Run):
                    value = step.function()
                elif isinstance(step, PageInfo):
                    if reached is not None:
                        reached.page_info = step
                else:
                    resource._pause(step.seconds)
            except Exception as error:  # noqa: BLE001 - the plan decides about it
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration:
        return
    finally:
        steps.close()


async def _adrive(
    resource: Resource, steps: ItemPlan[T], reached: _PageHolder | None = None
) -> AsyncGenerator[T, None]:
    """The async driver."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Item):
                yield step.value
                step = next(steps)
                continue
            value = None
            try:
                if isinstance(step, Call):
                    value = await _invoke(resource, step)
                elif isinstance(step, Run):
                    value = await asyncio.to_thread(step.function)
                elif isinstance(step, PageInfo):
                    if reached is not None:
                        reached.page_info = step
                else:
                    await resource._pause(step.seconds)
            except Exception as error:  # noqa: BLE001 - the plan decides about it
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration:
        return
    finally:
        steps.close()


def _with_result(plan: Plan[T]) -> ItemPlan[T]:
    yield Item((yield from plan))


def documented(plan: Callable[..., Any], driven: Any, result: str) -> Any:
    """``driven`` with the name (less its underscore), the text and the signature of ``plan``.

    Args:
        plan: A function.
        driven: What runs it.
        result: The type that is returned instead, with ``{}`` for the argument of the plan's.
    """
    functools.update_wrapper(driven, plan)
    driven.__name__ = plan.__name__.removeprefix("_")
    driven.__qualname__ = driven.__qualname__.replace(plan.__name__, driven.__name__)
    signature = inspect.signature(plan)
    inner = str(signature.return_annotation).partition("[")[2].removesuffix("]")
    returned = result.format(inner)
    driven.__signature__ = signature.replace(return_annotation=returned)
    driven.__annotations__ = plan.__annotations__ | {"return": returned}
    return driven


def sync_method(
    plan: Callable[Concatenate[Any, P], Plan[T]],
) -> Callable[Concatenate[Any, P], T]:
    """The method that runs ``plan`` and blocks meanwhile."""

    def driven(self: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        for result in _drive(self, _with_result(plan(self, *args, **kwargs))):
            value = result
        return value

    return documented(plan, driven, "{}")  # type: ignore[no-any-return]


def async_method(
    plan: Callable[Concatenate[Any, P], Plan[T]],
) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """The method that runs ``plan`` and awaits meanwhile."""

    async def driven(self: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        async for result in _adrive(self, _with_result(plan(self, *args, **kwargs))):
            value = result
        return value

    return documented(plan, driven, "{}")  # type: ignore[no-any-return]


class _Paged:
    """An iterator that knows the page of its last item."""

    _reached: _PageHolder

    @property
    def page_info(self) -> PageInfo | None:
        """The page that the last item is from; None before the first page was fetched."""
        return self._reached.page_info


@named_in("clarigrpc.types")
class Listing(_Paged, Iterator[T]):
    """An iterator over items that the service lists page by page.

    A page is fetched when the iteration reaches its first item.
    """

    def __init__(self, resource: Resource, plan: ItemPlan[T]) -> None:
        self._reached = _PageHolder()
        self._items = _drive(resource, plan, self._reached)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """End the iteration. Further items are not fetched."""
        self._items.close()


@named_in("clarigrpc.types")
class AsyncListing(_Paged, AsyncIterator[T]):
    """An asynchronous iterator over items that the service lists page by page.

    A page is fetched when the iteration reaches its first item.
    """

    def __init__(self, resource: Resource, plan: ItemPlan[T]) -> None:
        self._reached = _PageHolder()
        self._items = _adrive(resource, plan, self._reached)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the iteration. Further items are not fetched."""
        await self._items.aclose()


def sync_iterator(
    plan: Callable[Concatenate[Any, P], ItemPlan[T]],
) -> Callable[Concatenate[Any, P], Listing[T]]:
    """The method that runs ``plan`` as an iterator of its items."""

    def driven(self: Any, *args: P.args, **kwargs: P.kwargs) -> Listing[T]:
        return Listing(self, plan(self, *args, **kwargs))

    return documented(plan, driven, "Listing[{}]")  # type: ignore[no-any-return]


def async_iterator(
    plan: Callable[Concatenate[Any, P], ItemPlan[T]],
) -> Callable[Concatenate[Any, P], AsyncListing[T]]:
    """The method that runs ``plan`` as an asynchronous iterator of its items."""

    def driven(self: Any, *args: P.args, **kwargs: P.kwargs) -> AsyncListing[T]:
        return AsyncListing(self, plan(self, *args, **kwargs))

    return documented(plan, driven, "AsyncListing[{}]")  # type: ignore[no-any-return]
