"""One call of ``ProcessRunnerItems``: what has come over it, and what that means.

No I/O and no locks: a driver feeds it and wakes who waits for a change.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from clarigrpc import errors, v2
from clarigrpc.v2 import StatusCode

_QUEUED_INPUTS = 64
_QUEUED_BYTES = 4 << 20
"""So many requests of a stream, or bytes of them, wait for the method; then the service is held
back."""


class ItemAbortedError(Exception):
    """The item at work is no longer wanted, or can no longer be finished."""


class ItemCall:
    """The state of one call, which brings at most one item.

    Attributes:
        item: The item that the call brought; None before.
        inputs: Requests of the item that the method has not taken, the first one included.
        inputs_ended: Whether no further requests of the item come.
        cancelled_ids: Ids of items that the service cancelled over this call.
        abort: Why the item is not to be finished; None as long as it is.
        answered: Whether the service has sent anything.
        refused: Whether it said that there is nothing to do.
        over: Whether the call has ended.
        error: How it failed; None where it did not.
        finished: Whether nothing of the item is running any more.
        began: When the item began, by the clock of the worker.
        due: When it has taken too long, by the clock of the worker.
        given_back: Whether the worker gave it back at its end, while a function still ran.
        sent: Number of messages with outputs that were sent.
        opened: The driver's side of the call.
    """

    def __init__(self) -> None:
        self.item: v2.RunnerItem | None = None
        self.inputs: deque[v2.PostModelOutputsRequest] = deque()
        self.inputs_ended: bool = False
        self.cancelled_ids: deque[str] = deque()
        self._input_bytes = 0
        self._draining = False
        self.abort: str | None = None
        self.answered: bool = False
        self.refused: bool = False
        self.over: bool = False
        self.error: errors.ApiError | None = None
        self.finished: bool = False
        self.began: float = 0.0
        self.due: float = math.inf
        self.given_back: bool = False
        self.sent: int = 0
        self.opened: Any = None

    @property
    def is_full(self) -> bool:
        """Whether reading has to wait for the method."""
        much = len(self.inputs) >= _QUEUED_INPUTS or self._input_bytes >= _QUEUED_BYTES
        return much and not (self._draining or self.over or self.abort)

    def received(self, response: v2.MultiRunnerItemResponse) -> None:
        """The service has sent a response."""
        self.answered = True
        self.refused = not response.runner_items and self.item is None
        for item in response.runner_items:
            code = item.processing_info.status.code
            if code == StatusCode.RUNNER_ITEM_CANCELLED:
                self.cancelled_ids.append(item.id)
                if self.item is not None and item.id == self.item.id:
                    self.cancel()
                continue
            if self.item is None:
                self.item = item
                if not _takes_inputs(item):
                    self.inputs_ended = True
            elif item.id != self.item.id:
                continue  # of another worker's, or cancelled before
            if item.HasField("post_model_outputs_request") and (
                item.post_model_outputs_request.inputs
            ):
                self._add_input(item.post_model_outputs_request)
            if code == StatusCode.RUNNER_STREAM_END:
                self.inputs_ended = True
        if response.status.code == StatusCode.RUNNER_STREAM_END and self.item is not None:
            self.inputs_ended = True

    def take_input(self) -> v2.PostModelOutputsRequest:
        """The next of the requests that wait; there has to be one."""
        request = self.inputs.popleft()
        self._input_bytes -= request.ByteSize()
        return request

    def drain(self) -> None:
        """The method has ended: requests that still come are dropped."""
        self._draining = True
        self.inputs.clear()

    def _add_input(self, request: v2.PostModelOutputsRequest) -> None:
        if not self._draining:
            self.inputs.append(request)
            self._input_bytes += request.ByteSize()

    def cancel(self) -> None:
        """Nobody waits for the item any more."""
        self.abort = self.abort or "the caller has gone"

    def ended(self, error: errors.ApiError | None) -> None:
        """The call is over."""
        self.over = True
        self.error = error
        if error is not None and error.code == StatusCode.RUNNER_ITEM_CANCELLED:
            self.cancel()


def _takes_inputs(item: v2.RunnerItem) -> bool:
    return item.processing_info.runner_method_type in (
        v2.RunnerMethodType.STREAMING_UNARY,
        v2.RunnerMethodType.STREAMING_STREAMING,
    )


def is_final(error: errors.ApiError) -> bool:
    """Whether asking again can only fail again."""
    return isinstance(
        error,
        errors.AuthenticationError
        | errors.PermissionDeniedError
        | errors.UnimplementedError
        | errors.InvalidArgumentError,
    )
