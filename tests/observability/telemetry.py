"""Spans and metrics of a test, in memory."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from clarigrpc import opentelemetry


class Telemetry:
    """The SDK with exporters that keep what they are given."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader])

    def instrument(self) -> None:
        opentelemetry.instrument(tracer_provider=self.traces, meter_provider=self._meters)

    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order of their ends."""
        return list(self._exporter.get_finished_spans())

    def span(self) -> ReadableSpan:
        (found,) = self.spans()
        return found

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data: Any = self._reader.get_metrics_data()
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def value(self, name: str, **attributes: Any) -> Any:
        """The value of the one data point with these attributes (``_`` for ``.``)."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        (found,) = (p for p in self.points(name) if wanted.items() <= p.attributes.items())
        return found.value

    def shutdown(self) -> None:
        self.traces.shutdown()
        self._meters.shutdown()
