"""Many small inputs: ``predict_many`` against one call each and batches over REST; reading them."""

from __future__ import annotations

from benchmarks.harness import Report
from benchmarks.servers import canned
from benchmarks.workers import ours, rest, scene

INPUTS = 100_000
BATCH = 128


def run(full: bool) -> Report:
    """Run the benchmark."""
    report = Report("batch")
    with canned() as (plain, _):
        many = ours("many", "predict_many", calls=INPUTS)
        one_each = ours("predict", "one call each")
        lists = ours("predict_list", f"predict, lists of {BATCH}", batch=BATCH)
        requests = rest("requests", batch=BATCH)
        found = scene(
            report,
            "small inputs",
            plain,
            [many, one_each, lists, requests],
            rounds=15 if full else 5,
            seconds=0.5,
        )
        found.against(one_each, "rate", ">= 25")
        found.against(requests, "rate", ">= 2.3")
        found.against(requests, "cpu")
        found.row(lists.name, requests.name, "rate")
        arrays = ours("concept_arrays", "output_concepts", batch=BATCH)
        loop = ours("concept_lists", "loop over the concepts", batch=BATCH)
        found = scene(
            report, "concepts", plain, [arrays, loop], rounds=15 if full else 5, seconds=0.5
        )
        found.against(loop, "cpu", "<= 1")
    return report
