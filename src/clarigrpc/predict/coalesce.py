"""Concurrent single predicts of one handle share requests.

``Gathering`` is the machine: which callers go out together, and when. It does no I/O and knows no
time. A caller on an idle handle is sent at once; while requests are in flight, callers gather
until the request is full or the first of them has waited ``max_delay``.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from clarigrpc import errors, v2
from clarigrpc.channel import Cancellation
from clarigrpc.predict.limits import MAX_BATCH
from clarigrpc.predict.pipeline import MAY_BE_ONE_INPUT, METHOD
from clarigrpc.wire import PredictEncoder

FutureT = TypeVar("FutureT", "Future[Any]", "asyncio.Future[Any]")


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
    coalesce: bool, max_delay: float | None, max_batch: int | None, max_bytes: int | None
) -> CoalesceLimits | None:
    """The limits that the arguments of ``client.model`` ask for; None: no sharing."""
    given = {"max_delay": max_delay, "max_batch": max_batch, "max_bytes": max_bytes}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return CoalesceLimits(**wanted) if coalesce or wanted else None


@dataclass(slots=True, eq=False)
class Caller(Generic[FutureT]):
    """One caller: its encoded input, where its answer goes, and by when it wants it."""

    pieces: tuple[bytes, ...]
    future: FutureT
    deadline: float
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(map(len, self.pieces))


class Gathering(Generic[FutureT]):
    """Who goes out together."""

    def __init__(self, limits: CoalesceLimits) -> None:
        self._limits = limits
        self._waiting: list[Caller[FutureT]] = []
        self._bytes = 0
        self._in_flight = 0

    def add(self, caller: Caller[FutureT]) -> list[list[Caller[FutureT]]]:
        """A caller has come; the batches to send now."""
        batches = []
        if self._waiting and self._bytes + caller.size > self._limits.max_bytes:
            batches.append(self._take())
        self._waiting.append(caller)
        self._bytes += caller.size
        full = len(self._waiting) >= self._limits.max_batch or self._bytes >= self._limits.max_bytes
        if full or (not self._in_flight and not batches):
            batches.append(self._take())
        return batches

    def due(self, caller: Caller[FutureT]) -> list[Caller[FutureT]]:
        """A caller has waited for as long as it may; the batch to send now, if it still waits."""
        return self._take() if caller in self._waiting else []

    def leave(self, caller: Caller[FutureT]) -> None:
        """A caller has given up; nothing is sent for it if it still waits."""
        if caller in self._waiting:
            self._waiting.remove(caller)
            self._bytes -= caller.size

    def ended(self) -> None:
        """A request has ended."""
        self._in_flight -= 1

    def _take(self) -> list[Caller[FutureT]]:
        batch, self._waiting, self._bytes = self._waiting, [], 0
        self._in_flight += 1
        return batch


def answer(callers: Sequence[Caller[Any]], response: v2.MultiOutputResponse) -> None:
    """Give each caller its output or its error."""
    outputs = response.outputs
    if len(outputs) != len(callers):
        text = f"{len(callers)} inputs were sent and {len(outputs)} outputs came back"
        fail(callers, errors.InternalError(text, method=METHOD))
        return
    request_id = response.status.req_id
    for caller, output in zip(callers, outputs, strict=True):
        if caller.future.done():
            continue
        failure = errors.from_item(output.status, method=METHOD, request_id=request_id)
        if failure is None:
            caller.future.set_result(output)
        else:
            caller.future.set_exception(failure)


def fail(callers: Sequence[Caller[Any]], error: Exception) -> None:
    """Give each caller the error, a copy each: they raise it on stacks of their own."""
    for caller in callers:
        if not caller.future.done():
            caller.future.set_exception(copy.copy(error))


def halves(callers: Sequence[Caller[FutureT]], error: Exception) -> list[Sequence[Caller[FutureT]]]:
    """How to try a failed request again: in halves, where one input may be the cause."""
    if len(callers) < 2 or not isinstance(error, MAY_BE_ONE_INPUT):
        return []
    middle = len(callers) // 2
    return [callers[:middle], callers[middle:]]


def payload(encoder: PredictEncoder, callers: Sequence[Caller[Any]]) -> bytes:
    """The serialized request of these callers."""
    return encoder.request(caller.pieces for caller in callers)


def expired(timeout: float) -> errors.DeadlineExceededError:
    """The error of a caller whose own deadline has passed."""
    return errors.DeadlineExceededError(f"no answer within {timeout:g} s", method=METHOD)


class Coalescer:
    """Shares requests between threads. The caller on an idle handle sends its own request."""

    def __init__(
        self, encoder: PredictEncoder, limits: CoalesceLimits, send: Callable[..., Any]
    ) -> None:
        self._encoder = encoder
        self._limits = limits
        self._send = send
        self._gathering: Gathering[Future[Any]] = Gathering(limits)
        self._lock = threading.Lock()
        self._cancellation = Cancellation()
        self._workers = ThreadPoolExecutor(
            limits.max_in_flight, thread_name_prefix="clarigrpc-coalesce"
        )

    def predict(self, pieces: tuple[bytes, ...], timeout: float) -> Any:
        """The output of one input.

        Raises:
            ApiError: Of this input alone.
        """
        caller: Caller[Future[Any]] = Caller(pieces, Future(), time.monotonic() + timeout)
        with self._lock:
            batches = self._gathering.add(caller)
        for batch in batches:
            if batch == [caller]:
                self._run(batch)
            else:
                self._workers.submit(self._run, batch)
        try:
            return self._result(caller, timeout)
        except BaseException:
            with self._lock:
                self._gathering.leave(caller)
            raise

    def _result(self, caller: Caller[Future[Any]], timeout: float) -> Any:
        try:
            return caller.future.result(min(timeout, self._limits.max_delay))
        except TimeoutError:
            with self._lock:
                batch = self._gathering.due(caller)
            if batch:
                self._workers.submit(self._run, batch)
        try:
            return caller.future.result(max(0.0, caller.deadline - time.monotonic()))
        except TimeoutError:
            raise expired(timeout) from None

    def _run(self, batch: Sequence[Caller[Future[Any]]]) -> None:
        try:
            self._attempt(batch)
        finally:
            with self._lock:
                self._gathering.ended()

    def _attempt(self, batch: Sequence[Caller[Future[Any]]]) -> None:
        remaining = max(caller.deadline for caller in batch) - time.monotonic()
        if remaining <= 0:
            return  # all of them have given up
        try:
            response = self._send(
                payload(self._encoder, batch), remaining, cancellation=self._cancellation
            )
        except Exception as error:  # noqa: BLE001 - raised to the callers
            parts = halves(batch, error)
            if not parts:
                fail(batch, error)
            for part in parts:
                self._attempt(part)
        else:
            answer(batch, response)

    def close(self) -> None:
        """End what is in flight and the threads."""
        self._cancellation.cancel()
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
        self._limits = limits
        self._send = send
        self._gathering: Gathering[asyncio.Future[Any]] = Gathering(limits)
        self._room = asyncio.Semaphore(limits.max_in_flight)
        self._running: set[asyncio.Task[None]] = set()

    async def predict(self, pieces: tuple[bytes, ...], timeout: float) -> Any:
        """The output of one input.

        Raises:
            ApiError: Of this input alone.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        caller = Caller(pieces, future, time.monotonic() + timeout)
        for batch in self._gathering.add(caller):
            self._start(batch)
        due = loop.call_later(self._limits.max_delay, self._due, caller)
        expiry = loop.call_later(timeout, _expire, future, timeout)
        try:
            return await future
        finally:
            due.cancel()
            expiry.cancel()
            self._gathering.leave(caller)

    def _due(self, caller: Caller[asyncio.Future[Any]]) -> None:
        if batch := self._gathering.due(caller):
            self._start(batch)

    def _start(self, batch: Sequence[Caller[asyncio.Future[Any]]]) -> None:
        task = asyncio.ensure_future(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        pending = len(batch)

        def gone(_: object) -> None:
            # A request whose callers have all gone is of no use to anybody.
            nonlocal pending
            pending -= 1
            if not pending:
                task.cancel()

        for caller in batch:
            caller.future.add_done_callback(gone)

    async def _run(self, batch: Sequence[Caller[asyncio.Future[Any]]]) -> None:
        try:
            async with self._room:
                await self._attempt(batch)
        except asyncio.CancelledError:
            fail(batch, errors.CancelledError("the client was closed", method=METHOD))
        finally:
            self._gathering.ended()

    async def _attempt(self, batch: Sequence[Caller[asyncio.Future[Any]]]) -> None:
        remaining = max(caller.deadline for caller in batch) - time.monotonic()
        if remaining <= 0:
            return  # all of them have given up
        try:
            response = await self._send(payload(self._encoder, batch), remaining)
        except Exception as error:  # noqa: BLE001 - raised to the callers
            parts = halves(batch, error)
            if not parts:
                fail(batch, error)
            for part in parts:
                await self._attempt(part)
        else:
            answer(batch, response)

    async def close(self) -> None:
        """End what is in flight."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _expire(future: asyncio.Future[Any], timeout: float) -> None:
    if not future.done():
        future.set_exception(expired(timeout))
