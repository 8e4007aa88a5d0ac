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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from clarigrpc import errors, v2
from clarigrpc.ingest.batches import Batch, Batcher, Item
from clarigrpc.ingest.journal import Record
from clarigrpc.ingest.report import FailedInput, UploadReport
from clarigrpc.ingest.window import Window
from clarigrpc.policy import RetryBudget, RetryPolicy, retry_delays

CLOCK_SKEW = 300.0
"""Seconds that the service's clock and ours may differ."""

_KINDS = ("image", "video", "audio", "text")

# Failures that may be due to one input of the batch: its halves are tried apart.
_DIVISIBLE = (errors.InvalidArgumentError, errors.InternalError, errors.CancelledError)


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
        since: When the upload began, in seconds since the epoch, to tell an input that was there
            before from ours.
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
        since: float,
        random: Callable[[], float],
    ) -> None:
        self.report = report
        self._repeats = policy.max_attempts > 1
        self._policy = replace(policy, max_attempts=sys.maxsize) if self._repeats else policy
        self._batcher = Batcher(batch_items, batch_bytes)
        self._window = Window(in_flight)
        self._timeout = timeout
        self._since = since
        self._random = random
        self._exhausted = False
        self._error: errors.ApiError | None = None
        self._records: list[Record] = []
        self._now = 0.0

    def step(self, now: float) -> Step:
        """What to do next."""
        self._now = now
        if self._error is not None:
            return Finish(self._error)
        batch = self._window.take(now)
        if batch is not None:
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

    def answered(self, batch: Batch, response: Any, now: float) -> None:
        """The response to a batch came, perhaps with failures at some inputs."""
        self._now = now
        self._window.arrived(batch)
        self._window.speed_up()
        if batch.checking:
            self._checked(batch, response)
        else:
            self._posted(batch, response)

    def failed(self, batch: Batch, error: errors.ApiError, now: float) -> None:
        """A try of a batch failed as a whole."""
        self._now = now
        self._window.arrived(batch)
        kind = type(error)
        throttled = kind is errors.RateLimitError
        if not (throttled or errors.was_not_sent(error) or batch.checking):
            for item in batch.items:
                item.unsure = True
        if throttled:
            self.report.throttled += 1
        if throttled and self._obeys(error.retry_after):
            self.report.retries += 1
            until = now + (error.retry_after or 0.0)
            self._window.slow_down(until)
            self._window.put(batch, until)
        elif kind in _DIVISIBLE or kind is errors.ApiError:
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
        for batch in self._window.clear():
            self._fail_all(batch.items, status, sent=batch.deadline is not None)
        self._fail_all(self._batcher.flush(), status, sent=False)

    def _put(self, items: list[Item]) -> bool:
        if items:
            self._window.put(Batch(items))
        return bool(items)

    def _obeys(self, told: float | None) -> bool:
        return self._repeats and told is not None and told <= self._policy.max_retry_after

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
        self._fail_all(batch.items, _status_of(error), sent=True)

    def _divide(self, batch: Batch, error: errors.ApiError) -> None:
        if len(batch.items) == 1:
            self._fail_all(batch.items, _status_of(error), sent=True)
            return
        self.report.retries += 2
        for half in batch.halves():
            self._window.put(half)

    def _posted(self, batch: Batch, response: v2.MultiInputResponse) -> None:
        added: list[Item] = []
        taken: list[Item] = []
        later: list[Item] = []
        passing: errors.ApiError | None = None
        for item, status in zip(batch.items, _statuses(batch.items, response), strict=True):
            error = errors.from_item(status, method="PostInputs", request_id="")
            if error is None:
                added.append(item)
            elif status.code == v2.StatusCode.INPUT_DUPLICATE and item.unsure:
                taken.append(item)
            elif error.retryable:
                later.append(item)
                passing = error
            else:
                # The service has answered: an input that it refused is not there.
                item.unsure = False
                self._fail(item, status)
        self._add(added)
        if taken:
            self._window.put(batch.part(taken, checking=True))
        if passing is not None:
            self._again(batch.part(later), passing)

    def _checked(self, batch: Batch, response: v2.MultiInputResponse) -> None:
        stored = {one.id: one for one in response.inputs}
        ours = []
        for item in batch.items:
            found = stored.get(item.id)
            if found is not None and is_ours(item, found, self._since):
                ours.append(item)
                continue
            item.unsure = False
            status = v2.Status(
                code=v2.StatusCode.INPUT_DUPLICATE,
                description="Duplicate input",
                details="another input has this id" if found else "another input has this URL",
            )
            self._fail(item, status)
        self.report.recognised += len(ours)
        self._add(ours)

    def _add(self, items: list[Item]) -> None:
        self.report.added += len(items)
        self._record("added", items)

    def _fail_all(self, items: Iterable[Item], status: v2.Status, *, sent: bool) -> None:
        for item in items:
            # A batch on its way when the upload ends may have arrived, whatever happened before.
            item.unsure |= sent and status.code not in _REFUSALS
            self._fail(item, status)

    def _fail(self, item: Item, status: v2.Status) -> None:
        self.report.failed_inputs.append(
            FailedInput(item.index, item.id, status, item.input, item.unsure)
        )
        if not item.unsure:
            self._record("failed", [item])

    def _record(self, event: Any, items: list[Item]) -> None:
        if items:
            self._records.append(Record(event, [item.id for item in items]))
