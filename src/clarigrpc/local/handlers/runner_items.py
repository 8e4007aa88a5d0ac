"""The methods by which a runner fetches its work and hands back what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.runner_queues import RunnerKey, RunnerQueues, WorkerCall
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_WAIT_SECONDS = 0.5
"""How long one look for work waits, so that a runner that asks again and again need not spin."""

_CUT_SECONDS = 0.1
"""How long a stream of messages that has ended may still turn out to be broken.

grpcio's server reports that there are no more messages before it reports a cancellation.
"""

CONTROL_PREFIX = "control-"
"""Before the id of a runner: the call takes cancellations, and no work."""


def _runner(context: Context, request: Any, runner_id: str = "") -> RunnerKey:
    """Who the runner is; it must be the caller's, and where the request says."""
    user_id = context.user(request.user_app_id)
    resource = RESOURCES["runner"]
    runner_id = runner_id or request.runner_id
    runner = resource.find(context, Place(UserApp(user_id, "")), runner_id)
    pool = runner.nodepool
    if pool.id and (
        request.nodepool_id not in ("", pool.id)
        or request.compute_cluster_id not in ("", pool.compute_cluster.id)
    ):
        raise ServiceError(
            StatusCode.RUNNER_INVALID_ARGUMENT,
            f"runner {runner_id!r} is in nodepool {pool.id!r} of cluster "
            f"{pool.compute_cluster.id!r}",
        )
    return user_id, runner_id


def list_runner_items(
    context: Context, request: v2.ListRunnerItemsRequest
) -> v2.MultiRunnerItemResponse:
    items = context.state.runners.take(_runner(context, request), _WAIT_SECONDS, MAX_ITEMS)
    return v2.MultiRunnerItemResponse(status=make_status(StatusCode.SUCCESS), runner_items=items)


def post_runner_item_outputs(
    context: Context, request: v2.PostRunnerItemOutputsRequest
) -> v2.MultiRunnerItemOutputResponse:
    if not context.state.runners.answer(_runner(context, request), request):
        raise ServiceError(
            StatusCode.RUNNER_ITEM_CANCELLED,
            f"item {request.runner_item_id!r} is no longer waited for",
        )
    return v2.MultiRunnerItemOutputResponse(
        status=make_status(StatusCode.SUCCESS), runner_item_outputs=request.runner_item_outputs
    )


def process_runner_items(
    context: Context, requests: Iterator[v2.PostRunnerItemOutputsRequest]
) -> Iterator[v2.MultiRunnerItemResponse]:
    """The first message says which runner calls, and how it wants to be served.

    With RUNNER_STREAM_START it waits until there is work; without, each message has a response.
    """
    first = next(requests, None)
    if first is None:
        return
    if first.status.code == StatusCode.RUNNER_STREAM_START and not first.runner_item_id:
        yield from _served(context, first, requests)
    else:
        yield from _in_step(context, _runner(context, first), chain([first], requests))


def _in_step(
    context: Context, runner: RunnerKey, requests: Iterator[v2.PostRunnerItemOutputsRequest]
) -> Iterator[v2.MultiRunnerItemResponse]:
    """A message without outputs is answered by work, or by none where there is none for a moment.

    A message with outputs is answered by none. When the worker has no more messages, the streams of
    outputs that it sent here are complete.
    """
    queues = context.state.runners
    answered: set[str] = set()
    for request in requests:
        items: list[v2.RunnerItem] = []
        if request.runner_item_id:
            # That nobody waits any more is no failure of the runner's.
            if queues.answer(runner, request):
                answered.add(request.runner_item_id)
            else:
                answered.discard(request.runner_item_id)
        else:
            items = queues.take(runner, _WAIT_SECONDS, MAX_ITEMS)
        yield v2.MultiRunnerItemResponse(status=make_status(StatusCode.SUCCESS), runner_items=items)
    if answered and not _ended_in_order(context):
        return
    for item_id in answered:
        end = v2.PostRunnerItemOutputsRequest(runner_item_id=item_id)
        end.status.CopyFrom(make_status(StatusCode.RUNNER_STREAM_END))
        queues.answer(runner, end)


def _served(
    context: Context,
    first: v2.PostRunnerItemOutputsRequest,
    requests: Iterator[v2.PostRunnerItemOutputsRequest],
) -> Iterator[v2.MultiRunnerItemResponse]:
    """Sends work when there is some, and what is to be said about it, while the worker answers."""
    is_control = first.runner_id.startswith(CONTROL_PREFIX)
    runner_id = first.runner_id.removeprefix(CONTROL_PREFIX) if is_control else first.runner_id
    runner = _runner(context, first, runner_id)
    queues = context.state.runners
    call = queues.open_call(runner, first.runner_replica_id, is_control=is_control)
    try:
        if not is_control:
            queues.settle(call)
            queues.ask(call)
        threading.Thread(
            target=_read,
            args=(queues, call, first.runner_id, requests),
            name="clarigrpc-local-runner-outputs",
            daemon=True,
        ).start()
        while context.call.is_active() and not queues.is_done(call):
            response = queues.next_response(call)
            if response is not None:
                yield response
            elif queues.is_ending(call):
                # Only once something more is sent is it certain whether the messages have ended,
                # or the call is broken: grpcio reports in turn, and reports both ends alike.
                yield v2.MultiRunnerItemResponse(status=make_status(StatusCode.SUCCESS))
                if context.call.is_active():
                    queues.end_messages(call)
    finally:
        queues.close_call(call)


def _read(
    queues: RunnerQueues,
    call: WorkerCall,
    runner_id: str,
    requests: Iterator[v2.PostRunnerItemOutputsRequest],
) -> None:
    """Takes the messages of a worker's call until its last one."""
    try:
        for request in requests:
            if request.runner_id not in ("", runner_id):
                queues.refuse_messages(call, _not_its_call(runner_id, request))
                return
            if request.runner_item_id:
                # That nobody waits any more is no failure of the worker's.
                if not queues.answer(call.runner, request, call):
                    queues.refuse_outputs(call, request)
            elif not call.is_control:
                queues.ask(call)
    except ServiceError as error:
        queues.refuse_messages(call, error)
    except Exception:  # noqa: BLE001 (however it comes that there are no more messages)
        queues.break_call(call)
    else:
        queues.await_end(call)


def _ended_in_order(context: Context) -> bool:
    """Whether the messages of a call have ended because there are no more."""
    end = time.monotonic() + _CUT_SECONDS
    while context.call.is_active():
        if time.monotonic() >= end:
            return True
        time.sleep(_CUT_SECONDS / 10)
    return False


def _not_its_call(runner_id: str, request: v2.PostRunnerItemOutputsRequest) -> ServiceError:
    return ServiceError(
        StatusCode.RUNNER_INVALID_ARGUMENT,
        f"the call is of runner {runner_id!r}, not of {request.runner_id!r}",
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "ListRunnerItems": list_runner_items,
    "PostRunnerItemOutputs": post_runner_item_outputs,
}
DUPLEX: dict[str, Callable[[Context, Any], Iterator[Message]]] = {
    "ProcessRunnerItems": process_runner_items
}
