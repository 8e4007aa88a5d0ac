"""Work for runners: processes of users that run models for the server.

A prediction with a model that the server itself cannot run waits here for a runner of that model
to fetch it and to hand its outputs back.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from clarigrpc import v2
from clarigrpc._rpc import statuses
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

PATIENCE_SECONDS = 60.0
"""How long a prediction without a deadline waits for its runner."""

LEASE_SECONDS = 30.0
"""After this time without an answer an item is handed out again."""


_UNDER_WAY = (0, StatusCode.SUCCESS, StatusCode.RUNNER_STREAM_START)
"""Statuses after which a stream goes on; RUNNER_STREAM_END and failures end it."""


@dataclass(slots=True)
class _QueuedItem:
    item: v2.RunnerItem
    answers: queue.SimpleQueue[v2.PostRunnerItemOutputsRequest] = field(
        default_factory=queue.SimpleQueue
    )
    leased_until: float = 0.0


class RunnerQueues:
    """What waits for the runners of all users."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._work: dict[tuple[str, str], dict[str, _QueuedItem]] = {}

    def run(
        self,
        runner: tuple[str, str],
        item: v2.RunnerItem,
        is_active: Callable[[], bool],
        remaining: float | None,
    ) -> Generator[v2.MultiOutputResponse]:
        """Gives work to a runner and yields its answers as they come.

        Args:
            runner: User id and id of the runner.
            item: The work, without an id.
            is_active: False once nobody waits for the answers any more.
            remaining: Seconds that the caller has left; None gives the runner PATIENCE_SECONDS for
                each answer.

        Raises:
            ServiceError: The runner failed, or did not answer in time.
        """
        item.id = item.processing_info.processing_id = new_id()
        streams = item.processing_info.runner_method_type == v2.RunnerMethodType.UNARY_STREAMING
        work = _QueuedItem(item)
        with self._changed:
            self._work.setdefault(runner, {})[item.id] = work
            self._changed.notify_all()
        deadline = None if remaining is None else time.monotonic() + remaining
        try:
            over = False
            while not over:
                answer = _next(work, runner, is_active, deadline)
                for output in answer.runner_item_outputs:
                    yield output.multi_output_response
                code = answer.status.code
                over = not (streams and code in _UNDER_WAY)
                if over and code not in (0, StatusCode.SUCCESS, StatusCode.RUNNER_STREAM_END):
                    raise ServiceError(code, answer.status.details)
        finally:
            with self._changed:
                del self._work[runner][item.id]

    def take(self, runner: tuple[str, str], wait: float = 0.0) -> list[v2.RunnerItem]:
        """The items that a runner is to work on now; none where none come within ``wait``."""
        end = time.monotonic() + wait
        with self._changed:
            while True:
                now = time.monotonic()
                ready = [
                    work for work in self._work.get(runner, {}).values() if work.leased_until <= now
                ]
                if ready or now >= end:
                    break
                self._changed.wait(end - now)
            for work in ready:
                work.leased_until = now + LEASE_SECONDS
            return [work.item for work in ready]

    def answer(self, runner: tuple[str, str], answer: v2.PostRunnerItemOutputsRequest) -> bool:
        """Takes a runner's outputs; False where nobody waits for that item."""
        with self._changed:
            work = self._work.get(runner, {}).get(answer.runner_item_id)
            if work is not None:
                work.leased_until = time.monotonic() + LEASE_SECONDS
        if work is None:
            return False
        work.answers.put(answer)
        return True


def _next(
    work: _QueuedItem,
    runner: tuple[str, str],
    is_active: Callable[[], bool],
    deadline: float | None,
) -> v2.PostRunnerItemOutputsRequest:
    """The runner's next answer; ServiceError once nobody waits any more."""
    end = time.monotonic() + PATIENCE_SECONDS if deadline is None else deadline
    while time.monotonic() < end and is_active():
        try:
            return work.answers.get(timeout=0.1)
        except queue.Empty:
            continue
    raise ServiceError(StatusCode.MODEL_BUSY_PLEASE_RETRY, f"runner {runner[1]!r} did not answer")


class RemoteRuntime(Runtime):
    """A model that runs in a runner.

    Args:
        queues: Where its work waits.
        runner: User id and id of the runner.
        request: Names the model; a copy with one input is an item.
        is_active: False once nobody waits for the prediction.
        remaining: Seconds left until the caller's deadline, None without one.
    """

    def __init__(
        self,
        queues: RunnerQueues,
        runner: tuple[str, str],
        request: v2.PostModelOutputsRequest,
        is_active: Callable[[], bool],
        remaining: Callable[[], float | None],
    ) -> None:
        self._queues = queues
        self._runner = runner
        self._request = request
        self._is_active = is_active
        self._remaining = remaining

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        with contextlib.closing(self._outputs(data, v2.RunnerMethodType.UNARY_UNARY)) as outputs:
            for output in outputs:
                return output
        raise ServiceError(StatusCode.RUNNER_PROCESSING_FAILED, "the runner returned no output")

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Data]:
        yield from self._outputs(data, v2.RunnerMethodType.UNARY_STREAMING)

    def _outputs(
        self, data: v2.Data, method_type: v2.RunnerMethodType.ValueType
    ) -> Generator[v2.Data]:
        item = v2.RunnerItem()
        item.processing_info.runner_method_type = method_type
        request = item.post_model_outputs_request
        request.user_app_id.CopyFrom(self._request.user_app_id)
        request.model_id, request.version_id = self._request.model_id, self._request.version_id
        if self._request.HasField("model"):
            request.model.CopyFrom(self._request.model)
        request.inputs.add(id=new_id()).data.CopyFrom(data)
        answers = self._queues.run(self._runner, item, self._is_active, self._remaining())
        with contextlib.closing(answers):
            for response in answers:
                if len(response.outputs) != 1:
                    code = response.status.code or StatusCode.RUNNER_PROCESSING_FAILED
                    details = response.status.details or "the runner gave not one output"
                    raise ServiceError(code, details)
                (output,) = response.outputs
                if output.status.code not in statuses.PASSING and output.status.code:
                    raise ServiceError(output.status.code, output.status.details)
                yield output.data
