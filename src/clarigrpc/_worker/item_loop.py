"""What a worker does, without I/O: ask for items, answer them, survive faults, come to an end.

Each of its loops is a plan (``item_steps``); ``sync_worker`` and ``async_worker`` run them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from clarigrpc import errors, v2
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._public_names import named_in
from clarigrpc._rpc import call_observer
from clarigrpc._rpc.plan import Call
from clarigrpc._worker.item_answers import ItemAnswer
from clarigrpc._worker.item_call import ItemAbortedError, ItemCall, is_final
from clarigrpc._worker.item_messages import RunnerIdentity
from clarigrpc._worker.item_steps import (
    AwaitChange,
    CancelCall,
    EndMethods,
    HalfClose,
    OpenCall,
    Pause,
    WakeCall,
    WorkerPlan,
    WriteMessage,
)
from clarigrpc.v2 import StatusCode

logger = logging.getLogger("clarigrpc")

ASK_SECONDS = 60.0
"""A call that brought no item for so long is replaced, as its connection may be dead."""
SETTLE_SECONDS = 10.0
"""So long the service may take to end a call after the last message."""
POST_SECONDS = 30.0
"""Deadline for handing outputs back by a call of their own."""
STEADY_SECONDS = 2.0
"""A call that has been open for so long counts as a connection."""

_KEPT_IDS = 1000

_AT_ONCE_SECONDS = 0.2
"""A call that ended so soon without an item is followed by a pause: a service may be busy."""

STOPPING = "the runner is shutting down"
"""Why items are aborted that do not end in time."""

TOO_LARGE = "an output of the runner is larger than the service takes"
"""Why items are aborted that were run before."""
TOO_LONG = "it took too long"
"""Why items are aborted that take longer than they may."""

ItemOutcome = Literal["succeeded", "failed", "cancelled", "lost"]


@named_in("clarigrpc.runner")
@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a worker has done since it was started.

    Attributes:
        running: Items that run now.
        succeeded: Items whose outputs were all handed back, without a failed one.
        failed: Items that were handed back with at least one failed output.
        cancelled: Items that nobody waited for any more: the caller has gone, or another worker was
            faster.
        lost: Items that were not handed back, as the connection broke in the middle of their
            outputs or the worker had to end. Their callers get an error or another worker.
        reconnects: Calls to the service that failed.
        batches: Calls of batched methods.
    """

    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    reconnects: int = 0
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Registration:
    """The runner to make where it does not exist.

    Attributes:
        model_id: Its model; empty: it has to exist.
        app_id: App of the model.
        model_user_id: Owner of the model.
        version_id: Version of the model; empty: any.
    """

    model_id: str
    app_id: str
    model_user_id: str
    version_id: str


class ItemLoop:
    """The plans of a worker, and what they share.

    Args:
        identity: Who the worker is.
        registration: The runner to make where it does not exist.
        answers: Answers the items.
        policy: How long to wait between attempts to reach the service.
        clock: Monotonic time in seconds.
        random: Draws from [0, 1).
        item_seconds: Most time that an item may take.

    Attributes:
        stopping: Whether no further item is taken.
        failure: What ended the worker; None as long as nothing did.
        stats: What it has done.
        calls: The calls that ask for an item or have one.
    """

    def __init__(
        self,
        identity: RunnerIdentity,
        registration: Registration,
        answers: ItemAnswer,
        policy: RetryPolicy,
        clock: Callable[[], float],
        random: Callable[[], float],
        item_seconds: float = math.inf,
    ) -> None:
        self._identity = identity
        self._registration = registration
        self._answers = answers
        self._policy = policy
        self._clock = clock
        self._random = random
        self._item_seconds = item_seconds
        self._connected: set[int] = set()
        # A cancellation may overtake its item, which comes over another call.
        self._cancelled: deque[str] = deque(maxlen=_KEPT_IDS)
        self._oversized: deque[str] = deque(maxlen=_KEPT_IDS)
        self._registered = False
        self._counting = threading.Lock()
        self.stopping: bool = False
        self.failure: Exception | None = None
        self.stats: WorkerStats = WorkerStats()
        self.calls: list[ItemCall] = []

    @property
    def is_ready(self) -> bool:
        """Whether the service can be reached and the worker takes items."""
        return self._registered and bool(self._connected) and not self.stopping

    @property
    def items(self) -> list[ItemCall]:
        """The calls with an item at work."""
        return [call for call in list(self.calls) if call.item is not None and not call.finished]

    def count(self, **changes: int) -> None:
        """Add to the statistics. The loops of a sync worker run in threads."""
        with self._counting:
            counted = {name: getattr(self.stats, name) + by for name, by in changes.items()}
            self.stats = replace(self.stats, **counted)

    def register(self) -> WorkerPlan[None]:
        """See that the runner exists.

        Raises:
            NotFoundError: It does not, and no model was given to make it for.
        """
        who, wanted = self._identity, self._registration
        user = v2.UserAppIDSet(user_id=who.user_id)
        asked = v2.GetRunnerRequest(
            user_app_id=user,
            compute_cluster_id=who.compute_cluster_id,
            nodepool_id=who.nodepool_id,
            runner_id=who.runner_id,
        )
        try:
            yield Call("GetRunner", asked)
        except errors.NotFoundError as error:
            if not wanted.model_id:
                error.details = "; ".join(
                    filter(None, (error.details, "give the model, to have the runner created"))
                )
                raise
            request = v2.PostRunnersRequest(
                user_app_id=user,
                compute_cluster_id=who.compute_cluster_id,
                nodepool_id=who.nodepool_id,
            )
            model = request.runners.add(id=who.runner_id, num_replicas=1).worker.model
            model.id, model.app_id = wanted.model_id, wanted.app_id
            model.user_id, model.model_version.id = wanted.model_user_id, wanted.version_id
            with contextlib.suppress(errors.AlreadyExistsError):  # another worker was faster
                yield Call("PostRunners", request)
        self._registered = True

    def serve(self, number: int) -> WorkerPlan[None]:
        """Take one item after the other until the worker is to stop.

        Args:
            number: Tells the loops of a worker apart.

        Raises:
            ApiError: The service refuses the worker for good.
        """
        failures = 0
        while not self.stopping:
            call, opened = ItemCall(), self._clock()
            self.calls.append(call)
            try:
                yield OpenCall(call, self._identity.hello())
                is_open = yield from self._await_item(call, number)
                if call.item is not None and not is_open:
                    yield from self._hand_on(call)
                elif call.item is not None:
                    self._connected.add(number)
                    yield from self._run_item(call, number)
            finally:
                call.finished = True
                self.calls.remove(call)
            if call.item is not None:
                failures = 0
                continue
            failures += 1
            if call.error is not None:
                yield from self._recover(call.error, number, failures)
            elif self._clock() - opened < _AT_ONCE_SECONDS:
                yield Pause(self._policy.backoff(failures, self._random()))

    def control(self) -> WorkerPlan[None]:
        """Learn over a call of its own which items were cancelled."""
        failures = 0
        while not self.stopping:
            call = ItemCall()
            yield OpenCall(call, self._identity.control_hello())
            while not (call.over or self.stopping):
                yield AwaitChange(call, math.inf)
                while call.cancelled_ids:
                    yield from self._cancel(call.cancelled_ids.popleft())
                if call.answered:
                    failures = 0
            yield CancelCall(call)
            if self.stopping:
                return
            if call.error is not None and (
                is_final(call.error) or isinstance(call.error, errors.NotFoundError)
            ):
                logger.info("the service has no control call: %s", call.error)
                return
            failures += 1
            yield Pause(self._policy.backoff(failures, self._random()))

    def watch(self) -> WorkerPlan[None]:
        """Abort items that take too long."""
        while not self.stopping:
            for call in self.items:
                if call.due <= self._clock() and call.abort is None:
                    call.abort = TOO_LONG
                    yield WakeCall(call)
            yield Pause(min(1.0, self._item_seconds))

    def _cancel(self, item_id: str) -> WorkerPlan[None]:
        # Noted first: the item may be on its way in another call, and arrive at any moment.
        self._cancelled.append(item_id)
        for call in self.items:
            if call.item is not None and call.item.id == item_id:
                call.cancel()
                yield WakeCall(call)

    def _await_item(self, call: ItemCall, number: int) -> WorkerPlan[bool]:
        """Wait for an item, or the end of the call; whether outputs can still be sent."""
        opened = self._clock()
        closed: float | None = None
        while call.item is None and not call.over:
            now = self._clock()
            if call.answered or now - opened >= STEADY_SECONDS:
                self._connected.add(number)
            ends = self.stopping or call.refused or now - opened >= ASK_SECONDS
            if closed is None and ends:
                # Not cancelled: an item that is on its way is not to be lost.
                yield HalfClose(call)
                closed = now
            if closed is not None and now - closed >= SETTLE_SECONDS:
                yield CancelCall(call)
                return False
            until = closed + SETTLE_SECONDS if closed is not None else opened + ASK_SECONDS
            if number not in self._connected:
                until = min(until, opened + STEADY_SECONDS)
            yield AwaitChange(call, max(0.01, until - now))
        return closed is None

    def _hand_on(self, call: ItemCall) -> WorkerPlan[None]:
        """Not run an item that came after the last message: the service gives it to another."""
        assert call.item is not None
        logger.info("item %s came too late for its call", call.item.id)
        yield from self._settle(call)
        self.count(lost=1)

    def _recover(self, error: errors.ApiError, number: int, failures: int) -> WorkerPlan[None]:
        """Wait before the next call, after one that brought no item failed."""
        self._connected.discard(number)
        self.count(reconnects=1)
        if is_final(error):
            raise error
        delay = self._policy.backoff(failures, self._random())
        if error.retry_after is not None:
            delay += error.retry_after
        logger.warning("the runner asks again in %.2f s: %s", delay, error)
        yield Pause(delay)
        if isinstance(error, errors.NotFoundError) and not self.stopping:
            # A service that was started again without its data.
            try:
                yield from self.register()
            except errors.ApiError as failure:
                if is_final(failure) or isinstance(failure, errors.NotFoundError):
                    raise
                logger.warning("the runner could not be registered again: %s", failure)

    def _run_item(self, call: ItemCall, number: int) -> WorkerPlan[None]:
        call.began = began = self._clock()
        call.due = began + self._item_seconds
        self.count(running=1)
        try:
            outcome = yield from self._process(call, number)
        finally:
            self.count(running=-1)
        if not call.given_back:
            self._note_outcome(outcome, began)

    def give_back(self, call: ItemCall) -> v2.PostRunnerItemOutputsRequest:
        """What to say of an item whose function does not end, when the worker does."""
        call.given_back = True
        self._note_outcome("lost", call.began)
        return self.refusal(call)

    def _note_outcome(self, outcome: ItemOutcome, began: float) -> None:
        self.count(**{outcome: 1})
        if (observer := call_observer.installed()) is not None:
            observer.item_served(self._identity.runner_id, outcome, self._clock() - began)

    def _process(self, call: ItemCall, number: int) -> WorkerPlan[ItemOutcome]:
        assert call.item is not None
        item, who = call.item, self._identity
        if item.id in tuple(self._cancelled):  # another thread may add to it
            call.cancel()
        elif item.id in tuple(self._oversized):
            call.abort = TOO_LARGE
        last: v2.PostRunnerItemOutputsRequest | None = None
        failed = False
        single = item.processing_info.runner_method_type in (
            v2.RunnerMethodType.UNARY_UNARY,
            v2.RunnerMethodType.UNKNOWN,
        )

        def send(response: v2.MultiOutputResponse) -> WorkerPlan[None]:
            nonlocal last, failed
            if call.abort is not None:
                raise ItemAbortedError(call.abort)
            failed = failed or response.status.code != StatusCode.SUCCESS
            last = who.outputs(item.id, response)
            written = yield WriteMessage(call, last)
            if not (written or single):
                raise ItemAbortedError("the connection was lost")
            call.sent += written

        aborted = call.abort
        if aborted is None:
            try:
                yield from self._answers.respond(call, send)
            except ItemAbortedError as error:
                aborted = str(error)
        yield EndMethods(call)
        if aborted is not None:
            if call.error is not None:
                self._connected.discard(number)
            return (yield from self._give_up(call, aborted))
        if not call.sent and not single:
            yield WriteMessage(call, who.end(item.id, StatusCode.RUNNER_STREAM_END))
        settled = yield from self._settle(call)
        if not settled:
            self._connected.discard(number)
        outcome: ItemOutcome = "failed" if failed else "succeeded"
        if call.abort is not None:
            outcome = "cancelled"
        elif not settled and single and isinstance(call.error, errors.InvalidArgumentError):
            # Too large a message. Sent again it would only be refused again.
            outcome = yield from self._post(self._refused(call, call.error), "failed")
        elif not settled and single and last is not None:
            outcome = yield from self._post(last, outcome)
        elif not settled:
            outcome = yield from self._post_cut_off(call)
        return outcome

    def _settle(self, call: ItemCall) -> WorkerPlan[bool]:
        """Half-close, and wait until the service has confirmed the end of the call."""
        if not call.over:
            yield HalfClose(call)
            until = self._clock() + SETTLE_SECONDS
            while not call.over and (left := until - self._clock()) > 0:
                yield AwaitChange(call, left)
        settled = call.over and call.error is None
        yield CancelCall(call)
        return settled

    def _give_up(self, call: ItemCall, reason: str) -> WorkerPlan[ItemOutcome]:
        """End an item that will not be finished."""
        assert call.item is not None
        if call.given_back:
            return "lost"
        if call.abort in (TOO_LONG, TOO_LARGE):
            details = f"the item took longer than the {self._item_seconds:g} seconds of the runner"
            message = self._identity.end(
                call.item.id,
                StatusCode.RUNNER_PROCESSING_FAILED,
                details if call.abort == TOO_LONG else TOO_LARGE,
            )
            if (yield WriteMessage(call, message)) and (yield from self._settle(call)):
                return "failed"
            return (yield from self._post(message, "failed"))
        if call.abort == STOPPING:
            message = self.refusal(call)
            if not (yield WriteMessage(call, message)) or not (yield from self._settle(call)):
                yield from self._post(message, "lost")
            return "lost"
        yield CancelCall(call)
        if call.abort is not None:
            return "cancelled"
        logger.warning("item %s is lost: %s", call.item.id, reason)
        outcome: ItemOutcome = "lost"
        if call.sent:
            outcome = yield from self._post_cut_off(call)
        return outcome

    def refusal(self, call: ItemCall) -> v2.PostRunnerItemOutputsRequest:
        """Says that the worker ends before an item does.

        Another worker takes an item of which nothing was handed back.
        """
        assert call.item is not None
        code = StatusCode.RUNNER_PROCESSING_FAILED if call.sent else StatusCode.RUNNER_NEEDS_RETRY
        return self._identity.end(call.item.id, code, STOPPING)

    def _post_cut_off(self, call: ItemCall) -> WorkerPlan[ItemOutcome]:
        assert call.item is not None
        item_id = call.item.id
        if isinstance(call.error, errors.InvalidArgumentError):
            return (yield from self._post(self._refused(call, call.error), "failed"))
        if any(
            other is not call and other.item.id == item_id for other in self.items if other.item
        ):
            return "lost"  # the service gave it to this worker again
        message = self._identity.end(
            item_id,
            StatusCode.RUNNER_PROCESSING_FAILED,
            "the connection of the runner was lost in the middle of the outputs",
        )
        return (yield from self._post(message, "lost"))

    def _refused(self, call: ItemCall, error: errors.ApiError) -> v2.PostRunnerItemOutputsRequest:
        """Says that a message was too large. The item is not run again for that to be found out."""
        assert call.item is not None
        self._oversized.append(call.item.id)
        return self._identity.end(
            call.item.id,
            StatusCode.RUNNER_PROCESSING_FAILED,
            f"{TOO_LARGE}: {error.details.partition(';')[0]}",
        )

    def _post(
        self, message: v2.PostRunnerItemOutputsRequest, outcome: ItemOutcome
    ) -> WorkerPlan[ItemOutcome]:
        """Hand outputs back by a call of their own, as nobody knows whether they arrived.

        The service drops what it has already.
        """
        try:
            yield Call("PostRunnerItemOutputs", message, POST_SECONDS, {"idempotent": True})
        except (errors.CancelledError, errors.NotFoundError):
            return outcome if outcome == "lost" else "cancelled"
        except errors.ApiError as error:
            logger.warning("outputs of item %s are lost: %s", message.runner_item_id, error)
            return "lost"
        return outcome
