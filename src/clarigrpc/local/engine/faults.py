"""Failures that a local server injects on request, to test how clients handle them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NoReturn, TypeAlias, cast

import grpc

from clarigrpc._public_names import named_in
from clarigrpc.local.engine.injected_fault import InjectedFault, InjectedFaults
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service_errors import (
    CallAborted,
    ServiceError,
    StatusCodeValue,
    make_status,
    overall,
)
from clarigrpc.v2 import StatusCode
from clarigrpc.v2._index import METHODS


@named_in("clarigrpc.local")
@dataclass
class Faults:
    """Failures that a local server injects; each can be changed while the server runs.

    What is given or assigned is checked, so that no test passes because of a fault that never
    happens.

    Attributes:
        drain_first: Bidirectional predictions read all requests before they answer.
        deploy_seconds: Time that a model takes to deploy, in seconds from its first prediction.
            During the first half predictions answer MODEL_DEPLOYING (21351), during the second
            half MODEL_LOADING (21355). Setting it deploys all models anew.
        train_seconds: Minimum time of a training, in seconds; the first half of it the version
            is queued. A change holds for trainings that are running, too.
        rate_limit: Calls per second. Beyond it calls answer CONN_THROTTLED (11005) with
            ``retry-after``, in seconds, in the trailing metadata. None is no limit.
        rate_burst: Calls that are allowed at once before ``rate_limit`` applies. None allows as
            many as in one second.
        rate_counts_items: Count the inputs of calls instead of the calls.
        fail_inputs: Ids of inputs that fail, or a function that takes an id and returns whether
            it fails. They fail with INPUT_FAILED (30002) when they are processed, and with
            MODEL_PREDICTION_FAILED (21313) in predictions.
        latency_seconds: Delay of every call, in seconds.
        fail_methods: Methods that fail, such as ``{"PostInputs": grpc.StatusCode.INTERNAL}``: each
            with a gRPC status, or with a V2 status code in its response.
        unavailable_next: Number of the next calls that fail with the gRPC status UNAVAILABLE.
        stream_fail_after: Number of responses after which streams fail. None lets them finish.
        stream_fail_code: gRPC status of streams that fail.

    Raises:
        AttributeError: There is no fault of that name.
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range, or there is no method of that name.
    """

    drain_first: bool = False
    deploy_seconds: float = 0.0
    train_seconds: float = 0.0
    rate_limit: float | None = None
    rate_burst: float | None = None
    rate_counts_items: bool = False
    fail_inputs: Collection[str] | Callable[[str], bool] = ()
    latency_seconds: float = 0.0
    fail_methods: Mapping[str, grpc.StatusCode | int] = field(default_factory=dict)
    unavailable_next: int = 0
    stream_fail_after: int | None = None
    stream_fail_code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    _injected: InjectedFaults = field(default_factory=InjectedFaults, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _tokens: float = field(default=0.0, init=False, repr=False)
    _counted_at: float | None = field(default=None, init=False, repr=False)
    _touched: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def __setattr__(self, name: str, value: object) -> None:
        known = type(self).__dataclass_fields__
        if name not in known:
            public = ", ".join(each for each in known if not each.startswith("_"))
            raise AttributeError(f"Faults have no {name!r}; they have {public}")
        if check := _CHECKS.get(name):
            check(name, value)
        super().__setattr__(name, value)
        if name == "deploy_seconds":
            super().__setattr__("_touched", {})

    def fail(
        self,
        method: str,
        status: grpc.StatusCode | int = grpc.StatusCode.UNAVAILABLE,
        *,
        count: int | None = None,
        optional: bool = False,
        details: str = "injected fault",
    ) -> InjectedFault:
        """Calls of a method fail while the ``with`` block runs.

        Args:
            method: Name of the method, for example ``PostModelOutputs``.
            status: gRPC status, or V2 status code in the response.
            count: Number of calls, the next ones. None means all.
            optional: Whether the block may end without that it happened; else AssertionError.
            details: Text of the failure.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: There is no method of that name, or the status is no failure.
        """
        _check_methods("fail", {method: status})

        def effect(call: ServedCall, request: Any) -> None:
            _fail(status, details)

        return self._inject("fail", method, count, optional, effect)

    def throttle(
        self,
        method: str,
        *,
        retry_after: float = 0.05,
        count: int | None = None,
        optional: bool = False,
    ) -> InjectedFault:
        """Calls of a method answer CONN_THROTTLED (11005) while the ``with`` block runs.

        Args:
            method: Name of the method.
            retry_after: Seconds that the caller is told to wait.
            count: Number of calls, the next ones. None means all.
            optional: Whether the block may end without that it happened; else AssertionError.
        """
        _check_seconds("throttle: retry_after", retry_after)

        def effect(call: ServedCall, request: Any) -> None:
            call.trailing["retry-after"] = f"{retry_after:.3f}"
            _fail(StatusCode.CONN_THROTTLED, f"too many requests; wait {retry_after:.3f} s")

        return self._inject("throttle", method, count, optional, effect)

    def delay(
        self, method: str, seconds: float, *, count: int | None = None, optional: bool = False
    ) -> InjectedFault:
        """Calls of a method take longer while the ``with`` block runs.

        Args:
            method: Name of the method.
            seconds: By how much, at most until the caller gives up.
            count: Number of calls, the next ones. None means all.
            optional: Whether the block may end without that it happened; else AssertionError.
        """
        _check_seconds("delay: seconds", seconds)

        def effect(call: ServedCall, request: Any) -> None:
            _pause(seconds, call)

        return self._inject("delay", method, count, optional, effect)

    def cut_stream(
        self,
        method: str,
        after: int = 0,
        *,
        status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        count: int | None = None,
        optional: bool = False,
    ) -> InjectedFault:
        """Streams of a method fail after some responses while the ``with`` block runs.

        Args:
            method: Name of a method with a stream of responses, ``GenerateModelOutputs`` say.
            after: Number of responses that arrive.
            status: gRPC status of the failure.
            count: Number of streams, the next ones. None means all.
            optional: Whether the block may end without that it happened; else AssertionError.
        """
        _check_count("cut_stream: after", after)
        _check_failure("cut_stream: status", status)
        _check_methods("cut_stream", {method: status})
        if not METHODS[method][3]:
            raise ValueError(f"Faults: cut_stream: {method} has no stream of responses")

        def effect(call: ServedCall, passed: Any) -> None:
            if passed == after:
                fault.happened += 1
                _fail(status, f"injected fault after {passed} responses")

        fault = self._inject("cut_stream", method, count, optional, effect)
        return fault

    def mixed_status(
        self,
        method: str = "PostModelOutputs",
        items: Sequence[int] = (0,),
        *,
        code: int = StatusCode.MODEL_PREDICTION_FAILED,
        count: int | None = None,
        optional: bool = False,
    ) -> InjectedFault:
        """Some items of predictions fail while the ``with`` block runs.

        Args:
            method: ``PostModelOutputs`` or ``PostWorkflowResults``.
            items: Positions of the items that fail, from 0; what a request does not have is left.
            code: V2 status code of these items.
            count: Number of calls, the next ones. None means all.
            optional: Whether the block may end without that it happened; else AssertionError.
        """
        if method not in _ITEMS:
            raise ValueError(f"Faults: mixed_status is for {' and '.join(_ITEMS)}, not {method!r}")
        _check_methods("mixed_status", {method: code})
        if isinstance(items, str | bytes) or not isinstance(items, Collection) or not items:
            raise TypeError(f"Faults: mixed_status: items must be positions, not {items!r}")
        for item in items:
            _check_count("mixed_status: items", item)

        def effect(call: ServedCall, response: Any) -> bool:
            return _mix(response, _ITEMS[method], items, code)

        return self._inject("mixed_status", method, count, optional, effect)

    @contextmanager
    def during(self, **faults: Any) -> Iterator[Faults]:
        """Sets attributes for a ``with`` block, ``during(deploy_seconds=1, rate_limit=5)``.

        Raises:
            AttributeError, TypeError, ValueError: As for setting them.
        """
        before = {name: getattr(self, name, None) for name in faults}
        done: list[str] = []
        try:
            for name, value in faults.items():
                setattr(self, name, value)
                done.append(name)
            yield self
        finally:
            for name in done:
                setattr(self, name, before[name])

    def clear(self) -> None:
        """Sets all attributes to their defaults."""
        for each in fields(self):
            if each.init:
                fresh = each.default_factory
                setattr(self, each.name, each.default if fresh is MISSING else fresh())

    def _inject(
        self,
        kind: str,
        method: str,
        count: int | None,
        optional: bool,
        effect: Callable[[ServedCall, Any], Any],
    ) -> InjectedFault:
        if method not in METHODS:
            raise ValueError(f"Faults: {kind}: the service has no method {method!r}")
        if count is not None:
            _check_count(f"{kind}: count", count)
            if not count:
                raise ValueError(f"Faults: {kind}: count is 0; it must be at least 1")
        _check_flag(f"{kind}: optional", optional)
        return InjectedFault(self._injected, kind, method, count, optional, effect)

    def before(self, call: ServedCall, request: Any = None) -> None:
        """Applies the faults of a call as a whole: raises the failure, or delays the call."""
        _pause(self.latency_seconds, call)
        for kind in ("delay", "fail", "throttle"):
            injected = self._injected.take(call, kind)
            if injected is not None:
                injected.happened += 1
                injected.effect(call, request)
        if self.unavailable_next:
            with self._lock:
                fail = self.unavailable_next > 0
                self.unavailable_next -= fail
            if fail:
                raise CallAborted(grpc.StatusCode.UNAVAILABLE, "injected fault")
        failure = self.fail_methods.get(call.method)
        if failure is not None:
            _fail(failure, "injected fault")
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
            # As it is told, in milliseconds: not too short.
            return math.ceil((needed - self._tokens) / rate * 1000) / 1000

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

    def mix(self, call: ServedCall, response: Any) -> None:
        """Lets those items of a response fail that ``mixed_status`` wants to."""
        injected = self._injected.take(call, "mixed_status")
        if injected is not None:
            injected.happened += bool(injected.effect(call, response))

    def cut(self, call: ServedCall, responses: Iterator[Any]) -> Iterator[Any]:
        """Yields the responses of a stream, and fails after as many of them as a fault says."""
        injected = self._injected.take(call, "cut_stream")
        count = 0
        for response in responses:
            if self.stream_fail_after is not None and count >= self.stream_fail_after:
                raise CallAborted(self.stream_fail_code, f"injected fault after {count} responses")
            if injected is not None:
                injected.effect(call, count)
            yield response
            count += 1
        if injected is not None:
            injected.effect(call, count)


def _fail(status: grpc.StatusCode | int, details: str) -> NoReturn:
    if isinstance(status, grpc.StatusCode):
        raise CallAborted(status, details)
    raise ServiceError(cast(StatusCodeValue, status), details)


# Where the responses of predictions have their items.
_ITEMS = {"PostModelOutputs": "outputs", "PostWorkflowResults": "results"}


def _mix(response: Any, field_name: str, positions: Collection[int], code: int) -> bool:
    """Whether there was an item to fail."""
    found = getattr(response, field_name)
    failed = [found[index] for index in positions if index < len(found)]
    if not failed:
        return False
    status = make_status(cast(StatusCodeValue, code), "injected fault")
    for item in failed:
        for name in ("data", "outputs"):
            if name in item.DESCRIPTOR.fields_by_name:
                item.ClearField(name)
        item.status.CopyFrom(status)
    response.status.CopyFrom(overall(item.status for item in found))
    return True


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"Faults: {name} must be True or False, not {value!r}")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Faults: {name} must be an integer, not {value!r}")
    if value < 0:
        raise ValueError(f"Faults: {name} is {value}; it must not be negative")


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Faults: {name} must be a number of seconds, not {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"Faults: {name} is {value}; it must be finite and not negative")


def _check_rate(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Faults: {name} must be a number or None, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"Faults: {name} is {value}; it must be finite and more than 0")


def _check_inputs(name: str, value: object) -> None:
    if callable(value):
        return
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise TypeError(f"Faults: {name} must be a collection of ids or a function, not {value!r}")
    for each in value:
        if not isinstance(each, str):
            raise TypeError(f"Faults: {name} must have ids, which are str, not {each!r}")


def _check_methods(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"Faults: {name} must be a mapping of methods to statuses, not {value!r}")
    for method, status in value.items():
        if method not in METHODS:
            raise ValueError(f"Faults: {name}: the service has no method {method!r}")
        if isinstance(status, grpc.StatusCode):
            _check_failure(f"{name}[{method!r}]", status)
        elif isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(
                f"Faults: {name}[{method!r}] must be a grpc.StatusCode or a V2 status code, "
                f"not {status!r}"
            )
        elif status not in StatusCode.values() or status in _NO_FAILURES:
            raise ValueError(f"Faults: {name}[{method!r}]: {status} is no V2 code of a failure")


def _check_failure(name: str, value: object) -> None:
    if not isinstance(value, grpc.StatusCode):
        raise TypeError(f"Faults: {name} must be a grpc.StatusCode, not {value!r}")
    if value is grpc.StatusCode.OK:
        raise ValueError(f"Faults: {name} is OK, which is no failure")


def _or_none(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


_Check: TypeAlias = Callable[[str, object], None]
_NO_FAILURES = (StatusCode.ZERO, StatusCode.SUCCESS)
_CHECKS: Mapping[str, _Check] = {
    "drain_first": _check_flag,
    "deploy_seconds": _check_seconds,
    "train_seconds": _check_seconds,
    "rate_limit": _or_none(_check_rate),
    "rate_burst": _or_none(_check_rate),
    "rate_counts_items": _check_flag,
    "fail_inputs": _check_inputs,
    "latency_seconds": _check_seconds,
    "fail_methods": _check_methods,
    "unavailable_next": _check_count,
    "stream_fail_after": _or_none(_check_count),
    "stream_fail_code": _check_failure,
}


def _pause(seconds: float, call: ServedCall) -> None:
    """Waits, but no longer than the client does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and call.is_active():
        time.sleep(min(left, 0.05))
