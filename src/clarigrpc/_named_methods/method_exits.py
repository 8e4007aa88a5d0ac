"""What a method of a user raises to end its process, as an error of the method.

``sys.exit()`` in a method would end the thread or the event loop that serves it, and its caller
would wait in vain. The main thread is left alone: what is raised there may come from a signal.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

EXHAUSTED = object()
"""Stands for the end of an iterator where None may be an item."""


class MethodExitError(RuntimeError):
    """A method raised what is to end a process, a thread or a generator."""


@contextmanager
def exits_as_errors(*, in_coroutine: bool = False) -> Iterator[None]:
    """Run code of a user.

    Args:
        in_coroutine: Whether the block awaits, and so may itself be cancelled or closed.

    Raises:
        MethodExitError: The block raised what is no ``Exception``.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if in_coroutine and isinstance(error, asyncio.CancelledError | GeneratorExit):
            raise
        if threading.current_thread() is threading.main_thread():
            raise
        raise MethodExitError(f"the method raised {type(error).__name__}({error})") from error


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose call raises MethodExitError."""

    @wraps(function)
    def call(**arguments: Any) -> Any:
        with exits_as_errors():
            return function(**arguments)

    return call


def guarded_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """An asynchronous function that raises MethodExitError."""

    @wraps(function)
    async def call(**arguments: Any) -> Any:
        with exits_as_errors(in_coroutine=True):
            return await function(**arguments)

    return call


def guarded_async_generator(function: Callable[..., Any]) -> Callable[..., Any]:
    """An asynchronous generator function whose generators raise MethodExitError."""

    @wraps(function)
    async def iterate(**arguments: Any) -> AsyncGenerator[Any, None]:
        items = function(**arguments)
        try:
            while True:
                with exits_as_errors(in_coroutine=True):
                    item = await anext(items, EXHAUSTED)
                if item is EXHAUSTED:
                    return
                yield item
        finally:
            await items.aclose()

    return iterate


def guarded_items(items: Iterable[Any]) -> Iterator[Any]:
    """The items of an iterable, which raises MethodExitError."""
    with exits_as_errors():
        iterator = iter(items)
    try:
        while (item := next_item(iterator)) is not EXHAUSTED:
            yield item
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            with exits_as_errors():
                close()


def next_item(iterator: Iterator[Any]) -> Any:
    """The next item, or EXHAUSTED.

    Raises:
        MethodExitError: The iterator raised what is no ``Exception``.
    """
    with exits_as_errors():
        return next(iterator, EXHAUSTED)
