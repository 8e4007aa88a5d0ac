"""Concurrent single predicts of one handle share requests.

``Gathering`` is the machine: which callers go out together, and when. It does no I/O and has no
clock. A caller on an idle handle is sent at once; while requests are in flight, callers gather
until the request is full, the first of them has waited ``max_delay``, or nothing is in flight any
more.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import getpid
from typing import Any, Protocol

from clarigrpc import errors, v2
from clarigrpc._bulk.adaptive import MAX_BATCH
from clarigrpc._bulk.predict_many import METHOD, may_be_one_input, mismatch
from clarigrpc._fork_lock import ForkLock
from clarigrpc._rpc import statuses
from clarigrpc._rpc.encoding import Pieces, PredictEncoder, size_of
from clarigrpc._rpc.retry import deadline_after
from clarigrpc._rpc.sync_channel import Cancellation


@dataclass(frozen=True, slots=True)
class CoalesceLimits:
    """How single predicts share requests.

    Attributes:
        max_delay: Seconds that a caller may wait for others, while requests are in flight.
        max_batch: Inputs a request, 1 to 128.
        max_bytes: Bytes of inputs a request.
        max_in_flight: Shared requests in flight.
    """

    max_delay: float = 0.001
    max_batch: int = MAX_BATCH
    max_bytes: int = 16 * 1024 * 1024
    max_in_flight: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.max_delay < float("inf"):
            raise errors.ConfigurationError("max_delay has to be 0 or a finite number of seconds")
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise errors.ConfigurationError(f"max_batch is 1 to {MAX_BATCH}")
        if self.max_bytes < 1 or self.max_in_flight < 1:
            raise errors.ConfigurationError("max_bytes and max_in_flight have to be 1 or more")


def limits_of(
    max_delay: float | None, max_batch: int | None, max_bytes: int | None
) -> CoalesceLimits:
    """The limits that the arguments of ``client.model`` ask for; None: the default."""
    given = {"max_delay": max_delay, "max_batch": max_batch, "max_bytes": max_bytes}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return CoalesceLimits(**wanted)


class Slot(Protocol):
    """Where the answer of a caller goes."""

    def done(self) -> bool:
        """Whether there is an answer, or the caller has gone."""

    def set_result(self, result: Any, /) -> None:
        """Answer with an output."""

    def set_exception(self, exception: Exception, /) -> None:
        """Answer with an error."""


class Caller:
    """One caller: its encoded input, where its answer goes, since when and until when it waits."""

    __slots__ = ("deadline", "pieces", "since", "size", "slot")

    def __init__(self, pieces: Pieces, slot: Slot, since: float, deadline: float) -> None:
        self.pieces = pieces
        self.size = size_of(pieces)
        self.slot = slot
        self.since = since
        self.deadline = deadline


Batch = Sequence[Caller]


class Gathering:
    """Who goes out together. Each method returns the batches to send now."""

    def __init__(self, limits: CoalesceLimits) -> None:
        self._limits = limits
        self._waiting: deque[Caller] = deque()
        self._bytes = 0
        self._in_flight = 0

    def add(self, caller: Caller) -> list[Batch]:
        """A caller has come."""
        self._waiting.append(caller)
        self._bytes += caller.size
        return self.due(caller.since)

    def due(self, now: float) -> list[Batch]:
        """Time has passed."""
        batches = []
        while self._waiting and self._in_flight < self._limits.max_in_flight:
            full = (
                len(self._waiting) >= self._limits.max_batch
                or self._bytes >= self._limits.max_bytes
            )
            if (
                self._in_flight
                and not full
                and now < self._waiting[0].since + self._limits.max_delay
            ):
                break
            batches.append(self._take())
        return batches

    def due_at(self) -> float | None:
        """When ``due`` has to be called next; None: the end of a request comes first."""
        if not self._waiting or self._in_flight >= self._limits.max_in_flight:
            return None
        return self._waiting[0].since + self._limits.max_delay

    def leave(self, caller: Caller) -> None:
        """A caller has given up; nothing is sent for it if it still waits."""
        if caller in self._waiting:
            self._waiting.remove(caller)
            self._bytes -= caller.size

    def clear(self) -> Batch:
        """Forget the callers that were not sent, and return them."""
        waiting, self._waiting, self._bytes = list(self._waiting), deque(), 0
        return waiting

    def ended(self, now: float, instead: int = 0) -> list[Batch]:
        """A request has ended; so many others were sent in its place."""
        self._in_flight += instead - 1
        return self.due(now)

    def _take(self) -> Batch:
        batch = [self._waiting.popleft()]
        size = batch[0].size
        while self._waiting and len(batch) < self._limits.max_batch:
            size += self._waiting[0].size
            if size > self._limits.max_bytes:
                break
            batch.append(self._waiting.popleft())
        self._bytes -= sum(caller.size for caller in batch)
        self._in_flight += 1
        return batch


def answer(callers: Batch, response: v2.MultiOutputResponse) -> None:
    """Give each caller its output or its error."""
    outputs = response.outputs
    if len(outputs) != len(callers):
        fail(callers, mismatch(len(callers), response))
        return
    request_id = response.status.req_id
    success = v2.StatusCode.SUCCESS
    for caller, output in zip(callers, outputs, strict=True):
        if caller.slot.done():
            continue
        failure = None
        if output.status.code != success:
            failure = statuses.from_item(output.status, method=METHOD, request_id=request_id)
        if failure is None:
            caller.slot.set_result(output)
        else:
            caller.slot.set_exception(failure)


def fail(callers: Iterable[Caller], error: Exception) -> None:
    """Give each caller the error, a copy each: they raise it on stacks of their own."""
    for caller in callers:
        if not caller.slot.done():
            caller.slot.set_exception(copy.copy(error))


def halves(callers: Batch, error: Exception) -> list[Batch]:
    """How to try a failed request again: in halves, where one input may be the cause."""
    waiting = [caller for caller in callers if not caller.slot.done()]
    if len(callers) < 2 or not waiting or not may_be_one_input(error):
        return []
    middle = (len(waiting) + 1) // 2
    return [part for part in (waiting[:middle], waiting[middle:]) if part]


def payload(encoder: PredictEncoder, callers: Batch) -> bytes:
    """The serialized request of these callers."""
    return encoder.request(caller.pieces for caller in callers)


def remaining(callers: Batch) -> float:
    """Seconds until the last of them has given up."""
    return max(caller.deadline for caller in callers) - time.monotonic()


def expired(timeout: float) -> errors.DeadlineExceededError:
    """The error of a caller whose own deadline has passed."""
    return errors.DeadlineExceededError(f"no answer within {timeout:g} s", method=METHOD)


def closed() -> errors.CancelledError:
    """The error of those who wait when the client is closed."""
    return errors.CancelledError("the client was closed", method=METHOD)


class _ThreadSlot:
    """The slot of a thread: a ``concurrent.futures.Future`` would cost several times as much."""

    __slots__ = ("_error", "_lock", "_result", "_set")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._set = False
        self._result: Any = None
        self._error: Exception | None = None

    def done(self) -> bool:
        return self._set

    def set_result(self, result: Any, /) -> None:
        self._result = result
        self._end()

    def set_exception(self, exception: Exception, /) -> None:
        self._error = exception
        self._end()

    def _end(self) -> None:
        if not self._set:
            self._set = True
            self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Whether there is an answer within so many seconds."""
        return self._set or self._lock.acquire(timeout=max(0.0, seconds))

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class Coalescer:
    """Shares requests between threads. A caller on an idle handle sends its own request."""

    def __init__(
        self, encoder: PredictEncoder, limits: CoalesceLimits, send: Callable[..., Any]
    ) -> None:
        self._encoder = encoder
        self._limits = limits
        self._send = send
        self._closed = False
        self._lock = ForkLock()
        self._begin()

    def _begin(self) -> None:
        """Start with nobody waiting: at first, and in the child of a fork."""
        self._pid = getpid()
        self._gathering = Gathering(self._limits)
        self._callers: set[Caller] = set()
        self._cancellation = Cancellation()
        self._workers = ThreadPoolExecutor(
            self._limits.max_in_flight, thread_name_prefix="clarigrpc-coalesce"
        )

    def predict(self, pieces: Pieces, timeout: float) -> Any:
        """The output of one input.

        Raises:
            ApiError: Of this input alone.
        """
        now = time.monotonic()
        slot = _ThreadSlot()
        caller = Caller(pieces, slot, now, deadline_after(timeout, now))
        lock = self._lock.get()
        with lock:
            if self._closed:
                raise errors.ClosedError
            if self._pid != getpid():
                self._begin()  # the threads, and who waits for them, stayed behind at the fork
            self._callers.add(caller)
            batches = self._gathering.add(caller)
        try:
            if len(batches) == 1 and len(batches[0]) == 1 and batches[0][0] is caller:
                self._run(batches[0])
            else:
                self._start(batches)
            if not slot.wait(min(timeout, self._limits.max_delay)):
                with lock:
                    batches = self._gathering.due(time.monotonic())
                self._start(batches)
                if not slot.wait(caller.deadline - time.monotonic()):
                    raise expired(timeout)
            return slot.result()
        finally:
            with lock:
                self._callers.discard(caller)
                self._gathering.leave(caller)

    def _start(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            try:
                self._workers.submit(self._run, batch)
            except RuntimeError:  # closed meanwhile
                fail(batch, closed())

    def _run(self, batch: Batch) -> None:
        parts: Sequence[Batch] = ()
        try:
            parts = self._attempt(batch)
        finally:
            with self._lock.get():
                batches = self._gathering.ended(time.monotonic(), instead=len(parts))
            self._start([*parts, *batches])

    def _attempt(self, batch: Batch) -> Sequence[Batch]:
        """Send a request and give out its answers; what to send instead if it failed."""
        seconds = remaining(batch)
        if seconds <= 0:
            return ()  # all of them have given up
        try:
            response = self._send(
                payload(self._encoder, batch), seconds, cancellation=self._cancellation
            )
        except Exception as error:  # noqa: BLE001 - raised to the callers
            parts = halves(batch, error)
            if not parts:
                fail(batch, error)
            return parts
        answer(batch, response)
        return ()

    def close(self) -> None:
        """End what is in flight and the threads; who waits gets ``CancelledError``."""
        with self._lock.get():
            if self._pid != getpid():
                self._begin()
            self._closed = True
            callers = list(self._callers)
        self._cancellation.cancel()
        fail(callers, closed())
        self._workers.shutdown(cancel_futures=True)


class AsyncCoalescer:
    """Shares requests between tasks of one event loop."""

    def __init__(
        self,
        encoder: PredictEncoder,
        limits: CoalesceLimits,
        send: Callable[..., Awaitable[Any]],
    ) -> None:
        self._encoder = encoder
        self._send = send
        self._closed = False
        self._gathering = Gathering(limits)
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[asyncio.Task[Sequence[Batch]], Batch] = {}

    async def predict(self, pieces: Pieces, timeout: float) -> Any:
        """The output of one input.

        Raises:
            ApiError: Of this input alone.
        """
        if self._closed:
            raise errors.ClosedError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        now = time.monotonic()
        caller = Caller(pieces, future, now, deadline_after(timeout, now))
        expiry = loop.call_later(timeout, _expire, future, timeout)
        self._start(self._gathering.add(caller))
        try:
            return await future
        except BaseException:
            self._gathering.leave(caller)
            self._spare()
            raise
        finally:
            expiry.cancel()

    def _start(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            task = asyncio.ensure_future(self._attempt(batch))
            self._running[task] = batch
            task.add_done_callback(self._ended)
        if self._timer is None and (at := self._gathering.due_at()) is not None:
            delay = at - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._start(self._gathering.due(time.monotonic()))

    def _ended(self, task: asyncio.Task[Sequence[Batch]]) -> None:
        # A callback, because a task that is cancelled before it began runs nothing of its own.
        batch = self._running.pop(task)
        if task.cancelled():
            parts: Sequence[Batch] = ()
            fail(batch, closed())
        else:
            parts = task.result()
        self._start([*parts, *self._gathering.ended(time.monotonic(), instead=len(parts))])

    def _spare(self) -> None:
        """Cancel the requests that nobody waits for any more."""
        for task, batch in self._running.items():
            if all(caller.slot.done() for caller in batch):
                task.cancel()

    async def _attempt(self, batch: Batch) -> Sequence[Batch]:
        """Send a request and give out its answers; what to send instead if it failed."""
        seconds = remaining(batch)
        if seconds <= 0:
            return ()  # all of them have given up
        try:
            response = await self._send(payload(self._encoder, batch), seconds)
        except Exception as error:  # noqa: BLE001 - raised to the callers
            parts = halves(batch, error)
            if not parts:
                fail(batch, error)
            return parts
        answer(batch, response)
        return ()

    async def close(self) -> None:
        """End what is in flight; who waits gets ``CancelledError``."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        fail(self._gathering.clear(), closed())
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _expire(future: asyncio.Future[Any], timeout: float) -> None:
    if not future.done():
        future.set_exception(expired(timeout))
