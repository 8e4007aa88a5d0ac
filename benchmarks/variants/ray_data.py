"""A driver of Ray: ``predict`` with as many actors as a slice has "calls in flight".

A cluster of its own, with eight logical CPUs. Each slice starts its actors anew, so that its clock
begins with the first rows that come out.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import ray

from clarigrpc.ray import predict
from clarigrpc.types import ClientOptions

ROWS_OF_A_BLOCK = 4096


def main() -> None:
    """Serve slices."""
    config = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    server = config["server"]
    client = ClientOptions(
        base=f"http://{server['grpc']}",
        pat=server["pat"],
        user_id=server["user_id"],
        app_id=server["app_id"],
    )

    def run(rows: int, actors: int) -> dict[str, Any]:
        texts = pa.table({"text": ["a text of some words"] * ROWS_OF_A_BLOCK})
        block = ray.put(texts)
        dataset = predict(
            ray.data.from_arrow_refs([block] * (rows // ROWS_OF_A_BLOCK + 2 * actors)),
            server["model_id"],
            column="text",
            kind="text",
            columns=["concepts"],
            actors=actors,
            client=client,
            in_flight=config["batch"],
            batch_size=32,
        ).select_columns(["output", "error"])
        began, done, failed = 0.0, 0, 0
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            if began:
                done += table.num_rows
            failed += table.num_rows - table["error"].null_count
            began = began or time.perf_counter()
        if failed:
            raise RuntimeError(f"{failed} rows failed")
        return {"wall": time.perf_counter() - began, "cpu": 0.0, "calls": done}

    packages = {name: version(name) for name in ("ray", "pyarrow", "grpcio", "protobuf")}
    print(json.dumps({"answer": None, "packages": packages}), file=answers, flush=True)
    while line := sys.stdin.readline():
        calls, actors, _ = line.split()
        print(json.dumps(run(int(calls), int(actors))), file=answers, flush=True)


if __name__ == "__main__":
    main()
