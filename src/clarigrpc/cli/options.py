"""Commands that call the service: the options that they share, and the client made from them."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from clarigrpc.cli.output import Output
from clarigrpc.cli.text import printable
from clarigrpc.errors import ClarigrpcError

if TYPE_CHECKING:
    from clarigrpc import Client


def _check_seconds(
    ctx: click.Context, parameter: click.Parameter, seconds: float | None
) -> float | None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise click.BadParameter("must be a positive number of seconds")
    return seconds


logger = logging.getLogger("clarigrpc")


class _ConnectionOption(click.Option):
    """An option that every command with a client has."""


class _OutputOption(click.Option):
    """An option about what is printed, and how."""


port_option = partial(click.option, type=click.IntRange(0, 65535), metavar="N")
"""Decorates with an option for a port to listen on."""
host_option = partial(click.option, default="127.0.0.1", show_default=True, metavar="HOST")
"""Decorates with an option for an address to listen on, by default one of this machine alone."""

_connection_option = partial(click.option, cls=_ConnectionOption)
_output_option = partial(click.option, cls=_OutputOption)

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
        help="Personal access token. The environment and 'clarigrpc config add' are safer: other "
        "users of this machine can see command lines.  [env: CLARIFAI_PAT]",
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
        type=float,
        callback=_check_seconds,
        help="Deadline of a call.  [default: 60, or 3600 for streams]",
    ),
    _connection_option(
        "--transport",
        type=click.Choice(["grpc", "rest"]),
        default="grpc",
        show_default=True,
        help="Protocol to use; rest is HTTP/JSON.",
    ),
)
_JSON_OPTION = _output_option(
    "--json/--table",
    "json_wanted",
    default=None,
    help="Print JSON, an object per line, or a table.  [default: a table on a terminal, JSON "
    "elsewhere]",
)
_OUTPUT_OPTIONS = (
    _output_option("-q", "--quiet", is_flag=True, help="Print results and errors alone."),
    _output_option("--debug", is_flag=True, help="Print what the client does to stderr."),
)

_HEADINGS = {
    _OutputOption: "Output options",
    _ConnectionOption: "Connection options",
}


def _ranges(text: str) -> str:
    """The text of an option with Click's ``[1<=x<=9]`` in words, and without ``[x>=1]``."""
    text = re.sub(r"  \[(?:x>=?\d+|0<=x<=65535)\]|; x>=?\d+(?=\])", "", text)
    return re.sub(r"(\d+)<=x<=(\d+)", r"\1 to \2", text)


class GroupedCommand(click.Command):
    """A command whose ``--help`` lists the shared options under headings of their own.

    Its function gets an ``Output``, as ``output``, in place of the output options.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {"Options": []}
        records |= {heading: [] for heading in _HEADINGS.values()}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                option, text = record
                records[_HEADINGS.get(type(parameter), "Options")].append((option, _ranges(text)))
        for heading, rows in records.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.params.pop("debug"):
            handler = logging.StreamHandler()
            handler.setFormatter(
                logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
            )
            ctx.call_on_close(_log_to_stderr(handler, logging.DEBUG))
        elif "base" in ctx.params and not ctx.params["quiet"]:
            ctx.call_on_close(_log_to_stderr(_LongWaits(), logging.INFO))
        ctx.params["output"] = Output(ctx.params.pop("json_wanted", None), ctx.params.pop("quiet"))
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, ClarigrpcError, OSError):
            raise
        except Exception:
            logger.debug("unexpected", exc_info=True)  # here, while --debug still shows it
            raise


def local_command(
    of: click.Group | None = None, name: str | None = None, *, tables: bool = True
) -> Callable[[Callable[..., Any]], GroupedCommand]:
    """Make a function a command with the output options.

    Args:
        of: The group that it is a command of.
        name: Its name there.
        tables: Whether it can print a table in place of JSON.
    """
    return partial(_command, ((_JSON_OPTION,) if tables else ()) + _OUTPUT_OPTIONS, of, name)


def client_command(
    of: click.Group | None = None, name: str | None = None, *, tables: bool = True
) -> Callable[[Callable[..., Any]], GroupedCommand]:
    """Make a function a command that calls the service.

    It gets an ``Output`` as ``output``, and the arguments of ``open_client`` as ``**settings``.

    Args:
        of: The group that it is a command of.
        name: Its name there.
        tables: Whether it can print a table in place of JSON.
    """
    options = ((_JSON_OPTION,) if tables else ()) + _OUTPUT_OPTIONS + _CONNECTION_OPTIONS
    return partial(_command, options, of, name)


def _command(
    options: tuple[Callable[[Any], Any], ...],
    group: click.Group | None,
    name: str | None,
    function: Callable[..., Any],
) -> GroupedCommand:
    for option in reversed(options):
        function = option(function)
    # Click cuts a text off where a line of its list is full.
    summary = re.split(r"[.:;](?:\s|$)", function.__doc__ or "", maxsplit=1)[0]
    summary = f"{' '.join(summary.split())}."
    command = click.command(name, cls=GroupedCommand, short_help=summary)(function)
    if group is not None:
        group.add_command(command)
    return command


class _LongWaits(logging.Handler):
    """Says why a command waits, where calls are repeated for longer than people expect.

    Warnings are shown at once. Of the other messages the first is shown after three seconds, and
    the next one each time that the wait has doubled.
    """

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._next = 3.0

    def emit(self, record: logging.LogRecord) -> None:
        waited = time.monotonic() - self._began
        if record.levelno < logging.WARNING:
            if waited < self._next:
                return
            self._next = 2 * waited
        text = printable(" ".join(record.getMessage().split()))
        click.echo(f"clarigrpc: {text}", err=True)


def _log_to_stderr(handler: logging.Handler, to_level: int) -> Callable[[], None]:
    """Have the client's log shown; the returned function ends that."""
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(to_level)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    return end


def open_client(*, timeout: float | None, **settings: Any) -> Client:
    """The client that the options describe; settings without an option use the environment."""
    from clarigrpc import Client

    if timeout is not None:
        settings["timeout"] = settings["stream_timeout"] = timeout
    if logger.isEnabledFor(logging.DEBUG):
        from clarigrpc.cli.call_log import CallLog

        settings["interceptors"] = [CallLog()]
    return Client(**settings)


def owned_id(value: str) -> tuple[str, str, str]:
    """User, app and id of ``USER/APP/ID`` or ``ID``; the first two are empty for an id alone.

    Raises:
        BadParameter: It is neither.
    """
    parts = value.split("/")
    if all(parts) and len(parts) == 3:
        return parts[0], parts[1], parts[2]
    if value and len(parts) == 1:
        return "", "", value
    raise click.BadParameter(f"{value!r} must be ID or USER/APP/ID")
