"""The event loop on which the asynchronous methods of a user's model run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, TimeoutError
from functools import partial
from typing import Any, TypeVar

from clarigrpc._named_methods.method_exits import EXHAUSTED

_logger = logging.getLogger("clarigrpc")

T = TypeVar("T")

_ACTIVE_SECONDS = 0.2
"""How often it is asked whether the caller still waits."""


class CallerGoneError(Exception):
    """Nobody waits for the result of a method any more."""


class ModelLoop:
    """Runs coroutines on one event loop, in a thread that begins with the first of them.

    All methods of a model share it, so that what they keep (connections, locks) belongs to one
    loop. It is for threads without an event loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T], is_active: Callable[[], bool]) -> T:
        """What a coroutine returns; it is cancelled once the caller has gone.

        Raises:
            CallerGoneError: The caller has gone.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        while True:
            try:
                return future.result(_ACTIVE_SECONDS)
            except TimeoutError:
                if (
                    future.done() and not future.cancelled()
                ):  # just now, or with a TimeoutError of the coroutine itself
                    return future.result()
                if not is_active():
                    future.cancel()
            except CancelledError:
                raise CallerGoneError("the call has ended") from None

    def iterate(self, items: AsyncIterator[T], is_active: Callable[[], bool]) -> Iterator[T]:
        """The items of an asynchronous generator, which is closed at the end."""

        async def following() -> Any:
            return await anext(items, EXHAUSTED)

        async def close() -> None:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

        try:
            while (item := self.run(following(), is_active)) is not EXHAUSTED:
                yield item
        finally:
            with contextlib.suppress(CallerGoneError):
                self.run(close(), lambda: True)

    async def each(self, items: Iterator[T]) -> AsyncIterator[T]:
        """The items of an iterator that blocks, for a coroutine on the loop."""
        # A thread for each: with shared ones, conversations that are silent hold up others.
        thread = ThreadPoolExecutor(1, thread_name_prefix="clarigrpc-model-stream")
        ask = partial(asyncio.get_running_loop().run_in_executor, thread, next, items, EXHAUSTED)
        try:
            while (item := await ask()) is not EXHAUSTED:
                yield item  # type: ignore[misc]
        finally:
            thread.shutdown(wait=False)

    def close(self) -> None:
        """Cancels what runs, and ends the thread. The loop can be used again."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="clarigrpc-model", daemon=True
                )
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    # Cancels and awaits what is left when it ends.
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # Of a task that a method began; asyncio would end the loop for all others.
                _logger.exception("a task of a model tried to end the process")
            else:
                return
