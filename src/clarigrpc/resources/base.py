"""What every resource is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from clarigrpc import v2
from clarigrpc.config import Settings
from clarigrpc.plan import Item, ItemPlan, call

MAX_ITEMS = 128
"""Most items of a request, and the default and largest size of a page."""

T = TypeVar("T")


class Owner(Protocol):
    """What a resource needs of its client."""

    settings: Settings

    @property
    def user_app_id(self) -> v2.UserAppIDSet:
        """The user and the app of the client's settings."""

    def unary(self, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        """The multicallable of a method; ``encoded``: for requests that are serialized."""

    def close_with(self, part: Any) -> None:
        """Have ``part.close()`` called when the client is closed."""

    def raises_on_partial(self, wanted: bool | None) -> bool:
        """Whether a partial failure is raised, where a call says ``wanted``."""


class Operations:
    """The operations of a domain on the resources of one user and app.

    Empty ids stand for those of the client.
    """

    def __init__(self, client: Owner, user_id: str = "", app_id: str = "") -> None:
        self._client = client
        self.user_id = user_id
        self.app_id = app_id
        self.unary = client.unary

    @property
    def user_app_id(self) -> v2.UserAppIDSet | None:
        """Whose resources are meant; None leaves it to the client's settings."""
        if not (self.user_id or self.app_id):
            return None
        return v2.UserAppIDSet(user_id=self.user_id, app_id=self.app_id)


def pages(
    method: str,
    request: Any,
    field: str,
    *,
    page: int | None,
    per_page: int | None,
    timeout: float | None,
) -> ItemPlan[Any]:
    """Every item of every page, fetched when it is asked for; with ``page`` that one only."""
    request.per_page = per_page or MAX_ITEMS
    request.page = page or 1
    while True:
        response = yield from call(method, request, timeout=timeout)
        items = getattr(response, field)
        for item in items:
            yield Item(item)
        if page is not None or len(items) < request.per_page:
            return
        request.page += 1


def chunks(values: Sequence[T], size: int = MAX_ITEMS) -> Iterator[Sequence[T]]:
    """The values in runs of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def as_list(value: T | Iterable[T], single: type[Any]) -> list[T]:
    """A list of one or of many."""
    return [value] if isinstance(value, single) else list(value)  # type: ignore[arg-type]
