"""``clarigrpc upload``."""

from __future__ import annotations

import sys
from typing import Any

import click

from clarigrpc import v2
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.cli.output import Output


@client_command(tables=False)
@click.argument("file", metavar="FILE")
@click.option("--model", metavar="ID", help="Upload as a new version of this model.")
@click.option("--artifact", metavar="ID", help="Upload as a new version of this artifact.")
@click.option(
    "--pipeline-step", metavar="ID", help="Upload as a new version of this pipeline step."
)
@click.option("--description", metavar="TEXT", help="Description of the new version.")
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Folder for the state file of an unfinished upload.  [default: the folder of FILE]",
)
@click.option(
    "--no-resume", is_flag=True, help="Start from the beginning, and write no state file."
)
@click.option(
    "--part-size",
    metavar="BYTES",
    type=int,
    help="Size of the parts that are sent.  [default: 1048576]",
)
def upload(
    file: str,
    model: str | None,
    artifact: str | None,
    pipeline_step: str | None,
    description: str | None,
    state_dir: str | None,
    no_resume: bool,
    part_size: int | None,
    output: Output,
    **settings: Any,
) -> None:
    """Upload FILE: a file, a folder (sent as a tar archive), or - for standard input.

    It becomes a new version of a model, artifact or pipeline step, and the id of the version is
    printed. Without any of these options it becomes a standalone upload, which the service keeps
    for a limited time, and the id of the upload is printed.

    To resume an interrupted upload, run the same command again.

    \b
    Examples:
      clarigrpc upload model.tar --model my-model
      clarigrpc upload ./model-folder --model my-model
      tar c model-folder | clarigrpc upload - --model my-model
    """
    if sum(one is not None for one in (model, artifact, pipeline_step)) > 1:
        raise click.UsageError("give only one of --model, --artifact and --pipeline-step")
    source: Any = sys.stdin.buffer if file == "-" else file
    options: dict[str, Any] = {
        "progress": not output.quiet,
        "resume": not no_resume,
        "state_dir": state_dir,
        "timeout": settings["timeout"],
    }
    if part_size is not None:
        options["part_size"] = part_size
    text = description or ""
    with open_client(**settings) as client:
        if model is not None:
            model_version = v2.ModelVersion(description=text)
            result = client.model(model).upload_version(source, version=model_version, **options)
        elif artifact is not None:
            artifact_version = v2.ArtifactVersion(description=text)
            result = client.artifacts.upload(source, artifact, version=artifact_version, **options)
        elif pipeline_step is not None:
            step_version = v2.PipelineStepVersion(description=text)
            result = client.pipeline_steps.upload(
                source, pipeline_step, version=step_version, **options
            )
        else:
            if text:
                raise click.UsageError("--description needs --model, --artifact or --pipeline-step")
            click.echo(client.uploads.upload(source, **options).id)
            return
    click.echo(result.version_id)
    if result.sha256:
        output.note(f"sha256 {result.sha256}, confirmed by the service")
