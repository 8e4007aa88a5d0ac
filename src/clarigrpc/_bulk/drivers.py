"""The sync and the async driver of bulk work: they read the source, send, wait and hand out."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from itertools import islice
from typing import Any, Generic

from clarigrpc import errors
from clarigrpc._bulk.engine import BulkBatch, BulkEngine, ResultT
from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._rpc import call_observer

_SLOW_SECONDS = 0.001
"""A value or a slice of the source that takes longer is not read on before other work is done."""
_READ_SECONDS = 0.1
"""For how long a source is read at most before other work is done."""
_ASYNC_LINGER = 0.01
"""The engine's ``linger`` for an async source, which is known to have no value ready."""


class BulkRun(ABC, Generic[ResultT]):
    """What a driver runs: an engine, its source and its requests.

    Args:
        engine: The engine.
        source: The values.
    """

    def __init__(
        self, engine: BulkEngine[ResultT], source: Iterable[Any] | AsyncIterable[Any]
    ) -> None:
        self.engine = engine
        self.source = source
        self._slice = 1

    @abstractmethod
    def request(self, batch: BulkBatch) -> tuple[Any, Any, float]:
        """The multicallable, the request and the timeout of the next attempt of a batch."""

    @abstractmethod
    def source_failed(self, error: BaseException) -> None:
        """The source raised an error, and so has ended. May raise it."""

    @property
    def unsaved(self) -> bool:
        """Whether there is something to ``save``."""
        return False

    def save(self) -> None:
        """Write to the disk what has to be there before a batch is sent or the work goes on."""

    def show_progress(self) -> None:
        """Report the progress."""

    def check(self) -> None:
        """Raise the error that ended the work, if there is one."""
        if self.engine.error is not None:
            raise self.engine.error

    @abstractmethod
    def end(self, error: BaseException | None) -> None:
        """The work is done, or ends with an error."""

    def settle(self, batch: BulkBatch, result: Callable[[], Any], ended_at: float) -> None:
        """Tell the engine how a call has ended; ``result`` returns the response or raises."""
        try:
            response = result()
        except errors.PartialFailureError as error:
            response = error.response
        except errors.ApiError as error:
            self.engine.failed(batch, error, ended_at)
            return
        self.engine.responded(batch, response, ended_at)

    def offer(self, values: list[Any]) -> bool:
        """Give values of the source to the engine; False if one of them ended the work."""
        if not values:
            return True
        try:
            self.engine.offer(values, time.monotonic())
        except Exception as error:  # noqa: BLE001 - raised by source_failed() or check()
            if len(values) > 1:
                # Those before the one that is no input count as read.
                return all(self.offer([value]) for value in values)
            self.source_failed(error)
            return False
        return True

    def read(self, source: Iterator[Any], until: Callable[[], bool]) -> None:
        """Read a sync source until the engine wants no more values, or other work may wait.

        Args:
            source: The values.
            until: Checked between slices; true ends reading.
        """
        engine, clock = self.engine, time.monotonic
        began = asked = clock()
        while (room := engine.room) and asked - began < _READ_SECONDS and not until():
            wanted = min(room, self._slice)
            values: list[Any] = []
            late = asked + _SLOW_SECONDS
            failure: Exception | None = None
            ended = False
            try:
                for value in islice(source, wanted):
                    values.append(value)
                    if clock() > late:
                        break
                else:
                    ended = len(values) < wanted
            except Exception as error:  # noqa: BLE001 - raised by source_failed() or check()
                failure = error
            if not self.offer(values):
                return
            if failure is not None:
                self.source_failed(failure)
                return
            if ended:
                engine.exhausted()
                return
            # A slice grows while it takes next to no time, so that nothing waits for it.
            now = clock()
            self._slice = max(1, self._slice // 2) if now > late else 2 * self._slice
            asked = now
            if len(values) < wanted:
                return


def run_sync(run: BulkRun[ResultT]) -> Generator[ResultT, None, None]:
    """The sync driver. It reads the source on the caller's thread, between results.

    The calls are gRPC futures, so that no other thread is needed.
    """
    engine = run.engine
    running: dict[Any, BulkBatch] = {}
    ended: queue.SimpleQueue[tuple[Any, float]] = queue.SimpleQueue()

    def note(call: Any) -> None:
        ended.put((call, time.monotonic()))

    def settle(call: Any, ended_at: float) -> None:
        with HeldInterrupt():  # half settled, its inputs would be missing in the report
            run.settle(running.pop(call), call.result, ended_at)
        if run.unsaved:
            run.save()

    def send(batch: BulkBatch) -> None:
        if run.unsaved:
            run.save()
        multicallable, request, timeout = run.request(batch)

        def started(call: Any) -> None:
            running[call] = batch

        try:
            multicallable.begin(request, timeout, started, note)
        except errors.ApiError as error:  # e.g. no token for the credentials
            engine.failed(batch, error, time.monotonic())

    def has_ended() -> bool:
        return not ended.empty()

    observer = call_observer.installed()
    if observer is not None:
        observer.bulk_began(engine)
    try:
        if isinstance(run.source, AsyncIterable):
            raise TypeError("an async source needs an AsyncClient")  # noqa: TRY301
        source = iter(run.source)
        while True:
            news = has_ended()
            while has_ended():
                settle(*ended.get())
            while (batch := engine.take(time.monotonic())) is not None:
                send(batch)
            results = engine.results()
            yield from results
            if news or results:
                run.show_progress()
            if engine.finished:
                break
            if engine.room:
                run.read(source, has_ended)
                continue
            with contextlib.suppress(queue.Empty):
                ended.put(ended.get(timeout=engine.wait(time.monotonic())))
        run.check()
    except BaseException as raised:
        _cancel(running)
        run.end(raised)
        raise
    finally:
        if observer is not None:
            observer.bulk_ended(engine)
    run.end(None)


async def run_async(run: BulkRun[ResultT]) -> AsyncGenerator[ResultT, None]:
    """The async driver, with a task per request. A slow async source does not delay results."""
    engine = run.engine
    running: dict[asyncio.Task[Any], BulkBatch] = {}
    ended: deque[tuple[asyncio.Task[Any], float]] = deque()
    wake = asyncio.Event()

    def note(call: asyncio.Task[Any]) -> None:
        ended.append((call, time.monotonic()))
        wake.set()

    async def attempt(multicallable: Any, request: Any, timeout: float) -> Any:
        return await multicallable(request, timeout=timeout, retry=False)

    async def save() -> None:
        if run.unsaved:
            await asyncio.to_thread(run.save)

    async def send(batch: BulkBatch) -> None:
        await save()
        call = asyncio.ensure_future(attempt(*run.request(batch)))
        running[call] = batch
        call.add_done_callback(note)

    observer = call_observer.installed()
    if observer is not None:
        observer.bulk_began(engine)
    reader = _AsyncReader(run, wake) if isinstance(run.source, AsyncIterable) else None
    try:
        source = iter(()) if isinstance(run.source, AsyncIterable) else iter(run.source)
        while True:
            wake.clear()
            news = bool(ended)
            while ended:
                call, ended_at = ended.popleft()
                run.settle(running.pop(call), call.result, ended_at)
            await save()
            if reader is not None:
                reader.offer()
            while (batch := engine.take(time.monotonic())) is not None:
                await send(batch)
            results = engine.results()
            for result in results:
                yield result
            if news or results:
                run.show_progress()
            if engine.finished:
                break
            if engine.room:
                if reader is None:
                    run.read(source, lambda: False)
                    await asyncio.sleep(0)
                    continue
                reader.go_on()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(engine.wait(time.monotonic())):
                    await wake.wait()
        run.check()
    except BaseException as raised:
        _cancel(running)
        run.end(raised)
        raise
    else:
        run.end(None)
    finally:
        if observer is not None:
            observer.bulk_ended(engine)
        tasks = [*running, *([reader.task] if reader is not None else [])]
        _cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)


def _cancel(calls: Iterable[Any]) -> None:
    for call in calls:
        call.cancel()


class _AsyncReader:
    """A task that reads an async source, as far as the engine wants.

    Args:
        run: Whose source is read.
        wake: Set when there is a value, or the end.
    """

    def __init__(self, run: BulkRun[Any], wake: asyncio.Event) -> None:
        self._run = run
        self._wake = wake
        self._values: list[Any] = []
        self._room = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None
        run.engine.linger = min(run.engine.linger, _ASYNC_LINGER)
        self.task = asyncio.ensure_future(self._read(run.source))

    async def _read(self, source: Any) -> None:
        engine = self._run.engine
        try:
            async for value in source:
                self._values.append(value)
                self._wake.set()
                while len(self._values) >= engine.room:
                    self._room.clear()
                    await self._room.wait()
        except BaseException as error:  # noqa: BLE001 - raised where a plain loop would, not here
            self._error = error
        self._ended = True
        self._wake.set()

    def go_on(self) -> None:
        """The engine wants values."""
        self._room.set()

    def offer(self) -> None:
        """Give the engine what was read."""
        run = self._run
        values, self._values = self._values, []
        run.offer(values)
        if self._ended:
            self._ended = False
            if self._error is None:
                run.engine.exhausted()
            else:
                run.source_failed(self._error)
        elif run.engine.idle:
            # The source has no value ready: do not wait for a fuller batch.
            run.engine.flush()
