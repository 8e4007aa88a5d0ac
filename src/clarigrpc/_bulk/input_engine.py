"""What an upload does next: the state machine that both drivers run. No I/O, no clock.

The driver asks ``step`` what to do, does it, and tells the outcome. All decisions are here: when
a batch is sent again, what an answer says about each input, when to give up.

Exactly once. Every input has its id before it is first sent, so sending it twice cannot add it
twice: the second time the service answers that the id is taken (30100). On a first try that is
the failure it looks like. When an earlier try may have arrived (its answer was lost, or the
journal says that it was sent) the machine asks for the inputs of those ids and counts an input as
added if it ``is_ours``.

Retries are those of ``policy.retry_delays``, one loop a batch, with one difference: in an outage
only the batch's deadline ends them. The window bounds what that costs the service. A throttle
that names its time is no failure: the window closes until then.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clarigrpc import errors, v2
from clarigrpc._bulk.input_batches import Batch, Batcher, Item
from clarigrpc._bulk.input_journal import Event, Record
from clarigrpc._bulk.input_report import FailedInput, UploadReport
from clarigrpc._bulk.input_window import Window
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._rpc import grpc_failures, statuses
from clarigrpc._rpc.retry import RetryBudget, retry_delays

CLOCK_SKEW = 300.0
"""Seconds that the service's clock and ours may differ."""

_KINDS: tuple[Literal["image", "video", "audio", "text"], ...] = (
    "image",
    "video",
    "audio",
    "text",
)

# Failures that may be due to one input of the batch: its halves are tried apart.
_DIVISIBLE = (
    errors.AlreadyExistsError,
    errors.ApiError,
    errors.InvalidArgumentError,
    errors.InternalError,
    errors.CancelledError,
)
# Failures after which the inputs may be there all the same.
_UNSURE = (
    errors.ApiError,
    errors.InternalError,
    errors.CancelledError,
    errors.DeadlineExceededError,
    errors.UnavailableError,
)


@dataclass(frozen=True, slots=True)
class Send:
    """Send a batch; tell the machine with ``answered`` or ``failed``."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Read:
    """Read from the source until ``offer`` has put a batch together or the source is exhausted."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for an answer, at most so many seconds; None: for as long as it takes."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Finish:
    """It is over: because of ``error``, or because all is done."""

    error: errors.ApiError | None

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error


Step = Send | Read | Pause | Finish


class Ingest:
    """The state of one upload.

    Args:
        report: Where outcomes are counted.
        policy: Limits of retries.
        batch_items: Most inputs of a request.
        batch_bytes: Most bytes of a request.
        in_flight: Most requests on the way.
        timeout: Seconds for all tries of a request together.
        random: Draws from [0, 1).
    """

    def __init__(
        self,
        report: UploadReport,
        policy: RetryPolicy,
        *,
        batch_items: int,
        batch_bytes: int,
        in_flight: int,
        timeout: float,
        random: Callable[[], float],
    ) -> None:
        self.report = report
        self._repeats = policy.max_attempts > 1
        self._policy = replace(policy, max_attempts=sys.maxsize) if self._repeats else policy
        self._batcher = Batcher(batch_items, batch_bytes)
        self._window = Window(in_flight)
        self._timeout = timeout
        self._random = random
        self._exhausted = False
        self._error: errors.ApiError | None = None
        self._records: list[Record] = []
        self._now = 0.0
        self._progress = math.inf

    def step(self, now: float) -> Step:
        """What to do next."""
        self._now = now
        if self._error is not None:
            return Finish(self._error)
        batch = self._window.take(now)
        if batch is not None:
            self._progress = min(self._progress, now)
            if batch.deadline is None:
                batch.deadline = now + self._timeout
                self._record("sent", batch.items)
            return Send(batch)
        if not self._exhausted and self._window.wants_more(now):
            return Read()
        if self._exhausted and self._window.empty:
            self.report.complete = True
            return Finish(None)
        return Pause(self._window.pause(now))

    def offer(self, item: Item) -> bool:
        """Take an item from the source; whether a batch is ready because of it."""
        return self._put(self._batcher.add(item))

    def exhausted(self) -> None:
        """The source has no more."""
        self._exhausted = True
        self._put(self._batcher.flush())

    def records(self) -> list[Record]:
        """What the journal has to be told before the next batch is sent; told once."""
        records, self._records = self._records, []
        return records

    def answered(self, batch: Batch, response: v2.MultiInputResponse, now: float) -> None:
        """The response to a batch came, perhaps with failures at some inputs."""
        self._now = now
        self._window.answered(batch)
        self._progress = now
        if batch.checking:
            self._checked(batch, response)
        else:
            self._posted(batch, response)

    def failed(self, batch: Batch, error: errors.ApiError, now: float) -> None:
        """A try of a batch failed as a whole."""
        self._now = now
        sent_at = self._window.failed(batch)
        kind = type(error)
        if kind in _UNSURE and not grpc_failures.was_not_sent(error):
            for item in batch.items:
                item.unsure = True
        if kind is errors.RateLimitError:
            self.report.throttled += 1
            if self._slow_down(batch, sent_at, error.retry_after):
                return
        if kind in _DIVISIBLE:
            self._divide(batch, error)
        else:
            # The deadline of one try is not that of the batch.
            error.retryable |= kind is errors.DeadlineExceededError
            self._again(batch, error)

    def abandon(self, status: v2.Status) -> None:
        """End with every input that has no outcome among the failures.

        Args:
            status: Why; for inputs that were not refused themselves.
        """
        waiting, sent = self._window.clear()
        for batch in sent:
            for item in batch.items:
                item.unsure = True
        for batch in (*sent, *waiting):
            self._fail_all(batch.items, status)
        self._fail_all(self._batcher.flush(), status)

    def _put(self, items: list[Item]) -> bool:
        if items:
            self._window.put(Batch(items))
        return bool(items)

    def _slow_down(self, batch: Batch, sent_at: float, told: float | None) -> bool:
        """Close the window until the time that the service named; False to treat it as failure."""
        if told is None or not self._repeats or told > self._policy.max_retry_after:
            return False
        until = sent_at + told
        if until > self._progress + self._timeout:
            return False
        self.report.retries += 1
        self._window.slow_down(sent_at, told)
        self._window.put(batch, until)
        # To wait as told is no try: the batch has its whole time again.
        batch.deadline = until + self._timeout
        batch.retries = None
        return True

    def _again(self, batch: Batch, error: errors.ApiError) -> None:
        """Have a batch sent once more after a while, or give up."""
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

    def _stop(self, batch: Batch, error: errors.ApiError) -> None:
        """The service, or the way to it, fails: the inputs after this one would fail as well."""
        self._error = self._error or error
        self._fail_all(batch.items, status_of(error))

    def _divide(self, batch: Batch, error: errors.ApiError) -> None:
        if len(batch.items) == 1:
            (item,) = batch.items
            status = status_of(error)
            if _is_taken(status) and item.unsure:
                self._check(batch.items, batch.deadline)
            else:
                self._fail(item, status)
            return
        self.report.retries += 2
        for half in batch.halves():
            self._window.put(half)

    def _posted(self, batch: Batch, response: v2.MultiInputResponse) -> None:
        reported = _statuses(batch.items, response)
        if reported is None:
            for item in batch.items:
                item.unsure = True
            error = errors.InternalError("the answer does not fit the inputs", method="PostInputs")
            self._divide(batch, error)
            return
        added: dict[str, Item] = {}
        taken: list[Item] = []
        later: list[Item] = []
        passing: errors.ApiError | None = None
        for item, status in zip(batch.items, reported, strict=True):
            failure = statuses.from_item(status, method="PostInputs", request_id="")
            if failure is None:
                added[item.id] = item
            elif _is_taken(status) and item.unsure and item.id not in added:
                taken.append(item)
            elif failure.retryable:
                later.append(item)
                passing = failure
            else:
                # Refused now, so no earlier try had added it.
                item.unsure = False
                self._fail(item, status)
        self._add(list(added.values()))
        if taken:
            self._check(taken, batch.deadline)
        if passing is not None:
            rest = Batch(later, deadline=batch.deadline, retries=batch.retries)
            self._again(rest, passing)

    def _check(self, items: list[Item], deadline: float | None) -> None:
        """Have the service asked what is under the ids that are taken."""
        self._window.put(Batch(items, checking=True, deadline=deadline))

    def _checked(self, batch: Batch, response: v2.MultiInputResponse) -> None:
        stored = {one.id: one for one in response.inputs}
        ours = []
        for item in batch.items:
            # Popped: of two with one id, one at most is there.
            found = stored.pop(item.id, None)
            if found is not None and is_ours(item, found):
                ours.append(item)
                continue
            item.unsure = False
            what = "its URL is taken" if found is None else "another input has its id"
            self._fail(
                item,
                v2.Status(
                    code=v2.StatusCode.INPUT_DUPLICATE, description="Input duplicate", details=what
                ),
            )
        self.report.recognised += len(ours)
        self._add(ours)

    def _add(self, items: Collection[Item]) -> None:
        self.report.added += len(items)
        self._record("added", items)

    def _fail_all(self, items: Iterable[Item], status: v2.Status) -> None:
        for item in items:
            self._fail(item, status)

    def _fail(self, item: Item, status: v2.Status) -> None:
        self.report.failed_inputs.append(
            FailedInput(item.index, item.id, status, item.input, item.unsure, item.since)
        )
        if not item.unsure:
            self._record("failed", [item])

    def _record(self, event: Event, items: Collection[Item]) -> None:
        if items:
            self._records.append(Record(event, [item.id for item in items]))


def is_ours(item: Item, stored: v2.Input) -> bool:
    """Whether an input that is there is the one that an earlier try sent.

    An id made from the content says so by itself. Otherwise all that was sent and that the
    service gives back has to be in it: the kind, the URL or text, the concepts, the metadata, the
    datasets. Bytes are not given back: an input with bytes must not be older than the upload
    (by more than ``CLOCK_SKEW``).
    """
    if item.derived:
        return True
    sent = item.input
    kind = next((kind for kind in _KINDS if sent.data.HasField(kind)), None)
    if kind is None or not stored.data.HasField(kind):
        return False
    here, there = getattr(sent.data, kind), getattr(stored.data, kind)
    if here.url:
        same = here.url == there.url
    elif kind == "text" and there.raw:
        same = here.raw == there.raw
    else:
        same = _is_recent(stored, item.since)
    concepts = {concept.id for concept in stored.data.concepts}
    fields = stored.data.metadata.fields
    return (
        same
        and all(concept.id in concepts for concept in sent.data.concepts)
        and all(key in fields and fields[key] == v for key, v in sent.data.metadata.fields.items())
        and set(sent.dataset_ids) <= set(stored.dataset_ids)
    )


def status_of(error: BaseException) -> v2.Status:
    """The status of inputs whose batch ended with an error."""
    if isinstance(error, errors.ApiError):
        if error.status is not None:
            return error.status
        # A failure of gRPC has no V2 code.
        return v2.Status(
            code=v2.StatusCode.FAILURE, description=error.description, details=error.details
        )
    return v2.Status(code=v2.StatusCode.FAILURE, description=f"{type(error).__name__}: {error}")


def _is_recent(stored: v2.Input, since: float) -> bool:
    return not stored.HasField("created_at") or (
        stored.created_at.ToNanoseconds() / 1e9 >= since - CLOCK_SKEW
    )


def _is_taken(status: v2.Status) -> bool:
    return status.code == v2.StatusCode.INPUT_DUPLICATE


def _statuses(items: Sequence[Item], response: v2.MultiInputResponse) -> Sequence[v2.Status] | None:
    """The status of each item, whatever the order of the answer; None if one is missing."""
    results = response.inputs
    if len(results) == len(items) and all(
        result.id in ("", item.id) for item, result in zip(items, results, strict=True)
    ):
        return [result.status for result in results]
    by_id = {result.id: result.status for result in results}
    found = [by_id.get(item.id) for item in items]
    return None if None in found else [status for status in found if status is not None]
