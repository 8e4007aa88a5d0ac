"""``clarigrpc conformance``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from clarigrpc import v2
from clarigrpc.cli.options import client_command, open_client
from clarigrpc.cli.output import Output

if TYPE_CHECKING:
    from clarigrpc.cli.behaviour import Fact, FactResult

_WRONG_KEY = "0" * 32


@client_command(tables=False)
@click.option(
    "--write-app",
    metavar="APP",
    help="App of yours in which to create, change and delete inputs, models and other resources, "
    "and a compute cluster without machines beside it. "
    "[default: none; nothing is written]",
)
@click.option(
    "--only",
    metavar="ID",
    multiple=True,
    help="Check this fact only. Repeatable.",
)
@click.option("--list", "listed", is_flag=True, help="List all facts and call nothing.")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    help="How long to wait for an input, a model or a dataset version to get ready.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON.")
def conformance(
    write_app: str | None,
    only: tuple[str, ...],
    listed: bool,
    wait: float,
    as_json: bool,
    output: Output,
    **settings: Any,
) -> None:
    """Check a service against the facts that are publicly known of the hosted service, and print
    where the two differ.

    Without --write-app it only reads: it gets and lists resources, searches public ones, and makes
    about 20 predictions with the public model general-image-recognition, which count like any other
    prediction of your account. With --write-app it also checks what writing does. What it makes has
    "conformance" in its id and is deleted at the end, except for about a dozen concepts: the
    service has no call that deletes these. Use an app that is there for tests.

    The exit code is 0 if the service is as described, and 1 if it differs or a fact could not be
    checked.

    \b
    Examples:
      clarigrpc conformance --list
      clarigrpc conformance --base https://api.clarifai.com
      clarigrpc conformance --write-app my-test-app --json
    """
    from clarigrpc.cli.behaviour import load_facts

    facts = _chosen(only, writing=listed or write_app is not None)
    if listed:
        if as_json:
            click.echo(json.dumps([_fact_as_json(fact) for fact in facts], indent=2))
        else:
            from clarigrpc.cli.conformance_tables import print_facts

            print_facts(facts)
        return
    if write_app is not None:
        settings["app_id"] = write_app
    results = _check(facts, wait, settings)
    if as_json:
        click.echo(json.dumps([_as_json(result) for result in results], indent=2))
    else:
        from clarigrpc.cli.conformance_tables import print_results

        print_results(results, left_out=len(load_facts().facts) - len(facts) if not only else 0)
    if any(result.verdict != "as described" for result in results):
        click.get_current_context().exit(1)


def _chosen(only: Sequence[str], *, writing: bool) -> list[Fact]:
    from clarigrpc.cli.behaviour import load_facts

    facts = load_facts().facts
    if unknown := sorted(set(only) - {fact.id for fact in facts}):
        raise click.UsageError(f"there is no fact {', '.join(unknown)}; see --list")
    chosen = [fact for fact in facts if not only or fact.id in only]
    if only and not writing and (writes := [fact.id for fact in chosen if fact.writes]):
        raise click.UsageError(f"{', '.join(writes)}: needs --write-app")
    return [fact for fact in chosen if writing or not fact.writes]


def _check(facts: Sequence[Fact], wait: float, settings: dict[str, Any]) -> list[FactResult]:
    from rich.console import Console

    from clarigrpc.cli.behaviour import ServiceCheck, fetchable_addresses

    with ExitStack() as stack:
        client = stack.enter_context(open_client(**settings))
        target = client.settings.target
        if not client.settings.app_id:
            raise click.UsageError(
                "which app? Give --app-id (an app of yours, which is only read) or --write-app"
            )
        # A wrong address, token or app would look like a difference in every fact.
        client.v2.GetUser(v2.GetUserRequest(user_app_id=v2.UserAppIDSet(user_id="me")))
        client.v2.GetApp(v2.GetAppRequest())
        picture_url, missing_url = stack.enter_context(fetchable_addresses(target))
        strange = {
            "base": target.url,
            "pat": _WRONG_KEY,
            "user_id": client.settings.user_id,
            "app_id": client.settings.app_id,
            "transport": settings["transport"],
            "timeout": settings["timeout"],
        }
        check = ServiceCheck(
            client,
            stranger=lambda: open_client(**strange),
            picture_url=picture_url,
            missing_url=missing_url,
            seconds=wait,
        )
        stack.callback(check.close)
        results = []
        console = Console(stderr=True)
        with console.status("") as status:
            for number, fact in enumerate(facts, 1):
                status.update(f"{number} of {len(facts)}: {fact.id}")
                results.append(check.check(fact))
        return results


def _fact_as_json(fact: Fact) -> dict[str, Any]:
    return {
        "id": fact.id,
        "area": fact.area,
        "claim": fact.claim,
        "writes": fact.writes,
        "interpretation": fact.interpretation,
        "sources": [{"title": title, "url": url} for title, url in fact.sources],
    }


def _as_json(result: FactResult) -> dict[str, Any]:
    return {
        **_fact_as_json(result.fact),
        "verdict": result.verdict,
        "differences": [difference._asdict() for difference in result.differences],
        "reason": result.reason,
    }
