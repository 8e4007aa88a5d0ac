"""What the public client hands to its resources: the settings, the channel and multicallables."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from clarigrpc import v2
from clarigrpc._config.settings import Settings
from clarigrpc._contract.methods import lookup
from clarigrpc._rpc.lazy_stub import LazyStub

if TYPE_CHECKING:  # each kind of client imports its own
    from clarigrpc._rpc.async_channel import AsyncChannel
    from clarigrpc._rpc.sync_channel import SyncChannel

ChannelT = TypeVar("ChannelT", "SyncChannel", "AsyncChannel")


class ClientContext(Generic[ChannelT]):
    """A ``ClientInterface`` over a channel, of a client or of a view of one.

    Attributes:
        channel: The channel.
        settings: Its settings.
        stub: The stub over it.
        parts: What ends with the client or the view.
        kept_limits: What bulk work has found of the service, for all views of the client.
    """

    def __init__(self, channel: ChannelT, origin: ClientContext[ChannelT] | None = None) -> None:
        self.channel: ChannelT = channel
        self.settings: Settings = channel.core.settings
        self.stub = LazyStub(channel)
        self.parts: weakref.WeakSet[Any] = weakref.WeakSet()
        self.kept_limits: dict[Hashable, Any] = {} if origin is None else origin.kept_limits
        self._origin: ClientContext[ChannelT] | None = origin
        self._encoded: dict[str, Callable[..., Any]] = {}

    def view(self, settings: Settings) -> ClientContext[ChannelT]:
        """The context of a view with these settings."""
        return ClientContext(self.channel.view(settings), self)

    @property
    def user_app_id(self) -> v2.UserAppIDSet:
        """The default user and app."""
        return v2.UserAppIDSet(user_id=self.settings.user_id, app_id=self.settings.app_id)

    def unary(self, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        """The multicallable of a method.

        Args:
            method: Its name.
            encoded: For requests that are serialized already.
        """
        if not encoded:
            return getattr(self.stub, method)  # type: ignore[no-any-return]
        multicallable = self._encoded.get(method)
        if multicallable is None:
            row = lookup(method)
            multicallable = self._encoded[method] = row.factory(self.channel)(
                row.path, response_deserializer=row.response_class().FromString
            )
        return multicallable

    def pause(self, seconds: float) -> Any:
        """Wait between calls; to be awaited where the channel's calls are.

        Raises:
            ClosedError: The client was closed meanwhile.
        """
        return self.channel.pause(seconds)

    def close_with(self, part: Any) -> None:
        """Have ``part.close()`` called when the client, or its view, is closed."""
        self.parts.add(part)
        if self._origin is not None:
            self._origin.close_with(part)

    def raises_on_partial(self, wanted: bool | None) -> bool:
        """Whether a partial failure is raised, where a call says ``wanted``."""
        return self.settings.raise_on_partial if wanted is None else wanted
