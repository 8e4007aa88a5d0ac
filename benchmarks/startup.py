"""From a fresh interpreter to the first answer, and the memory that an import takes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from benchmarks.harness import CLIENT_CORE, Report, Sample, compare, noise_of, rounds_of
from benchmarks.peers import interpreter
from benchmarks.servers import Server, canned
from benchmarks.workers import SCRIPTS, neutral_environment

# Name -> (variant of the script, environment).
VARIANTS = {
    "clarigrpc": ("clarigrpc", ""),
    "clarigrpc, again": ("clarigrpc", ""),
    "clarifai-grpc": ("clarifai-grpc", "clarifai-grpc"),
    "clarifai, import of Model": ("clarifai", "clarifai"),
}


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("startup")
    with canned() as (plain, _):
        found = rounds_of(
            {name: _launcher(plain, *variant) for name, variant in VARIANTS.items()},
            25 if full else 9,
        )
    us = found["clarigrpc"]
    for quantity, what in (("wall", "import and first call"), ("memory", "memory after import")):
        control = compare(
            f"control, clarigrpc again, {what}", found["clarigrpc, again"], us, quantity=quantity
        )
        report.rows.append(control)
        for name, goal in (
            ("clarifai-grpc", "<= 1"),
            ("clarifai, import of Model", "<= 0.35" if quantity == "wall" else ""),
        ):
            report.rows.append(
                compare(
                    f"clarigrpc / {name}, {what}",
                    us,
                    found[name],
                    quantity=quantity,
                    goal=goal,
                    noise=noise_of(control),
                )
            )
    report.add("startup", {name: found[name] for name in VARIANTS if "again" not in name})
    return report


def _launcher(server: Server, variant: str, peer: str) -> Callable[[], Sample]:
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
            command, check=True, capture_output=True, text=True, env=neutral_environment()
        )
        return Sample(calls=1, **json.loads(output.stdout))

    return launch
