"""``predict_many``: any number of inputs, in batches, with a bounded window in flight.

``Pipeline`` is the machine: what to send next, what to do with an answer, what to hand out. It
does no I/O and has no clock. Two small drivers run it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import random
import sys
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
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from clarigrpc import errors, v2
from clarigrpc._bulk.adaptive import MAX_BATCH, BatchSize, Window
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._progress_bar import Bar
from clarigrpc._public_names import named_in
from clarigrpc._rpc import statuses
from clarigrpc._rpc.encoding import Pieces, PredictEncoder, size_of
from clarigrpc._rpc.retry import RetryBudget, retry_delays

METHOD = "PostModelOutputs"

MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Inputs are gathered into requests of this size at most; a larger one goes alone."""
MAX_PENDING_BYTES = 128 * 1024 * 1024
"""Bytes of inputs that are held at a time, unless one alone has more."""
LINGER = 0.1
"""Seconds that an input waits for its batch to fill while the window has room."""
_GLANCE = 0.001
"""For so long values are taken without a look at what else there is to do."""
ASYNC_LINGER = 0.01
"""The same for an asynchronous source, which is known to have nothing at the moment."""

_OVERLOADED = (
    errors.RateLimitError,
    errors.NotReadyError,
    errors.UnavailableError,
    errors.DeadlineExceededError,
)
_DIVISIBLE = (errors.InvalidArgumentError, errors.InternalError, errors.PartialFailureError)
# A silent service would be asked about every input alone, each for the whole timeout; so a batch
# is divided that often for silence, and further only while the service answers others.
_DIVIDED_FOR_SILENCE = 2


def may_be_one_input(error: Exception) -> bool:
    """Whether one input of a batch can have caused a failure of all of it.

    The other failures (a wrong key, no such model, a server that is away) hold for every input:
    dividing the batch would tell nothing.
    """
    return (
        isinstance(error, (*_DIVISIBLE, errors.DeadlineExceededError))
        or type(error) is errors.ApiError
        or getattr(error, "code", None) == v2.StatusCode.INPUT_DOES_NOT_EXIST
    )


def is_too_large(error: Exception) -> bool:
    """Whether the request was refused for its size."""
    return isinstance(error, errors.InvalidArgumentError) and (
        error.code == v2.StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED
        or (error.grpc_code is not None and error.grpc_code.name == "RESOURCE_EXHAUSTED")
    )


def mismatch(inputs: int, response: v2.MultiOutputResponse) -> errors.InternalError:
    """The error for a response that does not have one output for each input."""
    return errors.InternalError(
        f"{inputs} inputs were sent and {len(response.outputs)} outputs came back",
        method=METHOD,
        request_id=response.status.req_id,
    )


@named_in("clarigrpc.types")
@dataclass(slots=True)
class PredictSuccess:
    """The output of one input.

    Attributes:
        index: Index of the input among the values given, from 0.
        output: Its output.
        error: None.
    """

    index: int
    output: v2.Output
    error: None = None


@named_in("clarigrpc.types")
@dataclass(slots=True)
class PredictFailure:
    """The error of one input.

    Attributes:
        index: Index of the input among the values given, from 0.
        output: None.
        error: Why it failed: an ``ApiError``, or what reading the input raised.
    """

    index: int
    output: None
    error: Exception


PredictResult: TypeAlias = PredictSuccess | PredictFailure
"""The result of one input: ``if result.error is None``, a type checker knows its ``output``."""


@dataclass(slots=True, eq=False)
class Batch:
    """Inputs of one request: their places and their encoded pieces.

    Attributes:
        size: Bytes of the inputs.
        full: Whether there was no room for a further input.
        sent_at: When it was sent last.
        divided: How many divisions it comes from.
        failing_since: When it failed first, or was told last to come later.
        retries: The retry loop, once a try of it has failed.
    """

    indexes: list[int] = field(default_factory=list)
    pieces: list[Pieces] = field(default_factory=list)
    size: int = 0
    full: bool = False
    sent_at: float = 0.0
    divided: int = 0
    failing_since: float = math.inf
    retries: Generator[float, errors.ApiError, None] | None = None

    def __len__(self) -> int:
        return len(self.indexes)

    def part(self, places: Sequence[int], divided: int) -> Batch:
        """A batch of the inputs at these places of this one."""
        indexes = [self.indexes[place] for place in places]
        pieces = [self.pieces[place] for place in places]
        return Batch(indexes, pieces, sum(map(size_of, pieces)), divided=divided)


class Pipeline:
    """Batches, window, retries, order and partial failures of one run. Times in seconds.

    Args:
        encoder: Of the model's requests.
        batch_size: Inputs a request; None: adapts.
        in_flight: Requests in flight; None: adapts.
        ordered: Whether results come in the order of the values.
        max_bytes: Largest request.
        timeout: For a request; and for how long an outage is waited for.
        policy: Limits of retries. Their number is bounded by ``timeout`` alone.
        random: Draws from [0, 1).
    """

    def __init__(
        self,
        encoder: PredictEncoder,
        *,
        batch_size: int | None,
        in_flight: int | None,
        ordered: bool,
        max_bytes: int,
        timeout: float,
        policy: RetryPolicy,
        random: Callable[[], float] = random.random,
    ) -> None:
        if batch_size is not None and not 1 <= batch_size <= MAX_BATCH:
            raise errors.InvalidArgumentError(f"batch_size is 1 to {MAX_BATCH}, not {batch_size}")
        if in_flight is not None and in_flight < 1:
            raise errors.InvalidArgumentError(f"in_flight is 1 or more, not {in_flight}")
        self.timeout = timeout
        self.linger = LINGER
        self.window = Window(in_flight)
        self.batch_size = BatchSize(batch_size)
        self._encoder = encoder
        self._ordered = ordered
        self._max_bytes = max_bytes - len(encoder.constant)
        self._batch_bytes = min(MAX_BATCH_BYTES, self._max_bytes)
        self._policy = policy
        self._patient = (
            replace(policy, max_attempts=sys.maxsize) if policy.max_attempts > 1 else policy
        )
        self._random = random
        self._exhausted = False
        # Inputs: taken from the source, handed out, failed, bytes of those that have no answer.
        self._taken = 0
        self.handed = 0
        self.failures = 0
        self._pending_bytes = 0
        # Batches: being filled, to be sent, sent, to be sent again at a time.
        self._open = Batch()
        self._opened_at = 0.0
        self._ready: deque[Batch] = deque()
        self._sent = 0
        self._delayed: list[tuple[float, Batch]] = []
        # When the service answered last, failed since, and wants to be asked again.
        self._answered_at = -math.inf
        self._failing_since = math.inf
        self._now = 0.0
        self._not_before = -math.inf
        # Results that wait for an earlier one (``ordered``) or for the consumer.
        self._held: dict[int, PredictResult] = {}
        self._next = 0
        self._results: deque[PredictResult] = deque()

    @property
    def room(self) -> int:
        """How many values of the source can be taken at once, at most to fill a batch.

        One batch is filled ahead of the window. What an ordered run holds back is bounded too.
        """
        if self._exhausted or self._ready or self._results:
            return 0
        return self._room

    @property
    def _room(self) -> int:
        if self._pending_bytes > MAX_PENDING_BYTES:
            return 0
        size = self.batch_size.size
        most = 2 * self.window.limit * size
        begun = len(self._open.indexes)
        if begun:
            most += size  # a batch that was begun can be filled
        return min(max(0, most - self._taken + self.handed), max(1, size - begun))

    @property
    def finished(self) -> bool:
        """Whether everything given was answered and handed out."""
        return self._exhausted and self._taken == self.handed

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way, so that waiting to fill a batch helps nobody."""
        return not (self._sent or self._delayed or self._ready)

    def add(self, value: Any, now: float) -> None:
        """Take a value of the source. One that cannot be encoded becomes a failed result."""
        index = self._taken
        self._taken = index + 1
        try:
            pieces = self._encoder.pieces(value)
            size = len(pieces[0]) + len(pieces[1])
            if size > self._max_bytes:
                raise errors.InvalidArgumentError(
                    f"the input takes {size} bytes, more than max_message_bytes of the client"
                )
        except (TypeError, ValueError, OSError, errors.ClarigrpcError) as error:
            self._finish(PredictFailure(index, None, error))
            return
        batch = self._open
        if batch.indexes and batch.size + size > self._batch_bytes:
            batch.full = True
            self.flush()
            batch = self._open
        if not batch.indexes:
            self._opened_at = now
        indexes = batch.indexes
        indexes.append(index)
        batch.pieces.append(pieces)
        batch.size += size
        self._pending_bytes += size
        if len(indexes) >= self.batch_size.size:
            batch.full = True
            self.flush()

    def flush(self) -> None:
        """Have what there is sent, although the batch is not full."""
        if self._open:
            self._ready.append(self._open)
            self._open = Batch()

    def end(self) -> None:
        """The source has no more values."""
        self._exhausted = True
        self.flush()

    def take(self, now: float) -> Batch | None:
        """The next batch to send, or None while there is none or no room."""
        if self._sent >= self.window.limit or now < self._not_before:
            return None
        batch = self._due(now)
        if batch is None:
            # Those that wait for their next try keep their places in the window.
            if self._sent + len(self._delayed) >= self.window.limit:
                return None
            if self._open and not self._ready and self._is_overdue(now):
                self.flush()
            if not self._ready:
                return None
            batch = self._ready.popleft()
        self._sent += 1
        batch.sent_at = now
        return batch

    def _is_overdue(self, now: float) -> bool:
        """Whether the open batch is to be sent as it is."""
        if self._room:
            return now >= self._opened_at + self.linger
        return not (self._sent or self._delayed)

    def _due(self, now: float) -> Batch | None:
        """The batch whose next try has waited longest, if it has waited long enough."""
        if not self._delayed:
            return None
        place = min(range(len(self._delayed)), key=lambda place: self._delayed[place][0])
        return self._delayed.pop(place)[1] if self._delayed[place][0] <= now else None

    def wait(self, now: float) -> float | None:
        """Seconds until something can be sent without a further answer or value; None: never."""
        if self._sent >= self.window.limit:
            return None
        moments = [moment for moment, _ in self._delayed]
        if self._sent + len(self._delayed) < self.window.limit:
            if self._ready or (self._open and self._is_overdue(now)):
                moments.append(now)
            elif self._open and self._room:
                moments.append(self._opened_at + self.linger)
        return max(0.0, max(self._not_before, min(moments)) - now) if moments else None

    def encode(self, batch: Batch) -> bytes:
        """The serialized request of a batch."""
        return self._encoder.request(batch.pieces)

    def answered(self, batch: Batch, response: v2.MultiOutputResponse, now: float) -> None:
        """The service answered a batch, perhaps with failures at some inputs."""
        outputs = response.outputs
        if len(outputs) != len(batch):
            self.failed(batch, mismatch(len(batch), response), now)
            return
        self._learn(batch, now)
        self._answered_at = now
        self._sent -= 1
        self._pending_bytes -= batch.size
        success = v2.StatusCode.SUCCESS
        if all([output.status.code == success for output in outputs]):  # noqa: C419 - faster so
            self._failing_since = math.inf
            self._finish_all(batch.indexes, outputs)
            return
        request_id = response.status.req_id
        again: list[int] = []
        passing: errors.ApiError | None = None
        for place, output in enumerate(outputs):
            failure = None
            if output.status.code != success:
                failure = statuses.from_item(output.status, method=METHOD, request_id=request_id)
            if failure is None:
                self._finish(PredictSuccess(batch.indexes[place], output))
            elif failure.retryable:
                again.append(place)
                passing = failure
            else:
                self._finish(PredictFailure(batch.indexes[place], None, failure))
        if len(again) < len(batch):
            self._failing_since = math.inf
        if passing is not None:
            rest = batch.part(again, batch.divided)
            rest.retries, rest.failing_since = batch.retries, batch.failing_since
            self._pending_bytes += rest.size
            # The service is there, so that these inputs have a number of tries.
            self._again(rest, passing, self._policy, now)

    def _learn(self, batch: Batch, now: float) -> None:
        """Adapt to how long a batch took. Others than full ones would mislead."""
        if not batch.full or batch.retries is not None:
            return
        seconds = now - batch.sent_at
        if self.batch_size.succeeded(seconds, len(batch), self._sent):
            self.window.resized()
        else:
            self.window.succeeded(seconds, self._sent)

    def failed(self, batch: Batch, error: Exception, now: float) -> None:
        """A try of a batch failed as a whole: it is tried again, divided, or its inputs fail."""
        if isinstance(error, _OVERLOADED):
            self.window.overloaded(self._sent)
        self._sent -= 1
        if isinstance(error, errors.ApiError) and error.retryable:
            self._again(batch, error, self._patient, now)
            return
        if is_too_large(error):
            self._batch_bytes = min(self._batch_bytes, max(1, batch.size // 2))
        if len(batch) > 1 and self._is_worth_dividing(batch, error):
            middle = len(batch) // 2
            for places in (range(middle), range(middle, len(batch))):
                self._ready.append(batch.part(places, batch.divided + 1))
            return
        self._fail(batch, error)

    def _is_worth_dividing(self, batch: Batch, error: Exception) -> bool:
        if isinstance(error, errors.DeadlineExceededError):
            answering = self._answered_at >= batch.sent_at - self.timeout
            return answering or batch.divided < _DIVIDED_FOR_SILENCE
        return may_be_one_input(error)

    def _again(self, batch: Batch, error: errors.ApiError, policy: RetryPolicy, now: float) -> None:
        """Have a batch sent once more after a while, or give up."""
        self._now = now
        self._failing_since = min(self._failing_since, now)
        told = error.retry_after
        if told is not None:
            # To wait as told is no try.
            batch.failing_since, batch.retries = now, None
        batch.failing_since = min(batch.failing_since, now)
        if batch.retries is None:
            if isinstance(error, errors.NotReadyError) and not policy.wait_until_ready:
                policy = self._policy
            batch.retries = retry_delays(
                policy,
                # The window, which has shrunk, spares the service instead.
                RetryBudget(reserve=math.inf),
                idempotent=True,
                deadline=self.timeout,
                clock=lambda: self._now - min(batch.failing_since, self._failing_since),
                random=self._random,
            )
            next(batch.retries)
        try:
            delay = batch.retries.send(error)
        except errors.ApiError:
            self._fail(batch, error)
            return
        if told is not None:
            self._not_before = max(self._not_before, now + told)
        self._delayed.append((now + delay, batch))

    def _fail(self, batch: Batch, error: Exception) -> None:
        self._pending_bytes -= batch.size
        for index in batch.indexes:
            self._finish(PredictFailure(index, None, error))

    def _finish(self, result: PredictResult) -> None:
        self.failures += result.error is not None
        if not self._ordered:
            self._results.append(result)
            return
        self._held[result.index] = result
        while (ready := self._held.pop(self._next, None)) is not None:
            self._results.append(ready)
            self._next += 1

    def _finish_all(self, indexes: list[int], outputs: Iterable[v2.Output]) -> None:
        """As ``_finish`` for each; ``indexes`` ascend."""
        if self._ordered:
            last = indexes[-1]
            if self._held or indexes[0] != self._next or last - self._next >= len(indexes):
                for index, output in zip(indexes, outputs, strict=True):
                    self._finish(PredictSuccess(index, output))
                return
            self._next = last + 1
        self._results.extend(map(PredictSuccess, indexes, outputs))

    def results(self) -> Iterator[PredictResult]:
        """The results that can be handed out now."""
        results = self._results
        while results:
            self.handed += 1
            yield results.popleft()


Send = Callable[[bytes], Any]
"""Starts one attempt of a serialized request."""


class _Run:
    """What the drivers share: the calls on their way, and the progress bar."""

    def __init__(self, pipeline: Pipeline, send: Send, bar: Bar | None) -> None:
        self.running: dict[Any, Batch] = {}
        # An error of the source. It is raised once what the source gave has been answered.
        self.broken: Exception | None = None
        self._pipeline = pipeline
        self._send = send
        self._bar = bar

    def start(self, watch: Callable[[Any], None]) -> None:
        """Send what can be sent; ``watch`` is given each call."""
        pipeline = self._pipeline
        while (batch := pipeline.take(time.monotonic())) is not None:
            try:
                call = self._send(pipeline.encode(batch))
            except errors.ApiError as error:  # no token for the credentials, say
                pipeline.failed(batch, error, time.monotonic())
                continue
            self.running[call] = batch
            watch(call)

    def settle(self, call: Any) -> None:
        """Tell the pipeline how a call has ended."""
        batch = self.running.pop(call)
        try:
            response = call.result()
        except errors.PartialFailureError as error:
            response = error.response
        except errors.ApiError as error:
            self._pipeline.failed(batch, error, time.monotonic())
            return
        self._pipeline.answered(batch, response, time.monotonic())

    def read(self, source: Iterator[Any], until: Callable[[], bool]) -> None:
        """Take values, for a while, as long as there is room and not ``until``."""
        pipeline, clock = self._pipeline, time.monotonic
        now = began = asked = clock()
        while (room := pipeline.room) and now - began < LINGER and not until():
            for _ in range(room):
                try:
                    value = next(source)
                except StopIteration:
                    pipeline.end()
                    return
                except Exception as error:  # noqa: BLE001 - raised at the end
                    self.broken = error
                    pipeline.end()
                    return
                now = clock()
                pipeline.add(value, now)
                if now - asked > _GLANCE:  # a source that takes its time
                    break
            asked = now

    def show(self) -> None:
        """Bring the progress bar up to date."""
        if self._bar is not None:
            self._bar.update(self._pipeline.handed, self._pipeline.failures)

    def check(self) -> None:
        """Raise the error of the source."""
        if self.broken is not None:
            raise self.broken

    def close(self) -> None:
        """Cancel what is on its way."""
        for call in self.running:
            call.cancel()
        if self._bar is not None:
            self._bar.close()


def run(
    pipeline: Pipeline, values: Iterable[Any], send: Send, bar: Bar | None
) -> Generator[PredictResult, None, None]:
    """The blocking driver. ``values`` is read on the caller's thread, between results.

    ``send`` returns futures of gRPC, so that no thread is needed.
    """
    source = iter(values)
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    calls = _Run(pipeline, send, bar)

    def watch(call: Any) -> None:
        call.add_done_callback(ended.put)

    def answered() -> bool:
        return not ended.empty()

    try:
        while True:
            while answered():
                calls.settle(ended.get())
            calls.start(watch)
            yield from pipeline.results()
            calls.show()
            if pipeline.finished:
                break
            if pipeline.room:
                calls.read(source, answered)
                continue
            with contextlib.suppress(queue.Empty):
                calls.settle(ended.get(timeout=pipeline.wait(time.monotonic())))
        calls.check()
    finally:
        calls.close()


async def arun(
    pipeline: Pipeline,
    values: Iterable[Any] | AsyncIterable[Any],
    send: Callable[[bytes], Awaitable[Any]],
    bar: Bar | None,
) -> AsyncGenerator[PredictResult, None]:
    """The awaiting driver. A slow asynchronous source does not hold back results."""
    wake, room = asyncio.Event(), asyncio.Event()
    ended: deque[asyncio.Task[Any]] = deque()
    reader: asyncio.Task[None] | None = None

    def note(call: asyncio.Task[Any]) -> None:
        ended.append(call)
        wake.set()

    def watch(call: asyncio.Task[Any]) -> None:
        call.add_done_callback(note)

    async def attempt(payload: bytes) -> Any:
        return await send(payload)

    async def read(source: AsyncIterable[Any]) -> None:
        try:
            async for value in source:
                pipeline.add(value, time.monotonic())
                wake.set()
                while not pipeline.room:
                    room.clear()
                    await room.wait()
        except Exception as error:  # noqa: BLE001 - raised at the end
            calls.broken = error
        pipeline.end()
        wake.set()

    def attempt_soon(payload: bytes) -> asyncio.Task[Any]:
        return asyncio.ensure_future(attempt(payload))

    calls = _Run(pipeline, attempt_soon, bar)
    source = iter(()) if isinstance(values, AsyncIterable) else iter(values)
    if isinstance(values, AsyncIterable):
        pipeline.linger = ASYNC_LINGER
        reader = asyncio.ensure_future(read(values))
    try:
        while True:
            wake.clear()
            while ended:
                calls.settle(ended.popleft())
            if reader is not None and pipeline.idle:
                # The source has nothing at this moment: a fuller batch is not worth waiting for.
                pipeline.flush()
            calls.start(watch)
            for result in pipeline.results():
                yield result
            calls.show()
            if pipeline.finished:
                break
            if pipeline.room:
                room.set()
                if reader is None:
                    calls.read(source, lambda: False)
                    await asyncio.sleep(0)
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pipeline.wait(time.monotonic())):
                    await wake.wait()
        calls.check()
    finally:
        calls.close()
        tasks = [*calls.running, *([reader] if reader is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
