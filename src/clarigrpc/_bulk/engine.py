"""The state machine of bulk work: batches by count and bytes, a window, retries, division.

``BulkEngine`` decides what to read, which batch to send when and when the work is done. It does no
I/O and has no clock: ``drivers`` run it. What a response and a failure mean is the decision of a
policy on it: ``predict_engine`` and ``input_engine``. All work is done a slice of the source or a
batch at a time, because the cost for each input is what limits the throughput.
"""

from __future__ import annotations

import heapq
import itertools
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from clarigrpc import errors
from clarigrpc._config.option_types import whole_number
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._rpc.call import RetryLoop
from clarigrpc._rpc.encoding import EncodedInputs

ResultT = TypeVar("ResultT")


@dataclass(slots=True, eq=False)
class BulkBatch:
    """The inputs of one request.

    Attributes:
        indexes: Positions of the inputs in the source, ascending.
        ids: Their ids; empty for inputs without one.
        items: Their encoded forms.
        sizes: Bytes of each in a request.
        size: Bytes of all.
        errors: Why values among them could not be encoded, by position.
        full: Whether there was no room for another input.
        checking: Whether the request looks up the inputs instead of sending them.
        sent_at: Time of the latest attempt.
        in_flight: Requests in flight then, including it.
        begun: Whether the call of that attempt may have begun.
        splits: How many times its inputs were split off a larger batch.
        deadline: When all attempts have to be over. None before the first one, or without one.
        failing_since: Time of the first failure, or of the latest one with a retry delay set by
            the service.
        retries: The retry loop. None before the first failure.
    """

    indexes: Sequence[int] = ()
    ids: list[str] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    size: int = 0
    errors: dict[int, Exception] = field(default_factory=dict)
    full: bool = False
    checking: bool = False
    sent_at: float = 0.0
    in_flight: int = 0
    begun: bool = False
    splits: int = 0
    deadline: float | None = None
    failing_since: float = math.inf
    retries: RetryLoop | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def read(self) -> int:
        """Number of the values of the source that it stands for."""
        return len(self.items) + len(self.errors)

    def add(self, more: EncodedInputs, size: int) -> None:
        """Append inputs with ``size`` bytes in all."""
        if self.items:
            self.indexes = _joined(self.indexes, more.indexes)
            self.ids += more.ids
            self.items += more.items
            self.sizes += more.sizes
        else:
            self.indexes, self.ids, self.items, self.sizes = more[:4]
        self.size += size

    def part(self, places: Sequence[int]) -> Self:
        """A batch with the inputs at these places of this one, and with attempts of its own."""
        sizes = [self.sizes[place] for place in places]
        return type(self)(
            [self.indexes[place] for place in places],
            [self.ids[place] for place in places],
            [self.items[place] for place in places],
            sizes,
            sum(sizes),
            checking=self.checking,
            splits=self.splits,
            deadline=self.deadline,
        )

    def halves(self) -> tuple[Self, Self]:
        """Two batches with half of the inputs each."""
        middle = len(self) // 2
        first, second = self.part(range(middle)), self.part(range(middle, len(self)))
        first.errors = self.errors
        first.splits = second.splits = self.splits + 1
        return first, second


def _joined(first: Sequence[int], second: Sequence[int]) -> Sequence[int]:
    """Ascending positions and those after them."""
    if isinstance(first, range) and isinstance(second, range) and first.stop == second.start:
        return range(first.start, second.stop)
    return [*first, *second]


def check_limits(batch_size: int | None, in_flight: int | None) -> None:
    """Check the inputs per request and the requests in flight that a caller asks for.

    Raises:
        InvalidArgumentError: One is out of range.
        TypeError: One is no integer.
    """
    for name, value in {"batch_size": batch_size, "in_flight": in_flight}.items():
        if value is not None:
            whole_number(name, value)
    if batch_size is not None and not 1 <= batch_size <= MAX_ITEMS:
        raise errors.InvalidArgumentError(f"batch_size must be 1 to {MAX_ITEMS}, not {batch_size}")
    if in_flight is not None and in_flight < 1:
        raise errors.InvalidArgumentError(f"in_flight must be 1 or more, not {in_flight}")


class BulkEngine(ABC, Generic[ResultT]):
    """Batches of inputs on their way to the service. Times in seconds.

    A batch that waits for a retry counts against the limit of requests in flight, so that an outage
    stops the source instead of filling the memory. One batch is prepared ahead of the limit.

    Args:
        batch_bytes: Maximum bytes of the inputs of a request; a larger input is sent alone.
        pending_bytes: Bytes of inputs without an outcome above which the source is not read.
        linger: How long an input waits for its batch to fill while a request may be sent.

    Attributes:
        error: Why the work ends although not all inputs have an outcome.
        taken: Number of values read from the source.
        settled: Number of those whose outcome was handed out.
        failures: Number of those that failed.
        repeated: Number of requests that were sent again.
    """

    def __init__(self, *, batch_bytes: int, pending_bytes: float, linger: float) -> None:
        self.error: errors.ApiError | None = None
        self.linger = linger
        self.taken = self.settled = self.failures = self.repeated = 0
        self._batch_bytes = batch_bytes
        self._most_pending_bytes = pending_bytes
        self._exhausted = False
        # Bytes of inputs without an outcome, and of an input of the latest slice.
        self._pending_bytes = 0
        self._mean_bytes: float = math.inf
        # Batches: being filled, to be sent, in flight, to be sent again at a given time.
        self._open = BulkBatch()
        self._opened_at = 0.0
        self._ready: deque[BulkBatch] = deque()
        self._sent: set[BulkBatch] = set()
        self._delayed: list[tuple[float, int, BulkBatch]] = []
        self._ties = itertools.count()
        self._results: list[ResultT] = []

    # What a policy decides

    @property
    @abstractmethod
    def limit(self) -> int:
        """Maximum number of requests in flight now."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of inputs of a request now."""

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._sent)

    @property
    @abstractmethod
    def opens(self) -> float:
        """Time before which nothing is sent."""

    @abstractmethod
    def encode(self, first: int, values: Sequence[Any]) -> EncodedInputs:
        """The inputs of a slice of the source. The outcome of none of them changes yet.

        Args:
            first: Position of the first value.
            values: The values.
        """

    @abstractmethod
    def responded(self, batch: BulkBatch, response: Any, now: float) -> None:
        """The response to a batch was received; single inputs may have failed."""

    @abstractmethod
    def failed(self, batch: BulkBatch, error: Exception, now: float) -> None:
        """An attempt of a batch failed as a whole."""

    @abstractmethod
    def _settle_unsent(self, batch: BulkBatch) -> None:
        """None of the values of a batch could be encoded."""

    # Reading

    @property
    def room(self) -> int:
        """How many values to read from the source now; at most as many as fill a batch."""
        if self._exhausted or self._ready or self._results or self.error is not None:
            return 0
        return self._room

    @property
    def _room(self) -> int:
        if self._pending_bytes > self._most_pending_bytes:
            return 0
        size, begun = self.size, self._open.read
        # The number of results that wait for an earlier one is limited as well.
        most = 2 * self.limit * size + (size if begun else 0)
        room = min(max(0, most - self.taken + self.settled), max(1, size - begun))
        if room > 1:
            # Not many times as many bytes as fit in a batch.
            fitting = (self._batch_bytes - self._open.size) / self._mean_bytes
            room = min(room, max(1, int(fitting)))
        return room

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        if self.error is not None:
            return True
        return self._exhausted and self.idle and not (self._open.read or self._results)

    @property
    def idle(self) -> bool:
        """Whether no request is in flight or due, so that there is no point in filling a batch."""
        return not (self._sent or self._delayed or self._ready)

    def offer(self, values: Sequence[Any], now: float) -> None:
        """Add values of the source. One that cannot be encoded becomes a failure."""
        self.accept(self.encode(self.taken, values), len(values), now)

    def accept(self, encoded: EncodedInputs, count: int, now: float) -> None:
        """Add the ``count`` values of the source that were encoded last."""
        self.taken += count
        size = sum(encoded.sizes)
        self._pending_bytes += size
        self._mean_bytes = max(1.0, size / count)
        batch = self._open
        if not batch.read:
            self._opened_at = now
        if batch.read + count <= self.size and batch.size + size <= self._batch_bytes:
            if encoded.items:
                batch.add(encoded, size)
            batch.errors.update(encoded.errors)
        else:
            self._add_singly(encoded, now)
        if self._open.read >= self.size:
            self._open.full = True
            self.flush()

    def _add_singly(self, encoded: EncodedInputs, now: float) -> None:
        """Add inputs that may not fit in one batch."""
        unreadable = deque(encoded.errors.items())
        for place, size in enumerate(encoded.sizes):
            while unreadable and unreadable[0][0] < encoded.indexes[place]:
                self._open.errors.update([unreadable.popleft()])
            batch = self._open
            over = batch.items and batch.size + size > self._batch_bytes
            if over or batch.read >= self.size:
                batch.full = True
                self.flush()
                self._opened_at = now
            one = slice(place, place + 1)
            self._open.add(
                EncodedInputs(
                    encoded.indexes[one], encoded.ids[one], encoded.items[one], [size], {}
                ),
                size,
            )
        self._open.errors.update(unreadable)

    def flush(self) -> None:
        """Make the open batch ready to be sent, full or not."""
        batch = self._open
        if batch.items:
            self._ready.append(batch)
        elif batch.errors:
            self._settle_unsent(batch)
        else:
            return
        self._open = BulkBatch()

    def exhausted(self) -> None:
        """The source has no more values."""
        self._exhausted = True
        self.flush()

    # Sending

    def take(self, now: float) -> BulkBatch | None:
        """The batch to send now; None if there is none or the limit is reached."""
        if len(self._sent) >= self.limit or now < self.opens or self.error is not None:
            return None
        if self._delayed and self._delayed[0][0] <= now:
            batch = heapq.heappop(self._delayed)[-1]
        else:
            if len(self._sent) + len(self._delayed) >= self.limit:
                return None
            if self._open.items and not self._ready and self._is_overdue(now):
                self.flush()
            if not self._ready:
                return None
            batch = self._ready.popleft()
        self._sent.add(batch)
        batch.sent_at, batch.in_flight, batch.begun = now, len(self._sent), False
        return batch

    def put_back(self) -> None:
        """The work ends: batches that were taken, and not sent, are to be sent."""
        unsent = [batch for batch in self._sent if not batch.begun]
        self._sent.difference_update(unsent)
        self._ready.extendleft(unsent)

    def lose(self, values: Sequence[Any]) -> None:
        """The work ends: values were read from the source, and will not be offered."""

    def wait(self, now: float) -> float | None:
        """Seconds until a batch can be sent; None: not before another response or value."""
        if len(self._sent) >= self.limit:
            return None
        moments = [self._delayed[0][0]] if self._delayed else []
        if len(self._sent) + len(self._delayed) < self.limit:
            if self._ready or (self._open.items and self._is_overdue(now)):
                moments.append(now)
            elif self._open.items and self._room:
                moments.append(self._opened_at + self.linger)
        return max(0.0, max(self.opens, min(moments)) - now) if moments else None

    def _is_overdue(self, now: float) -> bool:
        """Whether to send the open batch although it is not full."""
        if self._room:
            return now >= self._opened_at + self.linger
        return not (self._sent or self._delayed)

    def _ended(self, batch: BulkBatch) -> None:
        """An attempt of a batch has ended."""
        self._sent.remove(batch)

    def _send_again(self, batch: BulkBatch, at: float) -> None:
        """Send a batch again, at the time ``at`` or later."""
        self.repeated += 1
        heapq.heappush(self._delayed, (at, next(self._ties), batch))

    def _divide(self, batch: BulkBatch) -> None:
        """Send the halves of a batch apart, to find the input that it failed for."""
        self._ready.extend(batch.halves())

    # Results

    def results(self) -> list[ResultT]:
        """What to hand out now."""
        results, self._results = self._results, []
        return results
