"""Commands that start work in the background and wait for its end."""

from __future__ import annotations

from typing import Any, TypeVar

import click

from clarigrpc import types, v2
from clarigrpc.cli.output import Output

T = TypeVar("T")

no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Return at once; the work goes on in the background."
)


def ended(work: types.LongRunningWork[T], output: Output, timeout: float | None) -> T:
    """What work was about, in its final state. A bar on the terminal shows how far it is.

    Args:
        work: The work.
        output: Says whether a bar may be shown.
        timeout: Seconds for the whole wait. None: what is usual for the kind of work.

    Raises:
        ApiError: The work failed.
    """
    try:
        return work.wait(timeout=timeout, progress=not output.quiet)
    except KeyboardInterrupt:
        output.note("not waited for any longer; the work goes on")
        raise


def dataset_of(value: str) -> v2.Dataset:
    """``ID`` or ``ID/VERSION`` of a dataset.

    Raises:
        BadParameter: It is neither.
    """
    dataset_id, slash, version_id = value.partition("/")
    if not dataset_id or (slash and not version_id) or "/" in version_id:
        raise click.BadParameter(f"{value!r} must be ID or ID/VERSION")
    version = v2.DatasetVersion(id=version_id) if version_id else None
    return v2.Dataset(id=dataset_id, version=version)


def parameters_of(words: tuple[str, ...]) -> dict[str, Any]:
    """The values of ``NAME=VALUE``: as JSON, or otherwise as text.

    Raises:
        UsageError: A word is none.
    """
    import json

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{word!r} is not NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
