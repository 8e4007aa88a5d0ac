"""What the layers above a call need of a client."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from clarigrpc import v2
from clarigrpc._config.settings import Settings


class ClientInterface(Protocol):
    """What resources, bulk work and uploads need of their client."""

    settings: Settings
    kept_limits: dict[Hashable, Any]

    @property
    def user_app_id(self) -> v2.UserAppIDSet:
        """The user and the app of the client's settings."""

    def unary(self, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        """The multicallable of a method; ``encoded``: for requests that are serialized."""

    def pause(self, seconds: float) -> Any:
        """Wait between calls; ``ClosedError`` when the client is closed. Async: to be awaited."""

    def close_with(self, part: Any) -> None:
        """Have ``part.close()`` called when the client is closed."""

    def raises_on_partial(self, wanted: bool | None) -> bool:
        """Whether a partial failure is raised, where a call says ``wanted``."""
