"""Generated stubs over a channel."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")

_PUBLISHED = "clarifai_grpc"
_PUBLISHED_CHANNELS = f"{_PUBLISHED}.channel.clarifai_channel"


def make_stub(stub_class: Callable[[Any], T], channel: Any) -> T:
    """The stub of a generated class, of this or of another package."""
    if any(_is_published(base) for base in getattr(stub_class, "__mro__", ())):
        # The published package's stub takes from a variable of its module how responses are
        # parsed, and only making one of the package's own channels sets that.
        channels: Any = import_module(_PUBLISHED_CHANNELS)
        if getattr(channels, "wrap_response_deserializer", ...) is None:
            channels.wrap_response_deserializer = attrgetter("FromString")
    return stub_class(channel)


def _is_published(stub_class: type[Any]) -> bool:
    return stub_class.__module__.partition(".")[0] == _PUBLISHED
