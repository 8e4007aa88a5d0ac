"""``clarigrpc predict``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import click

from clarigrpc import image, v2
from clarigrpc.cli.call import to_json
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.errors import ClarigrpcError


@client_command("Predict on images.")
@click.argument("images", metavar="IMAGE_OR_URL...", nargs=-1, required=True)
@click.option(
    "--model",
    required=True,
    metavar="ID",
    help="The model: USER/APP/ID, or ID for a model of --user-id and --app-id.",
)
@click.option("--version-id", metavar="ID", help="Version of the model.  [default: the latest]")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per image instead.")
def predict(
    images: tuple[str, ...],
    model: str,
    version_id: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Predict on images and print the results as a table.

    Each image is a file or an http(s) URL, which the service downloads. If some images fail, the
    results of the others are still printed, and the exit code is 1.

    \b
    Examples:
      clarigrpc predict cat.jpg --model clarifai/main/color-recognition
      clarigrpc predict one.jpg two.jpg --model my-model --json
    """
    from clarigrpc.cli.render import failure_of, outputs_table, terminal

    owner, app_id, model_id = _split(model)
    inputs, unreadable = _read(images)
    if not inputs:
        raise click.ClickException(_summary(unreadable, len(images)))
    images = tuple(source for source, _ in inputs)
    with open_client(**settings) as client:
        chosen = client.model(model_id, user_id=owner, app_id=app_id, version_id=version_id)
        outputs = chosen.predict([value for _, value in inputs], raise_on_partial=False)
    if as_json:
        for source, output in zip(images, outputs, strict=True):
            line = {"source": source, "output": json.loads(to_json(output))}
            click.echo(json.dumps(line, ensure_ascii=False))
    else:
        names = [_name(source) for source in images]
        terminal().print(outputs_table(zip(names, outputs, strict=True)))
    failed = [failure for output in outputs if (failure := failure_of(output)) is not None]
    failures = [*unreadable, *failed]
    if failures:
        raise click.ClickException(_summary(failures, len(outputs) + len(unreadable)))


def _read(sources: tuple[str, ...]) -> tuple[list[tuple[str, v2.Input]], list[str]]:
    """The images with their sources, and why the others cannot be read."""
    inputs: list[tuple[str, v2.Input]] = []
    unreadable: list[str] = []
    for source in sources:
        try:
            inputs.append((source, image(source)))
        except (OSError, ClarigrpcError) as error:
            unreadable.append(str(error))
    return inputs, unreadable


def _summary(failures: Sequence[object], count: int) -> str:
    if count == 1:
        return str(failures[0])
    return f"{len(failures)} of {count} predictions failed; the first one: {failures[0]}"


def _split(model: str) -> tuple[str, str, str]:
    """User, app and id; the first two are empty if only the id is given."""
    parts = model.split("/")
    if all(parts) and len(parts) == 3:
        return parts[0], parts[1], parts[2]
    if model and len(parts) == 1:
        return "", "", model
    raise click.BadParameter("must be ID or USER/APP/ID", param_hint="--model")


def _name(source: str) -> str:
    return source if "://" in source else PurePath(source).name
