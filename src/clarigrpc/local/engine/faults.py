"""Failures that a local server injects on request, to test how clients handle them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from clarigrpc._public_names import named_in
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service_errors import CallAborted, ServiceError, StatusCodeValue
from clarigrpc.v2 import StatusCode


@named_in("clarigrpc.local")
@dataclass
class Faults:
    """Failures that a local server injects; each can be changed while the server runs.

    Attributes:
        drain_first: Bidirectional predictions read all requests before they answer.
        deploy_seconds: Time that a model takes to deploy, in seconds from its first prediction.
            During the first half predictions answer MODEL_DEPLOYING (21351), during the second
            half MODEL_LOADING (21355).
        train_seconds: Minimum time of a training, in seconds; the first half of it the version
            is queued.
        rate_limit: Calls per second. Beyond it calls answer CONN_THROTTLED (11005) with
            ``retry-after``, in seconds, in the trailing metadata. None is no limit.
        rate_burst: Calls that are allowed at once before ``rate_limit`` applies. None allows as
            many as in one second.
        rate_counts_items: Count the inputs of calls instead of the calls.
        fail_inputs: Ids of inputs that fail, or a function that takes an id and returns whether
            it fails. They fail with INPUT_FAILED (30002) when they are processed, and with
            MODEL_PREDICTION_FAILED (21313) in predictions.
        latency_seconds: Delay of every call, in seconds.
        unavailable_next: Number of the next calls that fail with the gRPC status UNAVAILABLE.
        stream_fail_after: Number of responses after which streams fail. None lets them finish.
        stream_fail_code: gRPC status of streams that fail.
    """

    drain_first: bool = False
    deploy_seconds: float = 0.0
    train_seconds: float = 0.0
    rate_limit: float | None = None
    rate_burst: float | None = None
    rate_counts_items: bool = False
    fail_inputs: Collection[str] | Callable[[str], bool] = ()
    latency_seconds: float = 0.0
    unavailable_next: int = 0
    stream_fail_after: int | None = None
    stream_fail_code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _tokens: float = field(default=0.0, init=False, repr=False)
    _counted_at: float | None = field(default=None, init=False, repr=False)
    _touched: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def before(self, call: ServedCall, request: Any = None) -> None:
        """Applies the faults of a call as a whole: raises the failure, or delays the call."""
        _pause(self.latency_seconds, call)
        if self.unavailable_next:
            with self._lock:
                fail = self.unavailable_next > 0
                self.unavailable_next -= fail
            if fail:
                raise CallAborted(grpc.StatusCode.UNAVAILABLE, "injected fault")
        if self.rate_limit is not None:
            items = len(getattr(request, "inputs", ())) if self.rate_counts_items else 1
            wait = self._wait(self.rate_limit, max(items, 1))
            if wait > 0:
                call.trailing["retry-after"] = f"{wait:.3f}"
                raise ServiceError(
                    StatusCode.CONN_THROTTLED, f"too many requests; wait {wait:.3f} s"
                )

    def _wait(self, rate: float, items: int) -> float:
        """Takes ``items`` from the bucket; returns 0, or the seconds to wait for them."""
        burst = max(self.rate_burst if self.rate_burst is not None else rate, 1.0)
        now = time.monotonic()
        with self._lock:
            if self._counted_at is None:
                self._tokens = burst
            else:
                self._tokens = min(burst, self._tokens + (now - self._counted_at) * rate)
            self._counted_at = now
            # More than the bucket holds would wait for ever: let it overdraw a full bucket.
            needed = min(float(items), burst)
            if self._tokens >= needed:
                self._tokens -= items
                return 0.0
            return (needed - self._tokens) / rate

    def fail_input(self, input_id: str, code: StatusCodeValue) -> None:
        """Raises ServiceError with that code if the input is one of ``fail_inputs``."""
        wanted = self.fail_inputs
        if wanted(input_id) if callable(wanted) else input_id in wanted:
            raise ServiceError(code, "injected fault")

    def deploying(self, model: str) -> None:
        """Raises ServiceError while ``model`` is being deployed; the first call starts that."""
        if not self.deploy_seconds:
            return
        now = time.monotonic()
        with self._lock:
            since = now - self._touched.setdefault(model, now)
        if since < self.deploy_seconds / 2:
            raise ServiceError(StatusCode.MODEL_DEPLOYING, "the model is being deployed")
        if since < self.deploy_seconds:
            raise ServiceError(StatusCode.MODEL_LOADING, "the model is loading")

    def cut(self, responses: Iterator[Any]) -> Iterator[Any]:
        """Yields the responses of a stream, and fails after ``stream_fail_after`` of them."""
        for count, response in enumerate(responses):
            if self.stream_fail_after is not None and count >= self.stream_fail_after:
                raise CallAborted(self.stream_fail_code, f"injected fault after {count} responses")
            yield response


def _pause(seconds: float, call: ServedCall) -> None:
    """Waits, but no longer than the client does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and call.is_active():
        time.sleep(min(left, 0.05))
