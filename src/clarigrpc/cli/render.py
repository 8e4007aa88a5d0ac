"""Predictions as tables for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from clarigrpc import errors, v2
from clarigrpc._rpc import statuses
from clarigrpc.cli.text import printable

MOST_COLORS = 5
MOST_CONCEPTS = 5
_MOST_TEXT = 500
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


def outputs_table(
    results: Iterable[tuple[str, v2.Output | Exception]], *, title: str | None = None
) -> Table:
    """A table with a row for each ``(name of the input, its output or failure)``.

    It shows the largest colours, each with a swatch, the most likely concepts, and in a few words
    what else an output contains.
    """
    rows = [(name, *_cells(output)) for name, output in results]
    has_colors = any(colors for _, colors, _ in rows)
    has_predictions = any(prediction for _, _, prediction in rows)
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("Input", overflow="fold")
    if has_colors:
        table.add_column("Colours", no_wrap=True)
    if has_predictions:
        table.add_column("Prediction")
    for name, colors, prediction in rows:
        cells = [colors] if has_colors else []
        table.add_row(printable(name), *cells, *([prediction] if has_predictions else []))
    return table


def failure_of(output: v2.Output) -> errors.ApiError | None:
    """The failure of one output; None if it succeeded."""
    return statuses.from_item(
        output.status, method="PostModelOutputs", request_id=output.status.req_id
    )


def _cells(output: v2.Output | Exception) -> tuple[Text, Text]:
    failure = output if isinstance(output, Exception) else failure_of(output)
    if failure is not None:
        text = str(failure)
        if isinstance(failure, errors.ApiError) and failure.description:
            text = f"{failure.description}: {failure.details}".rstrip(": ")
        return Text(), Text(printable(text), style="red")
    assert isinstance(output, v2.Output)
    data = output.data
    shown = {color.w3c.name for color in data.colors}
    concepts = [concept for concept in data.concepts if concept.name not in shown]
    lines = [_concept(concept) for concept in concepts[:MOST_CONCEPTS]]
    if data.text.raw:
        text = printable(data.text.raw)
        lines.append(Text(text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "…"))
    lines += [Text(f"embedding with {e.num_dimensions} dimensions") for e in data.embeddings]
    for what, items in (("region", data.regions), ("frame", data.frames), ("part", data.parts)):
        if items:
            lines.append(Text(f"{len(items)} {what}{'s' if len(items) > 1 else ''}"))
    colors = Text("\n").join(_color(color) for color in data.colors[:MOST_COLORS])
    if not lines and not colors:
        lines.append(Text("(empty)", style="dim"))
    return colors, Text("\n").join(lines)


def _color(color: v2.Color) -> Text:
    # The value comes from the server: it must not be parsed as a style.
    swatch = Text("    ", style=f"on {color.raw_hex}" if _HEX.fullmatch(color.raw_hex) else "")
    names = printable(f"{color.raw_hex}  {color.w3c.name}")
    return Text.assemble(swatch, f" {color.value:6.1%}  {names}")


def _concept(concept: v2.Concept) -> Text:
    return Text(f"{concept.value:.3f}  {printable(concept.name or concept.id)}")
