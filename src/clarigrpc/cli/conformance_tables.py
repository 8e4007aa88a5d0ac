"""Facts, and how a service does on them, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clarigrpc.cli.behaviour import Fact, FactResult
from clarigrpc.cli.text import printable


def print_facts(facts: Sequence[Fact]) -> None:
    """Print what each fact says, and the calls that check it."""
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("Fact", "What the service does", "Calls"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "Fact")
    area = ""
    for fact in facts:
        if fact.area != area:
            area = fact.area
            table.add_section()
        calls = dict.fromkeys(step.call for step in fact.steps)
        name = Text(fact.id)
        if fact.writes:
            name.append("\n(writes)", style="dim")
        table.add_row(name, fact.claim, "\n".join(calls))
    Console().print(table)


def print_results(results: Sequence[FactResult], *, left_out: int) -> None:
    """Print where a service is not as described, and how often.

    Args:
        results: The facts that were checked.
        left_out: Number of facts that were not, because they write.
    """
    off = [result for result in results if result.verdict != "as described"]
    if off:
        table = Table(show_edge=False, pad_edge=False, show_lines=True)
        table.add_column("Fact", overflow="fold")
        table.add_column("Described", overflow="fold")
        table.add_column("Found", overflow="fold")
        for result in off:
            table.add_row(*_cells(result))
        Console().print(table)
        click.echo()
    counts = dict.fromkeys(("as described", "differs", "not checked"), 0)
    for result in results:
        counts[result.verdict] += 1
    plural = "" if len(results) == 1 else "s"
    click.echo(
        f"{len(results)} fact{plural}: {counts['as described']} as described, "
        f"{counts['differs']} differ, {counts['not checked']} could not be checked"
    )
    if left_out:
        click.echo(f"{left_out} more need --write-app")


def _cells(result: FactResult) -> tuple[Text, Text, Text]:
    name = Text(result.fact.id)
    if result.fact.interpretation:
        name.append("\n(interpretation)", style="dim")
    if result.verdict == "not checked":
        return (
            name,
            Text(result.fact.claim),
            Text(f"not checked: {printable(result.reason)}", "dim"),
        )
    described = Text(f"{result.differences[0].call}\n")
    found = Text("\n", style="red")
    for _, path, expected, value in result.differences:
        described.append(f"{path}: {expected}\n")
        found.append(f"{printable(value)}\n")
    described.rstrip()
    found.rstrip()
    return name, described, found
