"""``clarigrpc serve``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Run a local V2 server.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port for gRPC.  [default: a free one]",
)
@click.option(
    "--rest-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Port for HTTP/JSON, 0 for a free one.  [default: gRPC only]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that keeps everything over a restart.  [default: in memory]",
)
@click.option(
    "--pat",
    metavar="TOKEN",
    help="Access token of the default user.  [default: the one kept in --data, or a new one]",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="YAML or JSON with the users, apps, keys, models and workflows to begin with.",
)
@click.option(
    "--input-root",
    "input_roots",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Folder that file: data sources of inputs may name; may be given again.  [default: none]",
)
@click.option(
    "--allow-private-urls",
    is_flag=True,
    help="Let URLs of inputs name private addresses.  [default: loopback alone, if --host is one]",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="What each user may do: requests='10/second; 1000/hour', inputs=5000/month, "
    "concurrent=4. Repeatable.  [default: what --config says, or no limits]",
)
def serve(
    host: str,
    port: int,
    rest_port: int | None,
    data: Path | None,
    pat: str | None,
    config: Path | None,
    input_roots: tuple[Path, ...],
    allow_private_urls: bool,
    limits: tuple[str, ...],
) -> None:
    """Run a local V2 server until Ctrl-C or SIGTERM.

    When it is ready it prints, one KEY=VALUE a line: GRPC_BASE, REST_BASE, PAT, API_KEY, USER_ID
    and APP_ID, with --rest-port also CLIENT_ID, CLIENT_SECRET and TOKEN_URL, then exports that this
    command and other gRPC clients of the service understand (--transport rest needs --base with
    REST_BASE). Methods that it does not have answer UNIMPLEMENTED.

    \b
    Examples:
      clarigrpc serve --rest-port 0
      clarigrpc serve --port 8080 --data ./data --config server.yaml
    """
    from clarigrpc.local import Limits, LocalServer

    try:
        server = LocalServer(
            data_dir=data,
            host=host,
            port=port,
            rest_port=rest_port,
            pat=pat,
            config=config,
            input_roots=input_roots,
            allow_private_urls=allow_private_urls,
            limits=Limits.parse(limits) if limits else None,
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from error

    def ready() -> None:
        facts = {
            "GRPC_BASE": server.base,
            **({"REST_BASE": server.rest_base} if server.rest_base else {}),
            "PAT": server.pat,
            "API_KEY": server.api_key,
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
        # In one piece: a reader that sees a part of it may see the rest.
        click.echo("\n".join(lines))
        click.echo("clarigrpc: serving; Ctrl-C stops it", err=True)

    with server:
        server.serve_until_signalled(ready=ready)
