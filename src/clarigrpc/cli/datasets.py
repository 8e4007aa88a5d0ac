"""``clarigrpc datasets``: the datasets of an app, their inputs and versions."""

from __future__ import annotations

from typing import Any

import click

from clarigrpc import Client, types, v2
from clarigrpc.cli.background import ended, no_wait_option
from clarigrpc.cli.cells import VERSION_COLUMNS, concepts_of, content_of, field, time_of
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.cli.output import Column, Output
from clarigrpc.cli.resources import (
    RESOURCE_COMMANDS,
    counted,
    ids_from,
    nested_list,
    resource_group,
)

_DATASET_INPUTS = (
    field("Id", "input.id"),
    Column("Content", lambda one: content_of(one.input.data)),
    Column("Concepts", lambda one: concepts_of(one.input.data)),
    time_of("Added", "created_at"),
)

datasets = resource_group(RESOURCE_COMMANDS["datasets"])


def _of(client: Client, owned: tuple[str, str, str]) -> types.Datasets:
    return client.datasets.within(user_id=owned[0], app_id=owned[1])


nested_list(
    datasets,
    "inputs",
    "List the inputs of a dataset.",
    _DATASET_INPUTS,
    lambda client, owned: _of(client, owned).inputs(owned[2]).list,
)
nested_list(
    datasets,
    "versions",
    "List the versions of a dataset.",
    VERSION_COLUMNS,
    lambda client, owned: _of(client, owned).versions(owned[2]).list,
)


@client_command(datasets, "version")
@click.argument("dataset", metavar="ID")
@click.argument("version_id", metavar="[VERSION_ID]", required=False)
@click.option("--description", metavar="TEXT", help="What is new in the version.")
@no_wait_option
def make_version(
    dataset: str,
    version_id: str | None,
    description: str | None,
    no_wait: bool,
    output: Output,
    **settings: Any,
) -> None:
    """Make a version of a dataset, which does not change any more. Waits until it is ready.

    'clarigrpc datasets versions' lists those that there are. An id is generated if none is given.
    """
    wanted = v2.DatasetVersion(id=version_id or "", description=description or "")
    with open_client(**settings) as client:
        versions = client.datasets.versions(dataset)
        version = versions.create(wanted)
        if not no_wait:
            version = ended(versions.follow(version), output, settings["timeout"])
        output.one(version)


@client_command(datasets, "add", tables=False)
@click.argument("dataset", metavar="ID")
@click.argument("inputs", metavar="INPUT_ID...", nargs=-1, required=True)
def add_to_dataset(dataset: str, inputs: tuple[str, ...], output: Output, **settings: Any) -> None:
    """Add inputs of the app to a dataset; - reads their ids from stdin, one per line."""
    wanted = ids_from(inputs)
    with open_client(**settings) as client:
        client.datasets.inputs(dataset).add(wanted)
    output.note(f"added {counted(len(wanted), 'input', 'inputs')} to {dataset}")


@client_command(datasets, "remove", tables=False)
@click.argument("dataset", metavar="ID")
@click.argument("inputs", metavar="INPUT_ID...", nargs=-1, required=True)
def remove_from_dataset(
    dataset: str, inputs: tuple[str, ...], output: Output, **settings: Any
) -> None:
    """Remove inputs from a dataset; they stay in the app."""
    wanted = ids_from(inputs)
    with open_client(**settings) as client:
        client.datasets.inputs(dataset).remove(wanted)
    output.note(f"removed {counted(len(wanted), 'input', 'inputs')} from {dataset}")
