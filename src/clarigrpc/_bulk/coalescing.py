"""Concurrent single predicts of one model handle share requests.

``CoalesceQueue`` decides which predicts are sent together, and when. It does no I/O and has no
clock. A predict on an idle handle is sent at once. While requests are in flight, predicts wait
until the request is full, the first of them has waited ``max_delay``, or no request is in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import getpid
from typing import Any, Protocol

from clarigrpc import errors, v2
from clarigrpc._bulk.output_matching import in_order
from clarigrpc._bulk.predict_engine import may_be_one_input
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._fork_lock import ForkLock
from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._public_names import named_in
from clarigrpc._rpc import call_observer, statuses
from clarigrpc._rpc.encoding import InputItem, PredictEncoder, sent_ids, size_of
from clarigrpc._rpc.retry import deadline_after
from clarigrpc._rpc.sync_channel import Cancellation


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class CoalesceLimits:
    """Limits for single predicts that share requests.

    Attributes:
        max_delay: Maximum seconds that a predict waits for others while requests are in flight.
        max_batch: Maximum inputs per request, 1 to 128.
        max_bytes: Maximum bytes of inputs per request.
        max_in_flight: Maximum number of shared requests in flight.

    Raises:
        ConfigurationError: A limit is out of range.
    """

    max_delay: float = 0.001
    max_batch: int = MAX_ITEMS
    max_bytes: int = 16 * 1024 * 1024
    max_in_flight: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.max_delay < float("inf"):
            raise errors.ConfigurationError(
                f"max_delay must be a finite number of seconds, 0 or more, not {self.max_delay}"
            )
        if not 1 <= self.max_batch <= MAX_ITEMS:
            raise errors.ConfigurationError(
                f"max_batch must be 1 to {MAX_ITEMS}, not {self.max_batch}"
            )
        if self.max_bytes < 1 or self.max_in_flight < 1:
            raise errors.ConfigurationError("max_bytes and max_in_flight must be 1 or more")


def limits_of(
    max_delay: float | None, max_batch: int | None, max_bytes: int | None
) -> CoalesceLimits:
    """The limits set by the arguments of ``client.model``. None uses the default."""
    given = {"max_delay": max_delay, "max_batch": max_batch, "max_bytes": max_bytes}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return CoalesceLimits(**wanted)


class Slot(Protocol):
    """Receives the result of one predict; an ``asyncio.Future`` is one."""

    def done(self) -> bool:
        """Whether there is a result, or the caller has given up."""

    def set_result(self, result: Any, /) -> None:
        """Complete with an output."""

    def set_exception(self, exception: Exception, /) -> None:
        """Complete with an error."""


class PendingPredict:
    """One predict: its input, the slot for its result, its start and its deadline.

    Args:
        encoded: The id of the input, empty if it has none, and its encoded form.
        slot: Receives the result.
        since: Time of the start, in seconds.
        deadline: Time of the deadline, in seconds.
    """

    __slots__ = ("deadline", "id", "item", "since", "size", "slot")

    def __init__(
        self, encoded: tuple[str, InputItem], slot: Slot, since: float, deadline: float
    ) -> None:
        self.id, self.item = encoded
        self.size = size_of(self.item)
        self.slot = slot
        self.since = since
        self.deadline = deadline


SharedRequest = Sequence[PendingPredict]
"""The predicts that are sent in one request."""


class CoalesceQueue:
    """The predicts that wait. Each method returns the requests to send now."""

    def __init__(self, limits: CoalesceLimits) -> None:
        self._limits = limits
        self._waiting: deque[PendingPredict] = deque()
        self._bytes = 0
        self._in_flight = 0

    @property
    def waiting(self) -> int:
        """Number of predicts that wait to be sent."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return self._in_flight

    def add(self, pending: PendingPredict) -> list[SharedRequest]:
        """Add a predict."""
        self._waiting.append(pending)
        self._bytes += pending.size
        return self.due(pending.since)

    def due(self, now: float) -> list[SharedRequest]:
        """Time has passed."""
        requests = []
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
            requests.append(self._take())
        return requests

    def due_at(self) -> float | None:
        """When to call ``due`` next; None: not before a request has ended."""
        if not self._waiting or self._in_flight >= self._limits.max_in_flight:
            return None
        return self._waiting[0].since + self._limits.max_delay

    def leave(self, pending: PendingPredict) -> None:
        """A caller has given up. Its predict is not sent if it is still waiting."""
        if pending in self._waiting:
            self._waiting.remove(pending)
            self._bytes -= pending.size

    def clear(self) -> SharedRequest:
        """Remove and return the predicts that were not sent."""
        waiting, self._waiting, self._bytes = list(self._waiting), deque(), 0
        return waiting

    def ended(self, now: float, instead: int = 0) -> list[SharedRequest]:
        """A request has ended, and ``instead`` requests were sent in its place."""
        self._in_flight += instead - 1
        return self.due(now)

    def _take(self) -> SharedRequest:
        request = [self._waiting.popleft()]
        size = request[0].size
        while self._waiting and len(request) < self._limits.max_batch:
            size += self._waiting[0].size
            if size > self._limits.max_bytes:
                break
            request.append(self._waiting.popleft())
        self._bytes -= sum(pending.size for pending in request)
        self._in_flight += 1
        return request


def _observe(queue: CoalesceQueue) -> None:
    """Show a queue to the observer of the process, if there is one."""
    observer = call_observer.installed()
    if observer is not None:
        observer.coalescing(queue)


def complete(predicts: SharedRequest, response: v2.MultiOutputResponse) -> None:
    """Give each predict its output or its error."""
    try:
        outputs = in_order(sent_ids([pending.id for pending in predicts]), response)
    except errors.InternalError as error:
        fail(predicts, error)
        return
    request_id = response.status.req_id
    success = v2.StatusCode.SUCCESS
    for pending, output in zip(predicts, outputs, strict=True):
        if pending.slot.done():
            continue
        failure = None
        if output.status.code != success:
            failure = statuses.from_item(
                output.status, method="PostModelOutputs", request_id=request_id
            )
        if failure is None:
            pending.slot.set_result(output)
        else:
            pending.slot.set_exception(failure)


def fail(predicts: Iterable[PendingPredict], error: Exception) -> None:
    """Give each predict a copy of the error, as each caller adds a traceback of its own."""
    for pending in predicts:
        if not pending.slot.done():
            pending.slot.set_exception(copy.copy(error))


def halves(predicts: SharedRequest, error: Exception) -> list[SharedRequest]:
    """The two requests to send instead of a failed one, if one input may be the cause."""
    waiting = [pending for pending in predicts if not pending.slot.done()]
    if len(predicts) < 2 or not waiting or not may_be_one_input(error):
        return []
    middle = (len(waiting) + 1) // 2
    return [part for part in (waiting[:middle], waiting[middle:]) if part]


def payload(encoder: PredictEncoder, predicts: SharedRequest) -> bytes:
    """The serialized request of these predicts."""
    return encoder.request([one.item for one in predicts], [one.id for one in predicts])


def remaining(predicts: SharedRequest) -> float:
    """Seconds until the latest of their deadlines."""
    return max(pending.deadline for pending in predicts) - time.monotonic()


def expired(timeout: float) -> errors.DeadlineExceededError:
    """The error for a predict whose deadline has passed."""
    return errors.DeadlineExceededError(
        f"no response within {timeout:g} s", method="PostModelOutputs"
    )


def closed() -> errors.CancelledError:
    """The error for the predicts that wait when the client is closed."""
    return errors.CancelledError("the client was closed", method="PostModelOutputs")


class _ThreadSlot:
    """The slot of a thread. A ``concurrent.futures.Future`` costs several times as much."""

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
            with contextlib.suppress(RuntimeError):  # closing ended it at the same moment
                self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Whether there is a result within this many seconds."""
        return self._set or self._lock.acquire(timeout=max(0.0, seconds))

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class Coalescer:
    """Shares requests between threads. A thread on an idle handle sends its request itself."""

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
        """Start without waiting predicts: at first, and in the child process of a fork."""
        self._pid = getpid()
        self._queue = CoalesceQueue(self._limits)
        self._pending: set[PendingPredict] = set()
        self._cancellation = Cancellation()
        self._workers = ThreadPoolExecutor(
            self._limits.max_in_flight, thread_name_prefix="clarigrpc-coalesce"
        )
        _observe(self._queue)

    def predict(self, value: Any, timeout: float) -> Any:
        """The output of one input.

        Raises:
            ApiError: The failure of this input.
            TypeError: The value is not an input.
        """
        encoded = self._encoder.item(value)
        now = time.monotonic()
        slot = _ThreadSlot()
        pending = PendingPredict(encoded, slot, now, deadline_after(timeout, now))
        own: SharedRequest | None = None
        try:
            with HeldInterrupt():  # requests that are due are sent, whoever waits for them
                with self._lock.get():
                    if self._closed:
                        raise errors.ClosedError
                    if self._pid != getpid():
                        self._begin()  # the threads and their predicts are the parent's
                    self._pending.add(pending)
                    requests = self._queue.add(pending)
                if len(requests) == 1 and len(requests[0]) == 1 and requests[0][0] is pending:
                    own = requests[0]
                else:
                    self._start(requests)
            if own is not None:
                self._attempt(own)
            elif not slot.wait(min(timeout, self._limits.max_delay)):
                with HeldInterrupt():
                    with self._lock.get():
                        requests = self._queue.due(time.monotonic())
                    self._start(requests)
            if not slot.wait(pending.deadline - time.monotonic()):
                raise expired(timeout)
            return slot.result()
        finally:
            try:
                self._leave(pending, own)
            except BaseException:  # an interrupt, perhaps before it was held back
                self._leave(pending, own)
                raise

    def _leave(self, pending: PendingPredict, own: SharedRequest | None) -> None:
        """A predict, and the request that its caller sent, are over. Does nothing if repeated."""
        with HeldInterrupt():
            with self._lock.get():
                if pending not in self._pending:
                    return
                self._pending.discard(pending)
                self._queue.leave(pending)
                requests = [] if own is None else self._queue.ended(time.monotonic())
            self._start(requests)

    def _start(self, requests: Sequence[SharedRequest]) -> None:
        waiting = deque(requests)
        while waiting:
            work = iter((waiting.popleft(),))
            try:
                self._workers.submit(self._run, work)
            except RuntimeError as error:  # closed meanwhile, or no thread can be started
                for request in work:  # the executor has it all the same, and may run it later
                    fail(request, closed() if self._closed else error)
                    with self._lock.get():
                        waiting.extend(self._queue.ended(time.monotonic()))

    def _run(self, work: Iterator[SharedRequest]) -> None:
        for request in work:  # none where it has failed
            parts: Sequence[SharedRequest] = ()
            try:
                parts = self._attempt(request)
            finally:
                with self._lock.get():
                    requests = self._queue.ended(time.monotonic(), instead=len(parts))
                self._start([*parts, *requests])

    def _attempt(self, request: SharedRequest) -> Sequence[SharedRequest]:
        """Send a request and complete its predicts; returns what to send instead if it failed."""
        seconds = remaining(request)
        if seconds <= 0:
            return ()  # every deadline has passed
        try:
            response = self._send(
                payload(self._encoder, request), seconds, cancellation=self._cancellation
            )
        except Exception as error:  # noqa: BLE001 - raised to the predicts
            parts = halves(request, error)
            if not parts:
                fail(request, error)
            return parts
        complete(request, response)
        return ()

    def close(self) -> None:
        """Cancel the requests in flight and end the threads. Callers get ``CancelledError``."""
        with self._lock.get():
            if self._pid != getpid():
                self._begin()
            self._closed = True
            predicts = list(self._pending)
        self._cancellation.cancel()
        fail(predicts, closed())
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
        self._queue = CoalesceQueue(limits)
        _observe(self._queue)
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[asyncio.Task[Sequence[SharedRequest]], SharedRequest] = {}

    async def predict(self, value: Any, timeout: float) -> Any:
        """The output of one input.

        Raises:
            ApiError: The failure of this input.
            TypeError: The value is not an input.
        """
        if self._closed:
            raise errors.ClosedError
        encoded = self._encoder.item(value)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        now = time.monotonic()
        pending = PendingPredict(encoded, future, now, deadline_after(timeout, now))
        expiry = loop.call_later(timeout, _expire, future, timeout)
        self._start(self._queue.add(pending))
        try:
            return await future
        except BaseException:
            self._queue.leave(pending)
            self._cancel_unneeded()
            raise
        finally:
            expiry.cancel()

    def _start(self, requests: Sequence[SharedRequest]) -> None:
        for request in requests:
            task = asyncio.ensure_future(self._attempt(request))
            self._running[task] = request
            task.add_done_callback(self._ended)
        if self._timer is None and (at := self._queue.due_at()) is not None:
            delay = at - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._start(self._queue.due(time.monotonic()))

    def _ended(self, task: asyncio.Task[Sequence[SharedRequest]]) -> None:
        # A callback, because a task that is cancelled before it starts runs no code of its own.
        request = self._running.pop(task)
        if task.cancelled():
            parts: Sequence[SharedRequest] = ()
            fail(request, closed())
        else:
            parts = task.result()
        self._start([*parts, *self._queue.ended(time.monotonic(), instead=len(parts))])

    def _cancel_unneeded(self) -> None:
        """Cancel the requests whose callers have all given up."""
        for task, request in self._running.items():
            if all(pending.slot.done() for pending in request):
                task.cancel()

    async def _attempt(self, request: SharedRequest) -> Sequence[SharedRequest]:
        """Send a request and complete its predicts; returns what to send instead if it failed."""
        seconds = remaining(request)
        if seconds <= 0:
            return ()  # every deadline has passed
        try:
            response = await self._send(payload(self._encoder, request), seconds)
        except Exception as error:  # noqa: BLE001 - raised to the predicts
            parts = halves(request, error)
            if not parts:
                fail(request, error)
            return parts
        complete(request, response)
        return ()

    async def close(self) -> None:
        """Cancel the requests in flight. Callers get ``CancelledError``."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        fail(self._queue.clear(), closed())
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _expire(future: asyncio.Future[Any], timeout: float) -> None:
    if not future.done():
        future.set_exception(expired(timeout))
