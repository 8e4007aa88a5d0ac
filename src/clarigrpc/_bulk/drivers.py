"""The sync and the async driver of bulk work: they read the source, send, wait and hand out."""

from __future__ import annotations

import asyncio
import contextlib
import math
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
from itertools import islice, takewhile
from typing import Any, Generic

from clarigrpc import errors
from clarigrpc._bulk.engine import BulkBatch, BulkEngine, ResultT
from clarigrpc._bulk.preparation import PreparationThreads, PreparedValue, is_slow, made_ahead
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

    Subclasses say with ``called`` which method a user called.

    Args:
        engine: The engine.
        source: The values.

    Attributes:
        held: Values that were read and not offered, because they are, or are to be, made in
            threads. They come before those of the source.
    """

    def __init__(
        self, engine: BulkEngine[ResultT], source: Iterable[Any] | AsyncIterable[Any]
    ) -> None:
        self.held: deque[Any] = deque()
        self.engine = engine
        self.source = source
        self._slice = 1
        self._begun = False

    @property
    @abstractmethod
    def called(self) -> str:
        """The method that a user called."""

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
        """Give values of the source to the engine; False if one of them ended the work.

        Those that it has are removed from the list.
        """
        engine = self.engine
        count = len(values)
        while values:
            some = values[:count]
            try:
                encoded = engine.encode(engine.taken, some)
            except Exception as error:  # noqa: BLE001 - raised by source_failed() or check()
                if count > 1:
                    count = 1  # those before the one that is no input count as read
                    continue
                self.source_failed(error)
                return False
            with HeldInterrupt():
                engine.accept(encoded, len(some), time.monotonic())
                del values[: len(some)]
        return True

    def read(self, source: Iterator[Any], until: Callable[[], bool]) -> None:
        """Read a sync source until the engine wants no more values, or other work may wait.

        Args:
            source: The values.
            until: Checked between slices; true ends reading.
        """
        values: list[Any] = []
        try:
            self._read(source, until, values)
        except Exception:
            raise
        except BaseException:
            with HeldInterrupt():
                self.engine.lose(values)
            raise

    def _read(self, source: Iterator[Any], until: Callable[[], bool], values: list[Any]) -> None:
        """``read``; ``values`` holds what the engine does not have yet."""
        engine, clock = self.engine, time.monotonic
        began = asked = clock()
        while (room := engine.room) and asked - began < _READ_SECONDS and not until():
            wanted = min(room, self._slice)
            values.clear()
            late = asked + _SLOW_SECONDS
            failure: Exception | None = None
            ended = False
            count = 0
            try:
                for value in islice(source, wanted):
                    values.append(value)
                    if clock() > late:
                        break
                else:
                    ended = len(values) < wanted
                count = len(values)
            except Exception as error:  # noqa: BLE001 - raised by source_failed() or check()
                failure = error
            if values and not self._begun:
                self._begun = True
                if is_slow(values[0]):
                    with HeldInterrupt():
                        self.held.extend(values)
                        values.clear()
                    return
            if not self.offer(values):
                return
            if failure is not None:
                self.source_failed(failure)
                return
            if ended:
                with HeldInterrupt():
                    engine.exhausted()
                return
            # A slice grows while it takes next to no time, so that nothing waits for it.
            now = clock()
            self._slice = max(1, self._slice // 2) if now > late else 2 * self._slice
            asked = now
            if count < wanted:
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

        batch.begun = True
        try:
            with sending():
                multicallable.begin(request, timeout, started, note)
        except errors.ApiError as error:  # e.g. no token for the credentials
            engine.failed(batch, error, time.monotonic())

    def take() -> BulkBatch | None:
        with HeldInterrupt():  # half taken, it would be missing as well
            return engine.take(time.monotonic())

    def has_ended() -> bool:
        return not ended.empty()

    sending, over = _observed(run)
    ahead: Generator[Any, None, None] | None = None
    try:
        if isinstance(run.source, AsyncIterable):
            raise TypeError("an async source needs an AsyncClient")  # noqa: TRY301
        source = iter(run.source)
        while True:
            news = has_ended()
            while has_ended():
                settle(*ended.get())
            while (batch := take()) is not None:
                send(batch)
            results = engine.results()
            yield from results
            if news or results:
                run.show_progress()
            if engine.finished:
                break
            if engine.room:
                run.read(source, has_ended)
                if run.held and ahead is None:
                    source = ahead = made_ahead(source, run.held)
                continue
            with contextlib.suppress(queue.Empty):
                ended.put(ended.get(timeout=engine.wait(time.monotonic())))
        run.check()
    except BaseException as raised:
        _cancel(running)
        engine.put_back()
        engine.lose([*run.held])
        run.end(raised)
        over(raised)
        raise
    finally:
        if ahead is not None:
            ahead.close()
    run.end(None)
    over(None)


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
        batch.begun = True
        with sending():
            call = asyncio.ensure_future(attempt(*run.request(batch)))
        running[call] = batch
        call.add_done_callback(note)

    sending, over = _observed(run)
    reader: _AsyncReader | None = None
    try:
        source: Iterator[Any] = iter(())
        if isinstance(run.source, AsyncIterable):
            reader = _AsyncReader(run, run.source, wake)
        else:
            source = iter(run.source)
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
                    if run.held:
                        # The loop does not wait for what is made in threads.
                        reader = _AsyncReader(run, _each(source), wake)
                    await asyncio.sleep(0)
                    continue
                reader.go_on()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(engine.wait(time.monotonic())):
                    await wake.wait()
        run.check()
    except BaseException as raised:
        _cancel(running)
        engine.put_back()
        if reader is not None:
            reader.lose()
        run.end(raised)
        over(raised)
        raise
    else:
        run.end(None)
        over(None)
    finally:
        tasks = [*running, *([reader.task] if reader is not None else [])]
        _cancel(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        if reader is not None:
            await reader.close()


def _observed(
    run: BulkRun[Any],
) -> tuple[
    Callable[[], contextlib.AbstractContextManager[object]],
    Callable[[BaseException | None], None],
]:
    """What to send within, and what to call at the end of the work."""
    observer = call_observer.installed()
    if observer is None:
        return contextlib.nullcontext, lambda _: None
    seen = observer.bulk_began(run.engine, run.called)
    return seen.sending, seen.ended


async def _each(values: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for value in values:
        yield value


def _cancel(calls: Iterable[Any]) -> None:
    for call in calls:
        call.cancel()


class _AsyncReader:
    """A task that reads an async source, as far as the engine wants.

    Args:
        run: For whom the source is read.
        source: The values.
        wake: Set when there is a value, or the end.
    """

    def __init__(self, run: BulkRun[Any], source: AsyncIterable[Any], wake: asyncio.Event) -> None:
        self._run = run
        self._wake = wake
        self._values: list[Any] = []
        self._preparation: PreparationThreads | None = None
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None
        run.engine.linger = min(run.engine.linger, _ASYNC_LINGER)
        self._values += map(self._prepared, run.held)
        run.held.clear()
        self.task = asyncio.ensure_future(self._read(source))

    async def _read(self, source: AsyncIterable[Any]) -> None:
        engine = self._run.engine
        try:
            async for value in source:
                self._values.append(self._prepared(value))
                self._wake.set()
                while len(self._values) >= min(engine.room, self._most):
                    self._room.clear()
                    await self._room.wait()
        except BaseException as error:  # noqa: BLE001 - raised where a plain loop would, not here
            self._error = error
        self._ended = True
        self._wake.set()

    def _prepared(self, value: Any) -> Any:
        if self._preparation is None:
            if not is_slow(value):
                return value
            self._preparation = PreparationThreads()
        return self._preparation.begin(
            value, lambda: self._loop.call_soon_threadsafe(self._wake.set)
        )

    @property
    def _most(self) -> float:
        """How many values may wait here."""
        return math.inf if self._preparation is None else self._preparation.window

    def go_on(self) -> None:
        """The engine wants values."""
        self._room.set()

    def lose(self) -> None:
        """The work ends: tell the engine what was read in vain."""
        self._run.engine.lose(self._values)

    def offer(self) -> None:
        """Give the engine what was read."""
        run = self._run
        values, self._values = self._values, []
        if self._preparation is not None:
            made = sum(1 for _ in takewhile(_is_made, values))
            values, self._values = values[:made], values[made:]
        run.offer(values)
        if self._ended and not self._values:
            self._ended = False
            if self._error is None:
                run.engine.exhausted()
            else:
                run.source_failed(self._error)
        elif run.engine.idle:
            # The source has no value ready: do not wait for a fuller batch.
            run.engine.flush()

    async def close(self) -> None:
        """End the threads that make values."""
        if self._preparation is not None:
            await asyncio.to_thread(self._preparation.close)


def _is_made(value: Any) -> bool:
    return not isinstance(value, PreparedValue) or value.done
