"""Work for runners: processes of users that run models for the server.

A prediction with a model that the server itself cannot run waits here for a worker of one of the
model's runners, which fetches it and hands its outputs back. A worker is a process, a replica of
its runner; it comes with calls that it keeps open (``WorkerCall``), or asks by unary calls.

What holds for an item, whatever becomes of its workers:

* It is answered once. What comes for it afterwards, or from a worker that no longer has it, is
  dropped.
* A worker that is lost (its call breaks, its lease runs out) loses its items: they go to the next
  worker, at most ``MAX_HANDOUTS`` times. An item of which outputs have reached the caller already,
  or to which more than its first input was sent, fails instead.
* An item for which no worker is there any more fails with MODEL_DEPLOYING.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from clarigrpc import v2
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import CallAborted, ServiceError, StatusCodeValue, make_status
from clarigrpc.v2 import StatusCode

PATIENCE_SECONDS = 60.0
"""How long a prediction without a deadline waits for each answer of its worker."""

LEASE_SECONDS = 30.0
"""A worker without an open call that does not answer for so long has lost its item."""

ARRIVAL_SECONDS = 1.0
"""How long an item waits where no worker is there. Workers come and go in less."""

GONE_SECONDS = 5.0
"""A worker that asks by unary calls and has not been heard of for so long is gone."""

BETWEEN_SECONDS = 1.0
"""A worker that has ended its only call, and has not begun another for so long, is gone."""

MAX_HANDOUTS = 3
"""Workers that an item is given to, one after the other: it may be what ends them."""

_SAME_LOSS_SECONDS = 1.0
"""A connection that breaks takes all calls of its worker with it, one after the other: that an item
is given to each of them counts once."""

MAX_POOL_ITEMS = 48
"""Items of a nodepool that wait or run. Each occupies one of the threads of a front."""

MAX_CALLS = 256
"""Calls that workers keep open at the same time, over all runners."""

_UNREAD_MESSAGES = 16
"""Messages that wait to be read: outputs for a caller, inputs for a worker."""
_UNREAD_BYTES = 4 << 20

_MAX_REFUSED = 256
"""Items of a call whose outputs are counted although nobody waits for them."""

_LAST_OUTPUTS_SECONDS = 0.05
"""How long a worker's next call gets no item while a stream of outputs is open in another."""

_LOOK_SECONDS = 0.25
"""How often it is asked whether the other side is still there."""

_MAX_EVENTS = 1000

_UNDER_WAY = (0, StatusCode.SUCCESS, StatusCode.RUNNER_STREAM_START)
"""Statuses after which a stream of outputs goes on."""

RunnerKey = tuple[str, str]
"""User id and id of a runner."""

_STREAMS_OUTPUTS = (
    v2.RunnerMethodType.UNARY_STREAMING,
    v2.RunnerMethodType.STREAMING_STREAMING,
)
_STREAMS_INPUTS = (
    v2.RunnerMethodType.STREAMING_UNARY,
    v2.RunnerMethodType.STREAMING_STREAMING,
)


class UnavailableRunnerError(ServiceError):
    """No worker can take an item now. It concerns the call as a whole."""


class RunnerPlace(NamedTuple):
    """A runner that may take an item.

    Attributes:
        key: The runner.
        pool: What its items are counted for: its nodepool, or itself without one.
    """

    key: RunnerKey
    pool: tuple[str, ...]


LOST_ITEM = "Failed"
"""Reason of the event that a worker lost an item."""


class RunnerEvent(NamedTuple):
    """What happened to a worker, for the log of its runner.

    Attributes:
        runner: Whose worker it is.
        replica: Which of the runner's processes it is.
        reason: One of Kubernetes' words for events of containers.
        message: The same for a person.
        time: In UTC, ISO 8601.
    """

    runner: RunnerKey
    replica: str
    reason: str
    message: str
    time: str


class ReplicaCounts(NamedTuple):
    """The workers of a runner: running now, seen since the start, and their running time."""

    running: int = 0
    total: int = 0
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _QueuedItem:
    """An item with what is known of it. ``changed`` and the others share the lock of the queues."""

    item: v2.RunnerItem
    places: Sequence[RunnerPlace]
    changed: threading.Condition  # for the caller: there is an answer, or there will be none
    room: threading.Condition  # for workers and for the sender of further inputs
    answers: deque[v2.PostRunnerItemOutputsRequest] = field(default_factory=deque)
    answer_bytes: int = 0
    runner: RunnerKey | None = None
    call: WorkerCall | None = None
    leased_until: float | None = None
    handouts: int = 0
    handed_to: str | None = None
    handed_at: float = 0.0
    inputs_sent: int = 0
    inputs_ended: bool = False
    is_started: bool = False
    is_complete: bool = False
    failure: Exception | None = None

    @property
    def streams_outputs(self) -> bool:
        return self.item.processing_info.runner_method_type in _STREAMS_OUTPUTS

    @property
    def streams_inputs(self) -> bool:
        return self.item.processing_info.runner_method_type in _STREAMS_INPUTS

    @property
    def is_full(self) -> bool:
        return len(self.answers) >= _UNREAD_MESSAGES or self.answer_bytes >= _UNREAD_BYTES

    @property
    def is_held(self) -> bool:
        return self.call is not None or self.leased_until is not None

    def complete(self, failure: Exception | None = None) -> None:
        if self.call is not None:
            self.call.items.pop(self.item.id, None)
        self.is_complete, self.failure = True, failure
        self.changed.notify_all()
        self.room.notify_all()


@dataclass(slots=True, eq=False)
class WorkerCall:
    """A call that a worker keeps open.

    Attributes:
        runner: Whose worker it is.
        replica: Which of the runner's processes it is; empty where it does not say.
        is_control: It takes cancellations and no work.
        end: Why the server ends the call, None while it goes on.
        is_ending: No more messages come, whether for a good reason or not.
        is_over: The worker has sent its last message.
    """

    runner: RunnerKey
    replica: str
    is_control: bool
    changed: threading.Condition
    end: ServiceError | None = None
    is_ending: bool = False
    is_over: bool = False
    is_broken: bool = False
    asks: int = 0
    outbox: deque[v2.MultiRunnerItemResponse] = field(default_factory=deque)
    items: dict[str, _QueuedItem] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def has_room(self) -> bool:
        """Whether a further input may wait to be read."""
        unread = sum(response.ByteSize() for response in self.outbox)
        return len(self.outbox) < _UNREAD_MESSAGES and unread < _UNREAD_BYTES

    def send(self, *items: v2.RunnerItem, code: StatusCodeValue = StatusCode.SUCCESS) -> None:
        self.outbox.append(v2.MultiRunnerItemResponse(status=make_status(code), runner_items=items))
        self.changed.notify_all()


@dataclass(slots=True, eq=False)
class _Replica:
    since: float
    calls: int = 0
    last_seen: float = 0.0

    def is_there(self, now: float) -> bool:
        return self.calls > 0 or now - self.last_seen < GONE_SECONDS


@dataclass(slots=True, eq=False)
class _Runner:
    changed: threading.Condition
    waiting: OrderedDict[str, _QueuedItem] = field(default_factory=OrderedDict)
    idle: OrderedDict[int, WorkerCall] = field(default_factory=OrderedDict)
    calls: dict[int, WorkerCall] = field(default_factory=dict)
    replicas: dict[str, _Replica] = field(default_factory=dict)
    replicas_seen: int = 0
    past_seconds: float = 0.0


class RunnerQueues:
    """What waits for the runners of all users."""

    def __init__(self) -> None:
        # Reentrant: ``run`` ends wherever the garbage collector finds it, with the lock held, too.
        self._lock = threading.RLock()
        self._runners: dict[RunnerKey, _Runner] = {}
        self._items: dict[str, _QueuedItem] = {}
        self._in_pool: Counter[tuple[str, ...]] = Counter()
        self._events: deque[RunnerEvent] = deque(maxlen=_MAX_EVENTS)
        self._open_calls = 0
        self._is_closing = False

    # For callers of models.

    def run(
        self,
        places: Sequence[RunnerPlace],
        item: v2.RunnerItem,
        is_active: Callable[[], bool],
        remaining: float | None,
        inputs: Iterator[v2.PostModelOutputsRequest] | None = None,
    ) -> Generator[v2.MultiOutputResponse]:
        """Gives work to a runner and yields its answers as they come.

        Args:
            places: The runners that may take it, at least one.
            item: The work, without an id.
            is_active: False once nobody waits for the answers any more.
            remaining: Seconds that the caller has left; None gives the worker PATIENCE_SECONDS for
                each answer.
            inputs: What follows the request of an item that takes a stream.

        Raises:
            UnavailableRunnerError: There is no worker, or the queue is full.
            ServiceError: The worker failed, was lost, or did not answer in time.
        """
        item.id = item.processing_info.processing_id = new_id()
        queued = _QueuedItem(
            item, places, threading.Condition(self._lock), threading.Condition(self._lock)
        )
        pools = {place.pool for place in places}
        with self._lock:
            self._admit(pools)
            self._items[item.id] = queued
            self._enqueue(queued)
        try:
            if inputs is not None:
                threading.Thread(
                    target=self._send_inputs,
                    args=(queued, inputs),
                    name="clarigrpc-local-runner-inputs",
                    daemon=True,
                ).start()
            deadline = None if remaining is None else time.monotonic() + remaining
            while (answer := self._next_answer(queued, is_active, deadline)) is not None:
                for output in answer.runner_item_outputs:
                    yield output.multi_output_response
                code = answer.status.code
                if code not in _UNDER_WAY and code != StatusCode.RUNNER_STREAM_END:
                    raise ServiceError(code, answer.status.details)
        finally:
            with self._lock:
                self._give_up(queued)
                self._in_pool.subtract(pools)
                self._in_pool += Counter()  # forgets those at zero

    def _admit(self, pools: set[tuple[str, ...]]) -> None:
        if all(self._in_pool[pool] >= MAX_POOL_ITEMS for pool in pools):
            names = ", ".join(repr(pool[-1]) for pool in sorted(pools))
            raise UnavailableRunnerError(
                StatusCode.MODEL_BUSY_PLEASE_RETRY,
                f"the queue of {names} is full: {MAX_POOL_ITEMS} items wait or run",
            )
        self._in_pool.update(pools)

    def _next_answer(
        self, queued: _QueuedItem, is_active: Callable[[], bool], deadline: float | None
    ) -> v2.PostRunnerItemOutputsRequest | None:
        """The worker's next answer, None after the last one."""
        now = arrived = time.monotonic()
        end = now + PATIENCE_SECONDS if deadline is None else deadline
        with self._lock:
            while True:
                if queued.answers:
                    answer = queued.answers.popleft()
                    queued.answer_bytes -= answer.ByteSize()
                    queued.room.notify_all()
                    return answer
                if queued.failure is not None:
                    raise queued.failure
                if queued.is_complete:
                    return None
                now = time.monotonic()
                is_there = queued.is_held or self._is_any_there(queued, now)
                if is_there and (now >= end or not is_active()):
                    raise UnavailableRunnerError(
                        StatusCode.MODEL_BUSY_PLEASE_RETRY,
                        f"runner {_names(queued)} did not answer in time",
                    )
                if queued.leased_until is not None and now >= queued.leased_until:
                    self._lose(queued, f"did not answer for {LEASE_SECONDS:g} seconds")
                elif is_there:
                    arrived = now
                elif now >= min(end, arrived + ARRIVAL_SECONDS) or not is_active():
                    raise UnavailableRunnerError(
                        StatusCode.MODEL_DEPLOYING, f"no worker of runner {_names(queued)} is there"
                    )
                queued.changed.wait(min(end - now, _LOOK_SECONDS))

    def _give_up(self, queued: _QueuedItem) -> None:
        """The caller needs no more answers. A worker that still works on the item is told."""
        call = None if queued.is_complete else queued.call
        queued.complete(queued.failure)
        self._items.pop(queued.item.id, None)
        self._unqueue(queued)
        if call is not None:
            item = v2.RunnerItem(id=queued.item.id, processing_info=queued.item.processing_info)
            item.processing_info.status.CopyFrom(make_status(StatusCode.RUNNER_ITEM_CANCELLED))
            self._control_call(call).send(item)

    def _send_inputs(
        self, queued: _QueuedItem, inputs: Iterator[v2.PostModelOutputsRequest]
    ) -> None:
        """Sends what follows the first input, as fast as the worker takes it."""
        try:
            for request in inputs:
                if not self._send_input(queued, request):
                    return
        except Exception as error:  # noqa: BLE001 (raised in the thread of the caller)
            with self._lock:
                queued.failure = queued.failure or _of_caller(error)
                queued.changed.notify_all()
            return
        with self._lock:
            queued.inputs_ended = True
            if queued.call is not None:
                _end_inputs(queued, queued.call)

    def _send_input(self, queued: _QueuedItem, request: v2.PostModelOutputsRequest) -> bool:
        item = v2.RunnerItem(id=queued.item.id, processing_info=queued.item.processing_info)
        item.processing_info.status.CopyFrom(make_status(StatusCode.SUCCESS))
        item.post_model_outputs_request.CopyFrom(request)
        with self._lock:
            while not queued.is_complete:
                if queued.call is not None and queued.call.has_room:
                    queued.inputs_sent += 1
                    queued.call.send(item)
                    return True
                queued.room.wait(_LOOK_SECONDS)
        return False

    # For workers.

    def open_call(self, runner: RunnerKey, replica: str, *, is_control: bool) -> WorkerCall:
        """A worker has begun a call.

        Raises:
            ServiceError: There are too many of them.
        """
        with self._lock:
            if self._open_calls >= MAX_CALLS:
                raise ServiceError(
                    StatusCode.CONN_THROTTLED, f"{MAX_CALLS} calls of workers are open, the maximum"
                )
            self._open_calls += 1
            call = WorkerCall(runner, replica, is_control, threading.Condition(self._lock))
            entry = self._runner(runner)
            entry.calls[id(call)] = call
            self._heard(runner, replica).calls += 1
            for queued in entry.waiting.values():
                queued.changed.notify_all()
            return call

    def settle(self, call: WorkerCall) -> None:
        """Let the outputs arrive that the worker may just have sent in the call before this one.

        The published runner drops its last call when it gets the next item. What of that call is
        still on its way then is lost.
        """
        end = time.monotonic() + _LAST_OUTPUTS_SECONDS
        with self._lock:
            while self._streams_elsewhere(call) and (left := end - time.monotonic()) > 0:
                call.changed.wait(min(left, _LAST_OUTPUTS_SECONDS / 20))

    def _streams_elsewhere(self, call: WorkerCall) -> bool:
        entry = self._runners.get(call.runner)
        return entry is not None and any(
            queued.streams_outputs
            for other in entry.calls.values()
            if other is not call and other.replica == call.replica
            for queued in other.items.values()
        )

    def ask(self, call: WorkerCall) -> None:
        """The worker wants one more item in this call."""
        with self._lock:
            entry = self._runners.get(call.runner)
            if entry is None or self._is_closing:
                return
            if entry.waiting:
                self._assign(next(iter(entry.waiting.values())), call)
                return
            call.asks += 1
            entry.idle[id(call)] = call

    def next_response(self, call: WorkerCall) -> v2.MultiRunnerItemResponse | None:
        """What to send to the worker next; None where there is nothing for a moment.

        Raises:
            ServiceError: The server ends the call.
        """
        with self._lock:
            if not (call.outbox or call.end or call.is_ending or self._is_done(call)):
                call.changed.wait(_LOOK_SECONDS)
            if call.outbox:
                for queued in call.items.values():
                    queued.room.notify_all()
                return call.outbox.popleft()
            if call.end is not None:
                raise call.end
            return None

    def is_done(self, call: WorkerCall) -> bool:
        """Whether nothing more is to be sent in this call."""
        with self._lock:
            return self._is_done(call)

    def _is_done(self, call: WorkerCall) -> bool:
        if call.outbox or call.end is not None:
            return False
        return call.is_over or (self._is_closing and not call.items)

    def await_end(self, call: WorkerCall) -> None:
        """No more messages come. With nothing to be answered it does not matter why."""
        with self._lock:
            call.is_ending = bool(call.items)
            if not call.is_ending:
                self._end(call)
            call.changed.notify_all()

    def is_ending(self, call: WorkerCall) -> bool:
        """Whether it is to be found out why no more messages come."""
        with self._lock:
            return call.is_ending and not call.is_over

    def end_messages(self, call: WorkerCall) -> None:
        """The worker has sent its last message. This ends the streams of outputs in this call."""
        with self._lock:
            for queued in list(call.items.values()):
                if queued.streams_outputs:
                    queued.complete()
            self._end(call)

    def refuse_messages(self, call: WorkerCall, error: ServiceError) -> None:
        """Something is wrong with a message; it ends the call."""
        with self._lock:
            call.end = call.end or error
            self._end(call)

    def _end(self, call: WorkerCall) -> None:
        self._release(call, "ended its call without an answer")
        call.is_over = True
        call.changed.notify_all()

    def break_call(self, call: WorkerCall) -> None:
        """The worker's messages have stopped in the middle."""
        with self._lock:
            call.is_broken = call.is_over = True
            self._release(call, "left in the middle of its work")
            call.changed.notify_all()

    def close_call(self, call: WorkerCall) -> None:
        """The call has ended."""
        with self._lock:
            was_broken = call.is_broken or not call.is_over
            self._release(call, "left in the middle of its work")
            call.is_over = True
            self._open_calls -= 1
            entry = self._runners.get(call.runner)
            if entry is None or entry.calls.pop(id(call), None) is None:
                return
            replica = entry.replicas.get(call.replica)
            if replica is not None:
                replica.calls -= 1
                now = time.monotonic()
                replica.last_seen = now - GONE_SECONDS
                if not was_broken:
                    replica.last_seen += BETWEEN_SECONDS
            self._sweep(call.runner, entry)

    def _release(self, call: WorkerCall, what: str) -> None:
        """The call takes no more work, and its items are lost."""
        entry = self._runners.get(call.runner)
        if entry is not None:
            entry.idle.pop(id(call), None)
        call.asks = 0
        for queued in list(call.items.values()):
            self._lose(queued, what)
        call.items.clear()

    def take(self, runner: RunnerKey, wait: float, most: int) -> list[v2.RunnerItem]:
        """Items for a worker that asks by unary calls; none where none come within ``wait``.

        It has each for LEASE_SECONDS, and again after each of its answers.
        """
        end = time.monotonic() + wait
        with self._lock:
            while True:
                now = time.monotonic()
                replica = self._heard(runner, "")
                entry = self._runner(runner)
                ready = [q for q in entry.waiting.values() if not q.streams_inputs][:most]
                if ready or now >= end or self._is_closing:
                    break
                entry.changed.wait(end - now)
            for queued in ready:
                self._unqueue(queued)
                queued.runner, queued.leased_until = runner, now + LEASE_SECONDS
                queued.handouts += 1
                replica.last_seen = now + LEASE_SECONDS - GONE_SECONDS  # there while it works
            return [queued.item for queued in ready]

    def answer(
        self,
        runner: RunnerKey,
        message: v2.PostRunnerItemOutputsRequest,
        call: WorkerCall | None = None,
    ) -> bool:
        """Takes a worker's outputs, and waits while its caller has not read those before.

        Args:
            runner: Whose worker it is.
            message: The outputs.
            call: In which they came, None for a call of their own.

        Returns:
            False where nobody waits for them: they are dropped.
        """
        with self._lock:
            queued = self._items.get(message.runner_item_id)
            while True:
                if queued is None or queued.is_complete or not _has(runner, queued, message, call):
                    return False
                if not queued.is_full:
                    break
                queued.room.wait(_LOOK_SECONDS)
            source = call or queued.call
            if runner in self._runners:  # not deleted meanwhile
                self._heard(runner, source.replica if source else message.runner_replica_id)
            if queued.leased_until is not None:
                queued.leased_until = time.monotonic() + LEASE_SECONDS
            code = message.status.code
            if code == StatusCode.RUNNER_NEEDS_RETRY:
                if queued.call is not None:
                    queued.call.items.pop(queued.item.id, None)
                self._lose(queued, "could not take the item")
                return True
            queued.answers.append(message)
            queued.answer_bytes += message.ByteSize()
            queued.is_started |= bool(message.runner_item_outputs)
            is_first = code == StatusCode.RUNNER_STREAM_START and not message.runner_item_outputs
            if is_first or (queued.streams_outputs and code in _UNDER_WAY):
                queued.changed.notify_all()
            else:
                queued.complete()
            return True

    def refuse_outputs(self, call: WorkerCall, message: v2.PostRunnerItemOutputsRequest) -> None:
        """Nobody waits for what came in a call.

        The worker is told at the second message of an item, as it may go on for ever, and once.
        """
        item_id = message.runner_item_id
        with self._lock:
            if item_id not in call.refused and len(call.refused) >= _MAX_REFUSED:
                return
            call.refused[item_id] += 1
            if call.refused[item_id] == 2:
                item = v2.RunnerItem(id=item_id)
                item.processing_info.status.CopyFrom(make_status(StatusCode.RUNNER_ITEM_CANCELLED))
                call.send(item)

    def forget(self, runner: RunnerKey) -> None:
        """The runner has been deleted: its workers are sent away."""
        with self._lock:
            entry = self._runners.pop(runner, None)
            if entry is None:
                return
            for call in entry.calls.values():
                call.end = ServiceError(
                    StatusCode.RUNNER_DOES_NOT_EXIST, f"runner {runner[1]!r} has been deleted"
                )
                self._release(call, "was deleted")
                call.changed.notify_all()
            entry.changed.notify_all()

    def close(self) -> None:
        """Ends the calls of workers, which otherwise wait for work for as long as they like."""
        with self._lock:
            self._is_closing = True
            for entry in self._runners.values():
                entry.changed.notify_all()
                for call in entry.calls.values():
                    call.changed.notify_all()

    # For those who look on.

    def counts(self, runner: RunnerKey) -> ReplicaCounts:
        """The workers of a runner."""
        now = time.monotonic()
        with self._lock:
            entry = self._runners.get(runner)
            if entry is None:
                return ReplicaCounts()
            self._sweep(runner, entry)
            seconds = sum(now - replica.since for replica in entry.replicas.values())
            return ReplicaCounts(
                len(entry.replicas), entry.replicas_seen, entry.past_seconds + seconds
            )

    def events(self) -> list[RunnerEvent]:
        """What has happened since the last time that somebody asked."""
        with self._lock:
            for runner, entry in self._runners.items():
                self._sweep(runner, entry)
            found = list(self._events)
            self._events.clear()
            return found

    # Inside, with the lock held.

    def _runner(self, runner: RunnerKey) -> _Runner:
        entry = self._runners.get(runner)
        if entry is None:
            entry = self._runners[runner] = _Runner(threading.Condition(self._lock))
        return entry

    def _heard(self, runner: RunnerKey, replica: str) -> _Replica:
        """A worker has shown that it is there."""
        entry = self._runner(runner)
        found = entry.replicas.get(replica)
        now = time.monotonic()
        if found is None:
            found = entry.replicas[replica] = _Replica(now)
            entry.replicas_seen += 1
            self._note(runner, replica, "Started", "The worker has connected")
        found.last_seen = now
        self._sweep(runner, entry)
        return found

    def _note(self, runner: RunnerKey, replica: str, reason: str, message: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._events.append(RunnerEvent(runner, replica, reason, message, now))

    def _sweep(self, runner: RunnerKey, entry: _Runner) -> None:
        now = time.monotonic()
        for name, replica in list(entry.replicas.items()):
            if not replica.is_there(now):
                del entry.replicas[name]
                entry.past_seconds += now - replica.since
                self._note(runner, name, "Killing", "The worker has left")

    def _is_any_there(self, queued: _QueuedItem, now: float) -> bool:
        entries = [self._runners.get(place.key) for place in queued.places]
        return any(
            replica.is_there(now)
            for entry in entries
            if entry is not None
            for replica in entry.replicas.values()
        )

    def _enqueue(self, queued: _QueuedItem, *, first: bool = False) -> None:
        for place in queued.places:
            entry = self._runners.get(place.key)
            if entry is not None and entry.idle:
                call = next(iter(entry.idle.values()))
                call.asks -= 1
                entry.idle.pop(id(call))
                if call.asks:
                    entry.idle[id(call)] = call  # after those that have waited longer
                self._assign(queued, call)
                return
        for place in queued.places:
            entry = self._runner(place.key)
            entry.waiting[queued.item.id] = queued
            if first:
                entry.waiting.move_to_end(queued.item.id, last=False)
            entry.changed.notify_all()

    def _control_call(self, call: WorkerCall) -> WorkerCall:
        """The call in which the worker of a call hears of cancellations."""
        entry = self._runners.get(call.runner)
        calls = entry.calls.values() if entry is not None else ()
        return next((c for c in calls if c.is_control and c.replica == call.replica), call)

    def _unqueue(self, queued: _QueuedItem) -> None:
        for place in queued.places:
            entry = self._runners.get(place.key)
            if entry is not None:
                entry.waiting.pop(queued.item.id, None)
                if not (entry.waiting or entry.calls or entry.replicas_seen):
                    del self._runners[place.key]  # no worker has ever come

    def _assign(self, queued: _QueuedItem, call: WorkerCall) -> None:
        self._unqueue(queued)
        queued.runner, queued.call = call.runner, call
        now = time.monotonic()
        if call.replica != queued.handed_to or now - queued.handed_at >= _SAME_LOSS_SECONDS:
            queued.handouts += 1
            queued.handed_to, queued.handed_at = call.replica, now
        call.items[queued.item.id] = queued
        if queued.streams_inputs:
            queued.inputs_sent = 1
        call.send(queued.item)
        if queued.inputs_ended:
            _end_inputs(queued, call)
        queued.room.notify_all()

    def _lose(self, queued: _QueuedItem, what: str) -> None:
        """The worker that had the item has it no longer."""
        runner = queued.runner
        name = runner[1] if runner is not None else ""
        is_polled = queued.call is None
        replica = queued.call.replica if queued.call is not None else ""
        queued.runner = queued.call = queued.leased_until = None
        if queued.is_complete:
            return
        details = f"a worker of runner {name!r} {what}"
        if runner is not None:
            self._note(runner, replica, LOST_ITEM, f"The worker {what}; it had {queued.item.id}")
        # Outputs are not made twice. One that answers by unary calls may still be making them.
        if queued.is_started or queued.inputs_sent > 1 or (is_polled and queued.streams_outputs):
            queued.complete(ServiceError(StatusCode.RUNNER_PROCESSING_FAILED, details))
        elif queued.handouts >= MAX_HANDOUTS:
            details = f"{details}; it was the worker number {MAX_HANDOUTS} that had this item"
            queued.complete(ServiceError(StatusCode.RUNNER_PROCESSING_FAILED, details))
        else:
            self._enqueue(queued, first=True)
            queued.changed.notify_all()


def _has(
    runner: RunnerKey,
    queued: _QueuedItem,
    message: v2.PostRunnerItemOutputsRequest,
    call: WorkerCall | None,
) -> bool:
    """Whether it is this worker that has the item now."""
    if queued.runner != runner:
        return False
    if call is not None or queued.call is None:
        return queued.call is call
    return message.runner_replica_id in ("", queued.call.replica)


def _of_caller(error: Exception) -> Exception:
    """What a caller is told of an error in its stream of inputs."""
    if isinstance(error, ServiceError | CallAborted):
        return error
    return ServiceError(StatusCode.RUNNER_PROCESSING_FAILED, "the stream of inputs was cut")


def _end_inputs(queued: _QueuedItem, call: WorkerCall) -> None:
    item = v2.RunnerItem(id=queued.item.id, processing_info=queued.item.processing_info)
    item.processing_info.status.CopyFrom(make_status(StatusCode.RUNNER_STREAM_END))
    call.send(item, code=StatusCode.RUNNER_STREAM_END)


def _names(queued: _QueuedItem) -> str:
    return " or ".join(repr(place.key[1]) for place in queued.places)
