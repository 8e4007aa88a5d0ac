"""Texts of messages in the cells of tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name
from clarigrpc.cli.output import Column, shortened

_MOST_NAMED = 5
_KIND = re.compile("^(INPUT|MODEL|DATASET_VERSION)_")
_CONTENT = ("image", "video", "audio", "text")


def field(heading: str, path: str) -> Column:
    """A column with a field of a message, such as ``model_version.id``."""
    names = path.split(".")

    def cell(message: Any) -> str:
        value = message
        for name in names:
            value = getattr(value, name)
        return value if isinstance(value, str) else str(value)

    return Column(heading, cell)


def time_of(heading: str, path: str) -> Column:
    """A column with a time, UTC, to the minute; empty if it is not set."""

    def cell(message: Any) -> str:
        for name in path.split("."):
            if not message.HasField(name):
                return ""
            message = getattr(message, name)
        return f"{message.ToDatetime():%Y-%m-%d %H:%M}"

    return Column(heading, cell)


def status_of(path: str = "status") -> Column:
    """A column with the name of a status code, less the kind of resource; empty if not set."""

    def cell(message: Any) -> str:
        for name in path.split("."):
            message = getattr(message, name)
        return _KIND.sub("", code_name(message.code)) if message.code else ""

    return Column("Status", cell)


def content_of(data: v2.Data) -> str:
    """What an input is: its kind, and its URL or the beginning of its text."""
    for kind in _CONTENT:
        if not data.HasField(kind):  # type: ignore[arg-type]
            continue
        media: Any = getattr(data, kind)
        text = shortened(" ".join((media.raw or media.url).split()), 60) if kind == "text" else ""
        return f"{kind} {text or media.url}".strip()
    return ""


def concepts_of(data: v2.Data) -> str:
    """The concepts of an input, those that are absent with an exclamation mark."""
    names = [
        f"{'' if one.value >= 0.5 else '!'}{one.name or one.id}"
        for one in data.concepts[: _MOST_NAMED + 1]
    ]
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


def within(name: str, cell: Callable[[Any], str]) -> Callable[[Any], str]:
    """A cell of what a field holds."""
    return lambda message: cell(getattr(message, name))


VERSION_COLUMNS = (
    field("Id", "id"),
    status_of(),
    time_of("Created", "created_at"),
    field("Description", "description"),
)
"""The columns of the versions of a model or a dataset."""
