"""The service with counts and times of its calls, in the format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app
from starlette.types import ASGIApp

from clarigrpc._contract.status_names import code_name
from clarigrpc.local.served_call import ServedCall, close_iterator
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.local.service_errors import CallAborted

METRICS_PATH = "/metrics"
"""Where the REST front shows the metrics."""

_CLIENT_GONE = "CANCELLED"


class _ServedOutcome:
    """How a call has ended: the name of a V2 status, or of a gRPC status without a response."""

    status = _CLIENT_GONE

    def responded(self, response: Any) -> None:
        """A response was made; the last one tells."""
        self.status = code_name(response.status.code)


class MeasuredService(V2Service):
    """The service, which counts and times its calls, over whichever front they come."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Of this server: there may be several in a process.
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "clarigrpc_local_calls",
            "Calls that have ended, by method and status",
            ("method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "clarigrpc_local_call_duration_seconds",
            "Time that calls took, streams until their end",
            ("method",),
            registry=self._registry,
        )
        self._running = Gauge(
            "clarigrpc_local_calls_in_progress",
            "Calls that are being served",
            ("method",),
            registry=self._registry,
        )

    def metrics_app(self) -> ASGIApp:
        """What shows the metrics to whoever asks for ``METRICS_PATH``."""
        app: ASGIApp = make_asgi_app(self._registry)
        return app

    @contextmanager
    def _measured(self, method: str) -> Generator[_ServedOutcome, None, None]:
        outcome = _ServedOutcome()
        running = self._running.labels(method)
        running.inc()
        began = time.perf_counter()
        try:
            yield outcome
        except CallAborted as aborted:
            outcome.status = aborted.code.name
            raise
        finally:
            self._seconds.labels(method).observe(time.perf_counter() - began)
            self._calls.labels(method, outcome.status).inc()
            running.dec()

    def unary(self, method: str, request: Message, call: ServedCall) -> Message:
        with self._measured(method) as outcome:
            response = super().unary(method, request, call)
            outcome.responded(response)
            return response

    def server_stream(self, method: str, request: Message, call: ServedCall) -> Iterator[Message]:
        begin = super().server_stream
        return self._each(method, lambda: begin(method, request, call))

    def duplex(
        self, method: str, requests: Iterator[Message], call: ServedCall
    ) -> Iterator[Message]:
        begin = super().duplex
        return self._each(method, lambda: begin(method, requests, call))

    def _each(self, method: str, begin: Callable[[], Iterator[Message]]) -> Iterator[Message]:
        with self._measured(method) as outcome:
            responses = begin()
            try:
                for response in responses:
                    outcome.responded(response)
                    yield response
            except GeneratorExit:
                outcome.status = _CLIENT_GONE
                raise
            finally:
                close_iterator(responses)
