"""The state machine of an upload of inputs. No I/O, no clock.

A driver calls ``step`` for what to do next, does it, and reports the outcome. All decisions are
made here: when a batch is sent again, what a response means for each input, when to give up.

Exactly once: every input has its id before it is first sent, so that sending it twice cannot add
it twice; the second time, the service responds that the id is in use (30100). On a first attempt
this is a failure. If an earlier attempt may have reached the service (its response was lost, or
the journal contains the input), the engine lists the inputs with these ids, and counts an input as
added if it ``is_ours``.

Retries follow ``retry_delays``, one loop per batch, except that in an outage only the deadline of
the batch ends them; the window limits their cost for the service. A throttled request with a retry
delay is no failed attempt: nothing is sent until then.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clarigrpc import errors, v2
from clarigrpc._bulk.input_batches import InputBatch, InputBatcher, PendingInput
from clarigrpc._bulk.input_journal import JournalEvent, Record
from clarigrpc._bulk.input_report import FailedInput, UploadReport
from clarigrpc._bulk.input_window import Window
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._rpc import statuses
from clarigrpc._rpc.retry import RetryBudget, retry_delays

CLOCK_SKEW = 300.0
"""Maximum difference between the clocks of the service and the client, in seconds."""

_CONTENT_FIELDS: tuple[Literal["image", "video", "audio", "text"], ...] = (
    "image",
    "video",
    "audio",
    "text",
)

# After these failures, which a single input may have caused, the halves of a batch are sent apart.
_SPLIT_ERRORS = (
    errors.AlreadyExistsError,
    errors.ApiError,
    errors.InvalidArgumentError,
    errors.InternalError,
    errors.CancelledError,
)
# After these failures, the inputs may have been added.
_UNSURE_ERRORS = (
    errors.ApiError,
    errors.InternalError,
    errors.CancelledError,
    errors.DeadlineExceededError,
    errors.UnavailableError,
)


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Send a batch, then call ``responded`` or ``failed``."""

    batch: InputBatch


@dataclass(frozen=True, slots=True)
class ReadSource:
    """Read the source until ``offer`` completes a batch or the source is exhausted."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for a response, at most this many seconds; None waits without limit."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Finish:
    """The upload has ended: with ``error``, or because all inputs have their outcome."""

    error: errors.ApiError | None

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error


InputStep = SendBatch | ReadSource | Pause | Finish


class InputEngine:
    """The state of one upload.

    Args:
        report: Counts the outcomes.
        policy: Delays between retries.
        batch_size: Maximum inputs per request.
        batch_bytes: Maximum bytes per request.
        in_flight: Maximum number of requests in flight.
        timeout: Seconds for all attempts of a request together.
        random: Returns numbers in [0, 1).
    """

    def __init__(
        self,
        report: UploadReport,
        policy: RetryPolicy,
        *,
        batch_size: int,
        batch_bytes: int,
        in_flight: int,
        timeout: float,
        random: Callable[[], float],
    ) -> None:
        self.report = report
        self._retries_enabled = policy.max_attempts > 1
        self._policy = (
            replace(policy, max_attempts=sys.maxsize) if self._retries_enabled else policy
        )
        self._batcher = InputBatcher(batch_size, batch_bytes)
        self._window = Window(in_flight)
        self._timeout = timeout
        self._random = random
        self._exhausted = False
        self._error: errors.ApiError | None = None
        self._records: list[Record] = []
        self._now = 0.0
        # Time of the latest response, or of the first request.
        self._progress_at = math.inf

    def step(self, now: float) -> InputStep:
        """What to do next."""
        self._now = now
        if self._error is not None:
            return Finish(self._error)
        batch = self._window.take(now)
        if batch is not None:
            self._progress_at = min(self._progress_at, now)
            if batch.deadline is None:
                batch.deadline = now + self._timeout
                self._record("sent", batch.inputs)
            return SendBatch(batch)
        if not self._exhausted and self._window.wants_more(now):
            return ReadSource()
        if self._exhausted and self._window.empty:
            self.report.complete = True
            return Finish(None)
        return Pause(self._window.pause(now))

    def offer(self, one: PendingInput) -> bool:
        """Add an input of the source; returns whether it completes a batch."""
        return self._put(self._batcher.add(one))

    def exhausted(self) -> None:
        """The source has no more inputs."""
        self._exhausted = True
        self._put(self._batcher.flush())

    def records(self) -> list[Record]:
        """New records, to be written to the journal before the next batch is sent."""
        records, self._records = self._records, []
        return records

    def responded(self, batch: InputBatch, response: v2.MultiInputResponse, now: float) -> None:
        """The response to a batch was received; single inputs may have failed."""
        self._now = now
        self._window.accepted(batch)
        self._progress_at = now
        if batch.checking:
            self._checked(batch, response)
        else:
            self._posted(batch, response)

    def failed(self, batch: InputBatch, error: errors.ApiError, now: float) -> None:
        """An attempt of a batch failed as a whole."""
        self._now = now
        sent_at = self._window.failed(batch)
        error_type = type(error)
        if error_type in _UNSURE_ERRORS and not error.not_sent:
            for one in batch.inputs:
                one.unsure = True
        if error_type is errors.RateLimitError:
            self.report.throttled += 1
            if self._slow_down(batch, sent_at, error.retry_after):
                return
        if error_type in _SPLIT_ERRORS:
            self._split(batch, error)
        else:
            # The deadline of one attempt is not that of the batch.
            error.retryable |= error_type is errors.DeadlineExceededError
            self._retry(batch, error)

    def abandon(self, status: v2.Status) -> None:
        """End the upload: every input without an outcome becomes a failure.

        Args:
            status: The status of these failures.
        """
        waiting, sent = self._window.clear()
        for batch in sent:
            for one in batch.inputs:
                one.unsure = True
        for batch in (*sent, *waiting):
            self._fail_all(batch.inputs, status)
        self._fail_all(self._batcher.flush(), status)

    def _put(self, inputs: list[PendingInput]) -> bool:
        if inputs:
            self._window.put(InputBatch(inputs))
        return bool(inputs)

    def _slow_down(self, batch: InputBatch, sent_at: float, retry_after: float | None) -> bool:
        """Send nothing until the time set by the service; False treats the error as a failure."""
        if (
            retry_after is None
            or not self._retries_enabled
            or retry_after > self._policy.max_retry_after
        ):
            return False
        until = sent_at + retry_after
        if until > self._progress_at + self._timeout:
            return False
        self.report.retries += 1
        self._window.slow_down(sent_at, retry_after)
        self._window.put(batch, until)
        # This delay does not count as a failed attempt: the timeout of the batch starts again.
        batch.deadline = until + self._timeout
        batch.retries = None
        return True

    def _retry(self, batch: InputBatch, error: errors.ApiError) -> None:
        """Schedule a retry of a batch, or end the upload."""
        if batch.retries is None:
            batch.retries = retry_delays(
                self._policy,
                RetryBudget(reserve=math.inf),
                idempotent=True,
                deadline=batch.deadline or self._now,
                clock=lambda: self._now,
                random=self._random,
            )
            next(batch.retries)
        try:
            delay = batch.retries.send(error)
        except errors.ApiError:
            self._stop(batch, error)
        else:
            self.report.retries += 1
            self._window.put(batch, self._now + delay)

    def _stop(self, batch: InputBatch, error: errors.ApiError) -> None:
        """End the upload: the service is unavailable, so that later inputs would fail as well."""
        self._error = self._error or error
        self._fail_all(batch.inputs, status_of(error))

    def _split(self, batch: InputBatch, error: errors.ApiError) -> None:
        if len(batch.inputs) == 1:
            (one,) = batch.inputs
            status = status_of(error)
            if _is_id_in_use(status) and one.unsure:
                self._check(batch.inputs, batch.deadline)
            else:
                self._fail(one, status)
            return
        self.report.retries += 2
        for half in batch.halves():
            self._window.put(half)

    def _posted(self, batch: InputBatch, response: v2.MultiInputResponse) -> None:
        reported = _statuses(batch.inputs, response)
        if reported is None:
            for one in batch.inputs:
                one.unsure = True
            error = errors.InternalError(
                "the response does not match the inputs", method="PostInputs"
            )
            self._split(batch, error)
            return
        added: dict[str, PendingInput] = {}
        in_use: list[PendingInput] = []
        later: list[PendingInput] = []
        retryable: errors.ApiError | None = None
        for one, status in zip(batch.inputs, reported, strict=True):
            failure = statuses.from_item(status, method="PostInputs", request_id="")
            if failure is None:
                added[one.id] = one
            elif _is_id_in_use(status) and one.unsure and one.id not in added:
                in_use.append(one)
            elif failure.retryable:
                later.append(one)
                retryable = failure
            else:
                # Rejected now, so no earlier attempt has added it.
                one.unsure = False
                self._fail(one, status)
        self._add(list(added.values()))
        if in_use:
            self._check(in_use, batch.deadline)
        if retryable is not None:
            rest = InputBatch(later, deadline=batch.deadline, retries=batch.retries)
            self._retry(rest, retryable)

    def _check(self, inputs: list[PendingInput], deadline: float | None) -> None:
        """List the inputs whose ids are in use."""
        self._window.put(InputBatch(inputs, checking=True, deadline=deadline))

    def _checked(self, batch: InputBatch, response: v2.MultiInputResponse) -> None:
        stored = {one.id: one for one in response.inputs}
        # Of two inputs with the same id at most one was added.
        counted = {one.id for one in batch.inputs}.intersection(self.report.added_ids)
        ours = []
        for one in batch.inputs:
            found = stored.get(one.id)
            if found is not None and one.id not in counted and is_ours(one, found):
                counted.add(one.id)
                ours.append(one)
                continue
            one.unsure = False
            what = "its URL is in use" if found is None else "another input has its id"
            self._fail(
                one,
                v2.Status(
                    code=v2.StatusCode.INPUT_DUPLICATE, description="Input duplicate", details=what
                ),
            )
        self.report.recognised += len(ours)
        self._add(ours)

    def _add(self, inputs: Collection[PendingInput]) -> None:
        self.report.added += len(inputs)
        self.report.added_ids.extend(one.id for one in inputs)
        self._record("added", inputs)

    def _fail_all(self, inputs: Iterable[PendingInput], status: v2.Status) -> None:
        for one in inputs:
            self._fail(one, status)

    def _fail(self, one: PendingInput, status: v2.Status) -> None:
        self.report.failed_inputs.append(
            FailedInput(one.index, one.id, status, one.input, one.unsure, one.since, one.source)
        )
        if not one.unsure:
            self._record("failed", [one])

    def _record(self, event: JournalEvent, inputs: Collection[PendingInput]) -> None:
        if inputs:
            self._records.append(Record(event, [one.id for one in inputs]))


def is_ours(sent: PendingInput, stored: v2.Input) -> bool:
    """Whether a stored input is the one that an earlier attempt sent.

    It is if the id is derived from the content. Otherwise everything that was sent and that the
    service returns must be equal: content type, URL or text, concepts, metadata, datasets. Bytes
    are not returned; an input with bytes must not be older than the upload (by more than
    ``CLOCK_SKEW``).
    """
    if sent.derived:
        return True
    message = sent.input
    kind = next((kind for kind in _CONTENT_FIELDS if message.data.HasField(kind)), None)
    if kind is None or not stored.data.HasField(kind):
        return False
    here, there = getattr(message.data, kind), getattr(stored.data, kind)
    if here.url:
        same = here.url == there.url
    elif kind == "text" and there.raw:
        same = here.raw == there.raw
    else:
        same = _is_recent(stored, sent.since)
    concepts = {concept.id for concept in stored.data.concepts}
    fields = stored.data.metadata.fields
    return (
        same
        and all(concept.id in concepts for concept in message.data.concepts)
        and all(
            key in fields and fields[key] == v for key, v in message.data.metadata.fields.items()
        )
        and set(message.dataset_ids) <= set(stored.dataset_ids)
    )


def status_of(error: BaseException) -> v2.Status:
    """The status of inputs whose request failed with an error."""
    if isinstance(error, errors.ApiError):
        if error.status is not None:
            return error.status
        # A gRPC failure has no V2 status.
        description, details = (
            text.encode(errors="backslashreplace").decode()
            for text in (error.description, error.details)
        )
        return v2.Status(code=v2.StatusCode.FAILURE, description=description, details=details)
    # The name of a file may hold bytes that no message can.
    said = str(error).encode(errors="backslashreplace").decode()
    return v2.Status(code=v2.StatusCode.FAILURE, description=f"{type(error).__name__}: {said}")


def _is_recent(stored: v2.Input, since: float) -> bool:
    return not stored.HasField("created_at") or (
        stored.created_at.ToNanoseconds() / 1e9 >= since - CLOCK_SKEW
    )


def _is_id_in_use(status: v2.Status) -> bool:
    return status.code == v2.StatusCode.INPUT_DUPLICATE


def _statuses(
    inputs: Sequence[PendingInput], response: v2.MultiInputResponse
) -> Sequence[v2.Status] | None:
    """The status of each input, in any order of the response; None if one is missing."""
    results = response.inputs
    if len(results) == len(inputs) and all(
        result.id in ("", one.id) for one, result in zip(inputs, results, strict=True)
    ):
        return [result.status for result in results]
    by_id = {result.id: result.status for result in results}
    found = [by_id.get(one.id) for one in inputs]
    return None if None in found else [status for status in found if status is not None]
