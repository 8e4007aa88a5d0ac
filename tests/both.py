"""One test body for the sync and the async client.

A ``Both`` wraps either: its methods are coroutines, those of the sync client run in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from clarigrpc import AsyncClient, Client

ClientKind = Literal["sync", "async"]
_END = object()


class Both:
    """A client of either kind.

    Attributes:
        client: The client itself.
        is_sync: Whether it is the sync one.
    """

    def __init__(self, client_kind: ClientKind, **settings: Any) -> None:
        self.is_sync = client_kind == "sync"
        self.client: Any = (Client if self.is_sync else AsyncClient)(**settings)

    async def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What a function or method of the client returns."""
        if self.is_sync:
            return await asyncio.to_thread(function, *args, **options)
        return await function(*args, **options)

    async def call(self, method: str, request: Any, **options: Any) -> Any:
        """The response of a unary method."""
        return await self.run(getattr(self.client.v2, method), request, **options)

    def open(self, method: str, request: Any, **options: Any) -> Any:
        """A stream of responses, opened and not read."""
        return getattr(self.client.v2, method)(request, **options)

    async def items(self, stream: Any) -> AsyncIterator[Any]:
        """What a stream or another iterator of the client yields."""
        if self.is_sync:
            iterator = iter(stream)
            while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
                yield item
        else:
            async for item in stream:
                yield item

    async def collect(self, stream: Any, into: list[Any] | None = None) -> list[Any]:
        """All items of a stream; ``into`` keeps those that came before a failure."""
        found = [] if into is None else into
        async for item in self.items(stream):
            found.append(item)
        return found

    async def close(self) -> None:
        """Close the client."""
        await self.run(self.client.close)
