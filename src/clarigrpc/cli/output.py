"""What commands print: JSON objects, one per line, or tables for people."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from clarigrpc.cli.text import printable

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

T = TypeVar("T")

# Columns of texts that are copied, or look bad in parts.
_WHOLE = {"Id", "Created", "Added", "Status"}

# Columns that a narrow terminal goes without, the first one first; JSON has them.
_DISPENSABLE = ("Created", "Added", "Description")
# Characters from which on a cell may have several lines.
_FOLDED = 50

MOST_ROWS = 50
"""Rows of a table if ``--limit`` does not say."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        heading: Its heading.
        cell: The text of a message in it.
    """

    heading: str
    cell: Callable[[Any], str]


class Output:
    """Prints the results of a command.

    Args:
        as_json: Whether to print JSON; None: unless stdout is a terminal.
        quiet: Whether to print nothing besides results and errors.

    Attributes:
        json: Whether JSON is printed.
        quiet: As given.
    """

    def __init__(self, as_json: bool | None, quiet: bool) -> None:
        self.json = not sys.stdout.isatty() if as_json is None else as_json
        self.quiet = quiet

    def note(self, text: str) -> None:
        """Print a line for people to stderr, unless quiet."""
        if not self.quiet:
            click.echo(f"clarigrpc: {printable(text)}", err=True)

    def line(self, value: Any) -> None:
        """Print plain values as a line of JSON."""
        click.echo(json.dumps(value, ensure_ascii=False))

    def items(
        self, items: Iterable[Message], columns: Sequence[Column], limit: int | None = None
    ) -> None:
        """Print messages: a line of JSON each as they come, or a table.

        Args:
            items: The messages; no more than needed are taken.
            columns: The columns of the table.
            limit: Maximum number; 0: all; None: all as JSON, and ``MOST_ROWS`` in a table.
        """
        from clarigrpc.cli.message_json import to_json

        wanted = (0 if self.json else MOST_ROWS) if limit is None else limit
        source = iter(items)
        taken = itertools.islice(source, wanted or None)
        if self.json:
            for item in taken:
                click.echo(to_json(item))
            return
        rows = [[column.cell(item) for column in columns] for item in taken]
        if not rows:
            self.note("nothing found")
            return
        self.table(*_fitting([column.heading for column in columns], rows, terminal().width))
        if limit is None and len(rows) == wanted and next(source, None) is not None:
            self.note(f"the first {wanted} of more; --limit 0 shows all")

    def one(self, message: Message) -> None:
        """Print one message: a line of JSON, or its fields in a table of two columns."""
        from clarigrpc.cli.message_json import to_json, to_tree

        if self.json:
            click.echo(to_json(message))
        else:
            self.fields(dict(_leaves(to_tree(message))))

    def fields(self, values: dict[str, Any]) -> None:
        """Print named values: a line of JSON, or a table of two columns."""
        if self.json:
            self.line(values)
            return
        rows = [[name, "" if value is None else str(value)] for name, value in values.items()]
        self.table(None, rows)

    def table(self, headings: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> None:
        """Print a table."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=box.SIMPLE_HEAD if headings else None,
            show_header=headings is not None,
            header_style="bold",
            pad_edge=False,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        if headings is None:
            table.add_column(style="bold", overflow="fold", max_width=40)
            table.add_column(overflow="fold")
        for heading in headings or ():
            table.add_column(heading, overflow="fold", no_wrap=heading in _WHOLE)
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        terminal().print(table)


def terminal() -> Console:
    """The console for tables; if stdout is not a terminal, without colours and 100 columns wide."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


def _fitting(
    headings: list[str], rows: list[list[str]], width: int
) -> tuple[list[str], list[list[str]]]:
    """The table without columns that it can do without, as far as it is too wide."""
    for heading in _DISPENSABLE:
        widths = (min(max(map(len, cells)), _FOLDED) for cells in zip(headings, *rows, strict=True))
        if sum(widths) + 2 * len(headings) <= width:
            break
        if heading in headings:
            index = headings.index(heading)
            headings = headings[:index] + headings[index + 1 :]
            rows = [row[:index] + row[index + 1 :] for row in rows]
    return headings, rows


def _leaves(tree: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """The values of a tree by their paths: ``data.image.url``."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(tree, list):
        named = [_name_of(one) for one in tree]
        yield path, f"{len(tree)}: {shortened(', '.join(named))}" if all(named) else str(len(tree))
    else:
        yield path, shortened(str(tree))


def _name_of(item: Any) -> str:
    """What an item of a list is called; empty if it has no name."""
    if isinstance(item, dict):
        item = item.get("name") or item.get("id") or ""
    return "" if isinstance(item, list) else str(item)


def shortened(text: str, most: int = 200) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else text[: most - 1] + "…"
