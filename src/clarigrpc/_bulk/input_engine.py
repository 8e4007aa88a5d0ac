"""The policy of an upload of inputs: each is added exactly once. No I/O, no clock.

Exactly once: every input has its id before it is first sent, so that sending it twice cannot add
it twice; the second time, the service responds that the id is in use (30100). On a first attempt
this is a failure. If an earlier attempt may have reached the service (its response was lost, or
the journal contains the input), the engine lists the inputs with these ids, and counts an input as
added if it ``is_ours``.

Retries follow ``retry_delays``, one loop per batch, except that in an outage only the deadline of
the batch ends them; the limit of requests in flight bounds their cost for the service. A throttled
request with a retry delay is no failed attempt: nothing is sent until then.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol

import grpc

from clarigrpc import errors, v2
from clarigrpc._bulk.engine import BulkBatch, BulkEngine, check_limits
from clarigrpc._bulk.input_encoding import encode_input, is_derived
from clarigrpc._bulk.input_journal import JournalEvent, Record
from clarigrpc._bulk.input_report import FailedInput, UploadReport
from clarigrpc._bulk.input_sources import SourceInput
from clarigrpc._bulk.pacing import Pacing
from clarigrpc._bulk.preparation import PreparedValue
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._rpc import statuses
from clarigrpc._rpc.encoding import EncodedInputs, size_of
from clarigrpc._rpc.retry import RetryBudget, retry_delays
from clarigrpc.media import as_input

CLOCK_SKEW = 300.0
"""Maximum difference between the clocks of the service and the client, in seconds."""

_UPLOAD_LINGER = 1.0
"""Seconds an input waits for its batch to fill while another request may be sent."""

_CONTENT_FIELDS: tuple[Literal["image", "video", "audio", "text"], ...] = (
    "image",
    "video",
    "audio",
    "text",
)

# What reading a file or row may raise. Any other exception is a bug and ends the upload.
_READ_ERRORS = (OSError, ValueError, errors.ClarigrpcError)

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

ADDED_CODES = statuses.PASSING | {0}
"""Status codes of inputs that were added; 0 where a response gives an input no status."""


class KnownInputs(Protocol):
    """What a journal knows of the inputs of an upload that was interrupted."""

    def is_added(self, input_id: str) -> bool:
        """Whether the input was added before."""

    def is_unsure(self, input_id: str) -> bool:
        """Whether the input was sent before, with an unknown outcome."""


class InputEngine(BulkEngine[Any]):
    """The state of one upload. Times in seconds.

    Args:
        report: Counts the outcomes.
        policy: Delays between retries.
        batch_size: Maximum inputs per request.
        batch_bytes: Maximum bytes per request.
        in_flight: Maximum number of requests in flight.
        timeout: For all attempts of a request together.
        random: Returns numbers in [0, 1).
        max_input_bytes: Maximum bytes of an input.
        since: Start of the upload, in seconds since the epoch.
        known: The journal.
        recording: Whether ``records`` are wanted.

    Raises:
        InvalidArgumentError: A limit is out of range.
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
        max_input_bytes: int = sys.maxsize,
        since: float = 0.0,
        known: KnownInputs | None = None,
        recording: bool = True,
    ) -> None:
        check_limits(batch_size, in_flight)
        if batch_bytes < 1 or not timeout > 0:  # NaN too
            raise errors.InvalidArgumentError(
                "batch_bytes and timeout of upload() must be positive"
            )
        super().__init__(
            batch_bytes=min(batch_bytes, max_input_bytes),
            pending_bytes=math.inf,
            linger=_UPLOAD_LINGER,
        )
        self.report = report
        # A report may hold the outcome of an earlier upload.
        self.taken, self.settled = report.taken, report.settled
        self.failures = len(report.failed_inputs)
        self._retries_enabled = policy.max_attempts > 1
        self._policy = (
            replace(policy, max_attempts=sys.maxsize) if self._retries_enabled else policy
        )
        self._batch_size = batch_size
        self._in_flight = in_flight
        self._timeout = timeout
        self._random = random
        self._max_input_bytes = max_input_bytes
        self._since = since
        self._known = known
        self._pacing = Pacing()
        self._recording = recording
        self._records: list[Record] = []
        self._now = 0.0
        # Time of the latest response, or of the first request.
        self._progress_at = math.inf
        # What is known of single inputs without an outcome, by position: whether an earlier attempt
        # may have added them, when the upload began that did, where they came from.
        self._unsure: set[int] = set()
        self._sent_since: dict[int, float] = {}
        self._sources: dict[int, str] = {}
        # Of the values that were encoded last: those that cannot be sent, and how many need not.
        self._rejected: list[FailedInput] = []
        self._resumed = 0
        # Values that were read in vain, with their positions.
        self._lost: list[tuple[int, Any]] = []

    @property
    def limit(self) -> int:
        return self._in_flight

    @property
    def size(self) -> int:
        return self._batch_size

    @property
    def opens(self) -> float:
        return self._pacing.opens

    # Reading

    def encode(self, first: int, values: Sequence[Any]) -> EncodedInputs:
        # Raises TypeError, and then has changed nothing, if a value is not an input.
        if self._known is None and {*map(type, values)} == {v2.Input}:
            ids: list[str] = [one.id for one in values]
            if all(ids):
                items = [*map(v2.Input.SerializeToString, values)]
            else:
                ids, items = map(list, zip(*map(encode_input, values), strict=True))
            more = size_of(b"")
            sizes = [len(item) + more for item in items]
            if max(sizes) - more <= self._max_input_bytes:
                return EncodedInputs(range(first, first + len(values)), ids, items, sizes, {})
        found = EncodedInputs([], [], [], [], {})
        indexes: list[int] = []
        rejected: list[FailedInput] = []
        resumed = 0
        for index, value in enumerate(values, first):
            prepared = value if isinstance(value, PreparedValue) else None
            value = prepared.value if prepared is not None else value
            failure, given, name, source = _described(value)
            try:
                make = prepared or given
                message = as_input(make() if callable(make) else make)
            except _READ_ERRORS as error:
                rejected.append(_unread(index, value, status_of(error)))
                continue
            name, item = encode_input(message)
            if len(item) > self._max_input_bytes:
                status = _too_large(len(item))
                rejected.append(FailedInput(index, name, status, message, source=source))
                continue
            if self._known is not None and self._known.is_added(name):
                resumed += 1
                continue
            if failure is not None and failure.maybe_added:
                self._sent_since[index] = failure.since
                self._unsure.add(index)
            elif self._known is not None and self._known.is_unsure(name):
                self._unsure.add(index)
            if source:
                self._sources[index] = source
            indexes.append(index)
            found.ids.append(name)
            found.items.append(item)
            found.sizes.append(size_of(item))
        self._rejected, self._resumed = rejected, resumed
        return found._replace(indexes=indexes)

    def accept(self, encoded: EncodedInputs, count: int, now: float) -> None:
        super().accept(encoded, count, now)
        self.report.taken = self.taken
        self.report.failed_inputs += self._rejected
        self.report.resumed += self._resumed
        self.settled += len(self._rejected) + self._resumed
        self.failures += len(self._rejected)
        self._rejected, self._resumed = [], 0

    def lose(self, values: Sequence[Any]) -> None:
        self._lost += enumerate(values, self.taken)
        self.taken += len(values)
        self.report.taken = self.taken

    # Sending

    def take(self, now: float) -> BulkBatch | None:
        batch = super().take(now)
        if batch is not None:
            self._pacing.sent(now)
            self._progress_at = min(self._progress_at, now)
            if batch.deadline is None:
                batch.deadline = now + self._timeout
                self._record("sent", batch.ids)
        return batch

    def records(self) -> list[Record]:
        """New records, to be written to the journal before the next batch is sent."""
        records, self._records = self._records, []
        return records

    @property
    def recorded(self) -> bool:
        """Whether there are new records."""
        return bool(self._records)

    def responded(self, batch: BulkBatch, response: Any, now: float) -> None:
        self._now = now
        self._ended(batch)
        self._pacing.accepted(batch.sent_at)
        self._progress_at = now
        if batch.checking:
            self._checked(batch, response)
        else:
            self._posted(batch, response)

    def failed(self, batch: BulkBatch, error: Exception, now: float) -> None:
        self._now = now
        self._ended(batch)
        if not isinstance(error, errors.ApiError):
            raise error
        error_type = type(error)
        unsure = error_type in _UNSURE_ERRORS or _is_response_too_large(error)
        if unsure and not (error.not_sent or error.refused):
            self._unsure.update(batch.indexes)
        if error_type is errors.RateLimitError:
            self.report.throttled += 1
            if self._slow_down(batch, error.retry_after):
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
        for batch in self._sent:
            self._unsure.update(batch.indexes)
        delayed = [batch for _, _, batch in self._delayed]
        for batch in (*self._sent, *self._ready, *delayed, self._open):
            self._fail_all(batch, status)
        self._sent.clear()
        self._ready.clear()
        self._delayed.clear()
        self._open = BulkBatch()
        self.report.failed_inputs += [_unread(index, one, status) for index, one in self._lost]
        self.settled += len(self._lost)
        self.failures += len(self._lost)
        self._lost.clear()

    def _settle_unsent(self, batch: BulkBatch) -> None:
        raise NotImplementedError  # what cannot be read is in no batch

    def _slow_down(self, batch: BulkBatch, retry_after: float | None) -> bool:
        """Send nothing until the time set by the service; False treats the error as a failure."""
        if (
            retry_after is None
            or not self._retries_enabled
            or retry_after > self._policy.max_retry_after
        ):
            return False
        until = batch.sent_at + retry_after
        if until > self._progress_at + self._timeout:
            return False
        self.report.retries += 1
        self._pacing.throttled(batch.sent_at, retry_after)
        self._send_again(batch, until)
        # This delay does not count as a failed attempt: the timeout of the batch starts again.
        batch.deadline = until + self._timeout
        batch.retries = None
        return True

    def _retry(self, batch: BulkBatch, error: errors.ApiError) -> None:
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
            # The service is unavailable, so that later inputs would fail as well.
            self.error = self.error or error
            self._fail_all(batch, status_of(error))
        else:
            self.report.retries += 1
            self._send_again(batch, self._now + delay)

    def _split(self, batch: BulkBatch, error: errors.ApiError) -> None:
        if len(batch) > 1:
            self.report.retries += 2
            self._divide(batch)
            return
        status = status_of(error)
        if _is_id_in_use(status) and batch.indexes[0] in self._unsure:
            self._check(batch, [0])
        else:
            self._fail_all(batch, status)

    def _posted(self, batch: BulkBatch, response: v2.MultiInputResponse) -> None:
        reported = _statuses(batch.ids, response)
        if reported is None:
            self._unsure.update(batch.indexes)
            error = errors.InternalError(
                "the response does not match the inputs", method="PostInputs"
            )
            self._split(batch, error)
            return
        codes = [status.code for status in reported]
        if ADDED_CODES.issuperset(codes):
            self._add(batch.indexes, batch.ids)
            return
        added: dict[str, int] = {}
        in_use: list[int] = []
        later: list[int] = []
        retryable: errors.ApiError | None = None
        for place, (index, name, status) in enumerate(
            zip(batch.indexes, batch.ids, reported, strict=True)
        ):
            failure = statuses.from_item(status, method="PostInputs", request_id="")
            if failure is None:
                added[name] = index
            elif _is_id_in_use(status) and index in self._unsure and name not in added:
                in_use.append(place)
            elif failure.retryable:
                later.append(place)
                retryable = failure
            else:
                # Rejected now, so no earlier attempt has added it.
                self._unsure.discard(index)
                self._fail(batch, place, status)
        self._add([*added.values()], [*added])
        if in_use:
            self._check(batch, in_use)
        if retryable is not None:
            rest = batch.part(later)
            rest.retries = batch.retries
            self._retry(rest, retryable)

    def _check(self, batch: BulkBatch, places: Sequence[int]) -> None:
        """List the inputs whose ids are in use."""
        part = batch.part(places)
        part.checking = True
        self._ready.append(part)

    def _checked(self, batch: BulkBatch, response: v2.MultiInputResponse) -> None:
        stored = {one.id: one for one in response.inputs}
        # Of two inputs with the same id at most one was added.
        counted = {*batch.ids}.intersection(self.report.added_ids)
        ours: dict[str, int] = {}
        for place, (index, name) in enumerate(zip(batch.indexes, batch.ids, strict=True)):
            found = stored.get(name)
            sent = v2.Input.FromString(batch.items[place])
            since = self._sent_since.get(index, self._since)
            if found is not None and name not in counted and is_ours(sent, found, since):
                counted.add(name)
                ours[name] = index
                continue
            self._unsure.discard(index)
            what = "its URL is in use" if found is None else "another input has its id"
            self._fail(
                batch,
                place,
                v2.Status(
                    code=v2.StatusCode.INPUT_DUPLICATE, description="Input duplicate", details=what
                ),
            )
        self.report.recognised += len(ours)
        self._add([*ours.values()], [*ours])

    def _add(self, indexes: Sequence[int], ids: Sequence[str]) -> None:
        self.report.added += len(indexes)
        self.report.added_ids.extend(ids)
        self._record("added", ids)
        self._forget(indexes)

    def _fail_all(self, batch: BulkBatch, status: v2.Status) -> None:
        for place in range(len(batch)):
            self._fail(batch, place, status)

    def _fail(self, batch: BulkBatch, place: int, status: v2.Status) -> None:
        index, name = batch.indexes[place], batch.ids[place]
        unsure = index in self._unsure
        self.report.failed_inputs.append(
            FailedInput(
                index,
                name,
                status,
                v2.Input.FromString(batch.items[place]),
                unsure,
                self._sent_since.get(index, self._since),
                self._sources.get(index, ""),
            )
        )
        self.failures += 1
        # An input that was never sent may have the id of one that was.
        if not unsure and batch.deadline is not None:
            self._record("failed", [name])
        self._forget([index])

    def _forget(self, indexes: Sequence[int]) -> None:
        """Inputs have their outcome."""
        self.settled += len(indexes)
        if self._unsure or self._sent_since or self._sources:
            self._unsure.difference_update(indexes)
            for index in indexes:
                self._sent_since.pop(index, None)
                self._sources.pop(index, None)

    def _record(self, event: JournalEvent, ids: Sequence[str]) -> None:
        if ids and self._recording:
            self._records.append(Record(event, ids))


def _described(value: Any) -> tuple[FailedInput | None, Any, str, str]:
    """Of a value of the source: the failure that it is, what makes it, its id and its source."""
    failure = value if isinstance(value, FailedInput) else None
    given = failure.input if failure else value
    if isinstance(given, SourceInput):
        return failure, given, given.id, given.source
    name = given.id if isinstance(given, v2.Input) else ""
    return failure, given, name, failure.source if failure else ""


def _unread(index: int, value: Any, status: v2.Status) -> FailedInput:
    """A value that no input was made of."""
    value = value.value if isinstance(value, PreparedValue) else value
    failure, given, name, source = _described(value)
    make = given if callable(given) else partial(as_input, given)
    if failure is None:
        return FailedInput(index, name, status, make, source=source)
    return replace(failure, index=index, status=status, input=make)


def is_ours(sent: v2.Input, stored: v2.Input, since: float) -> bool:
    """Whether a stored input is the one that an earlier attempt sent.

    Args:
        sent: The input, with its id.
        stored: The input in the app with this id.
        since: Start of the upload that first sent it, in seconds since the epoch.

    It is if the id is derived from the content. Otherwise everything that was sent and that the
    service returns must be equal: content type, URL or text, concepts, metadata, datasets. Bytes
    are not returned; an input with bytes must not be older than the upload (by more than
    ``CLOCK_SKEW``).
    """
    if is_derived(sent):
        return True
    kind = next((kind for kind in _CONTENT_FIELDS if sent.data.HasField(kind)), None)
    if kind is None or not stored.data.HasField(kind):
        return False
    here, there = getattr(sent.data, kind), getattr(stored.data, kind)
    if here.url:
        same = here.url == there.url
    elif kind == "text" and there.raw:
        same = here.raw == there.raw
    else:
        same = _is_recent(stored, since)
    concepts = {concept.id for concept in stored.data.concepts}
    fields = stored.data.metadata.fields
    return (
        same
        and all(concept.id in concepts for concept in sent.data.concepts)
        and all(key in fields and fields[key] == v for key, v in sent.data.metadata.fields.items())
        and set(sent.dataset_ids) <= set(stored.dataset_ids)
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


def _is_response_too_large(error: errors.ApiError) -> bool:
    """Whether a request was carried out, and its response exceeds the client's limit."""
    return (
        error.grpc_code is grpc.StatusCode.RESOURCE_EXHAUSTED
        and "received message larger" in error.details.lower()
    )


def _is_id_in_use(status: v2.Status) -> bool:
    return status.code == v2.StatusCode.INPUT_DUPLICATE


def _too_large(size: int) -> v2.Status:
    return v2.Status(
        code=v2.StatusCode.INPUT_OVER_LIMIT,
        description="Input over limit",
        details=f"{size} bytes are more than the client's max_message_bytes; pass a URL instead",
    )


def _statuses(ids: Sequence[str], response: v2.MultiInputResponse) -> list[v2.Status] | None:
    """The status of each input, in any order of the response; None if one is missing."""
    results = [*response.inputs]
    found = [result.id for result in results]
    if found == ids or (
        len(found) == len(ids)
        and all(one in ("", own) for own, one in zip(ids, found, strict=True))
    ):
        return [result.status for result in results]
    by_id: defaultdict[str, deque[v2.Status]] = defaultdict(deque)
    for result in results:
        by_id[result.id].append(result.status)
    # Inputs with equal ids have their statuses in order.
    matched = [by_id[one].popleft() for one in ids if by_id[one]]
    return matched if len(matched) == len(ids) else None
