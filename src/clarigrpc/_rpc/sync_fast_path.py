"""Sync calls with one request and one response, straight on gRPC's core.

For each such call grpcio's own multicallable makes a state with a condition, flags and an object
that others could watch, and nobody does. ``direct`` runs the same operations without them, which
takes a tenth off the client's CPU. For calls with further options, and wherever grpcio's internals
are not as expected, there is the multicallable (see ``grpcio_internals``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import grpc

from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._rpc import grpcio_internals

DirectCall: TypeAlias = Callable[
    [bytes, float, Sequence[tuple[str, str | bytes]]], tuple[bytes | None, Any]
]
"""(request, timeout, metadata) -> the response, and what has its ``trailing_metadata()``."""

DirectStart: TypeAlias = Callable[
    [
        bytes,
        float,
        Sequence[tuple[str, str | bytes]],
        Callable[[bytes | None, Any, grpc.RpcError | None], object],
    ],
    Callable[[], object] | None,
]
"""(request, timeout, metadata, ended) -> what cancels the call, None where none was started.

``ended`` is called on a thread of gRPC when the call has ended, and must not raise: with the
response, what has its ``trailing_metadata()``, and the error of a call that failed."""


class DirectCalls(NamedTuple):
    """Two ways to call a method.

    Attributes:
        call: Waits for the response.
        start: Does not.
    """

    call: DirectCall
    start: DirectStart


USER = "sync fast path"

PRIVATE_NAMES: grpcio_internals.Names = {
    "grpc._channel": (
        "_UnaryUnaryMultiCallable",
        "_UNARY_UNARY_INITIAL_DUE",
        "_RPCState",
        "_InactiveRpcError",
        "_handle_event",
    ),
    "grpc._cython.cygrpc": (
        "PropagationConstants.GRPC_PROPAGATE_DEFAULTS",
        "SendInitialMetadataOperation",
        "SendMessageOperation",
        "SendCloseFromClientOperation",
        "ReceiveInitialMetadataOperation",
        "ReceiveMessageOperation",
        "ReceiveMessageOperation.message",
        "ReceiveStatusOnClientOperation",
        "ReceiveStatusOnClientOperation.code",
        "ReceiveStatusOnClientOperation.trailing_metadata",
        "SegregatedCall.next_event",
        "SegregatedCall.cancel",
        "IntegratedCall.cancel",
        "StatusCode.cancelled",
        "BatchOperationEvent.batch_operations",
        "get_deadline_from_context",
    ),
}
_OF_METHOD = ("_method", "_context", "_registered_call_handle")
PRIVATE_ATTRIBUTES = ("_channel.segregated_call", "_managed_call", *_OF_METHOD)
"""Of a multicallable."""


class _Event:
    """An event of gRPC's core, for trying out."""

    def __init__(self, operations: Sequence[Any]) -> None:
        self.batch_operations = operations


def _error(core: dict[str, Any], event: Any, method: bytes) -> grpc.RpcError:
    """The error that the multicallable would raise after this event."""
    state = core["_RPCState"](core["_UNARY_UNARY_INITIAL_DUE"], None, None, None, None)
    state.rpc_start_time = 0.0
    state.method, state.target = method.decode(), ""
    core["_handle_event"](event, state, None)
    error: grpc.RpcError = core["_InactiveRpcError"](state)
    return error


def _try_out(core: dict[str, Any]) -> None:
    """Do what can be done without a call; raises when something is not as expected."""
    core["SendInitialMetadataOperation"]((), 0)
    core["SendMessageOperation"](b"", 0)
    core["SendCloseFromClientOperation"](0)
    deadline = core["get_deadline_from_context"]()
    if not isinstance(deadline, float | int | None):
        raise TypeError(f"the deadline of a server's call is {deadline!r}")
    received = (
        core["ReceiveInitialMetadataOperation"](0),
        core["ReceiveMessageOperation"](0),
        core["ReceiveStatusOnClientOperation"](0),
    )
    error: Any = _error(core, _Event(received), b"/service/method")
    if not (isinstance(error, grpc.RpcError) and isinstance(error.code(), grpc.StatusCode)):
        raise TypeError(f"the error of a failed call is {error!r}")


_INTERNALS = grpcio_internals.load(PRIVATE_NAMES)


@cache
def _core() -> dict[str, Any] | None:
    return tried_out(_INTERNALS)


def tried_out(internals: grpcio_internals.Internals) -> dict[str, Any] | None:
    """The objects of ``PRIVATE_NAMES``; None where they are not as expected."""
    return grpcio_internals.tried_out(USER, internals, _try_out)


def direct(multicallable: Any) -> DirectCalls | None:
    """Functions that call what a multicallable of grpcio calls; None: take the multicallable.

    The response is None if the server ended well and sent none. The errors are those of the
    multicallable.
    """
    parts = grpcio_internals.parts_of(
        USER, multicallable, _core, "_UnaryUnaryMultiCallable", PRIVATE_ATTRIBUTES
    )
    if parts is None:
        return None
    core, (start, start_managed, method, context, handle) = parts
    propagate = core["PropagationConstants.GRPC_PROPAGATE_DEFAULTS"]
    send_metadata = core["SendInitialMetadataOperation"]
    send_message = core["SendMessageOperation"]
    send_close = core["SendCloseFromClientOperation"]
    receive_metadata = core["ReceiveInitialMetadataOperation"]
    receive_message = core["ReceiveMessageOperation"]
    receive_status = core["ReceiveStatusOnClientOperation"]
    of_server = core["get_deadline_from_context"]
    cancelled = core["StatusCode.cancelled"]

    def operations_of(request: bytes, metadata: Sequence[tuple[str, str | bytes]]) -> Any:
        return (
            send_metadata(metadata, 0),
            send_message(request, 0),
            send_close(0),
            receive_metadata(0),
            receive_message(0),
            receive_status(0),
        )

    def call(
        request: bytes, timeout: float, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bytes | None, Any]:
        deadline = grpcio_internals.deadline_of(timeout, of_server())
        operations = operations_of(request, metadata)
        with HeldInterrupt() as held:
            try:
                started = start(
                    propagate,
                    method,
                    None,
                    deadline,
                    None,
                    None,
                    ((operations, None),),
                    context,
                    handle,
                )
            except (AttributeError, TypeError) as error:  # nothing has been sent
                grpcio_internals.log_public_way(USER, str(error))
                event = None
            else:
                held.cancel_with(partial(started.cancel, cancelled, "interrupted"))
                event = started.next_event()
        if event is None:
            return multicallable.with_call(request, timeout, metadata)  # type: ignore[no-any-return]
        _, _, _, _, message, status = event.batch_operations
        if status.code():
            raise _error(core, event, method)
        return message.message(), status

    def start_only(
        request: bytes,
        timeout: float,
        metadata: Sequence[tuple[str, str | bytes]],
        ended: Callable[[bytes | None, Any, grpc.RpcError | None], object],
    ) -> Callable[[], object] | None:
        deadline = grpcio_internals.deadline_of(timeout, of_server())
        operations = operations_of(request, metadata)

        def handle_event(event: Any) -> bool:
            # Taken out here: the event refers to this function, and would live as long as it.
            _, _, _, _, message, status = event.batch_operations
            if status.code():
                ended(None, status, _error(core, event, method))
            else:
                ended(message.message(), status, None)
            return True  # nothing more comes

        try:
            with HeldInterrupt():
                started = start_managed(
                    propagate,
                    method,
                    None,
                    deadline,
                    None,
                    None,
                    (operations,),
                    handle_event,
                    context,
                    handle,
                )
        except (AttributeError, TypeError) as error:  # nothing has been sent
            grpcio_internals.log_public_way(USER, str(error))
            return None
        return partial(started.cancel, cancelled, "cancelled")

    return DirectCalls(call, start_only)
