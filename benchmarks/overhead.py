"""What the wrapper costs: client CPU of a small predict over that of the raw generated stub.

The raw stub is called with the same metadata (a credential, and a request id that is new every
time, which defeats header compression) and timeout. A second raw stub on a channel of its
own is the control: its ratio to the first is what the measurement cannot tell apart. A traced
client has a row of its own, with an SDK of OpenTelemetry that drops the spans.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.harness import CHOICE, CLIENT_CORE, Report, Sample, interleave, measured, pinned
from benchmarks.servers import canned
from benchmarks.workers import ours, scene
from clarigrpc import AsyncClient, Client, text, v2
from clarigrpc._transports.grpc_transport import channel_options
from clarigrpc.opentelemetry import instrument, uninstrument

PAT = "benchmark-token-0000"
IN_FLIGHT = 32
TRACED = "client.v2, with OpenTelemetry"
RAW, AGAIN = "raw stub", "raw stub, again"
BOUND = 'client.bind, errors="grpc"'


def _request() -> v2.PostModelOutputsRequest:
    return v2.PostModelOutputsRequest(
        user_app_id=v2.UserAppIDSet(user_id="user", app_id="app"),
        model_id="model",
        inputs=[text("a short text")],
    )


def _raw_call(stub: Any, request: v2.PostModelOutputsRequest) -> Callable[[], Any]:
    """What somebody who uses the raw stub writes."""
    count = itertools.count(1)

    def call() -> Any:
        metadata = (
            ("authorization", f"Key {PAT}"),
            ("x-clarifai-request-id-prefix", f"0123456789ab-{next(count):x}"),
        )
        return stub.PostModelOutputs(request, timeout=60.0, metadata=metadata)

    return call


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("overhead")
    rounds = 60 if full else 25
    if CHOICE.get().against is not None:
        with canned() as (plain, _):
            scene(report, "sync", plain, [ours("call", "client.v2")], rounds=rounds)
            asyncio_call = ours("acall", "client.v2", in_flight=IN_FLIGHT)
            scene(report, f"asyncio, {IN_FLIGHT} in flight", plain, [asyncio_call], rounds=rounds)
        return report
    with canned() as (plain, _), pinned(CLIENT_CORE):
        _add(report, "sync", lambda: _blocking(plain.grpc, rounds, calls=400), "<= 1.05")
        _add(
            report,
            f"asyncio, {IN_FLIGHT} in flight",
            lambda: _awaiting(plain.grpc, rounds, calls=640),
            "<= 1.10",
        )
    return report


def _add(
    report: Report, title: str, measure: Callable[[], dict[str, list[Sample]]], goal: str
) -> None:
    found = measured(report, title, measure, first=RAW, again=AGAIN, quantities=("cpu",))
    for name, bound in (("client.v2", goal), (BOUND, goal), ("model.predict", ""), (TRACED, "")):
        found.row(name, RAW, "cpu", bound)


class _Dropped(SpanExporter):
    """Drops the spans."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@contextmanager
def _tracing() -> Iterator[None]:
    """Clients that are made in the block are traced and measured."""
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(_Dropped()))
    instrument(tracer_provider=tracers, meter_provider=MeterProvider([InMemoryMetricReader()]))
    try:
        yield
    finally:
        uninstrument()


def _place(address: str) -> dict[str, Any]:
    """Settings of a client for a server."""
    return {"base": f"http://{address}", "pat": PAT, "user_id": "user", "app_id": "app"}


def _blocking(address: str, rounds: int, calls: int) -> dict[str, list[Sample]]:
    request, value = _request(), text("a short text")
    place: dict[str, Any] = {
        "base": f"http://{address}",
        "pat": PAT,
        "user_id": "user",
        "app_id": "app",
    }
    with _tracing():
        traced = Client(**place)
    with traced, Client(**place) as client:
        options = channel_options(client.settings)
        model = client.model("model")
        bound = client.bind(v2.V2Stub, errors="grpc")

        def repeated(call: Callable[[], Any]) -> Callable[[], int]:
            def loop() -> int:
                for _ in range(calls):
                    call()
                return calls

            return loop

        with (
            grpc.insecure_channel(address, options) as first,
            grpc.insecure_channel(address, options) as second,
        ):
            stubs = [v2.V2Stub(channel) for channel in (first, second)]
            raw = [_raw_call(stub, request) for stub in stubs]
            return interleave(
                {
                    RAW: repeated(raw[0]),
                    AGAIN: repeated(raw[1]),
                    "client.v2": repeated(lambda: client.v2.PostModelOutputs(request)),
                    BOUND: repeated(lambda: bound.PostModelOutputs(request)),
                    "model.predict": repeated(lambda: model.predict(value)),
                    TRACED: repeated(lambda: traced.v2.PostModelOutputs(request)),
                },
                rounds,
            )


def _awaiting(address: str, rounds: int, calls: int) -> dict[str, list[Sample]]:
    request, value = _request(), text("a short text")

    async def open_all() -> tuple[AsyncClient, AsyncClient, list[grpc.aio.Channel]]:
        place: dict[str, Any] = {
            "base": f"http://{address}",
            "pat": PAT,
            "user_id": "user",
            "app_id": "app",
        }
        client = AsyncClient(**place)
        with _tracing():
            traced = AsyncClient(**place)
        options = channel_options(client.settings)
        return client, traced, [grpc.aio.insecure_channel(address, options) for _ in range(2)]

    async def worker(call: Callable[[], Any]) -> None:
        for _ in range(calls // IN_FLIGHT):
            await call()

    async def all_workers(call: Callable[[], Any]) -> None:
        await asyncio.gather(*(worker(call) for _ in range(IN_FLIGHT)))

    with asyncio.Runner() as runner:
        client, traced, channels = runner.run(open_all())
        model = client.model("model")
        bound = client.bind(v2.V2Stub, errors="grpc")
        stubs = [v2.V2Stub(channel) for channel in channels]

        def repeated(call: Callable[[], Any]) -> Callable[[], int]:
            def loop() -> int:
                runner.run(all_workers(call))
                return calls

            return loop

        raw = [_raw_call(stub, request) for stub in stubs]
        samples = interleave(
            {
                RAW: repeated(raw[0]),
                AGAIN: repeated(raw[1]),
                "client.v2": repeated(lambda: client.v2.PostModelOutputs(request)),
                BOUND: repeated(lambda: bound.PostModelOutputs(request)),
                "model.predict": repeated(lambda: model.predict(value)),
                TRACED: repeated(lambda: traced.v2.PostModelOutputs(request)),
            },
            rounds,
        )
        for one in (client, traced):
            runner.run(one.close())
        for channel in channels:
            runner.run(channel.close())
    return samples
