"""Publication of the versions of models and workflows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.v2 import StatusCode


def _publish(kind: str, gettable: v2.Visibility.Gettable.ValueType) -> Callable[..., Message]:
    def publish(context: Context, request: Any) -> v2.BaseResponse:
        resource = RESOURCES[f"{kind}_version"]
        place = resource.place(context, request, write=True)
        if not request.publications:
            raise ServiceError(resource.kind.invalid, "the request has no publications")
        with context.state.store.transaction():
            for wanted in request.publications:
                change = resource.cls(id=wanted.version_id)
                change.visibility.gettable = gettable
                resource.change(context, place, change, "overwrite")
        return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))

    return publish


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostModelVersionsPublish": _publish("model", v2.Visibility.PUBLIC),
    "PostModelVersionsUnPublish": _publish("model", v2.Visibility.PRIVATE),
    "PostWorkflowVersionsPublish": _publish("workflow", v2.Visibility.PUBLIC),
    "PostWorkflowVersionsUnPublish": _publish("workflow", v2.Visibility.PRIVATE),
}
