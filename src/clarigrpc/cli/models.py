"""``clarigrpc models``: the models of an app, their versions and methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

from clarigrpc import Client, v2
from clarigrpc.cli.cells import VERSION_COLUMNS
from clarigrpc.cli.message_json import to_tree
from clarigrpc.cli.options import client_command, open_client, owned_id
from clarigrpc.cli.output import Output
from clarigrpc.cli.resources import RESOURCE_COMMANDS, nested_list, resource_group

models = resource_group(RESOURCE_COMMANDS["models"])
models.add_command(models.commands["get"], "show")


def _versions(
    client: Client, owned: tuple[str, str, str]
) -> Callable[..., Iterator[v2.ModelVersion]]:
    owner, app_id, model_id = owned
    return client.model(model_id, user_id=owner, app_id=app_id).versions


nested_list(
    models, "versions", "List the versions of a model, newest first.", VERSION_COLUMNS, _versions
)


@client_command(models, "methods")
@click.argument("model", metavar="[USER/APP/]ID")
@click.option("--version-id", metavar="ID", help="Version of the model.  [default: the latest]")
def named_methods(model: str, version_id: str | None, output: Output, **settings: Any) -> None:
    """List the methods of a model that take named arguments, with their signatures.

    Call one with 'clarigrpc predict --model ID --method NAME ARGUMENT=VALUE'.
    """
    from clarigrpc._named_methods.signatures import signature_text

    owner, app_id, model_id = owned_id(model)
    with open_client(**settings) as client:
        chosen = client.model(model_id, user_id=owner, app_id=app_id, version_id=version_id)
        found = chosen.methods()
    if output.json:
        for name, signature in sorted(found.items()):
            text = signature_text(signature)
            output.line({"method": name, "signature": text, **to_tree(signature)})
        return
    rows = [[signature_text(one), one.description] for _, one in sorted(found.items())]
    output.table(("Method", "Description"), rows)


@client_command(models, "ready")
@click.argument("model", metavar="[USER/APP/]ID")
def ready(model: str, output: Output, **settings: Any) -> None:
    """Ask whether a model answers now; the exit code is 1 if not."""
    owner, app_id, model_id = owned_id(model)
    with open_client(**settings) as client:
        answers = client.model(model_id, user_id=owner, app_id=app_id).ready()
    output.fields({"model": model, "ready": answers})
    if not answers:
        raise click.ClickException("the model is being trained, built or deployed")
