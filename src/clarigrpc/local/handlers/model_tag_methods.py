"""Tags of models: toolkits, use cases, languages, consents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine import patching
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.service_errors import make_status
from clarigrpc.v2 import StatusCode


def _patch_tags(field: str, request_field: str) -> Callable[[Context, Any], Message]:
    def patch_tags(context: Context, request: Any) -> Message:
        resource = RESOURCES["model"]
        place = Place(context.writable(request.user_app_id))
        patching.check_action(request.action, StatusCode.MODEL_INVALID_REQUEST)
        change = v2.Model(id=request.model_id)
        getattr(change, field).extend(getattr(request, request_field))
        changed = resource.change(context, place, change, request.action)
        response: Any = _RESPONSES[field](status=make_status(StatusCode.SUCCESS))
        getattr(response, request_field).extend(getattr(changed, field))
        return response  # type: ignore[no-any-return]

    return patch_tags


_RESPONSES: dict[str, Any] = {
    "toolkits": v2.MultiModelToolkitResponse,
    "use_cases": v2.MultiModelUseCaseResponse,
    "languages": v2.MultiModelLanguageResponse,
    "check_consents": v2.MultiModelCheckConsentResponse,
}


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PatchModelToolkits": _patch_tags("toolkits", "toolkits"),
    "PatchModelUseCases": _patch_tags("use_cases", "usecases"),
    "PatchModelLanguages": _patch_tags("languages", "languages"),
    "PatchModelCheckConsents": _patch_tags("check_consents", "check_consents"),
}
