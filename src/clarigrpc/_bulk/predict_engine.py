"""The state machine of ``predict_many``: batches, concurrency, retries, order of results.

``PredictEngine`` decides what to send next, what a response means and which results to hand out.
It does no I/O and has no clock; ``predict_drivers`` runs it.
"""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from clarigrpc import errors, v2
from clarigrpc._bulk.adaptive import AdaptiveBatchSize, ConcurrencyLimit
from clarigrpc._bulk.output_matching import in_order
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._public_names import named_in
from clarigrpc._rpc import statuses
from clarigrpc._rpc.encoding import Pieces, PredictEncoder, size_of
from clarigrpc._rpc.retry import RetryBudget, retry_delays

MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Maximum bytes of a request with several inputs; a larger input is sent alone."""
MAX_PENDING_BYTES = 128 * 1024 * 1024
"""Bytes of inputs without a result above which the source is not read."""
LINGER = 0.1
"""Seconds an input waits for its batch to fill while another request may be sent."""

_OVERLOAD_ERRORS = (
    errors.RateLimitError,
    errors.NotReadyError,
    errors.UnavailableError,
    errors.DeadlineExceededError,
)
_ONE_INPUT_ERRORS = (
    errors.InvalidArgumentError,
    errors.InternalError,
    errors.PartialFailureError,
    errors.DeadlineExceededError,
)
# Each half of a batch that got no response would wait for the whole timeout again. So a batch is
# split this often while the service responds to nothing, and further only if it responds to others.
_SPLITS_WITHOUT_RESPONSE = 2


def may_be_one_input(error: Exception) -> bool:
    """Whether a single input may be the reason why its whole batch failed.

    Other failures (wrong key, missing model, unavailable server) apply to every input, so that
    splitting the batch would not help.
    """
    return (
        isinstance(error, _ONE_INPUT_ERRORS)
        or type(error) is errors.ApiError
        or getattr(error, "code", None) == v2.StatusCode.INPUT_DOES_NOT_EXIST
    )


def is_too_large(error: Exception) -> bool:
    """Whether the request was rejected because of its size."""
    return isinstance(error, errors.InvalidArgumentError) and (
        error.code == v2.StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED
        or (error.grpc_code is not None and error.grpc_code.name == "RESOURCE_EXHAUSTED")
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
"""The result of one input. ``if result.error is None``, a type checker knows its ``output``."""


@dataclass(slots=True, eq=False)
class PredictBatch:
    """The inputs of one request.

    Attributes:
        indexes: Positions of the inputs in the source.
        ids: The ids that they are sent with.
        pieces: The encoded inputs.
        size: Bytes of the inputs.
        full: Whether there was no room for another input.
        sent_at: Time of the latest attempt.
        splits: How many times its inputs were split off a larger batch.
        failing_since: Time of the first failure, or of the latest one with a retry delay set by
            the service.
        retries: The retry loop; None before the first failure.
    """

    indexes: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    pieces: list[Pieces] = field(default_factory=list)
    size: int = 0
    full: bool = False
    sent_at: float = 0.0
    splits: int = 0
    failing_since: float = math.inf
    retries: Generator[float, errors.ApiError, None] | None = None

    def __len__(self) -> int:
        return len(self.indexes)

    def part(self, places: Sequence[int], splits: int) -> PredictBatch:
        """A batch with the inputs at these places of this batch."""
        indexes = [self.indexes[place] for place in places]
        ids = [self.ids[place] for place in places]
        pieces = [self.pieces[place] for place in places]
        return PredictBatch(indexes, ids, pieces, sum(map(size_of, pieces)), splits=splits)


class PredictEngine:
    """The state of one ``predict_many``. Times in seconds.

    Args:
        encoder: Encodes the requests.
        batch_size: Inputs per request. None adapts.
        in_flight: Maximum number of requests in flight. None adapts.
        ordered: Whether results are handed out in the order of the source.
        max_bytes: Maximum size of a request.
        timeout: For each request, and for how long an outage is tolerated.
        policy: Delays between retries. Their number is limited by ``timeout`` only.
        random: Returns numbers in [0, 1).

    Raises:
        InvalidArgumentError: ``batch_size`` or ``in_flight`` is out of range.
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
        if batch_size is not None and not 1 <= batch_size <= MAX_ITEMS:
            raise errors.InvalidArgumentError(
                f"batch_size must be 1 to {MAX_ITEMS}, not {batch_size}"
            )
        if in_flight is not None and in_flight < 1:
            raise errors.InvalidArgumentError(f"in_flight must be 1 or more, not {in_flight}")
        self.timeout = timeout
        self.linger = LINGER
        self.concurrency = ConcurrencyLimit(in_flight)
        self.batch_size = AdaptiveBatchSize(batch_size)
        self._encoder = encoder
        self._ordered = ordered
        self._max_bytes = max_bytes - len(encoder.constant)
        self._batch_bytes = min(MAX_BATCH_BYTES, self._max_bytes)
        self._policy = policy
        self._outage_policy = (
            replace(policy, max_attempts=sys.maxsize) if policy.max_attempts > 1 else policy
        )
        self._random = random
        self._exhausted = False
        # Inputs: read from the source, encoded, handed out, failed; bytes of those without result.
        self._taken = self._encoded = 0
        self.handed = 0
        self.failures = 0
        self._pending_bytes = 0
        # Batches: being filled, to be sent, number in flight, to be sent again at a given time.
        self._open = PredictBatch()
        self._opened_at = 0.0
        self._ready: deque[PredictBatch] = deque()
        self._sent = 0
        self._delayed: list[tuple[float, PredictBatch]] = []
        # Times: of the latest response, since which all fails, before which nothing is sent.
        self._responded_at = -math.inf
        self._failing_since = math.inf
        self._now = 0.0
        self._not_before = -math.inf
        # Results that wait for an earlier one (``ordered``), or for the consumer.
        self._held: dict[int, PredictResult] = {}
        self._next = 0
        self._results: deque[PredictResult] = deque()

    @property
    def room(self) -> int:
        """How many values to read from the source now; at most as many as fill a batch.

        One batch is prepared ahead of the concurrency limit. The number of results that wait for
        an earlier one is limited as well.
        """
        if self._exhausted or self._ready or self._results:
            return 0
        return self._room

    @property
    def _room(self) -> int:
        if self._pending_bytes > MAX_PENDING_BYTES:
            return 0
        size = self.batch_size.size
        most = 2 * self.concurrency.limit * size
        begun = len(self._open.indexes)
        if begun:
            most += size  # an open batch may be filled
        return min(max(0, most - self._taken + self.handed), max(1, size - begun))

    @property
    def taken(self) -> int:
        """Number of values read from the source."""
        return self._taken

    @property
    def finished(self) -> bool:
        """Whether every value of the source has a result that was handed out."""
        return self._exhausted and self._taken == self.handed

    @property
    def idle(self) -> bool:
        """Whether no request is in flight or due, so that there is no point in filling a batch."""
        return not (self._sent or self._delayed or self._ready)

    def add(self, value: Any, now: float) -> None:
        """Add a value of the source. One that cannot be encoded becomes a failed result."""
        index = self._taken
        self._taken = index + 1
        try:
            name, pieces = self._encoder.numbered(value, self._encoded % MAX_ITEMS)
        except Exception as error:  # noqa: BLE001 - whatever a user's picture or file raises
            self._finish(PredictFailure(index, None, error))
            return
        self._encoded += 1  # so that no batch has a number twice
        size = len(pieces[0]) + len(pieces[1])
        if size > self._max_bytes:
            too_large = errors.InvalidArgumentError(
                f"the input has {size} bytes, more than the client's max_message_bytes"
            )
            self._finish(PredictFailure(index, None, too_large))
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
        batch.ids.append(name)
        batch.pieces.append(pieces)
        batch.size += size
        self._pending_bytes += size
        if len(indexes) >= self.batch_size.size:
            batch.full = True
            self.flush()

    def flush(self) -> None:
        """Make the open batch ready to be sent, full or not."""
        if self._open:
            self._ready.append(self._open)
            self._open = PredictBatch()

    def exhausted(self) -> None:
        """The source has no more values."""
        self._exhausted = True
        self.flush()

    def take(self, now: float) -> PredictBatch | None:
        """The batch to send now; None if there is none or the concurrency limit is reached."""
        if self._sent >= self.concurrency.limit or now < self._not_before:
            return None
        batch = self._due(now)
        if batch is None:
            # Batches that wait for a retry count against the limit.
            if self._sent + len(self._delayed) >= self.concurrency.limit:
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
        """Whether to send the open batch although it is not full."""
        if self._room:
            return now >= self._opened_at + self.linger
        return not (self._sent or self._delayed)

    def _due(self, now: float) -> PredictBatch | None:
        """The batch whose retry is due; the earliest one if there are several."""
        if not self._delayed:
            return None
        place = min(range(len(self._delayed)), key=lambda place: self._delayed[place][0])
        return self._delayed.pop(place)[1] if self._delayed[place][0] <= now else None

    def wait(self, now: float) -> float | None:
        """Seconds until a batch can be sent; None: not before another response or value."""
        if self._sent >= self.concurrency.limit:
            return None
        moments = [moment for moment, _ in self._delayed]
        if self._sent + len(self._delayed) < self.concurrency.limit:
            if self._ready or (self._open and self._is_overdue(now)):
                moments.append(now)
            elif self._open and self._room:
                moments.append(self._opened_at + self.linger)
        return max(0.0, max(self._not_before, min(moments)) - now) if moments else None

    def encode(self, batch: PredictBatch) -> bytes:
        """The serialized request of a batch."""
        return self._encoder.request(batch.pieces)

    def responded(self, batch: PredictBatch, response: v2.MultiOutputResponse, now: float) -> None:
        """The response to a batch was received; single inputs may have failed."""
        try:
            outputs = in_order(batch.ids, response)
        except errors.InternalError as error:
            self.failed(batch, error, now)
            return
        self._learn(batch, now)
        self._responded_at = now
        self._sent -= 1
        self._pending_bytes -= batch.size
        success = v2.StatusCode.SUCCESS
        if all([output.status.code == success for output in outputs]):  # noqa: C419 - faster so
            self._failing_since = math.inf
            self._finish_all(batch.indexes, outputs)
            return
        request_id = response.status.req_id
        again: list[int] = []
        retryable: errors.ApiError | None = None
        for place, output in enumerate(outputs):
            failure = None
            if output.status.code != success:
                failure = statuses.from_item(
                    output.status, method="PostModelOutputs", request_id=request_id
                )
            if failure is None:
                self._finish(PredictSuccess(batch.indexes[place], output))
            elif failure.retryable:
                again.append(place)
                retryable = failure
            else:
                self._finish(PredictFailure(batch.indexes[place], None, failure))
        if len(again) < len(batch):
            self._failing_since = math.inf
        if retryable is not None:
            rest = batch.part(again, batch.splits)
            rest.retries, rest.failing_since = batch.retries, batch.failing_since
            self._pending_bytes += rest.size
            # The service responds, so the number of retries of these inputs is limited.
            self._retry(rest, retryable, self._policy, now)

    def _learn(self, batch: PredictBatch, now: float) -> None:
        """Adapt the limits to the latency of a batch. Only full first attempts are comparable."""
        if not batch.full or batch.retries is not None:
            return
        seconds = now - batch.sent_at
        if self.batch_size.succeeded(seconds, len(batch), self._sent):
            self.concurrency.resized()
        else:
            self.concurrency.succeeded(seconds, self._sent)

    def failed(self, batch: PredictBatch, error: Exception, now: float) -> None:
        """An attempt of a batch failed as a whole: retry it, split it, or fail its inputs."""
        if isinstance(error, _OVERLOAD_ERRORS):
            self.concurrency.overloaded(self._sent)
        self._sent -= 1
        if isinstance(error, errors.ApiError) and error.retryable:
            self._retry(batch, error, self._outage_policy, now)
            return
        if is_too_large(error):
            self._batch_bytes = min(self._batch_bytes, max(1, batch.size // 2))
        if len(batch) > 1 and self._is_worth_splitting(batch, error):
            middle = len(batch) // 2
            for places in (range(middle), range(middle, len(batch))):
                self._ready.append(batch.part(places, batch.splits + 1))
            return
        self._fail(batch, error)

    def _is_worth_splitting(self, batch: PredictBatch, error: Exception) -> bool:
        if isinstance(error, errors.DeadlineExceededError):
            responding = self._responded_at >= batch.sent_at - self.timeout
            return responding or batch.splits < _SPLITS_WITHOUT_RESPONSE
        return may_be_one_input(error)

    def _retry(
        self, batch: PredictBatch, error: errors.ApiError, policy: RetryPolicy, now: float
    ) -> None:
        """Schedule a retry of a batch, or fail its inputs."""
        self._now = now
        self._failing_since = min(self._failing_since, now)
        retry_after = error.retry_after
        if retry_after is not None:
            # A delay that the service asks for does not count as a failed attempt.
            batch.failing_since, batch.retries = now, None
        batch.failing_since = min(batch.failing_since, now)
        if batch.retries is None:
            if isinstance(error, errors.NotReadyError) and not policy.wait_until_ready:
                policy = self._policy
            batch.retries = retry_delays(
                policy,
                # The concurrency limit, which has shrunk, protects the service instead.
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
        if retry_after is not None:
            self._not_before = max(self._not_before, now + retry_after)
        self._delayed.append((now + delay, batch))

    def _fail(self, batch: PredictBatch, error: Exception) -> None:
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
        """``_finish`` for successful inputs with ascending indexes."""
        if self._ordered:
            last = indexes[-1]
            if self._held or indexes[0] != self._next or last - self._next >= len(indexes):
                for index, output in zip(indexes, outputs, strict=True):
                    self._finish(PredictSuccess(index, output))
                return
            self._next = last + 1
        self._results.extend(map(PredictSuccess, indexes, outputs))

    def results(self) -> Iterator[PredictResult]:
        """The results to hand out now."""
        results = self._results
        while results:
            self.handed += 1
            yield results.popleft()
