"""The observer of calls that makes spans and metrics of OpenTelemetry of them."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from opentelemetry import context as otel_context
from opentelemetry import metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, StatusCode

from clarigrpc import errors
from clarigrpc._contract.status_names import code_name
from clarigrpc._fork_lock import ForkLock
from clarigrpc._rpc.request_facts import facts_of
from clarigrpc._version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import TracerProvider

    from clarigrpc._rpc.call import BoundMethod, CallCore
    from clarigrpc._rpc.call_observer import BulkWork, CoalescedCalls
    from clarigrpc._transports.transport import Metadata

T = TypeVar("T")

_NAME = "clarigrpc"
_SCHEMA_URL = "https://opentelemetry.io/schemas/1.40.0"
# Those that the conventions advise for ``rpc.client.call.duration``.
_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_ITEM_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_CANCELLATIONS = (errors.CancelledError, asyncio.CancelledError)


class _CallSpan:
    """The span of one call, and its part in the metrics."""

    __slots__ = (
        "_attributes",
        "_began",
        "_messages",
        "_over",
        "_owner",
        "_retries",
        "_span",
        "metadata",
    )

    def __init__(
        self,
        owner: CallTelemetry,
        span: trace.Span,
        attributes: dict[str, Any],
        metadata: Metadata,
    ) -> None:
        self._owner = owner
        self._span = span
        self._attributes = attributes
        self.metadata = metadata
        self._began = time.monotonic()
        self._retries = self._messages = 0
        self._over = False

    def retrying(self, error: errors.ApiError, delay: float) -> None:
        self._retries += 1
        kind = _error_type(error)
        self._span.add_event("clarigrpc.retry", {"error.type": kind, "clarigrpc.delay": delay})
        method = self._attributes["rpc.method"]
        self._owner.retries.add(1, {"rpc.method": method, "error.type": kind})

    def received(self, response: Any) -> None:
        self._messages += 1

    def ended(
        self, failure: BaseException | None, response: Any = None, request_id: str = ""
    ) -> None:
        if not self._over:
            self._over = True
            self._end(time.monotonic() - self._began, None, failure, response, request_id)

    def dropped(self, failure: BaseException, request_id: str = "") -> None:
        if not self._over:
            self._over = True
            seconds, at = time.monotonic() - self._began, time.time_ns()
            self._owner.dropped(partial(self._end, seconds, at, failure, None, request_id))

    def _end(
        self,
        seconds: float,
        at: int | None,
        failure: BaseException | None,
        response: Any,
        request_id: str,
    ) -> None:
        """Tell the SDK that the call took so many seconds, until a time (ns) or until now."""
        attributes = self._attributes
        if code := _grpc_code(failure):
            attributes["rpc.response.status_code"] = code
        if failure is not None:
            attributes["error.type"] = _error_type(failure)
        # With the span, so that the exemplars of the histogram lead to it.
        self._owner.duration.record(seconds, attributes, trace.set_span_in_context(self._span))
        span = self._span
        if span.is_recording():
            told: dict[str, str | int] = {**attributes, "clarigrpc.attempts": 1 + self._retries}
            if self._messages:
                told["clarigrpc.responses"] = self._messages
            if request_id:
                told["clarifai.request.id"] = request_id
            told.update(_service_facts(failure, response))
            span.set_attributes(told)
            if failure is not None:
                span.set_status(StatusCode.ERROR, str(failure))
        span.end(at)


class _BulkSpan:
    """The span of bulk work; those of its calls are below it."""

    def __init__(self, owner: CallTelemetry, span: trace.Span, work: BulkWork) -> None:
        self._owner = owner
        self._span = span
        self._work = work
        # Of an earlier upload, where the report has them.
        self._taken, self._failures = work.taken, work.failures

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        token = otel_context.attach(trace.set_span_in_context(self._span))
        try:
            yield
        finally:
            otel_context.detach(token)

    def ended(self, failure: BaseException | None) -> None:
        if isinstance(failure, GeneratorExit):
            self._owner.dropped(partial(self._end, time.time_ns(), None))
        else:
            self._end(None, failure)
        self._owner.bulk_ended(self._work)

    def _end(self, at: int | None, failure: BaseException | None) -> None:
        """Tell the SDK that the work was over at a time (ns), or is now."""
        span, work = self._span, self._work
        if span.is_recording():
            span.set_attributes(
                {
                    "clarigrpc.bulk.inputs": work.taken - self._taken,
                    "clarigrpc.bulk.failures": work.failures - self._failures,
                    "clarigrpc.bulk.retries": work.repeated,
                }
            )
            if failure is not None:
                span.set_attribute("error.type", _error_type(failure))
                span.set_status(StatusCode.ERROR, str(failure))
        span.end(at)


class CallTelemetry:
    """The observer of the calls: makes spans and metrics of them."""

    def __init__(
        self,
        tracers: TracerProvider | None,
        meters: MeterProvider | None,
        propagator: TextMapPropagator | None,
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, __version__, tracers, _SCHEMA_URL)
        meter = metrics.get_meter(_NAME, __version__, meters, _SCHEMA_URL)
        self._inject = propagate.inject if propagator is None else propagator.inject
        self._common: dict[tuple[str, int, str, str], dict[str, Any]] = {}
        self._shared: weakref.WeakSet[Any] = weakref.WeakSet()
        self._bulk: set[BulkWork] = set()
        self._coalesced: weakref.WeakSet[CoalescedCalls] = weakref.WeakSet()
        # What the garbage collector may end, whatever its thread is busy with: only noted there.
        self._over_bulk: queue.SimpleQueue[BulkWork] = queue.SimpleQueue()
        self._dropped: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ended_bulk = {"settled": 0, "failures": 0, "repeated": 0}
        self.duration = meter.create_histogram(
            "rpc.client.call.duration",
            "s",
            "Duration of calls, retries included",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
        )
        self.retries = meter.create_counter(
            "clarigrpc.client.retries", "{retry}", "Attempts after the first ones"
        )
        self._items = meter.create_histogram(
            "clarigrpc.client.items",
            "{item}",
            "Inputs, annotations or other items of a request",
            explicit_bucket_boundaries_advisory=_ITEM_BUCKETS,
        )
        self._served = meter.create_histogram(
            "clarigrpc.runner.item.duration",
            "s",
            "Time from taking an item to the end of its outputs",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
        )
        # Counted here, because that costs less than telling the SDK of each message.
        self._sizes: dict[str, Counter[str]] = {"sent": Counter(), "received": Counter()}
        self._lock = ForkLock()
        self._observe(meter)

    def _observe(self, meter: metrics.Meter) -> None:
        """Make the metrics that are read when they are collected."""
        sizes = (
            ("sent", "Serialized requests, each once, before compression"),
            ("received", "Serialized responses, after decompression"),
        )
        for name, description in sizes:

            def total(_: CallbackOptions, name: str = name) -> list[Observation]:
                with self._lock.get():
                    found = dict(self._sizes[name])
                return [Observation(size, {"rpc.method": path}) for path, size in found.items()]

            meter.create_observable_counter(f"clarigrpc.client.{name}", [total], "By", description)
        meter.create_observable_gauge(
            "clarigrpc.client.retry_budget",
            [self._budgets],
            "{retry}",
            "Retries that the budget of the client allows now",
        )
        gauges: Iterable[tuple[str, str, str, Any]] = (
            (
                "queue",
                "{input}",
                "Inputs read and without an outcome",
                lambda w: w.taken - w.settled,
            ),
            ("in_flight", "{request}", "Requests in flight", lambda w: w.in_flight),
            ("window", "{request}", "Maximum number of requests in flight now", lambda w: w.limit),
            ("batch_size", "{input}", "Inputs of a request now", lambda w: w.size),
        )
        for name, unit, description, value in gauges:

            def read(_: CallbackOptions, value: Any = value) -> list[Observation]:
                with self._lock.get():
                    return [Observation(sum(map(value, self._running_bulk())))]

            meter.create_observable_gauge(f"clarigrpc.bulk.{name}", [read], unit, description)
        coalesced: Iterable[tuple[str, str, str, Any]] = (
            ("queue", "{input}", "Predicts that wait to be sent", lambda one: one.waiting),
            ("in_flight", "{request}", "Shared requests in flight", lambda one: one.in_flight),
        )
        for name, unit, description, value in coalesced:

            def added(_: CallbackOptions, value: Any = value) -> list[Observation]:
                return [Observation(sum(map(value, list(self._coalesced))))]

            meter.create_observable_gauge(f"clarigrpc.coalesce.{name}", [added], unit, description)
        meter.create_observable_counter(
            "clarigrpc.bulk.inputs", [self._outcomes], "{input}", "Inputs with an outcome"
        )
        meter.create_observable_counter(
            "clarigrpc.bulk.retries",
            [lambda _: [Observation(self._bulk_totals()["repeated"])]],
            "{request}",
            "Requests of bulk work that were sent again",
        )

    def _budgets(self, _: CallbackOptions) -> list[Observation]:
        found = []
        for shared in list(self._shared):
            tokens = shared.budget.tokens
            if tokens != float("inf"):
                host = shared.settings.target.host
                found.append(Observation(tokens, {"server.address": host}))
        return found

    def _running_bulk(self) -> set[BulkWork]:
        """The bulk work that runs, once what has ended is counted. With the lock."""
        for work in _taken(self._over_bulk):
            self._bulk.discard(work)
            for name in self._ended_bulk:
                self._ended_bulk[name] += getattr(work, name)
        return self._bulk

    def _bulk_totals(self) -> dict[str, int]:
        with self._lock.get():
            running = self._running_bulk()
            return {
                name: ended + sum(getattr(work, name) for work in running)
                for name, ended in self._ended_bulk.items()
            }

    def _outcomes(self, _: CallbackOptions) -> list[Observation]:
        totals = self._bulk_totals()
        failed = totals["failures"]
        good = totals["settled"] - failed
        return [
            Observation(good, {"clarigrpc.outcome": "success"}),
            Observation(failed, {"clarigrpc.outcome": "failure"}),
        ]

    def opened(self, core: CallCore) -> None:
        self._shared.add(core.shared)

    def bulk_began(self, work: BulkWork, name: str) -> _BulkSpan:
        self._end_dropped()
        with self._lock.get():
            self._running_bulk().add(work)
            for counted in self._ended_bulk:  # a report may hold what was counted before
                self._ended_bulk[counted] -= getattr(work, counted)
        return _BulkSpan(self, self._tracer.start_span(f"{_NAME}.{name}"), work)

    def bulk_ended(self, work: BulkWork) -> None:
        """Bulk work is over. Takes no lock."""
        self._over_bulk.put(work)

    def coalescing(self, calls: CoalescedCalls) -> None:
        self._coalesced.add(calls)

    def item_served(self, runner_id: str, outcome: str, seconds: float) -> None:
        self._served.record(
            seconds, {"clarifai.runner.id": runner_id, "clarigrpc.outcome": outcome}
        )

    def dropped(self, end: Callable[[], None]) -> None:
        """Have ``end`` called later: the SDK's locks may be held where an object is dropped."""
        self._dropped.put(end)

    def removed(self) -> None:
        self._end_dropped()

    def _end_dropped(self) -> None:
        for end in _taken(self._dropped):
            end()

    def sent(self, method: BoundMethod, size: int) -> None:
        with self._lock.get():
            self._sizes["sent"][method.path[1:]] += size

    def arrived(self, method: BoundMethod, size: int) -> None:
        with self._lock.get():
            self._sizes["received"][method.path[1:]] += size

    def _attributes(self, method: BoundMethod) -> dict[str, Any]:
        """What all calls of a method have, of spans and of metrics."""
        settings = method.core.settings
        target, name = settings.target, method.path[1:]
        key = (target.host, target.port, settings.transport, name)
        found = self._common.get(key)
        if found is None:
            system = "grpc" if settings.transport == "grpc" else "clarifai.rest"
            found = {"rpc.system.name": system, "rpc.method": name, "server.address": target.host}
            if target.port:
                found["server.port"] = target.port
            self._common[key] = found
        return found

    def begin(self, method: BoundMethod, request: Any, extra: Metadata | None) -> _CallSpan:
        self._end_dropped()
        common = self._attributes(method)
        row = method.method
        told: dict[str, str | int] = {}
        if row is not None and request is not None:
            facts = facts_of(row, request)
            if facts.items:
                self._items.record(facts.items, {"rpc.method": common["rpc.method"]})
            about: dict[str, str | int] = {
                "clarifai.model.id": facts.model_id,
                "clarifai.model.version_id": facts.version_id,
                "clarifai.model.method": facts.named_method,
                "clarifai.workflow.id": facts.workflow_id,
                "clarifai.items": facts.items,
            }
            told = {name: value for name, value in about.items() if value}
        # All that is known is there from the beginning, for samplers.
        span = self._tracer.start_span(
            common["rpc.method"], kind=SpanKind.CLIENT, attributes=common | told
        )
        carrier: dict[str, str] = {}
        self._inject(carrier, context=trace.set_span_in_context(span, otel_context.get_current()))
        pairs = [(name.lower(), value) for name, value in carrier.items()]
        return _CallSpan(self, span, dict(common), (*(extra or ()), *pairs))


def _taken(entries: queue.SimpleQueue[T]) -> Iterator[T]:
    """The entries of a queue, which several threads may empty."""
    with contextlib.suppress(queue.Empty):
        while not entries.empty():
            yield entries.get_nowait()


def _grpc_code(failure: BaseException | None) -> str:
    """Name of the gRPC status of a call; empty where it has none."""
    if failure is None:
        return "OK"
    if isinstance(failure, _CANCELLATIONS):
        return "CANCELLED"
    code = getattr(failure, "grpc_code", None)
    return code.name if isinstance(code, grpc.StatusCode) else ""


def _error_type(failure: BaseException) -> str:
    """``error.type``: the V2 status, else the gRPC status, else the class of what was raised."""
    if isinstance(failure, errors.ApiError):
        if failure.code is not None:
            return code_name(failure.code)
        if failure.grpc_code not in (None, grpc.StatusCode.OK):
            return _grpc_code(failure)
    return type(failure).__qualname__


def _service_facts(failure: BaseException | None, response: Any) -> dict[str, str]:
    """What the service tells of a call: its status, its id of the request, the model version."""
    found = {}
    if isinstance(failure, errors.ApiError):
        if failure.code is not None:
            found["clarifai.status_code"] = code_name(failure.code)
        if failure.request_id:
            found["clarifai.request.id"] = failure.request_id
        response = getattr(failure, "response", None)
    status: Any = getattr(response, "status", None)
    if getattr(status, "code", 0):
        found["clarifai.status_code"] = code_name(status.code)
        if status.req_id:
            found["clarifai.request.id"] = status.req_id
    outputs = getattr(response, "outputs", None)
    if outputs:
        version = outputs[0].model.model_version.id
        if version:
            found["clarifai.model.version_id"] = version
    return found
