"""``clarigrpc models``: the models of an app, their versions and methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

from clarigrpc import Client, v2
from clarigrpc.cli.background import dataset_of, ended, no_wait_option, parameters_of
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


@client_command(models, "train")
@click.argument("model", metavar="[USER/APP/]ID")
@click.option(
    "--dataset",
    metavar="ID[/VERSION]",
    help="What to train on: a dataset, or a version of one.  [default: all inputs of the app]",
)
@click.option(
    "--concept",
    "concepts",
    metavar="ID",
    multiple=True,
    help="Concept to learn; may be repeated.  [default: those of the inputs]",
)
@click.option(
    "--param",
    "parameters",
    metavar="NAME=VALUE",
    multiple=True,
    help="Parameter of the training; may be repeated. VALUE is JSON or text.",
)
@click.option("--description", metavar="TEXT", help="What is new in the version.")
@no_wait_option
def train(
    model: str,
    dataset: str | None,
    concepts: tuple[str, ...],
    parameters: tuple[str, ...],
    description: str | None,
    no_wait: bool,
    output: Output,
    **settings: Any,
) -> None:
    """Train a new version of a model. Waits until it is trained, and prints the version.

    If the training fails, the reason is printed and the exit code is 1. --timeout is the time for
    the whole training (default 3600 seconds).

    \b
    Examples:
      clarigrpc models create my-model --type visual-classifier
      clarigrpc models train my-model --dataset my-dataset/my-version
    """
    owner, app_id, model_id = owned_id(model)
    wanted = v2.ModelVersion()
    if dataset is not None:
        wanted.train_info.dataset.CopyFrom(dataset_of(dataset))
    if parameters:
        wanted.train_info.params.update(parameters_of(parameters))
    for concept in concepts:
        wanted.output_info.data.concepts.add(id=concept)
    with open_client(**settings) as client:
        versions = client.models.within(user_id=owner, app_id=app_id).versions(model_id)
        version = versions.create(wanted, description=description or "")
        if not no_wait:
            version = ended(versions.follow(version), output, settings["timeout"])
        output.one(version)


@client_command(models, "evaluate")
@click.argument("model", metavar="[USER/APP/]ID")
@click.option(
    "--dataset",
    metavar="ID[/VERSION]",
    required=True,
    help="What to evaluate on: a dataset with its latest version, or with this one.",
)
@click.option("--version-id", metavar="ID", help="Version of the model.  [default: the latest]")
@click.option(
    "--id", "evaluation_id", metavar="ID", help="Id of the evaluation.  [default: generated]"
)
@no_wait_option
def evaluate(
    model: str,
    dataset: str,
    version_id: str | None,
    evaluation_id: str | None,
    no_wait: bool,
    output: Output,
    **settings: Any,
) -> None:
    """Evaluate a model on a dataset with labels. Waits for the result, and prints it.

    The dataset needs a version: 'clarigrpc datasets version ID' makes one. --timeout is the time
    for the whole evaluation (default 300 seconds).

    \b
    Examples:
      clarigrpc datasets version test v1
      clarigrpc models evaluate my-model --dataset test/v1
    """
    owner, app_id, model_id = owned_id(model)
    truth = dataset_of(dataset)
    with open_client(**settings) as client:
        if version_id is None:
            found = client.models.within(user_id=owner, app_id=app_id).get(model_id)
            version_id = found.model_version.id
        version = v2.ModelVersion(id=version_id)
        named = v2.Model(id=model_id, user_id=owner, app_id=app_id, model_version=version)
        evaluation = client.evaluations.create(
            v2.EvalMetrics(id=evaluation_id or "", model=named, ground_truth_dataset=truth)
        )
        if not no_wait:
            evaluation = ended(client.evaluations.follow(evaluation), output, settings["timeout"])
        output.one(evaluation)
