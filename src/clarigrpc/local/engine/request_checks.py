"""Checks that requests of many methods share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

DEFAULT_PER_PAGE = 128
MAX_PER_PAGE = 1000


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
