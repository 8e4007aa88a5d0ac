"""``clarigrpc predict``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import click

from clarigrpc import errors, types, v2
from clarigrpc._contract.status_names import code_name
from clarigrpc.cli.media_sources import inputs_of, kind_option
from clarigrpc.cli.message_json import to_tree
from clarigrpc.cli.options import client_command, open_client, owned_id
from clarigrpc.cli.output import Output
from clarigrpc.cli.text import printable


@client_command()
@click.argument("sources", metavar="[SOURCE|ARGUMENT=VALUE]...", nargs=-1)
@click.option(
    "--model",
    required=True,
    metavar="[USER/APP/]ID",
    help="The model; without USER and APP it is one of --user-id and --app-id.",
)
@click.option("--version-id", metavar="ID", help="Version of the model.  [default: the latest]")
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="Predict a text. Repeatable.")
@kind_option
@click.option(
    "--method",
    metavar="NAME",
    help="Call this method of the model; SOURCE is then ARGUMENT=VALUE. 'clarigrpc models methods' "
    "lists them.",
)
@click.option(
    "--stream", is_flag=True, help="Print the outputs of each input as the model makes them."
)
@click.option(
    "--max-concepts", type=click.IntRange(1), metavar="N", help="Concepts of an output at most."
)
@click.option(
    "--min-value",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Concepts with this value or more.",
)
def predict(
    sources: tuple[str, ...],
    model: str,
    version_id: str | None,
    texts: tuple[str, ...],
    kind: str | None,
    method: str | None,
    stream: bool,
    max_concepts: int | None,
    min_value: float | None,
    output: Output,
    **settings: Any,
) -> None:
    """Predict images, texts, videos and audio with a model.

    A SOURCE is a file, a folder with all below it, a CSV or JSON Lines file with the columns of
    'clarigrpc inputs add', an http(s) URL, which the service downloads, or - for standard input.
    If some of them fail, the results of the others are still printed, and the exit code is 1.

    With --method, give the arguments of the method: TEXT=hello for a string, IMAGE=cat.jpg for an
    image (a file or URL), ARGUMENT=@FILE for the content of a file, ARGUMENT=- for a stream of
    lines from standard input, and JSON for lists and the like.

    \b
    Examples:
      clarigrpc predict cat.jpg --model clarifai/main/color-recognition
      clarigrpc predict photos/ --model my-model --json > outputs.jsonl
      clarigrpc predict --text "a good day" --model clarifai/main/text-sentiment
      clarigrpc predict --model my-model --method summarize text=@report.txt
    """
    owner, app_id, model_id = owned_id(model)
    if method is None and not sources and not texts:
        raise click.UsageError("Missing argument 'SOURCE', or --text")
    if method is not None and (texts or stream or kind):
        raise click.UsageError("--method goes without --text, --kind and --stream")
    config = None
    if max_concepts is not None or min_value is not None:
        config = v2.OutputConfig(max_concepts=max_concepts or 0, min_value=min_value or 0.0)
    with open_client(**settings) as client:
        chosen = client.model(
            model_id,
            user_id=owner,
            app_id=app_id,
            version_id=version_id,
            output_config=config,
        )
        if method is not None:
            _call(chosen, method, sources, output)
            return
        run = _stream if stream else _predict
        failures = _Failures(output)
        run(chosen, _read(sources, texts, kind, failures), output, failures)
    failures.check()


class _Failures:
    """The inputs that failed, and the number of all.

    Attributes:
        total: The number of inputs.
        count: The number of those that failed.
        rows: Names and failures of those to show in a table, since they were last taken.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self.total = 0
        self.rows: list[tuple[str, Exception]] = []
        self.count = 0
        self._first: Exception | None = None

    def add(self, source: str, error: Exception) -> None:
        """Count a failure, and print it as JSON or keep it for the table."""
        self.count += 1
        self._first = self._first or error
        if self._output.json:
            self._output.line({"source": source, "error": _error_tree(error)})
        else:
            self.rows.append((source, error))

    def check(self) -> None:
        """Fail if an input did.

        Raises:
            ClickException: One did.
        """
        if not self.count:
            return
        if self.total == 1:
            raise click.ClickException(str(self._first))
        raise click.ClickException(
            f"{self.count} of {self.total} predictions failed; the first one: {self._first}"
        )


def _error_tree(error: Exception) -> dict[str, Any]:
    tree: dict[str, Any] = {"message": str(error)}
    if isinstance(error, errors.ApiError):
        code = None if error.code is None else code_name(error.code)
        tree |= {"code": code, "details": error.details, "request_id": error.request_id}
    return tree


def _read(
    sources: tuple[str, ...], texts: tuple[str, ...], kind: str | None, failures: _Failures
) -> Iterator[tuple[str, v2.Input]]:
    """The inputs with their sources, without those that cannot be read."""
    for source in inputs_of(sources, texts, kind=kind):
        failures.total += 1
        try:
            made = source.make()
        except (OSError, ValueError, errors.ClarigrpcError) as error:
            failures.add(source.source, error)
            continue
        made.data.ClearField("concepts")  # of a folder or a table: no part of a question
        yield source.source, made
    if not failures.total:
        raise click.ClickException(f"no images, texts, videos or audio in {', '.join(sources)}")


def _predict(
    model: types.Model,
    inputs: Iterator[tuple[str, v2.Input]],
    output: Output,
    failures: _Failures,
) -> None:
    names: dict[int, str] = {}

    def values() -> Iterator[v2.Input]:
        for index, (name, value) in enumerate(inputs):
            names[index] = name
            yield value

    bar = not output.quiet and not (output.json and sys.stdout.isatty())
    results = model.predict_many(values(), progress=bar)
    if output.json:
        for result in results:
            name = names.pop(result.index)
            if result.error is not None:
                failures.add(name, result.error)
            else:
                output.line({"source": name, "output": to_tree(result.output)})
        return
    from clarigrpc.cli.output import terminal
    from clarigrpc.cli.render import outputs_table

    def rows() -> Iterator[tuple[str, v2.Output | Exception]]:
        for result in results:
            name = names.pop(result.index)
            if result.error is not None:
                failures.add(name, result.error)
            else:
                yield _short(name), result.output
            yield from ((_short(one), error) for one, error in failures.rows)
            failures.rows.clear()
        yield from ((_short(one), error) for one, error in failures.rows)

    table = outputs_table(rows())
    if failures.total > 1 or table.row_count > failures.count:
        terminal().print(table)


def _stream(
    model: types.Model,
    inputs: Iterator[tuple[str, v2.Input]],
    output: Output,
    failures: _Failures,
) -> None:
    for name, value in inputs:
        printed = _Fragments(output, name)
        try:
            with model.generate(value) as outputs:
                for one in outputs:
                    printed.add(one.data.text.raw if one.data.HasField("text") else None, one)
        except errors.ApiError as error:
            failures.add(name, error)
        printed.end()


class _Fragments:
    """Prints parts of a stream as they come: texts one after the other, anything else as JSON.

    Args:
        output: Where to.
        source: Name of the input that they are the outputs of; None: they are results alone.
    """

    def __init__(self, output: Output, source: str | None = None) -> None:
        self._output = output
        self._source = source
        self._open = False

    def add(self, text: str | None, part: Any) -> None:
        """Print a part; ``text``: what it is for people, if that is a text."""
        from clarigrpc.cli.method_arguments import plain

        if self._output.json or text is None:
            self.end()
            tree = plain(part)
            if self._source is not None:
                tree = {"source": self._source, "output": tree}
            self._output.line(tree)
            sys.stdout.flush()
            return
        click.echo(printable(text), nl=False)
        sys.stdout.flush()
        self._open = True

    def end(self) -> None:
        """End a line of texts."""
        if self._open:
            click.echo()
            self._open = False


def _call(model: types.Model, method: str, words: tuple[str, ...], output: Output) -> None:
    from clarigrpc._named_methods.signatures import find
    from clarigrpc.cli.method_arguments import arguments_of, plain

    signature = find(model.methods(), method, model.model_id)
    try:
        result = model.call(method, **arguments_of(signature, words))
    except TypeError as error:
        raise click.UsageError(str(error)) from None
    if isinstance(result, types.Stream):
        printed = _Fragments(output)
        with result:
            try:
                for one in result:
                    printed.add(one if isinstance(one, str) else None, one)
            finally:
                printed.end()
    elif isinstance(result, str) and not output.json:
        click.echo(printable(result))
    else:
        click.echo(json.dumps(plain(result), ensure_ascii=False, indent=None if output.json else 2))


def _short(source: str) -> str:
    return source if "://" in source else PurePath(source).name
