"""Checks that requests of many methods share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from clarigrpc.local.engine.search_filters import concepts_of
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

DEFAULT_PER_PAGE = 128
MAX_PER_PAGE = 1000

MAX_REPEATED = 1000
"""Values of a repeated field of a request. Methods that take fewer refuse the rest themselves."""
_MAX_REPEATED_OF = {"content_parts": 10_000, "contentParts": 10_000}

MAX_CONCEPTS = 13_000
"""Concepts of all inputs and annotations of a request, those of regions and frames included."""


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuses a request by how many values its repeated fields have, before looking at these.

    Raises:
        ServiceError: CONN_INVALID_REQUEST, with the name of the field.
    """
    for name, count in counts.items():
        most = _MAX_REPEATED_OF.get(name, MAX_REPEATED)
        if count > most:
            raise ServiceError(
                StatusCode.CONN_INVALID_REQUEST,
                f"the request has {count} {name}; the maximum is {most}",
            )


def check_request_counts(request: Any) -> None:
    """As ``check_counts``, for a message; refuses too many concepts of inputs, too.

    Raises:
        ServiceError: CONN_INVALID_REQUEST.
    """
    counts = {field.name: len(value) for field, value in request.ListFields() if field.is_repeated}
    check_counts(counts)
    concepts = 0
    for name in ("inputs", "annotations"):
        if name not in counts:
            continue
        for item in getattr(request, name):
            concepts += sum(1 for _ in islice(concepts_of(item.data), MAX_CONCEPTS + 1))
            if concepts > MAX_CONCEPTS:
                raise ServiceError(
                    StatusCode.CONN_INVALID_REQUEST,
                    f"the {name} of the request have more than {MAX_CONCEPTS} concepts; "
                    "send fewer at a time",
                )


def page_bounds(page: int, per_page: int) -> tuple[int, int]:
    """Offset and size of a page that is counted from 1; zeros mean the defaults."""
    if per_page > MAX_PER_PAGE:
        raise ServiceError(
            StatusCode.CONN_INVALID_REQUEST,
            f"per_page is {per_page}; the maximum is {MAX_PER_PAGE}",
        )
    size = per_page or DEFAULT_PER_PAGE
    return (max(page, 1) - 1) * size, size


def refuse_other_fields(request: Any, known: Iterable[str]) -> None:
    """Refuses a request with options that this server does not act on.

    Ignoring a filter would answer a question that nobody asked.
    """
    names = set(known)
    other = [f.name for f, _ in request.ListFields() if f.name not in names]
    if other:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED,
            f"the local server does not support {', '.join(other)} in this request",
        )
