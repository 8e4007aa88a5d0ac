"""``clarigrpc call``: any method of the service, with JSON as request and response."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from clarigrpc._contract import methods
from clarigrpc._contract.methods import Method
from clarigrpc._descriptor_pool import POOL
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.errors import PartialFailureError

_STDIN = 0


def to_json(message: Message, *, indent: int | None = None) -> str:
    """A message as proto3 JSON with the names of the protos; on one line without ``indent``.

    Raises:
        ClickException: It holds a value without a JSON form, such as NaN in metadata.
    """
    try:
        return json_format.MessageToJson(
            message,
            preserving_proto_field_name=True,
            indent=indent,
            ensure_ascii=False,
            descriptor_pool=POOL,
        )
    except (json_format.Error, ValueError, OverflowError) as error:
        raise click.ClickException(f"the response cannot be written as JSON: {error}") from error


def _list_methods(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    for name in methods.names():
        row = methods.lookup(name)
        notes = [
            note
            for note, holds in (
                ("stream of requests", row.request_streaming),
                ("stream of responses", row.response_streaming),
                ("deprecated", row.deprecated),
            )
            if holds
        ]
        click.echo(name + (f"  ({', '.join(notes)})" if notes else ""))
    context.exit()


@client_command("Call any method of the service with JSON.")
@click.argument("method")
@click.argument("request", metavar="[JSON|@FILE|-]", default="{}")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_methods,
    help="List all methods and exit.",
)
def call(method: str, request: str, **settings: Any) -> None:
    """Call METHOD, for example ListModels, and print the response as JSON.

    The request is proto3 JSON: field names as in the protos or in lowerCamelCase, bytes in base64.
    Give it as an argument, as @FILE to read a file, or as - to read standard input. Without it
    the request is empty. If it has no user_app_id, --user-id and --app-id fill it in.

    A stream of responses is printed one per line, as they arrive. For a method that takes a
    stream of requests, each line of the input is one request.

    \b
    Examples:
      clarigrpc call ListModels '{"per_page": 3}'
      clarigrpc call PostInputs @inputs.json
      clarigrpc call --list
    """
    row = _row(method)
    with ExitStack() as stack:
        stack.enter_context(_deprecations_on_stderr())
        lines = _lines(request, stack)
        # Before the client is created: a malformed request is reported without any settings.
        messages = _messages(row, lines) if row.request_streaming else None
        message = None if row.request_streaming else _message(row, "".join(lines))
        client = stack.enter_context(open_client(**settings))
        invoke = getattr(client.v2, row.name)
        if row.response_streaming:
            for response in invoke(message if messages is None else messages):
                click.echo(to_json(response))
            return
        try:
            response = invoke(message if messages is None else messages)
        except PartialFailureError as error:
            click.echo(to_json(error.response, indent=2))
            raise
        click.echo(to_json(response, indent=2))


@contextmanager
def _deprecations_on_stderr() -> Iterator[None]:
    """Print deprecation warnings, which Python hides when the caller is not the user's code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", ".* is deprecated: ", DeprecationWarning)
        show = warnings.showwarning

        def show_line(
            message: Warning | str, category: type[Warning], *where: Any, **more: Any
        ) -> None:
            if category is DeprecationWarning:
                click.echo(f"clarigrpc: {message}", err=True)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_line
        yield


def _row(name: str) -> Method:
    try:
        return methods.lookup(name)
    except KeyError:
        pass
    known = {method.lower(): method for method in methods.names()}
    near = [known[match] for match in difflib.get_close_matches(name.lower(), known)]
    hint = f"; did you mean {' or '.join(near)}?" if near else "; list them with --list"
    raise click.UsageError(f"the service has no method {name!r}{hint}")


def _lines(request: str, stack: ExitStack) -> Iterable[str]:
    """The lines of the request, read lazily."""
    if request == "-":
        # Neither sys.stdin nor closed: while gRPC's thread waits for a line of an open terminal
        # or pipe, closing it would wait as well, at the end of the call or of the process.
        return _decoded(open(_STDIN, "rb", closefd=False))
    if request.startswith("@"):
        return _decoded(stack.enter_context(Path(request[1:]).open("rb")))
    return request.splitlines(keepends=True)


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise click.UsageError("the request is not JSON: it is not UTF-8 text") from None


def _messages(row: Method, lines: Iterable[str]) -> Iterator[Message]:
    return (_message(row, line) for line in lines if line.strip())


def _message(row: Method, text: str) -> Message:
    """The request that a JSON text describes."""
    try:
        tree = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:  # an integer of thousands of digits, too
        raise click.UsageError(f"the request is not JSON: {error}") from None
    except RecursionError:
        raise click.UsageError("the request is nested too deeply") from None
    if not isinstance(tree, dict):
        raise click.UsageError(f"a {row.request_name} is written as a JSON object: {{...}}")
    message: Message = row.request_class()()
    try:
        return json_format.ParseDict(tree, message, descriptor_pool=POOL)
    except (json_format.ParseError, OverflowError, RecursionError) as error:
        raise click.UsageError(f"not a valid {row.request_name}: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
