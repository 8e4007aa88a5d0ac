"""The sync and the async driver of ``predict_many``: they send, wait and read the source."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any

from clarigrpc import errors
from clarigrpc._bulk.predict_engine import LINGER, PredictBatch, PredictEngine, PredictResult
from clarigrpc._progress_bar import Bar

ASYNC_LINGER = 0.01
"""``LINGER`` for an async source, which is known to have no value ready."""

_SLOW_VALUE_SECONDS = 0.001
"""A source that takes longer than this for a value is not read on before other work is done."""

StartCall = Callable[[bytes], Any]
"""Starts a call with a serialized request; returns its future."""


class _Calls:
    """The calls in flight, the source and the progress bar of a run."""

    def __init__(self, engine: PredictEngine, start: StartCall, bar: Bar | None) -> None:
        self.running: dict[Any, PredictBatch] = {}
        # Raised after the results of the values that the source gave before.
        self.source_error: Exception | None = None
        self._engine = engine
        self._start = start
        self._bar = bar

    def send(self, watch: Callable[[Any], None]) -> None:
        """Send the batches that may be sent now; ``watch`` is called with each call."""
        engine = self._engine
        while (batch := engine.take(time.monotonic())) is not None:
            try:
                call = self._start(engine.encode(batch))
            except errors.ApiError as error:  # e.g. no token for the credentials
                engine.failed(batch, error, time.monotonic())
                continue
            self.running[call] = batch
            watch(call)

    def settle(self, call: Any) -> None:
        """Tell the engine how a call has ended."""
        batch = self.running.pop(call)
        try:
            response = call.result()
        except errors.PartialFailureError as error:
            response = error.response
        except errors.ApiError as error:
            self._engine.failed(batch, error, time.monotonic())
            return
        self._engine.responded(batch, response, time.monotonic())

    def read(self, source: Iterator[Any], until: Callable[[], bool]) -> None:
        """Read the source for at most ``LINGER`` seconds, until the engine wants no more values.

        Args:
            source: The values.
            until: Checked between values; true ends reading.
        """
        engine, clock = self._engine, time.monotonic
        now = began = asked = clock()
        while (room := engine.room) and now - began < LINGER and not until():
            for _ in range(room):
                try:
                    value = next(source)
                except StopIteration:
                    engine.exhausted()
                    return
                except Exception as error:  # noqa: BLE001 - raised by check()
                    self.source_failed(error)
                    return
                now = clock()
                engine.add(value, now)
                if now - asked > _SLOW_VALUE_SECONDS:
                    break
            asked = now

    def source_failed(self, error: Exception) -> None:
        """The source raised an error, and so has ended."""
        error.add_note(
            f"predict_many: raised by the source after {self._engine.taken} values, which ends it. "
            "Give it the paths themselves, predict_many(paths), or inputs that are made without an "
            "error: what cannot be read is then a failed result among the others."
        )
        self.source_error = error
        self._engine.exhausted()

    def show(self) -> None:
        """Update the progress bar."""
        if self._bar is not None:
            self._bar.update(self._engine.handed, self._engine.failures)

    def check(self) -> None:
        """Raise the error of the source, if there is one."""
        if self.source_error is not None:
            raise self.source_error

    def close(self) -> None:
        """Cancel the calls in flight and close the progress bar."""
        for call in self.running:
            call.cancel()
        if self._bar is not None:
            self._bar.close()


def run_sync(
    engine: PredictEngine, values: Iterable[Any], start: StartCall, bar: Bar | None
) -> Generator[PredictResult, None, None]:
    """The sync driver. It reads ``values`` on the caller's thread, between results.

    ``start`` returns gRPC futures, so that no other thread is needed.
    """
    source = iter(values)
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    calls = _Calls(engine, start, bar)

    def watch(call: Any) -> None:
        call.add_done_callback(ended.put)

    def has_ended() -> bool:
        return not ended.empty()

    try:
        while True:
            while has_ended():
                calls.settle(ended.get())
            calls.send(watch)
            yield from engine.results()
            calls.show()
            if engine.finished:
                break
            if engine.room:
                calls.read(source, has_ended)
                continue
            with contextlib.suppress(queue.Empty):
                calls.settle(ended.get(timeout=engine.wait(time.monotonic())))
        calls.check()
    finally:
        calls.close()


async def run_async(
    engine: PredictEngine,
    values: Iterable[Any] | AsyncIterable[Any],
    start: Callable[[bytes], Awaitable[Any]],
    bar: Bar | None,
) -> AsyncGenerator[PredictResult, None]:
    """The async driver. A slow async source does not delay results."""
    wake, room = asyncio.Event(), asyncio.Event()
    ended: deque[asyncio.Task[Any]] = deque()
    reader: asyncio.Task[None] | None = None

    def note(call: asyncio.Task[Any]) -> None:
        ended.append(call)
        wake.set()

    def watch(call: asyncio.Task[Any]) -> None:
        call.add_done_callback(note)

    async def attempt(payload: bytes) -> Any:
        return await start(payload)

    async def read(source: AsyncIterable[Any]) -> None:
        try:
            async for value in source:
                engine.add(value, time.monotonic())
                wake.set()
                while not engine.room:
                    room.clear()
                    await room.wait()
            engine.exhausted()
        except Exception as error:  # noqa: BLE001 - raised by check()
            calls.source_failed(error)
        wake.set()

    def start_task(payload: bytes) -> asyncio.Task[Any]:
        return asyncio.ensure_future(attempt(payload))

    calls = _Calls(engine, start_task, bar)
    source = iter(()) if isinstance(values, AsyncIterable) else iter(values)
    if isinstance(values, AsyncIterable):
        engine.linger = ASYNC_LINGER
        reader = asyncio.ensure_future(read(values))
    try:
        while True:
            wake.clear()
            while ended:
                calls.settle(ended.popleft())
            if reader is not None and engine.idle:
                # The source has no value ready: do not wait for a fuller batch.
                engine.flush()
            calls.send(watch)
            for result in engine.results():
                yield result
            calls.show()
            if engine.finished:
                break
            if engine.room:
                room.set()
                if reader is None:
                    calls.read(source, lambda: False)
                    await asyncio.sleep(0)
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(engine.wait(time.monotonic())):
                    await wake.wait()
        calls.check()
    finally:
        calls.close()
        tasks = [*calls.running, *([reader] if reader is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
