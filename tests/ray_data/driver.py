"""A driver of Ray: does what lines of JSON on its input say, and answers each with a line.

It runs in the interpreter of an environment that has Ray. ``{"do": "written", ...}`` calls the
function ``written`` with the other values; an error is answered with its type and its text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import ray
from ray.data.expressions import col

from clarigrpc import Client, query, v2
from clarigrpc._ray_data.bulk_actor import client_options
from clarigrpc._ray_data.input_spans import InputSpan, inputs_of
from clarigrpc._ray_data.output_parts import OutputFolder
from clarigrpc.ray import (
    Predictor,
    predict,
    predict_to_parquet,
    read_annotations,
    read_hits,
    read_inputs,
    write_inputs,
)
from clarigrpc.types import ClientOptions


def texts(count: int, blocks: int) -> Any:
    """A dataset of numbered texts."""
    rows = pa.table({"id": range(count), "body": [f"text {number}" for number in range(count)]})
    size = -(-count // blocks)
    return ray.data.from_arrow([rows.slice(start, size) for start in range(0, count, size)])


def written(client: ClientOptions, count: int, blocks: int, **options: Any) -> Any:
    """Add texts."""
    report = write_inputs(
        texts(count, blocks), column="body", kind="text", client=client, **options
    )
    return [report.rows, report.added, report.found, report.failed]


def written_rows(client: ClientOptions, rows: list[dict[str, Any]], **options: Any) -> Any:
    """Add some rows."""
    report = write_inputs(
        ray.data.from_items(rows, override_num_blocks=1), client=client, **options
    )
    counts = [report.rows, report.added, report.found, report.failed]
    return [*counts, [[one.id, one.code, one.error] for one in report.failures]]


def read(client: ClientOptions, tasks: int) -> Any:
    """Texts of all inputs."""
    return [row["text"] for row in read_inputs(client=client, override_num_blocks=tasks).take_all()]


def read_some(client: ClientOptions, ids: list[str], text: str, limit: int) -> Any:
    """Inputs by ids, by a text, and the first ones."""
    inputs = read_inputs(client=client, override_num_blocks=1)
    by_text = inputs.select_columns(["text", "kind"]).filter(expr=col("text") == text)
    return [
        sorted(row["id"] for row in inputs.filter(expr=col("id").is_in(ids)).take_all()),
        by_text.take_all(),
        read_inputs(client=client, limit=limit).count(),
    ]


def read_while_cursors_go(client: ClientOptions) -> Any:
    """Texts of the inputs behind the third, while those are deleted where the reading stands."""
    with Client(**client_options(client)) as connection:
        third = [*connection.inputs.stream()][2]
        read = []
        connection.inputs.delete(third.id)
        for one in inputs_of(connection, InputSpan(third), 4):
            read.append(one.data.text.raw)
            if len(read) in (4, 5, 9):
                connection.inputs.delete(one.id)
        return read


def found(client: ClientOptions, concept: str) -> Any:
    """Annotations, and hits of a search."""
    every = {"list_all_annotations": True}
    annotations = read_annotations(client=client, filters=every, override_num_blocks=2).take_all()
    one = annotations[0]["input_id"]
    some = read_annotations(client=client, filters=every).filter(expr=col("input_id") == one)
    hits = read_hits(query.has_concept(concept), client=client, override_num_blocks=2).take_all()
    return [
        len(annotations),
        [row["input_id"] == one for row in some.take_all()],
        sorted(row["text"] for row in hits),
        {v2.Hit.FromString(row["message"]).input.id == row["id"] for row in hits},
    ]


def predicted(client: ClientOptions, rows: list[dict[str, Any]], model: str, **options: Any) -> Any:
    """Predictions of some rows, in their order."""
    asked: dict[str, Any] = {"actors": 1, **options}
    dataset = predict(ray.data.from_items(rows), model, client=client, **asked)
    table = pa.concat_tables(ray.get(dataset.to_arrow_refs()))
    found = sorted(table.to_pylist(), key=lambda row: row["id"])
    names = ("output", "error", "latency")
    return [found, [str(table.schema.field(name).type) for name in names]]


def logged(client: ClientOptions) -> Any:
    """What Ray's export events say of plans that have the options of a client."""
    from ray.data._internal.metadata_exporter import sanitize_for_struct

    datasets = [
        predict(texts(1, 1), "shout", column="body", kind="text", client=client),
        read_inputs(client=client, override_num_blocks=1),
    ]
    plans = [dataset._logical_plan.dag._get_args() for dataset in datasets]
    return [str(sanitize_for_struct(plan, 1_000_000)) for plan in plans]


def direct(client: ClientOptions, rows: list[dict[str, Any]], model: str, **options: Any) -> Any:
    """What a batch becomes, without Ray's actors."""

    async def one_batch() -> Any:
        predictor = Predictor(model, client=client, **options)
        found = await predictor(pa.Table.from_pylist(rows))
        await predictor.close()
        return found.to_pylist()

    return asyncio.run(one_batch())


def formats(client: ClientOptions, **options: Any) -> Any:
    """What a batch of each format becomes, without Ray's actors."""
    table = pa.table({"id": [1, 2], "body": ["a", "b"]})
    batches = [
        table,
        table.to_pandas(),
        {name: table[name].to_numpy() for name in table.column_names},
    ]

    async def all_of_them() -> list[Any]:
        predictor = Predictor("shout", client=client, **options)
        found = [(await predictor(batch)).drop_columns("latency") for batch in batches]
        await predictor.close()
        return [one.to_pylist() for one in found]

    return asyncio.run(all_of_them())


def predicted_inputs(client: ClientOptions, **options: Any) -> Any:
    """Predictions of the inputs of an app."""
    rows = direct(client, read_inputs(client=client).take_all(), kind="input", **options)
    return [len(rows), [row["error"] for row in rows if row["error"]]]


def to_parquet(client: ClientOptions, folder: str, count: int, **options: Any) -> Any:
    """Predictions in a folder."""
    report = predict_to_parquet(
        texts(count, 10),
        folder,
        "shout",
        id_column="id",
        method="predict",
        arguments={"text": "body"},
        client=client,
        rows_per_batch=20,
        actors=2,
        rows_per_file=100,
        **options,
    )
    return [report.rows, report.failed, report.rows_before]


def begun_again(folder: str, part: str, late: str) -> Any:
    """The files that three runs find: two end before they are complete, the third completes.

    In each, its own part is written, and in the second a late one of another run is added.
    """
    found = []
    for number in range(3):
        target = OutputFolder(folder, {})
        found.append(len(target.before))
        shutil.copy(part, Path(folder, f"part-{target.writer.run}-000000.parquet"))
        if number == 1:
            shutil.copy(part, Path(folder, late))
        target.close(complete=number == 2)
    return [found, sorted(path.name for path in Path(folder).iterdir())]


def parquet(folder: str) -> Any:
    """The rows of a folder."""
    paths = sorted(Path(folder).glob("part-*.parquet"))
    return [row for path in paths for row in pyarrow.parquet.read_table(path).to_pylist()]


def main() -> None:
    """Connect to the cluster, and serve."""
    # Ray prints what happens to workers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if "client" in asked:
            asked["client"] = ClientOptions(**asked["client"])
        try:
            answer: Any = {"answer": globals()[asked.pop("do")](**asked)}
        except Exception as error:  # noqa: BLE001 - told to the test
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
