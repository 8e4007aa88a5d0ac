"""Sync calls with one request and one response, straight on gRPC's core.

For each such call grpcio's own multicallable makes a state with a condition, flags and an object
that others could watch, and nobody does. ``direct`` runs the same operations without them, which
takes a tenth off the client's CPU. It needs names that grpcio does not promise: it is used with the
versions that it was tested with, and where nobody instruments grpcio. Otherwise, and for a call
with more options, there is the multicallable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import grpc

DirectCall: TypeAlias = Callable[
    [bytes, float, Sequence[tuple[str, str | bytes]]], tuple[bytes | None, Any]
]
"""(request, timeout, metadata) -> the response, and what has its ``trailing_metadata()``."""

_TESTED = ((1, 76), (1, 85))


def uninstrumented() -> bool:
    """Whether this is a version of grpcio that was tested, and nobody observes its calls."""
    major, minor = (int(part) for part in grpc.__version__.split(".")[:2])
    if not _TESTED[0] <= (major, minor) <= _TESTED[1]:
        return False
    with import_module("grpc._observability").get_plugin() as plugin:
        return plugin is None


def direct(multicallable: Any) -> DirectCall | None:
    """A function that calls what a multicallable of grpcio calls; None: take the multicallable.

    The function returns None for a response if the server ended well and sent none. Its errors
    are those of the multicallable.
    """
    if not uninstrumented():
        return None
    channel: Any = import_module("grpc._channel")
    if type(multicallable) is not channel._UnaryUnaryMultiCallable:
        return None  # REST, several connections, or interceptors
    cygrpc: Any = import_module("grpc._cython.cygrpc")
    propagate = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
    send_metadata = cygrpc.SendInitialMetadataOperation
    send_message = cygrpc.SendMessageOperation
    send_close = cygrpc.SendCloseFromClientOperation
    receive_metadata = cygrpc.ReceiveInitialMetadataOperation
    receive_message = cygrpc.ReceiveMessageOperation
    receive_status = cygrpc.ReceiveStatusOnClientOperation
    deadline_of_server = cygrpc.get_deadline_from_context
    start = multicallable._channel.segregated_call
    method, context = multicallable._method, multicallable._context
    handle = multicallable._registered_call_handle
    clock = time.time

    def failed(event: Any) -> grpc.RpcError:
        state = channel._RPCState(channel._UNARY_UNARY_INITIAL_DUE, None, None, None, None)
        state.rpc_start_time = 0.0
        state.method, state.target = method.decode(), ""
        channel._handle_event(event, state, None)
        error: grpc.RpcError = channel._InactiveRpcError(state)
        return error

    def call(
        request: bytes, timeout: float, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bytes | None, Any]:
        deadline = clock() + timeout
        of_server = deadline_of_server()  # where a handler of a server makes the call
        if of_server is not None and of_server < deadline:
            deadline = of_server
        operations = (
            send_metadata(metadata, 0),
            send_message(request, 0),
            send_close(0),
            receive_metadata(0),
            receive_message(0),
            receive_status(0),
        )
        event = start(
            propagate, method, None, deadline, None, None, ((operations, None),), context, handle
        ).next_event()
        _, _, _, _, message, status = event.batch_operations
        if status.code():
            raise failed(event)
        return message.message(), status

    return call
