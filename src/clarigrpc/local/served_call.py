"""The call that a front hands to the service."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ServedCall:
    """What a handler may know of the call it serves.

    Attributes:
        method: Name of the method, ``PostInputs`` say.
        metadata: Request metadata with lower-case keys.
        is_active: False once the client has gone.
        remaining: Seconds left until the client's deadline, None without one.
        trailing: Filled by the service: what to send after the response (gRPC trailing
            metadata, HTTP headers), such as ``retry-after`` in seconds.
    """

    method: str
    metadata: Mapping[str, str]
    is_active: Callable[[], bool]
    remaining: Callable[[], float | None]
    trailing: dict[str, str] = field(default_factory=dict)


def close_iterator(iterator: Iterator[Any]) -> None:
    """Ends a generator before its end; other iterators need no closing."""
    if isinstance(iterator, Generator):
        iterator.close()
