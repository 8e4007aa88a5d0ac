"""``clarigrpc serve``."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click

from clarigrpc.cli.options import host_option, local_command, port_option
from clarigrpc.cli.output import Output

_several_option = partial(click.option, multiple=True)
_EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@local_command(tables=False)
@host_option(
    "--host",
    help="Address to listen on; unix:/path is a Unix domain socket, for gRPC only.",
)
@port_option("--port", default=0, help="Port for gRPC.  [default: a free port]")
@port_option(
    "--rest-port",
    help="Also serve HTTP/JSON, on this port; 0 takes a free port.  [default: gRPC only]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False),  # as text: an empty one is no folder
    metavar="DIR",
    help="Folder for all data; it is read again at the next start.  [default: in memory]",
)
@click.option(
    "--pat",
    metavar="TOKEN",
    help="Personal access token of the default user.  [default: the one in --config or stored in "
    "--data, or a random one]",
)
@click.option(
    "--config",
    type=_EXISTING_FILE,
    metavar="FILE",
    help="YAML or JSON file with the users, apps, keys, models and workflows to create.",
)
@_several_option(
    "--models",
    "model_files",
    type=_EXISTING_FILE,
    metavar="FILE.py",
    help="Python file whose public functions and classes are served as models of the default app, "
    "under their names; or those of its mapping MODELS. Repeatable.",
)
@_several_option(
    "--input-root",
    "input_roots",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that data sources with file: URLs may read. Repeatable.  [default: none]",
)
@_several_option(
    "--object-store",
    "object_stores",
    metavar="SCHEME=URL",
    help="Address of your own object store for data sources with s3:, gs: or azure: URLs, for "
    "example s3=http://127.0.0.1:9000. Repeatable.  [default: the public addresses]",
)
@click.option(
    "--allow-private-urls",
    is_flag=True,
    help="Allow inputs whose URL has a private address.  [default: only loopback addresses, and "
    "only if --host is one]",
)
@_several_option(
    "--limit",
    "limits",
    metavar="NAME=VALUE",
    help="Limit for each user, for example requests='10/second; 1000/hour', inputs=5000/month or "
    "concurrent=4. Repeatable.  [default: the limits of --config, or none]",
)
@_several_option(
    "--cors",
    metavar="ORIGIN",
    help="Origin whose web pages may call the REST front, for example http://localhost:3000. "
    "Repeatable.  [default: none]",
)
@click.option(
    "--no-public-models",
    is_flag=True,
    help="Leave out the models, workflows and concepts of user clarifai, app main, except the two "
    "embedding models that trainings work on.",
)
def serve(
    host: str,
    port: int,
    rest_port: int | None,
    data: str | None,
    pat: str | None,
    config: Path | None,
    model_files: tuple[Path, ...],
    input_roots: tuple[Path, ...],
    object_stores: tuple[str, ...],
    allow_private_urls: bool,
    limits: tuple[str, ...],
    cors: tuple[str, ...],
    no_public_models: bool,
    output: Output,
) -> None:
    """Run a local V2 server until Ctrl-C or SIGTERM.

    Once it is ready it prints one KEY=VALUE per line: GRPC_BASE, PAT, API_KEY, SESSION_TOKEN,
    USER_ID and APP_ID, and with --rest-port also REST_BASE, CLIENT_ID, CLIENT_SECRET and TOKEN_URL.
    Then it prints export lines for a shell; they configure this command and other gRPC clients of
    the service. To use HTTP/JSON, pass REST_BASE as --base together with --transport rest.

    Methods that the local server does not implement answer UNIMPLEMENTED.

    \b
    Examples:
      clarigrpc serve --rest-port 0
      clarigrpc serve --port 8080 --data ./data --config server.yaml
      clarigrpc serve --models my_models.py
    """
    from clarigrpc.cli.python_file import models_of_file
    from clarigrpc.local import Limits, LocalServer

    if data == "":  # of a variable that is not set
        raise click.BadParameter(
            "the path is empty; '.' is the current folder", param_hint="--data"
        )
    models: dict[str, Any] = {}
    for file in model_files:
        found = models_of_file(file)
        for model_id in found.keys() & models.keys():
            raise click.UsageError(f"two models have the id {model_id}, one of them in {file}")
        models |= found
    try:
        server = LocalServer(
            data_dir=data,
            host=host,
            port=port,
            rest_port=rest_port,
            pat=pat,
            config=config,
            models=models,
            input_roots=input_roots,
            object_stores=_by_scheme(object_stores),
            cors=cors,
            public_models=not no_public_models,
            allow_private_urls=allow_private_urls,
            limits=Limits.parse(limits) if limits else None,
        )
    except (TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from error

    def ready() -> None:
        facts = {
            "GRPC_BASE": server.base,
            **({"REST_BASE": server.rest_base} if server.rest_base else {}),
            "PAT": server.pat,
            "API_KEY": server.api_key,
            "SESSION_TOKEN": server.session_token,
            "USER_ID": server.user_id,
            "APP_ID": server.app_id,
        }
        if server.token_url is not None:
            facts |= {
                "CLIENT_ID": server.client_id,
                "CLIENT_SECRET": server.client_secret,
                "TOKEN_URL": server.token_url,
            }
        exports = {
            "CLARIFAI_GRPC_BASE": server.base,
            "CLARIFAI_API_BASE": server.base,
            "CLARIFAI_PAT": server.pat,
            "CLARIFAI_USER_ID": server.user_id,
            "CLARIFAI_APP_ID": server.app_id,
        }
        lines = [f"{name}={value}" for name, value in facts.items()]
        lines += [f"export {name}={value}" for name, value in exports.items()]
        # In one write: a reader that sees the first line can read all of them.
        click.echo("\n".join(lines))
        output.note("serving, press Ctrl-C to stop")

    try:
        server.start()
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    with closing(server):
        server.serve_until_signalled(ready=ready)


def _by_scheme(given: tuple[str, ...]) -> dict[str, str]:
    parts = (one.partition("=") for one in given)
    return {scheme: address for scheme, _, address in parts}
