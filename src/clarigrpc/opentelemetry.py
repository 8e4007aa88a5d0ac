"""Traces and metrics of the clients of a process, with OpenTelemetry.

    from clarigrpc.opentelemetry import instrument

    instrument()

Clients that are made afterwards report each call as a span and in metrics, named by the semantic
conventions for RPC clients (release candidate, version 1.40). The context of the trace is sent
with the call, so that spans of the service join the trace. ``opentelemetry-instrument`` finds the
instrumentation by itself. Needs the extra ``otel``; the page "Observability" of the documentation
lists the spans' attributes and the metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clarigrpc._extras import NeedsExtra
from clarigrpc._rpc import call_observer

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import TracerProvider

__all__ = ["ClarigrpcInstrumentor", "instrument", "uninstrument"]


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    propagator: TextMapPropagator | None = None,
) -> None:
    """Report the calls of clients that are made from now on, sync and async.

    Called again, it takes the place of the earlier call for clients that are made later.

    Args:
        tracer_provider: Makes the spans. None uses the global provider.
        meter_provider: Makes the metrics. None uses the global provider.
        propagator: Writes the context of the trace into the metadata of calls. None uses the
            global one (W3C Trace Context and Baggage, unless it was changed).

    Raises:
        ConfigurationError: The extra ``otel`` is not installed.
    """
    with NeedsExtra("otel", "instrument()"):
        from clarigrpc._call_telemetry import CallTelemetry
    call_observer.install(CallTelemetry(tracer_provider, meter_provider, propagator))


def uninstrument() -> None:
    """Report no calls of clients that are made from now on. Clients that exist go on."""
    call_observer.install(None)


class ClarigrpcInstrumentor:
    """The instrumentation as ``opentelemetry-instrument`` finds it, by its entry point."""

    def instrument(self, **options: Any) -> None:
        """``instrument`` of this module; it has no use for other options than its own."""
        known = ("tracer_provider", "meter_provider", "propagator")
        instrument(**{name: options[name] for name in known if name in options})

    def uninstrument(self, **_: Any) -> None:
        """``uninstrument`` of this module."""
        uninstrument()
