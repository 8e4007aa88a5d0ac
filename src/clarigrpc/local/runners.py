"""Work for runners: processes of users that run models for the server.

A prediction with a model that the server itself cannot run waits here for a runner of that model
to fetch it and to hand its outputs back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from clarigrpc import v2
from clarigrpc.local.core import ServiceError, new_id
from clarigrpc.local.runtime import Options, Runtime

_Code = v2.StatusCode

PATIENCE_SECONDS = 60.0
"""How long a prediction without a deadline waits for its runner."""

LEASE_SECONDS = 30.0
"""After this time without an answer an item is handed out again."""


@dataclass(slots=True)
class _Work:
    item: v2.RunnerItem
    done: threading.Event = field(default_factory=threading.Event)
    outputs: list[v2.RunnerItemOutput] = field(default_factory=list)
    status: v2.Status = field(default_factory=v2.Status)
    leased_until: float = 0.0


class RunnerQueues:
    """What waits for the runners of all users."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._work: dict[tuple[str, str], dict[str, _Work]] = {}

    def submit(
        self,
        runner: tuple[str, str],
        request: v2.PostModelOutputsRequest,
        is_active: Callable[[], bool],
        remaining: float | None,
    ) -> v2.MultiOutputResponse:
        """Gives a prediction to a runner and waits for its answer.

        Args:
            runner: User id and id of the runner.
            request: What to predict.
            is_active: False once nobody waits for the answer any more.
            remaining: Seconds that the caller has left.

        Raises:
            ServiceError: The runner failed, or did not answer in time.
        """
        item = v2.RunnerItem(id=new_id(), post_model_outputs_request=request)
        item.processing_info.runner_method_type = v2.RunnerMethodType.UNARY_UNARY
        item.processing_info.processing_id = item.id
        work = _Work(item)
        with self._changed:
            self._work.setdefault(runner, {})[item.id] = work
            self._changed.notify_all()
        end = time.monotonic() + (PATIENCE_SECONDS if remaining is None else remaining)
        try:
            while not work.done.wait(0.1):
                if time.monotonic() > end or not is_active():
                    raise ServiceError(
                        _Code.MODEL_BUSY_PLEASE_RETRY, f"runner {runner[1]!r} did not answer"
                    )
        finally:
            with self._changed:
                del self._work[runner][item.id]
        if not work.outputs:
            raise ServiceError(
                work.status.code or _Code.RUNNER_PROCESSING_FAILED,
                work.status.details or "the runner gave no output",
            )
        return work.outputs[0].multi_output_response

    def take(self, runner: tuple[str, str], wait: float = 0.0) -> list[v2.RunnerItem]:
        """The items that a runner is to work on now; none where none come within ``wait``."""
        end = time.monotonic() + wait
        with self._changed:
            while True:
                now = time.monotonic()
                ready = [
                    work
                    for work in self._work.get(runner, {}).values()
                    if work.leased_until <= now and not work.done.is_set()
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
        if work is None:
            return False
        work.outputs.extend(answer.runner_item_outputs)
        work.status.CopyFrom(answer.status)
        work.done.set()
        return True


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

    def predict(self, data: v2.Data, options: Options) -> v2.Data:
        request = v2.PostModelOutputsRequest(
            user_app_id=self._request.user_app_id,
            model_id=self._request.model_id,
            version_id=self._request.version_id,
            model=self._request.model,
        )
        request.inputs.add(id=new_id()).data.CopyFrom(data)
        response = self._queues.submit(self._runner, request, self._is_active, self._remaining())
        if len(response.outputs) != 1:
            code = response.status.code or _Code.RUNNER_PROCESSING_FAILED
            raise ServiceError(code, response.status.details or "the runner gave no output")
        output = response.outputs[0]
        if output.status.code not in (0, _Code.SUCCESS):
            raise ServiceError(output.status.code, output.status.details)
        return output.data
