"""The policy of ``predict_many``: adaptive limits, waiting out failures, order of the results."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from clarigrpc import errors, v2
from clarigrpc._bulk.adaptive import AdaptiveBatchSize, AdaptiveLimits, ConcurrencyLimit
from clarigrpc._bulk.engine import BulkBatch, BulkEngine, check_limits
from clarigrpc._bulk.output_matching import in_order
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._public_names import named_in
from clarigrpc._rpc import statuses
from clarigrpc._rpc.encoding import EncodedInputs, sent_ids
from clarigrpc._rpc.retry import RetryBudget, retry_delays

OutputT = TypeVar("OutputT")

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


@dataclass(slots=True)
class OneSuccess(Generic[OutputT]):
    """The output of one input.

    Attributes:
        index: Index of the input among the values given, from 0.
        output: Its output.
        error: None.
    """

    index: int
    output: OutputT
    error: None = None


@named_in("clarigrpc.types")
class PredictSuccess(OneSuccess[v2.Output]):
    """The output of one input, a ``v2.Output``.

    Attributes:
        index: Index of the input among the values given, from 0.
        output: Its output.
        error: None.
    """

    __slots__ = ()


@named_in("clarigrpc.types")
class WorkflowSuccess(OneSuccess[v2.WorkflowResult]):
    """The output of a workflow for one input, a ``v2.WorkflowResult``.

    Attributes:
        index: Index of the input among the values given, from 0.
        output: Its result, with one output per node.
        error: None.
    """

    __slots__ = ()


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
WorkflowPredictResult: TypeAlias = WorkflowSuccess | PredictFailure
"""The result of one input of a workflow."""


@dataclass(slots=True)
class BatchResults(Generic[OutputT]):
    """The results of inputs that were ready at the same time.

    Attributes:
        indexes: Indexes of the inputs that succeeded, among the values given, from 0; ascending.
        outputs: Their outputs, in the same order.
        errors: Why the others failed, by index: an ``ApiError``, or what reading the input raised.
    """

    indexes: Sequence[int]
    outputs: Sequence[OutputT]
    errors: Mapping[int, Exception]

    def __len__(self) -> int:
        return len(self.outputs) + len(self.errors)


@named_in("clarigrpc.types")
class PredictBatch(BatchResults[v2.Output]):
    """The results of inputs that were ready at the same time, usually those of one request.

    ``clarigrpc.arrays`` turns ``outputs`` into arrays, with a row for each of ``indexes``.
    ``len(batch)`` is the number of inputs.

    Attributes:
        indexes: Indexes of the inputs that succeeded, among the values given, from 0; ascending.
        outputs: Their outputs, in the same order.
        errors: Why the others failed, by index: an ``ApiError``, or what reading the input raised.
    """

    __slots__ = ()


@named_in("clarigrpc.types")
class WorkflowBatch(BatchResults[v2.WorkflowResult]):
    """The results of inputs of a workflow that were ready at the same time.

    Attributes:
        indexes: Indexes of the inputs that succeeded, among the values given, from 0; ascending.
        outputs: Their results, in the same order, each with one output per node.
        errors: Why the others failed, by index: an ``ApiError``, or what reading the input raised.
    """

    __slots__ = ()


class PredictKind(NamedTuple):
    """What is predicted with.

    Attributes:
        method: Name of the method that predicts.
        answers: Name of the field of its responses with the outputs.
        success: Class of the result of one input.
        batch: Class of the results of a batch.
    """

    method: str
    answers: str
    success: type[OneSuccess[Any]]
    batch: type[BatchResults[Any]]


PREDICT_MODEL = PredictKind("PostModelOutputs", "outputs", PredictSuccess, PredictBatch)
PREDICT_WORKFLOW = PredictKind("PostWorkflowResults", "results", WorkflowSuccess, WorkflowBatch)


class BatchEncoder(Protocol):
    """What the engine needs of an encoder of requests."""

    constant: bytes

    def batch(self, values: Sequence[Any]) -> EncodedInputs:
        """The inputs of values; their positions are those among ``values``."""

    def request(self, items: Sequence[Any], ids: Sequence[str]) -> bytes:
        """The serialized request with inputs; those without an id get one from their place."""


class PredictEngine(BulkEngine[Any]):
    """The state of one ``predict_many`` or ``predict_batches``. Times in seconds.

    Args:
        encoder: Encodes the requests.
        batch_size: Inputs per request. None adapts.
        in_flight: Maximum number of requests in flight. None adapts.
        ordered: Whether results are handed out in the order of the source.
        max_bytes: Maximum size of a request.
        timeout: For each request, and for how long an outage is tolerated.
        policy: Delays between retries. Their number is limited by ``timeout`` only.
        random: Returns numbers in [0, 1).
        limits: Limits to start with, in place of ``batch_size`` and ``in_flight``.
        batches: Whether a result is that of a batch, not of one input.
        kind: What is predicted with.

    Raises:
        InvalidArgumentError: ``batch_size`` or ``in_flight`` is out of range.
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        *,
        batch_size: int | None,
        in_flight: int | None,
        ordered: bool,
        max_bytes: int,
        timeout: float,
        policy: RetryPolicy,
        random: Callable[[], float] = random.random,
        limits: AdaptiveLimits | None = None,
        batches: bool = False,
        kind: PredictKind = PREDICT_MODEL,
    ) -> None:
        check_limits(batch_size, in_flight)
        self._max_bytes = max_bytes - len(encoder.constant)
        super().__init__(
            batch_bytes=min(MAX_BATCH_BYTES, self._max_bytes),
            pending_bytes=MAX_PENDING_BYTES,
            linger=LINGER,
        )
        self.timeout = timeout
        self.limits = limits or AdaptiveLimits(
            ConcurrencyLimit(in_flight), AdaptiveBatchSize(batch_size)
        )
        self.concurrency, self.batch_size = self.limits
        self._kind = kind
        self._encoder = encoder
        self._ordered = ordered
        self._batches = batches
        self._policy = policy
        self._outage_policy = (
            replace(policy, max_attempts=sys.maxsize) if policy.max_attempts > 1 else policy
        )
        self._random = random
        # Times: of the latest response, since which all fails, before which nothing is sent.
        self._responded_at = -math.inf
        self._failing_since = math.inf
        self._now = 0.0
        self._not_before = -math.inf
        # Results that wait for an earlier one (``ordered``), by their first index.
        self._held: dict[int, BatchResults[Any]] = {}
        self._next = 0

    @property
    def limit(self) -> int:
        return self.concurrency.limit

    @property
    def size(self) -> int:
        return self.batch_size.size

    @property
    def opens(self) -> float:
        return self._not_before

    def encode(self, first: int, values: Sequence[Any]) -> EncodedInputs:
        encoded = self._encoder.batch(values)
        if not encoded.errors and max(encoded.sizes) <= self._max_bytes:
            return encoded._replace(indexes=range(first, first + len(values)))
        unsent = {first + place: error for place, error in encoded.errors.items()}
        kept = []
        for place, size in enumerate(encoded.sizes):
            if size > self._max_bytes:
                unsent[first + encoded.indexes[place]] = errors.InvalidArgumentError(
                    f"the input has {size} bytes, more than the client's max_message_bytes"
                )
            else:
                kept.append(place)
        return EncodedInputs(
            [first + encoded.indexes[place] for place in kept],
            [encoded.ids[place] for place in kept],
            [encoded.items[place] for place in kept],
            [encoded.sizes[place] for place in kept],
            dict(sorted(unsent.items())),
        )

    def request(self, batch: BulkBatch) -> bytes:
        """The serialized request of a batch."""
        return self._encoder.request(batch.items, batch.ids)

    def responded(self, batch: BulkBatch, response: Any, now: float) -> None:
        try:
            outputs = in_order(sent_ids(batch.ids), response, self._kind.answers)
        except errors.InternalError as error:
            self.failed(batch, error, now)
            return
        self._learn(batch, now)
        self._responded_at = now
        self._ended(batch)
        success = v2.StatusCode.SUCCESS
        if all([output.status.code == success for output in outputs]):  # noqa: C419 - faster so
            self._failing_since = math.inf
            self._finish(batch, BatchResults(batch.indexes, outputs, batch.errors))
            return
        request_id = response.status.req_id
        done: list[int] = []
        again: list[int] = []
        failed = dict(batch.errors)
        retryable: errors.ApiError | None = None
        for place, output in enumerate(outputs):
            failure = None
            if output.status.code != success:
                failure = statuses.from_item(
                    output.status, method=self._kind.method, request_id=request_id
                )
            if failure is None:
                done.append(place)
            elif failure.retryable:
                again.append(place)
                retryable = failure
            else:
                failed[batch.indexes[place]] = failure
        if len(again) < len(batch):
            self._failing_since = math.inf
        indexes = [batch.indexes[place] for place in done]
        self._finish(batch, BatchResults(indexes, [outputs[place] for place in done], failed))
        if retryable is not None:
            rest = batch.part(again)
            rest.retries, rest.failing_since = batch.retries, batch.failing_since
            self._pending_bytes += rest.size
            # The service responds, so the number of retries of these inputs is limited.
            self._retry(rest, retryable, self._policy, now)

    def _learn(self, batch: BulkBatch, now: float) -> None:
        """Adapt the limits to the latency of a batch. Only full first attempts are comparable."""
        if not batch.full or batch.retries is not None:
            return
        seconds, in_flight = now - batch.sent_at, len(self._sent)
        if self.batch_size.succeeded(seconds, len(batch), batch.in_flight):
            self.concurrency.resized()
        self.concurrency.succeeded(
            seconds,
            in_flight,
            now,
            sent_in_flight=batch.in_flight,
            inputs=len(batch),
            size=self.size,
            timeout=self.timeout,
        )

    def failed(self, batch: BulkBatch, error: Exception, now: float) -> None:
        # Retry the batch, divide it, or fail its inputs.
        if isinstance(error, _OVERLOAD_ERRORS):
            self.concurrency.overloaded(len(self._sent))
        self._ended(batch)
        if isinstance(error, errors.ApiError) and error.retryable:
            self._retry(batch, error, self._outage_policy, now)
            return
        if is_too_large(error):
            self._batch_bytes = min(self._batch_bytes, max(1, batch.size // 2))
        if len(batch) > 1 and self._is_worth_splitting(batch, error):
            self._divide(batch)
            return
        self._fail(batch, error)

    def _is_worth_splitting(self, batch: BulkBatch, error: Exception) -> bool:
        if isinstance(error, errors.DeadlineExceededError):
            responding = self._responded_at >= batch.sent_at - self.timeout
            return responding or batch.splits < _SPLITS_WITHOUT_RESPONSE
        return may_be_one_input(error)

    def _retry(
        self, batch: BulkBatch, error: errors.ApiError, policy: RetryPolicy, now: float
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
        self._send_again(batch, now + delay)

    def _fail(self, batch: BulkBatch, error: Exception) -> None:
        failed = dict.fromkeys(batch.indexes, error)
        self._finish(batch, BatchResults((), (), {**batch.errors, **failed}))

    def _settle_unsent(self, batch: BulkBatch) -> None:
        self._finish(batch, BatchResults((), (), batch.errors))

    def _finish(self, batch: BulkBatch, results: BatchResults[Any]) -> None:
        """Hand out the results of a batch, those of an ordered run in the order of the source."""
        self._pending_bytes -= batch.size
        if not len(results):
            return
        self.failures += len(results.errors)
        if not self._ordered:
            self._hand_out(results)
            return
        for part in _without_gaps(results):
            self._held[_first(part)] = part
        while self._next in self._held:
            part = self._held.pop(self._next)
            self._next += len(part)
            self._hand_out(part)

    def _hand_out(self, results: BatchResults[Any]) -> None:
        if self._batches:
            made = self._kind.batch(results.indexes, results.outputs, results.errors)
            self._results.append(made)
            return
        singles: list[Any] = [*map(self._kind.success, results.indexes, results.outputs)]
        if results.errors:
            singles += [PredictFailure(index, None, one) for index, one in results.errors.items()]
            singles.sort(key=lambda result: result.index)
        self._results += singles

    def results(self) -> list[Any]:
        results = super().results()
        self.settled += sum(map(len, results)) if self._batches else len(results)
        return results


def _first(results: BatchResults[Any]) -> int:
    """The first index of results."""
    return min([*results.indexes[:1], *results.errors])


def _without_gaps(results: BatchResults[OutputT]) -> list[BatchResults[OutputT]]:
    """Results as those of runs of consecutive indexes."""
    indexes, outputs, failed = results.indexes, results.outputs, results.errors
    if isinstance(indexes, range) and not failed:
        return [results]
    every = sorted([*indexes, *failed])
    if every[-1] - every[0] < len(every):
        return [results]
    found = dict(zip(indexes, outputs, strict=True))
    runs = []
    for _, run in groupby(enumerate(every), lambda pair: pair[1] - pair[0]):
        members = [index for _, index in run]
        good = [index for index in members if index not in failed]
        runs.append(
            BatchResults(
                good,
                [found[index] for index in good],
                {index: failed[index] for index in members if index in failed},
            )
        )
    return runs
