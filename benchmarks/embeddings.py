"""Embeddings of a batch as one NumPy array: against lists of floats, and against JSON."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import Report
from benchmarks.servers import canned
from benchmarks.workers import ours, rest, scene, stub

BATCH = 128


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("embeddings")
    with canned("embeddings") as (plain, _):
        # The environment of the SDK has both the stub and NumPy.
        lists = replace(stub("embeddings", batch=BATCH), peer="clarifai", name="stub, list(vector)")
        json = rest("embeddings", batch=BATCH)
        found = scene(
            report,
            f"{BATCH} x 1024",
            plain,
            [ours("embeddings", "output_embeddings", batch=BATCH), lists, json],
            rounds=30 if full else 9,
        )
        found.against(lists, "cpu", "<= 0.2")
        found.against(json, "rate", ">= 20")
        found.against(lists, "rate")
    return report
