"""The options that all commands with a client share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from clarigrpc import Client

F = TypeVar("F", bound=Callable[..., Any])

# Module that is missing -> the extra that brings it.
_EXTRAS = {
    "rich": "cli",
    "httpx": "rest",
    "numpy": "local",
    "PIL": "local",
    "starlette": "local",
    "uvicorn": "local",
    "grpc_health": "local",
    "limits": "local",
    "oauthlib": "local",
    "grpc_reflection": "local",
}

_OPTIONS = (
    click.option(
        "--base",
        metavar="ADDRESS",
        help="Address of the service; http:// is plaintext.  [env: CLARIFAI_GRPC_BASE, "
        "CLARIFAI_API_BASE; default: https://api.clarifai.com]",
    ),
    click.option(
        "--pat",
        metavar="TOKEN",
        help="Personal access token. Other users of the machine can see it on the command line: "
        "prefer the environment.  [env: CLARIFAI_PAT]",
    ),
    click.option(
        "--user-id",
        metavar="ID",
        help="Whose resources are meant.  [env: CLARIFAI_USER_ID]",
    ),
    click.option(
        "--app-id",
        metavar="ID",
        help="Which app is meant.  [env: CLARIFAI_APP_ID]",
    ),
    click.option(
        "--context",
        metavar="NAME",
        help="Context of ~/.config/clarifai/config.  [default: its current one]",
    ),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="How long a call may take.  [default: 60, streams 3600]",
    ),
    click.option(
        "--transport",
        type=click.Choice(["grpc", "rest"]),
        default="grpc",
        show_default=True,
        help="How to reach the service.",
    ),
)


def client_options(command: F) -> F:
    """Give a command the options of ``open_client``; it gets them as ``**settings``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def open_client(*, timeout: float | None, **settings: Any) -> Client:
    """The client that the options ask for; what they leave out comes from the environment."""
    if timeout is not None:
        settings["timeout"] = settings["stream_timeout"] = timeout
    return Client(**settings)


def extra_for(module: str | None) -> str | None:
    """The extra that installs a module, None for a module of no extra."""
    return _EXTRAS.get((module or "").partition(".")[0])
