"""``clarigrpc config``: the contexts of the config file."""

from __future__ import annotations

import sys

import click

from clarigrpc._config.context_file import ContextFile, expanded, without_secrets
from clarigrpc._config.credentials import SECRET_OPTIONS
from clarigrpc.cli.options import local_command
from clarigrpc.cli.output import Output

_FILE = "~/.config/clarifai/config"


def _opened(path: str | None) -> ContextFile:
    return ContextFile(expanded(path))


_file_option = click.option(
    "--file",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help=f"The config file.  [default: {_FILE}]",
)


@click.group()
def config() -> None:
    """Show and change the contexts of the config file that the service's own tools use, too.

    A context is an address, a user and a credential under a name. The current one is used where
    the environment has none of them; --context NAME of other commands uses another one.
    """


@local_command(config, "list")
@_file_option
def list_contexts(path: str | None, output: Output) -> None:
    """List the contexts."""
    file = _opened(path)
    found = []
    for name in file.names:
        variables = file.variables(name)
        address = variables.get("CLARIFAI_GRPC_BASE") or variables.get("CLARIFAI_API_BASE", "")
        credentials = [one for one in SECRET_OPTIONS.values() if variables.get(one)]
        found.append(
            {
                "name": name,
                "current": name == file.current,
                "base": str(address),
                "user_id": str(variables.get("CLARIFAI_USER_ID", "")),
                "app_id": str(variables.get("CLARIFAI_APP_ID", "")),
                "credential": ", ".join(credentials),
            }
        )
    if output.json:
        for row in found:
            output.line(row)
    elif found:
        output.table(
            ("", "Name", "Address", "User", "App", "Credential"),
            [
                ["*" if row.pop("current") else "", *(str(one) for one in row.values())]
                for row in found
            ],
        )
    else:
        output.note(f"{file.path} has no contexts; add one with 'clarigrpc config add NAME'")


@local_command(config, "show")
@click.argument("name", required=False)
@_file_option
def show_context(name: str | None, path: str | None, output: Output) -> None:
    """Show a context, or the current one, without its secrets."""
    file = _opened(path)
    chosen = name or file.current
    if chosen is None:
        raise click.ClickException(f"{file.path} has no current context")
    output.fields({"name": chosen, **without_secrets(file.variables(chosen))})


@local_command(config, "use", tables=False)
@click.argument("name")
@_file_option
def use_context(name: str, path: str | None, output: Output) -> None:
    """Make a context the current one."""
    file = _opened(path)
    file.use(name)
    file.save()
    output.note(f"{name} is the current context of {file.path}")


@local_command(config, "add", tables=False)
@click.argument("name")
@click.option(
    "--base",
    metavar="ADDRESS",
    default="https://api.clarifai.com",
    show_default=True,
    help="Address of the service.",
)
@click.option("--user-id", metavar="ID", help="The user.")
@click.option("--app-id", metavar="ID", help="The app.")
@click.option("--current", is_flag=True, help="Make it the current context.")
@click.option("--replace", is_flag=True, help="Replace the context if there is one.")
@_file_option
def add_context(
    name: str,
    base: str,
    user_id: str | None,
    app_id: str | None,
    current: bool,
    replace: bool,
    path: str | None,
    output: Output,
) -> None:
    """Add a context.

    Asks for the personal access token, which is not shown; without a terminal it is the first line
    of standard input. The first context of a file becomes the current one.
    """
    from clarigrpc._config.addresses import parse_bases

    file = _opened(path)
    if name in file.names and not replace:
        raise click.UsageError(f"{file.path} has a context {name!r}; --replace replaces it")
    parse_bases(base)
    if not name or not name.isprintable():
        raise click.UsageError("the name of a context is a printable text")
    if sys.stdin.isatty():
        user_id = user_id or click.prompt("User id", err=True)
        token = click.prompt("Personal access token", hide_input=True, err=True)
    else:
        token = sys.stdin.readline()
    token = token.strip()
    if not token or not (token.isascii() and token.isprintable()) or " " in token:
        raise click.UsageError("that is no token: it is empty or has other characters")
    variables = {
        "CLARIFAI_API_BASE": base,
        "CLARIFAI_USER_ID": user_id,
        "CLARIFAI_APP_ID": app_id,
        "CLARIFAI_PAT": token,
    }
    file.put(name, {key: value for key, value in variables.items() if value})
    if current or file.current is None:
        file.use(name)
    file.save()
    note = ", and made it the current context" if file.current == name else ""
    output.note(f"added {name} to {file.path}{note}")


@local_command(config, "remove", tables=False)
@click.argument("name")
@_file_option
def remove_context(name: str, path: str | None, output: Output) -> None:
    """Remove a context and its token."""
    file = _opened(path)
    file.remove(name)
    file.save()
    output.note(f"removed {name} from {file.path}")
