"""PostNodepoolStatus: what the agent of a cluster reports of a nodepool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.service_errors import make_status
from clarigrpc.v2 import StatusCode


def post_nodepool_status(
    context: Context, request: v2.PostNodepoolStatusRequest
) -> v2.BaseResponse:
    """What the agent of a cluster says of a nodepool."""
    resource = RESOURCES["nodepool"]
    place = resource.place(context, request, write=True)
    pool = resource.find(context, place, request.nodepool_id)
    pool.status, pool.status_description = request.status, request.status_description
    resource.save(context, place, pool)
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostNodepoolStatus": post_nodepool_status,
}
