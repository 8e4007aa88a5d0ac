"""A program that knows nothing of tracing, under ``opentelemetry-instrument``."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import clarigrpc
from clarigrpc.local import LocalServer
from tests.observability.collector import Collector

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from clarigrpc import AsyncClient, Client, text

place = dict(pat=sys.argv[2], user_id=sys.argv[3], app_id=sys.argv[4])
with Client(base=sys.argv[1], **place) as client:
    client.model("shout").predict(text("a"))

async def main():
    async with AsyncClient(base=sys.argv[5], transport="rest", **place) as client:
        await client.model("shout").predict(text("a"))

asyncio.run(main())
"""


def shout(words: str) -> str:
    return words.upper()


def installed(folder: Path) -> Path:
    """A folder with the entry points of the package, as its installation has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    group = "opentelemetry_instrumentor"
    lines = [f"{name} = {value}" for name, value in project["entry-points"][group].items()]
    info = folder / "clarigrpc-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clarigrpc\nVersion: 0.0.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return folder


def test_the_bytes_reach_a_collector(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    source = str(Path(clarigrpc.__file__).parents[1])
    with Collector() as collector, LocalServer(rest_port=0, models={"shout": shout}) as server:
        assert server.rest_base is not None
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(installed(tmp_path)), source]),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_SERVICE_NAME": "the-program",
        }
        place = [server.base, server.pat, server.user_id, server.app_id, server.rest_base]
        done = subprocess.run(
            [
                *(sys.executable, "-c"),
                "from opentelemetry.instrumentation.auto_instrumentation import run; run()",
                *(sys.executable, str(program), *place),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        spans, metrics = collector.spans(), collector.metrics()
    assert {span.name for span in spans} == {"clarifai.api.V2/PostModelOutputs"}
    facts = [{one.key: one.value.string_value for one in span.attributes} for span in spans]
    assert [one["rpc.system.name"] for one in facts] == ["grpc", "clarifai.rest"]
    assert {one["clarifai.model.id"] for one in facts} == {"shout"}
    (first, second) = metrics["rpc.client.call.duration"].histogram.data_points
    assert (first.count, second.count) == (1, 1)
    assert metrics["clarigrpc.client.sent"].sum.data_points[0].as_int > 0
