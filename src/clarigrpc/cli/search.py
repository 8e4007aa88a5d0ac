"""``clarigrpc search``, which is also ``clarigrpc inputs search``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from clarigrpc import query, v2
from clarigrpc.cli.cells import concepts_of, content_of, field
from clarigrpc.cli.media_sources import INPUT_KINDS
from clarigrpc.cli.message_json import json_of
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.cli.output import Column, Output
from clarigrpc.cli.resources import given, page_options

_HIT_COLUMNS = (
    Column("Score", lambda hit: f"{hit.score:.3f}"),
    field("Id", "input.id"),
    Column("Content", lambda hit: content_of(hit.input.data)),
    Column("Concepts", lambda hit: concepts_of(hit.input.data)),
)
_DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@client_command()
@click.option(
    "--concept",
    "concepts",
    multiple=True,
    metavar="ID",
    help="Inputs with this concept; !ID: those labelled as not having it. Repeatable.",
)
@click.option("--kind", type=click.Choice(INPUT_KINDS), help="Inputs of this kind.")
@click.option("--dataset", "datasets", multiple=True, metavar="ID", help="Inputs of this dataset.")
@click.option("--metadata", metavar="JSON", help="Inputs with these keys and values.")
@click.option("--url", metavar="URL", help="Images that were added from this URL.")
@click.option(
    "--near",
    metavar="LAT,LON,KM",
    help="Inputs at most KM kilometers from a place, in degrees.",
)
@click.option("--since", type=click.DateTime(_DATES), metavar="DATE", help="Changed since, UTC.")
@click.option("--until", type=click.DateTime(_DATES), metavar="DATE", help="Changed until, UTC.")
@click.option("--like", metavar="FILE|URL", help="Rank by similarity to an image.")
@click.option("--like-input", metavar="ID", help="Rank by similarity to an input of the app.")
@click.option("--like-text", metavar="TEXT", help="Rank by similarity to a text.")
@click.option("--by-concept", metavar="ID", help="Rank by the probability of a concept.")
@click.option(
    "--min-value", type=click.FloatRange(0, 1), metavar="P", help="Hits with this score or more."
)
@click.option("--count", is_flag=True, help="Print the number of hits that the service estimates.")
@page_options
def search(
    concepts: tuple[str, ...],
    kind: Any,
    datasets: tuple[str, ...],
    metadata: str | None,
    url: str | None,
    near: str | None,
    since: datetime | None,
    until: datetime | None,
    like: str | None,
    like_input: str | None,
    like_text: str | None,
    by_concept: str | None,
    min_value: float | None,
    count: bool,
    output: Output,
    limit: int | None,
    page: int | None,
    per_page: int | None,
    **settings: Any,
) -> None:
    """Search the inputs of an app: those that pass all filters, best rank first.

    Without options it finds all inputs.

    \b
    Examples:
      clarigrpc search --concept dog --kind image
      clarigrpc search --like cat.jpg --limit 5
      clarigrpc search --metadata '{"split": "test"}' --count
    """
    conditions: list[query.Condition] = [_concept(one) for one in concepts]
    conditions += map(query.in_dataset, datasets)
    if kind is not None:
        conditions.append(query.is_kind(kind))
    if metadata is not None:
        tree = json_of(metadata, "--metadata")
        if not isinstance(tree, dict):
            raise click.UsageError("--metadata is a JSON object")
        conditions.append(query.has_metadata(tree))
    if url is not None:
        conditions.append(query.has_url(url))
    if near is not None:
        conditions.append(_near(near))
    if since is not None or until is not None:
        conditions.append(query.updated(since, until))
    if like is not None:
        conditions.append(query.like_image(like))
    if like_input is not None:
        conditions.append(query.like_input(like_input))
    if like_text is not None:
        conditions.append(query.like_text(like_text))
    if by_concept is not None:
        conditions.append(query.by_concept(by_concept))
    options = given({"min_value": min_value})
    with open_client(**settings) as client:
        if count:
            found = client.search.count(*conditions, **options)
            output.fields({"count": found}) if output.json else click.echo(found)
            return
        options |= given({"page": page, "per_page": per_page})
        output.items(client.search.inputs(*conditions, **options), _HIT_COLUMNS, limit)


def _concept(word: str) -> v2.Filter:
    absent = word.startswith("!")
    return query.has_concept(word.removeprefix("!"), value=0.0 if absent else 1.0)


def _near(word: str) -> v2.Filter:
    try:
        latitude, longitude, kilometers = map(float, word.split(","))
    except ValueError:
        raise click.UsageError(f"--near {word!r} is not LATITUDE,LONGITUDE,KILOMETERS") from None
    return query.near(latitude, longitude, within=kilometers)
