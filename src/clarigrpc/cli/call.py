"""``clarigrpc call``: any method of the service, with JSON as request and response."""

from __future__ import annotations

import difflib
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from google.protobuf.message import Message

from clarigrpc._contract import methods
from clarigrpc._contract.methods import Method
from clarigrpc.cli.completion import complete_assignment, complete_method
from clarigrpc.cli.message_json import request_of_json, request_of_words, to_json
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.cli.output import Output
from clarigrpc.cli.text import first_sentence
from clarigrpc.errors import PartialFailureError

_STDIN_FILE = 0
_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.]*=")


@client_command(tables=False)
@click.argument("method", required=False, shell_complete=complete_method)
@click.argument(
    "request",
    metavar="[JSON|@FILE|-|FIELD=VALUE...]",
    nargs=-1,
    shell_complete=complete_assignment,
)
@click.option(
    "--list",
    "listing",
    is_flag=True,
    help="List the methods, or those whose name or text has the word given as METHOD, and exit.",
)
@click.option(
    "--describe",
    is_flag=True,
    help="Show what METHOD does: its request and response with their fields, the scopes that it "
    "needs, its HTTP addresses and a request to fill in.",
)
@click.option("--json", "in_json", is_flag=True, help="With --list or --describe: print JSON.")
def call(
    method: str | None,
    request: tuple[str, ...],
    listing: bool,
    describe: bool,
    in_json: bool,
    output: Output,
    **settings: Any,
) -> None:
    """Call METHOD, for example ListModels, and print the response as JSON.

    The request is proto3 JSON: field names as in the protos or in lowerCamelCase, bytes in base64.
    Give it as an argument, as @FILE to read a file, or as - to read standard input; or give single
    fields as FIELD=VALUE, with dots for fields inside fields. Without all that the request is
    empty. If it has no user_app_id, --user-id and --app-id fill it in.

    A stream of responses is printed one per line, as they arrive. For a method that takes a
    stream of requests, each line of the input is one request.

    \b
    Examples:
      clarigrpc call ListModels per_page=3
      clarigrpc call GetModel '{"model_id": "my-model"}'
      clarigrpc call PostInputs @inputs.json
      clarigrpc call --list workflow
      clarigrpc call --describe PostInputs
    """
    if listing:
        _list_methods(method or "", in_json, output)
        return
    if method is None:
        raise click.UsageError("Missing argument 'METHOD'; --list shows all methods")
    row = _row(method)
    if describe:
        from clarigrpc.cli import describe as describing

        if in_json:
            output.line(describing.as_tree(row))
        else:
            describing.show(row)
        return
    with ExitStack() as stack:
        stack.enter_context(_deprecations_on_stderr(output))
        # Before the client is created: a malformed request is reported without any settings.
        sent = _sent(row, request, stack)
        client = stack.enter_context(open_client(**settings))
        invoke: Any = getattr(client.v2, row.name)
        if row.response_streaming:
            for response in invoke(sent):
                click.echo(to_json(response))
            return
        try:
            response = invoke(sent)
        except PartialFailureError as error:
            click.echo(to_json(error.response, indent=2))
            raise
        click.echo(to_json(response, indent=2))


def _list_methods(word: str, as_json: bool, output: Output) -> None:
    # Where the rest of a text would be cut off; elsewhere it is whole.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    rows = [methods.lookup(name) for name in methods.names()]
    rows = [row for row in rows if word.lower() in f"{row.name} {row.documentation()}".lower()]
    if not rows:
        raise click.ClickException(f"no method has {word!r} in its name or text")
    width = max(len(row.name) for row in rows)
    for row in rows:
        if as_json:
            output.line(
                {
                    "method": row.name,
                    "description": row.documentation(),
                    "request_streaming": row.request_streaming,
                    "response_streaming": row.response_streaming,
                    "deprecated": row.deprecated,
                }
            )
            continue
        notes = [
            note
            for note, holds in (
                ("stream of requests", row.request_streaming),
                ("stream of responses", row.response_streaming),
                ("deprecated", row.deprecated),
            )
            if holds
        ]
        told = f"({', '.join(notes)}) " if notes else ""
        line = f"{row.name:<{width}}  {told}{first_sentence(row.documentation())}"
        click.echo(line if len(line) <= columns or not columns else f"{line[: columns - 1]}…")


@contextmanager
def _deprecations_on_stderr(output: Output) -> Iterator[None]:
    """Print deprecation warnings, which Python hides when the caller is not the user's code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", ".* is deprecated: ", DeprecationWarning)
        show = warnings.showwarning

        def show_line(
            message: Warning | str, category: type[Warning], *where: Any, **more: Any
        ) -> None:
            if category is DeprecationWarning:
                output.note(str(message))
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


def _sent(row: Method, request: Sequence[str], stack: ExitStack) -> Any:
    """The request, or an iterator of requests."""
    first = request[0] if request else "{}"
    if _ASSIGNMENT.match(first):
        message = request_of_words(row, request)
        return iter([message]) if row.request_streaming else message
    if len(request) > 1:
        raise click.UsageError("give one request: JSON, @FILE or -, or else FIELD=VALUE words")
    lines = _lines(first, stack)
    if row.request_streaming:
        return _messages(row, lines)
    return request_of_json(row, "".join(lines))


def _lines(request: str, stack: ExitStack) -> Iterable[str]:
    """The lines of the request, read lazily."""
    if request == "-":
        # Neither sys.stdin nor closed: while gRPC's thread waits for a line of an open terminal
        # or pipe, closing it would wait as well, at the end of the call or of the process.
        return _decoded(open(_STDIN_FILE, "rb", closefd=False))
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
    return (request_of_json(row, line) for line in lines if line.strip())
