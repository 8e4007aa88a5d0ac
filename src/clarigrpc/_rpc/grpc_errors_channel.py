"""A channel for programs written for grpcio: a failed call raises what grpcio raises.

A response whose V2 status is a failure is returned, for the program to look at. Everything else is
as on the channel below: credentials, deadlines, retries, connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clarigrpc._contract.methods import CallKind
from clarigrpc._rpc.channel_methods import ChannelMethods

Wrap = Callable[[Any], Any]
"""A multicallable of the channel below -> one of this."""


class GrpcErrorsChannel(ChannelMethods):
    """What a generated stub is made over.

    Args:
        channel: The channel below.
        response: For methods with one response.
        stream: For those with a stream of responses.
    """

    def __init__(self, channel: ChannelMethods, response: Wrap, stream: Wrap) -> None:
        self._channel = channel
        self._response = response
        self._stream = stream

    def multicallable(self, kind: CallKind, *how: Any) -> Any:
        wrap = self._stream if kind.endswith("stream") else self._response
        return wrap(self._channel.multicallable(kind, *how))
