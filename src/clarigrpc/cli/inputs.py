"""``clarigrpc inputs``: add, list, stream, search and delete the inputs of an app."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from clarigrpc import types, v2
from clarigrpc._bulk.input_sources import SourceInput
from clarigrpc._contract.status_names import code_name
from clarigrpc._replaced_files import replaced
from clarigrpc.cli.cells import concepts_of, content_of, field, status_of, time_of, within
from clarigrpc.cli.media_sources import inputs_of, kind_option
from clarigrpc.cli.message_json import json_of
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.cli.output import Column, Output
from clarigrpc.cli.resources import ResourceCommand, confirm, counted, ids_from, resource_group
from clarigrpc.cli.search import search
from clarigrpc.errors import InvalidArgumentError

INPUTS = ResourceCommand(
    "inputs",
    "input",
    "The inputs of an app: images, videos, audio and texts.",
    (
        field("Id", "id"),
        Column("Content", within("data", content_of)),
        Column("Concepts", within("data", concepts_of)),
        status_of(),
        time_of("Created", "created_at"),
    ),
    {},
    {},
    verbs=("list", "get"),
)

inputs = resource_group(INPUTS)
inputs.add_command(search, "search")


@client_command(inputs, "add")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="Add a text. Repeatable.")
@kind_option
@click.option("--id", "input_id", metavar="ID", help="Id of the input, if there is one only.")
@click.option(
    "--concept",
    "concepts",
    multiple=True,
    metavar="ID",
    help="Concept of the inputs; !ID says that it is absent. Repeatable.",
)
@click.option(
    "--concepts-from-folders",
    is_flag=True,
    help="The name of the folder of a file is its concept, as in folders with one for each class.",
)
@click.option(
    "--dataset", "datasets", multiple=True, metavar="ID", help="Dataset to add to. Repeatable."
)
@click.option("--metadata", metavar="JSON", help="Metadata of the inputs, an object.")
@click.option(
    "--journal",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Keep in FILE what was added: the same command goes on after an interruption.",
)
@click.option(
    "--report",
    "report_path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write what was added and what failed to FILE, as JSON.",
)
@click.option("--batch-size", type=click.IntRange(1, 128), metavar="N", help="Inputs per request.")
@click.option(
    "--in-flight", type=click.IntRange(1), metavar="N", help="Requests at a time.  [default: 4]"
)
@click.option("--wait", is_flag=True, help="Wait until the service has processed the inputs.")
def add_inputs(
    sources: tuple[str, ...],
    texts: tuple[str, ...],
    kind: str | None,
    input_id: str | None,
    concepts: tuple[str, ...],
    concepts_from_folders: bool,
    datasets: tuple[str, ...],
    metadata: str | None,
    journal: str | None,
    report_path: str | None,
    batch_size: int | None,
    in_flight: int | None,
    wait: bool,
    output: Output,
    **settings: Any,
) -> None:
    """Add inputs, each exactly once, and report those that failed.

    A SOURCE is a file, a folder with all below it, an http(s) URL, which the service downloads, a
    CSV or JSON Lines file, or - for standard input.

    A CSV file has a header with at least one of the columns url, path and text, and may have kind,
    id, concepts, metadata, latitude, longitude, dataset_ids and split; concepts and dataset_ids
    are separated by |. A JSON Lines file has objects with these keys.

    An input without an id gets one made from its content: adding it again fails with
    INPUT_DUPLICATE and changes nothing. If some inputs fail, the others are added, and the exit
    code is 1.

    \b
    Examples:
      clarigrpc inputs add cat.jpg --concept cat
      clarigrpc inputs add photos/ --concepts-from-folders --report report.json
      clarigrpc inputs add table.csv --journal table.journal
    """
    if not sources and not texts:
        raise click.UsageError("Missing argument 'SOURCE', or --text")
    extra = _extra(concepts, datasets, metadata)
    found = _extended(
        inputs_of(sources, texts, kind=kind, concepts_from_folders=concepts_from_folders),
        extra,
        input_id,
    )
    options: dict[str, Any] = {"journal": journal, "progress": not output.quiet}
    for name, value in (("batch_size", batch_size), ("in_flight", in_flight)):
        if value is not None:
            options[name] = value
    if settings["timeout"] is not None:
        options["timeout"] = settings["timeout"]
    report = types.UploadReport()
    with open_client(**settings) as client:
        try:
            client.inputs.upload(found, report=report, **options)
        finally:
            if report_path is not None:
                _write_report(Path(report_path), report)
        _show(report, output)
        if wait and report.added_ids:
            seconds = options.get("timeout", 300.0)
            waited = client.inputs.wait(report.added_ids, timeout=seconds, raise_on_partial=False)
            failed = [one for one in waited if one.status.code != v2.StatusCode.INPUT_SUCCESS]
            for one in failed:
                output.note(f"{one.id}: {code_name(one.status.code)} {one.status.details}")
            if failed and report.succeeded:
                raise click.ClickException(
                    f"{len(failed)} of {len(waited)} inputs could not be processed"
                )
    if not report.succeeded:
        raise click.ClickException(
            f"{len(report.failed_inputs)} of {report.taken} inputs failed; the first one: "
            f"{report.failed_inputs[0]}"
        )


def _extra(concepts: tuple[str, ...], datasets: tuple[str, ...], metadata: str | None) -> v2.Input:
    """What every input gets besides."""
    extra = v2.Input(dataset_ids=datasets)
    for concept in concepts:
        absent = concept.startswith("!")
        extra.data.concepts.add(id=concept.removeprefix("!"), value=0.0 if absent else 1.0)
    if metadata is not None:
        tree = json_of(metadata, "--metadata")
        if not isinstance(tree, dict):
            raise click.UsageError("--metadata is a JSON object")
        extra.data.metadata.update(tree)
    return extra


def _extended(
    sources: Iterator[SourceInput], extra: v2.Input, input_id: str | None
) -> Iterator[SourceInput]:
    """The sources, with what every input gets besides."""

    def extended(make: SourceInput) -> v2.Input:
        made = make.make()
        made.MergeFrom(extra)
        if input_id is not None:
            made.id = input_id
        return made

    for index, source in enumerate(sources):
        if index and input_id is not None:
            raise InvalidArgumentError("--id is for one input, and there are more")
        yield replace(source, make=partial(extended, source))


def _show(report: types.UploadReport, output: Output) -> None:
    if output.json:
        output.line(_report_tree(report))
        return
    if report.failed_inputs:
        rows = [
            [str(one.index), one.source, one.id, code_name(one.status.code), _reason(one.status)]
            for one in report.failed_inputs[:_MOST_FAILURES]
        ]
        output.table(("#", "Source", "Id", "Status", "Details"), rows)
        if len(report.failed_inputs) > _MOST_FAILURES:
            output.note(f"the first {_MOST_FAILURES} failures; --report FILE has all")
    click.echo(str(report))


_MOST_FAILURES = 20


def _reason(status: v2.Status) -> str:
    return status.details or status.description


def _report_tree(report: types.UploadReport) -> dict[str, Any]:
    return {
        "taken": report.taken,
        "added": report.added,
        "added_before": report.resumed,
        "complete": report.complete,
        "added_ids": report.added_ids,
        "failed": [
            {
                "index": one.index,
                "source": one.source,
                "id": one.id,
                "code": code_name(one.status.code),
                "description": one.status.description,
                "details": one.status.details,
                "maybe_added": one.maybe_added,
            }
            for one in report.failed_inputs
        ],
    }


def _write_report(path: Path, report: types.UploadReport) -> None:
    """Write the report; a reader sees the old or the new one."""
    with replaced(path) as file:
        file.write(json.dumps(_report_tree(report), ensure_ascii=False, indent=2).encode() + b"\n")


@client_command(inputs, "stream")
@click.option("--after", metavar="ID", default="", help="Id of the input to start after.")
@click.option("--limit", type=click.IntRange(0), metavar="N", help="Maximum number; 0 means all.")
@click.option("--per-page", type=click.IntRange(1, 1000), metavar="N", help="Inputs per request.")
def stream_inputs(
    after: str, limit: int | None, per_page: int | None, output: Output, **settings: Any
) -> None:
    """List all inputs, oldest first, faster than list.

    The id of the last one is a cursor: with --after it goes on behind that, also later.
    """
    with open_client(**settings) as client:
        output.items(client.inputs.stream(after, per_page=per_page), INPUTS.columns, limit)


@client_command(inputs, "status")
def count_inputs(output: Output, **settings: Any) -> None:
    """Count the inputs by what the service has done with them."""
    with open_client(**settings) as client:
        counts = client.inputs.status()
    output.fields({one.name: getattr(counts, one.name) for one in counts.DESCRIPTOR.fields})


@client_command(inputs, "delete", tables=False)
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="Delete all inputs of the app.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete_inputs(
    ids: tuple[str, ...], everything: bool, yes: bool, output: Output, **settings: Any
) -> None:
    """Delete inputs by their ids; - reads them from stdin, one per line."""
    if everything == bool(ids):
        raise click.UsageError("give ids, or --all")
    wanted = ids_from(ids)
    with open_client(**settings) as client:
        app_id = client.settings.app_id or "the key"
        what = (
            f"all inputs of the app {app_id}"
            if everything
            else counted(len(wanted), "input", "inputs")
        )
        confirm(f"deleting {what}", assumed=yes)
        if everything:
            count = client.inputs.delete_all()
        elif wanted:
            client.inputs.delete(wanted)
            count = len(wanted)
        else:
            count = 0
    output.note(f"deleted {counted(count, 'input', 'inputs')}")
