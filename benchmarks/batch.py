"""Bulk work: ``predict_many`` against one call each, lists and batches over REST; what its limits
find at several latencies; ``inputs.upload`` against batches by hand; reading concepts."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from benchmarks.delay_line import delay_line
from benchmarks.harness import Report
from benchmarks.servers import Server, canned
from benchmarks.workers import ours, rest, scene

INPUTS = 100_000
ADAPTING = 10_000
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
        found.against(requests, "rate", ">= 2.5")
        found.against(requests, "cpu")
        found.row(lists.name, requests.name, "rate")
        _over_lists(report, plain, full)
        _adaptive(report, plain, full)
        arrays = ours("concept_arrays", "output_concepts", batch=BATCH)
        loop = ours("concept_lists", "loop over the concepts", batch=BATCH)
        found = scene(
            report, "concepts", plain, [arrays, loop], rounds=15 if full else 5, seconds=0.5
        )
        found.against(loop, "cpu", "<= 1")
    with canned(native=False) as (plain, _):
        _uploads(report, plain, full)
    return report


def _over_lists(report: Report, server: Server, full: bool) -> None:
    """What an input costs over one in a list of a full request; all results are read."""
    for prefix, many in (
        ("", ours("many", "predict_many", calls=INPUTS)),
        ("a", ours("amany", "async predict_many", batch=BATCH, in_flight=4, calls=INPUTS)),
    ):
        lists = ours(f"{prefix}read_list", f"lists of {BATCH}", batch=BATCH)
        variants = [many, lists]
        if not prefix:
            variants.append(ours("batches", "predict_batches", calls=INPUTS))
        title = "inputs, asyncio" if prefix else "inputs"
        rounds = 15 if full else 5
        found = scene(report, title, server, variants, rounds=rounds, seconds=0.5)
        found.against(lists, "cpu", "<= 1.4")
        for batches in variants[2:]:
            found.row(batches.name, lists.name, "cpu")


def _adaptive(report: Report, server: Server, full: bool) -> None:
    """The limits that ``predict_many`` finds by itself, against the best of fixed ones.

    Runs of one client: all but the first start with what the one before has found.
    """
    port = int(server.grpc.rpartition(":")[2])
    for latency in (0.001, 0.02, 0.2):
        with delay_line(latency, port) as (near,):
            there = replace(server, grpc=f"127.0.0.1:{near}")
            adaptive = ours("many", "predict_many", calls=ADAPTING)
            fixed = [
                ours("many_fixed", f"in_flight={n}", batch=BATCH, in_flight=n, calls=ADAPTING)
                for n in (4, 16, 64)
            ]
            title = f"{latency * 1000:g} ms, {ADAPTING:,} inputs"
            rounds = 7 if full else 3
            found = scene(report, title, there, [adaptive, *fixed], rounds=rounds)
            if found.samples:
                rates = {
                    name: median(sample.value("rate") for sample in samples)
                    for name, samples in found.samples.items()
                    if name != adaptive.name
                }
                found.row(adaptive.name, max(rates, key=rates.__getitem__), "rate", ">= 0.9")


def _uploads(report: Report, server: Server, full: bool) -> None:
    """``inputs.upload`` against batches by hand on the generated stub."""
    raw = ours("raw_inputs", "stub, batches by hand", batch=BATCH, calls=INPUTS)
    for name, upload in (
        ("inputs.upload", ours("upload_inputs", "inputs.upload", calls=INPUTS)),
        ("inputs.upload, asyncio", ours("aupload_inputs", "async inputs.upload", calls=INPUTS)),
    ):
        found = scene(report, name, server, [upload, raw], rounds=9 if full else 3)
        found.against(raw, "cpu", "<= 1.3")
