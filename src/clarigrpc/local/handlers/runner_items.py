"""The methods by which a runner fetches its work and hands back what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_WAIT_SECONDS = 0.5
"""How long one look for work waits, so that a runner that asks again and again need not spin."""


def _runner(context: Context, request: Any) -> tuple[str, str]:
    """Who the runner is; it must be the caller's."""
    user_id = context.user(request.user_app_id)
    RESOURCES["runner"].find(context, Place(UserApp(user_id, "")), request.runner_id)
    return user_id, request.runner_id


def list_runner_items(
    context: Context, request: v2.ListRunnerItemsRequest
) -> v2.MultiRunnerItemResponse:
    items = context.state.runners.take(_runner(context, request), _WAIT_SECONDS)
    return v2.MultiRunnerItemResponse(status=make_status(StatusCode.SUCCESS), runner_items=items)


def post_runner_item_outputs(
    context: Context, request: v2.PostRunnerItemOutputsRequest
) -> v2.MultiRunnerItemOutputResponse:
    _take_answer(context, _runner(context, request), request)
    return v2.MultiRunnerItemOutputResponse(
        status=make_status(StatusCode.SUCCESS), runner_item_outputs=request.runner_item_outputs
    )


def _take_answer(
    context: Context, runner: tuple[str, str], request: v2.PostRunnerItemOutputsRequest
) -> None:
    if not context.state.runners.answer(runner, request):
        raise ServiceError(
            StatusCode.RUNNER_ITEM_CANCELLED,
            f"item {request.runner_item_id!r} is no longer waited for",
        )


def process_runner_items(
    context: Context, requests: Iterator[v2.PostRunnerItemOutputsRequest]
) -> Iterator[v2.MultiRunnerItemResponse]:
    """The first message says which runner calls; one without outputs is answered by the next work.

    Where there is no work yet the answer has none, and the runner sends another message to ask
    again. A message with outputs is answered by none: the published runner works on one item a
    call, and what it were given then would be lost. When the runner has no more messages, the
    streams of outputs that it sent here are complete: the published runner says it in no other way.
    """
    runner: tuple[str, str] | None = None
    answered: set[str] = set()
    for request in requests:
        runner = runner or _runner(context, request)
        items: list[v2.RunnerItem] = []
        if request.runner_item_id:
            # That nobody waits any more is no failure of the runner's.
            if context.state.runners.answer(runner, request):
                answered.add(request.runner_item_id)
            else:
                answered.discard(request.runner_item_id)
        else:
            items = context.state.runners.take(runner, _WAIT_SECONDS)
        yield v2.MultiRunnerItemResponse(status=make_status(StatusCode.SUCCESS), runner_items=items)
    if runner is not None:
        for item_id in answered:
            end = v2.PostRunnerItemOutputsRequest(runner_item_id=item_id)
            end.status.CopyFrom(make_status(StatusCode.RUNNER_STREAM_END))
            context.state.runners.answer(runner, end)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "ListRunnerItems": list_runner_items,
    "PostRunnerItemOutputs": post_runner_item_outputs,
}
DUPLEX: dict[str, Callable[[Context, Any], Iterator[Message]]] = {
    "ProcessRunnerItems": process_runner_items
}
