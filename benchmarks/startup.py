"""From a fresh interpreter to the first answer, and the memory that an import takes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import (
    CHOICE,
    CLIENT_CORE,
    Report,
    Revision,
    Sample,
    comparing,
    measured,
    rounds_of,
)
from benchmarks.peers import interpreter
from benchmarks.servers import Server, canned
from benchmarks.workers import SCRIPTS, environment_of

# Name -> (variant of the script, environment).
VARIANTS = {
    "clarigrpc": ("clarigrpc", ""),
    "clarigrpc, again": ("clarigrpc", ""),
    "clarifai-grpc": ("clarifai-grpc", "clarifai-grpc"),
    "clarifai, import of Model": ("clarifai", "clarifai"),
}
GOALS = {
    "clarifai-grpc": {"wall": "<= 0.85", "memory": "<= 1"},
    "clarifai, import of Model": {"wall": "<= 0.35", "memory": ""},
}


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("startup")
    quantities = ("wall", "memory")
    there = CHOICE.get().against
    with canned() as (plain, _):
        if there is not None:
            _compare(report, plain, there, 25 if full else 9)
            return report
        launchers = {name: _launcher(plain, *variant) for name, variant in VARIANTS.items()}
        found = measured(
            report,
            "import and first call",
            lambda: rounds_of(launchers, 25 if full else 9),
            first="clarigrpc",
            again="clarigrpc, again",
            quantities=quantities,
        )
    for quantity in quantities:
        for name, goals in GOALS.items():
            found.row("clarigrpc", name, quantity, goals[quantity])
    return report


def _compare(report: Report, server: Server, there: Revision, rounds: int) -> None:
    name = f"clarigrpc at {there.name}"
    launchers = {
        "clarigrpc": _launcher(server, "clarigrpc"),
        "clarigrpc, again": _launcher(server, "clarigrpc"),
        name: _launcher(server, "clarigrpc", source=there.source),
    }
    quantities = ("wall", "memory")
    with comparing():
        found = measured(
            report,
            "import and first call",
            lambda: rounds_of(launchers, rounds),
            first="clarigrpc",
            again="clarigrpc, again",
            quantities=quantities,
        )
    for quantity in quantities:
        found.row("clarigrpc", name, quantity)


def _launcher(
    server: Server, variant: str, peer: str = "", source: Path | None = None
) -> Callable[[], Sample]:
    """Runs the variant in a new process; what it says of itself is the sample."""
    command = [
        *("taskset", "--cpu-list", str(CLIENT_CORE)),
        interpreter(peer),
        str(SCRIPTS / "startup.py"),
        variant,
        server.grpc,
        server.pat,
    ]

    def launch() -> Sample:
        output = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment_of(source)
        )
        return Sample(calls=1, **json.loads(output.stdout))

    return launch
