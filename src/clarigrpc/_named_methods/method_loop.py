"""The event loop on which the asynchronous methods of a user's model run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

from clarigrpc._named_methods.method_failures import CONTAINED, MethodExitError, error_text

T = TypeVar("T")

_ACTIVE_SECONDS = 0.2
"""How often it is asked whether the caller still waits."""
EXHAUSTED = object()
"""Stands for the end of an iterator where None may be an item."""

CLOSE_SECONDS = 2.0
"""How long a method may take to end once it is cancelled. What takes longer is left behind."""

StepFuture: TypeAlias = "Future[Any] | asyncio.Future[Any]"
"""Waits for the next item of an asynchronous generator, in a thread or on an event loop."""

logger = logging.getLogger("clarigrpc")


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

    def run(self, function: Callable[[], Awaitable[T]], is_active: Callable[[], bool]) -> T:
        """What a coroutine function returns; it is cancelled once the caller has gone.

        Raises:
            CallerGoneError: The caller has gone.
        """
        loop = self._started()
        future = asyncio.run_coroutine_threadsafe(_contained(function), loop)
        try:
            with CONTAINED:
                return _result(future, is_active)
        except CancelledError:
            raise CallerGoneError("the call has ended") from None
        finally:
            future.cancel()

    def iterate(self, items: AsyncGenerator[T, None], is_active: Callable[[], bool]) -> Iterator[T]:
        """The items of an asynchronous generator, which is closed at the end.

        Raises:
            CallerGoneError: The caller has gone.
        """
        loop = self._started()
        asked: asyncio.Queue[StepFuture | None] = asyncio.Queue()
        ended: Future[None] = Future()

        async def serve() -> None:
            try:
                await serve_steps(items, asked)
            except BaseException as error:
                ended.set_exception(
                    error if isinstance(error, Exception) else CallerGoneError("the call has ended")
                )
                raise
            ended.set_result(None)

        serving = asyncio.run_coroutine_threadsafe(serve(), loop)
        step: Future[Any] | None = None
        try:
            while True:
                step = Future()
                loop.call_soon_threadsafe(asked.put_nowait, step)
                if (item := _result(step, is_active)) is EXHAUSTED:
                    break
                yield item
        except CancelledError:
            raise CallerGoneError("the call has ended") from None
        finally:
            if step is not None and not step.done():
                serving.cancel()
            else:
                with contextlib.suppress(RuntimeError):  # the loop was closed, and it with it
                    loop.call_soon_threadsafe(asked.put_nowait, None)
            with contextlib.suppress(CallerGoneError, TimeoutError):
                ended.result(CLOSE_SECONDS)

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
            thread.join(CLOSE_SECONDS)
            if thread.is_alive():
                logger.warning("a method of the model does not end; its thread is left behind")

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=_serve, args=(loop,), name="clarigrpc-model", daemon=True
                )
                try:
                    thread.start()
                except BaseException:  # nobody would run what later calls give to the loop
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            return self._loop


async def serve_steps(
    items: AsyncGenerator[T, None], asked: asyncio.Queue[StepFuture | None]
) -> None:
    """Make the items of an asynchronous generator that are asked for, and close it; for a task.

    As one task makes them all, the generator keeps what belongs to its task from one item to the
    next: context variables, timeouts, task groups.

    Args:
        items: The generator.
        asked: A future for each item, which is EXHAUSTED at the end; None: no more are needed.
    """
    try:
        while (step := await asked.get()) is not None:
            try:
                with CONTAINED:
                    item = await anext(items, EXHAUSTED)
            except Exception as error:  # noqa: BLE001 - raised to whoever asked
                if not step.done():
                    step.set_exception(error)
            except GeneratorExit as error:  # of the method: nobody closes this coroutine
                step.set_exception(MethodExitError(f"the method raised {error_text(error)}"))
                return
            except BaseException:
                step.cancel()
                raise
            else:
                if not step.done():
                    step.set_result(item)
    finally:
        with CONTAINED:
            await items.aclose()


async def _contained(function: Callable[[], Awaitable[T]]) -> T:
    with CONTAINED:
        return await function()


def _result(future: Future[T], is_active: Callable[[], bool]) -> T:
    while True:
        try:
            return future.result(_ACTIVE_SECONDS)
        except TimeoutError:
            if future.done():  # just now, or with a TimeoutError of the method itself
                return future.result()
            if not is_active():
                raise CallerGoneError("the call has ended") from None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    # Cancels and awaits what is left when it ends.
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # Of a task that a method began; asyncio would end the loop for all others.
                logger.exception("a task of a model tried to end the process")
            else:
                return
