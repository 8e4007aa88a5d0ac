"""Commands that call the service: the options that they share, and the client made from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from clarigrpc import Client

# Module that is missing -> the extra that installs it.
_EXTRAS = {
    "PIL": "local",
    "av": "local",
    "cv2": "local",
    "grpc_health": "local",
    "grpc_reflection": "local",
    "httpx": "rest",
    "limits": "local",
    "numpy": "local",
    "oauthlib": "local",
    "python_multipart": "local",
    "rich": "cli",
    "sklearn": "local",
    "starlette": "local",
    "threadpoolctl": "local",
    "uvicorn": "local",
    "vaderSentiment": "local",
    "yaml": "cli",
}


class _ConnectionOption(click.Option):
    """An option that every command with a client has."""


_connection_option = partial(click.option, cls=_ConnectionOption)

_CONNECTION_OPTIONS = (
    _connection_option(
        "--base",
        metavar="ADDRESS",
        help="Address of the service: https:// uses TLS, http:// none.  [env: CLARIFAI_GRPC_BASE, "
        "CLARIFAI_API_BASE; default: https://api.clarifai.com]",
    ),
    _connection_option(
        "--pat",
        metavar="TOKEN",
        help="Personal access token. The environment is safer: other users of this machine can "
        "see command lines.  [env: CLARIFAI_PAT]",
    ),
    _connection_option(
        "--user-id",
        metavar="ID",
        help="Default user for requests that name none.  [env: CLARIFAI_USER_ID]",
    ),
    _connection_option(
        "--app-id",
        metavar="ID",
        help="Default app for requests that name none.  [env: CLARIFAI_APP_ID]",
    ),
    _connection_option(
        "--context",
        metavar="NAME",
        help="Context of ~/.config/clarifai/config to use, in place of the environment.  "
        "[default: its current context, where the environment has no settings]",
    ),
    _connection_option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        show_default="60, or 3600 for streams",
        help="Deadline of a call.",
    ),
    _connection_option(
        "--transport",
        type=click.Choice(["grpc", "rest"]),
        default="grpc",
        show_default=True,
        help="Protocol to use; rest is HTTP/JSON.",
    ),
)


class ClientCommand(click.Command):
    """A command with connection options, which ``--help`` lists under a heading of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        parameters = self.get_params(ctx)
        for heading, connection in (("Options", False), ("Connection options", True)):
            records = [
                record
                for parameter in parameters
                if isinstance(parameter, click.Option)
                and isinstance(parameter, _ConnectionOption) is connection
                and (record := parameter.get_help_record(ctx)) is not None
            ]
            with formatter.section(heading):
                formatter.write_dl(records)


def client_command(summary: str) -> Callable[[Callable[..., Any]], ClientCommand]:
    """Make a function a command that gets the arguments of ``open_client`` as ``**settings``.

    Args:
        summary: The line of the command in the list of commands.
    """

    def decorate(function: Callable[..., Any]) -> ClientCommand:
        for option in reversed(_CONNECTION_OPTIONS):
            function = option(function)
        return click.command(cls=ClientCommand, short_help=summary)(function)

    return decorate


def open_client(*, timeout: float | None, **settings: Any) -> Client:
    """The client that the options describe; settings without an option use the environment."""
    if timeout is not None:
        settings["timeout"] = settings["stream_timeout"] = timeout
    return Client(**settings)


def extra_for(module: str | None) -> str | None:
    """The extra that installs a module; None if no extra does."""
    return _EXTRAS.get((module or "").partition(".")[0])
