"""``predict_many``: any number of inputs, in batches, with a bounded window in flight.

``Pipeline`` is the machine: what to send next, what to do with an answer, what to hand out. It
does no I/O. Two small drivers run it.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from clarigrpc import errors, v2
from clarigrpc.predict.limits import MAX_BATCH, MAX_WINDOW, BatchSize, Window
from clarigrpc.wire import PredictEncoder

METHOD = "PostModelOutputs"

# Failures that one input of a batch can cause for all of it. The others (a wrong key, no such
# model, a server that is away) hold for every input: splitting the batch would tell nothing.
MAY_BE_ONE_INPUT = (
    errors.InvalidArgumentError,
    errors.InternalError,
    errors.DeadlineExceededError,
    errors.PartialFailureError,
)
_OVERLOADED = (errors.RateLimitError, errors.NotReadyError, errors.UnavailableError)


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What became of one input.

    Attributes:
        index: Its place among the values given, from 0.
        output: Its output, None if it failed.
        error: Why it failed, None if it did not.
    """

    index: int
    output: v2.Output | None
    error: Exception | None


@dataclass(slots=True)
class Batch:
    """Inputs of one request: their places and their encoded pieces."""

    indexes: list[int]
    pieces: list[tuple[bytes, ...]]

    def __len__(self) -> int:
        return len(self.indexes)


class Pipeline:
    """Batches, window, order and partial failures of one run.

    Args:
        encoder: Of the model's requests.
        batch_size: Inputs a request; None: adapts.
        in_flight: Requests in flight; None: adapts.
        ordered: Whether results come in the order of the values.
        max_bytes: Largest request.
    """

    def __init__(
        self,
        encoder: PredictEncoder,
        *,
        batch_size: int | None,
        in_flight: int | None,
        ordered: bool,
        max_bytes: int,
    ) -> None:
        if batch_size is not None and not 1 <= batch_size <= MAX_BATCH:
            raise errors.InvalidArgumentError(f"batch_size is 1 to {MAX_BATCH}, not {batch_size}")
        if in_flight is not None and in_flight < 1:
            raise errors.InvalidArgumentError(f"in_flight is 1 or more, not {in_flight}")
        self._encoder = encoder
        self._batch_size = BatchSize(batch_size)
        self.window = Window(in_flight)
        self._ordered = ordered
        self._max_bytes = max_bytes - len(encoder.constant)
        self._count = 0
        self._open = Batch([], [])
        self._open_bytes = 0
        self._ready: deque[Batch] = deque()
        self._in_flight = 0
        self._exhausted = False
        # Results that wait for an earlier one (``ordered``) or for the consumer.
        self._held: dict[int, PredictResult] = {}
        self._next = 0
        self._results: deque[PredictResult] = deque()

    @property
    def wants_value(self) -> bool:
        """Whether a value of the source can be taken: there is room in the window."""
        return not self._exhausted and not self._ready and self._has_room()

    @property
    def finished(self) -> bool:
        """Whether everything given was answered and handed out."""
        return (
            self._exhausted
            and not self._open.indexes
            and not self._ready
            and not self._in_flight
            and not self._results
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight, so that waiting to fill a batch helps nobody."""
        return not self._in_flight and not self._ready

    def _has_room(self) -> bool:
        # What an ordered run holds back counts as in flight: it bounds the memory.
        held = -(-len(self._held) // self._batch_size.size)
        return self._in_flight + held < self.window.limit or (
            not self._in_flight and not self._ready
        )

    def add(self, value: Any) -> None:
        """Take a value of the source. One that cannot be encoded becomes a failed result."""
        index = self._count
        self._count += 1
        try:
            pieces = self._encoder.pieces(value)
            size = sum(map(len, pieces))
            if size > self._max_bytes:
                raise errors.InvalidArgumentError(
                    f"the input takes {size} bytes, more than max_message_bytes of the client"
                )
        except (TypeError, ValueError, OSError, errors.ClarigrpcError) as error:
            self._finish(PredictResult(index, None, error))
            return
        if self._open.indexes and self._open_bytes + size > self._max_bytes:
            self._close_batch()
        self._open.indexes.append(index)
        self._open.pieces.append(pieces)
        self._open_bytes += size
        if len(self._open) >= self._batch_size.size:
            self._close_batch()

    def flush(self) -> None:
        """Send what there is, although the batch is not full."""
        if self._open.indexes:
            self._close_batch()

    def end(self) -> None:
        """The source has no more values."""
        self._exhausted = True
        self.flush()

    def _close_batch(self) -> None:
        self._ready.append(self._open)
        self._open = Batch([], [])
        self._open_bytes = 0

    def take(self) -> Batch | None:
        """The next batch to send, or None while there is none or no room."""
        if not self._ready or not self._has_room():
            return None
        self._in_flight += 1
        return self._ready.popleft()

    def encode(self, batch: Batch) -> bytes:
        """The serialized request of a batch."""
        return self._encoder.request(batch.pieces)

    def answered(self, batch: Batch, response: v2.MultiOutputResponse, seconds: float) -> None:
        """The service answered a batch after so many seconds."""
        outputs = response.outputs
        if len(outputs) != len(batch):
            error = errors.InternalError(
                f"{len(batch)} inputs were sent and {len(outputs)} outputs came back",
                method=METHOD,
                request_id=response.status.req_id,
            )
            self.failed(batch, error)
            return
        self.window.succeeded(seconds, len(batch), self._in_flight)
        self._batch_size.succeeded(seconds, len(batch))
        self._in_flight -= 1
        success = v2.StatusCode.SUCCESS
        request_id = response.status.req_id
        for index, output in zip(batch.indexes, outputs, strict=True):
            failure = None
            if output.status.code != success:
                failure = errors.from_item(output.status, method=METHOD, request_id=request_id)
            self._finish(PredictResult(index, None if failure else output, failure))

    def failed(self, batch: Batch, error: Exception) -> None:
        """A batch failed as a whole: its inputs fail, or are sent again in halves."""
        self._in_flight -= 1
        if isinstance(error, _OVERLOADED):
            self.window.overloaded()
        if "max_message_bytes" in str(error):
            self._batch_size.too_large(len(batch))
        if len(batch) > 1 and isinstance(error, MAY_BE_ONE_INPUT):
            middle = len(batch) // 2
            self._ready.appendleft(Batch(batch.indexes[middle:], batch.pieces[middle:]))
            self._ready.appendleft(Batch(batch.indexes[:middle], batch.pieces[:middle]))
            return
        for index in batch.indexes:
            self._finish(PredictResult(index, None, error))

    def _finish(self, result: PredictResult) -> None:
        if not self._ordered:
            self._results.append(result)
            return
        self._held[result.index] = result
        while (ready := self._held.pop(self._next, None)) is not None:
            self._results.append(ready)
            self._next += 1

    def results(self) -> Iterator[PredictResult]:
        """The results that can be handed out now."""
        while self._results:
            yield self._results.popleft()


Send = Callable[[bytes], Any]


def run(
    pipeline: Pipeline, values: Iterable[Any], send: Send, cancel: Callable[[], None]
) -> Iterator[PredictResult]:
    """The blocking driver. ``values`` is read on the caller's thread, between results.

    ``cancel`` ends the calls in flight: the consumer may stop at any time.
    """
    source = iter(values)
    answers: queue.SimpleQueue[tuple[Batch, Any, float]] = queue.SimpleQueue()

    def work(batch: Batch, payload: bytes) -> None:
        started = time.monotonic()
        try:
            answer = send(payload)
        except Exception as error:  # noqa: BLE001 - becomes the result of the inputs
            answer = error
        answers.put((batch, answer, time.monotonic() - started))

    workers = ThreadPoolExecutor(MAX_WINDOW, thread_name_prefix="clarigrpc-predict")
    try:
        while not pipeline.finished:
            while pipeline.wants_value:
                try:
                    pipeline.add(next(source))
                except StopIteration:
                    pipeline.end()
            while (batch := pipeline.take()) is not None:
                workers.submit(work, batch, pipeline.encode(batch))
            yield from pipeline.results()
            if not pipeline.idle:
                _absorb(pipeline, *answers.get())
                while not answers.empty():
                    _absorb(pipeline, *answers.get())
    finally:
        cancel()
        workers.shutdown(cancel_futures=True)


def _absorb(pipeline: Pipeline, batch: Batch, answer: Any, seconds: float) -> None:
    if isinstance(answer, Exception):
        pipeline.failed(batch, answer)
    else:
        pipeline.answered(batch, answer, seconds)


async def arun(
    pipeline: Pipeline, values: Iterable[Any] | AsyncIterable[Any], send: Send
) -> AsyncIterator[PredictResult]:
    """The awaiting driver. A slow asynchronous source does not hold back results."""
    source = aiter(values) if isinstance(values, AsyncIterable) else None
    plain = None if isinstance(values, AsyncIterable) else iter(values)
    running: set[asyncio.Task[tuple[Batch, Any, float]]] = set()
    pull: asyncio.Task[Any] | None = None

    async def work(batch: Batch, payload: bytes) -> tuple[Batch, Any, float]:
        started = time.monotonic()
        try:
            answer = await send(payload)
        except Exception as error:  # noqa: BLE001 - becomes the result of the inputs
            answer = error
        return batch, answer, time.monotonic() - started

    async def next_value() -> Any:
        assert source is not None
        return await anext(source)

    try:
        while not pipeline.finished:
            while plain is not None and pipeline.wants_value:
                try:
                    pipeline.add(next(plain))
                except StopIteration:
                    pipeline.end()
            if source is not None and pull is None and pipeline.wants_value:
                pull = asyncio.create_task(next_value())
            if pull is not None and not pull.done() and pipeline.idle:
                await asyncio.sleep(0)
                if not pull.done():
                    pipeline.flush()
            while (batch := pipeline.take()) is not None:
                running.add(asyncio.create_task(work(batch, pipeline.encode(batch))))
            for result in pipeline.results():
                yield result
            waiting: set[asyncio.Task[Any]] = {*running, pull} if pull else {*running}
            if not waiting:
                continue
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if pull in done and pull is not None:
                try:
                    pipeline.add(pull.result())
                except StopAsyncIteration:
                    pipeline.end()
                pull = None
            for task in done & running:
                running.discard(task)
                _absorb(pipeline, *task.result())
    finally:
        pending = [*running, *([pull] if pull else [])]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.gather(*pending, return_exceptions=True)
