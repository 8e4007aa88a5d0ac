"""Models: tags, searches, types, publication, what a version gives out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine import patching
from clarigrpc.local.engine.context import Context, ServiceError, make_status, page_bounds
from clarigrpc.local.engine.input_processing import INPUT_KIND
from clarigrpc.local.engine.resource_operations import Place, relevance
from clarigrpc.local.handlers.resource_hooks import RESOURCES
from clarigrpc.local.models.model_types import MODEL_TYPES
from clarigrpc.local.store.resource_store import Collection

_Code = v2.StatusCode

_LICENSES = (
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MPL-2.0",
    "LGPL-3.0",
    "GPL-3.0",
    "AGPL-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "Unlicense",
)


def get_model_output_info(context: Context, request: v2.GetModelRequest) -> v2.SingleModelResponse:
    entry = context.model(context.scope(request.user_app_id), request.model_id)
    version = entry.version(request.version_id)
    model = entry.described(version)
    if version is not None:
        # At the model too, where this method has always had it.
        model.output_info.CopyFrom(version.output_info)
    return v2.SingleModelResponse(status=make_status(_Code.SUCCESS), model=model)


def search_models(context: Context, request: v2.PostModelsSearchesRequest) -> v2.MultiModelResponse:
    scope = context.scope(request.user_app_id)
    offset, limit = page_bounds(request.pagination.page, request.pagination.per_page)
    query = request.model_query
    found = [
        entry.described(entry.version(""))
        for entry in context.models(scope)
        if query.model_type_id in ("", entry.model.model_type_id)
        and (
            not query.name
            or query.name.strip("*").lower() in f"{entry.model.id} {entry.model.name}".lower()
            or relevance(entry.model, query.name)
        )
    ]
    return v2.MultiModelResponse(
        status=make_status(_Code.SUCCESS), models=found[offset : offset + limit]
    )


def _patch_tags(field: str, request_field: str) -> Callable[[Context, Any], Message]:
    def patch_tags(context: Context, request: Any) -> Message:
        resource = RESOURCES["model"]
        place = Place(context.writable(request.user_app_id))
        patching.check_action(request.action, _Code.MODEL_INVALID_REQUEST)
        change = v2.Model(id=request.model_id)
        getattr(change, field).extend(getattr(request, request_field))
        changed = resource.change(context, place, change, request.action)
        response: Any = _RESPONSES[field](status=make_status(_Code.SUCCESS))
        getattr(response, request_field).extend(getattr(changed, field))
        return response  # type: ignore[no-any-return]

    return patch_tags


_RESPONSES: dict[str, Any] = {
    "toolkits": v2.MultiModelToolkitResponse,
    "use_cases": v2.MultiModelUseCaseResponse,
    "languages": v2.MultiModelLanguageResponse,
    "check_consents": v2.MultiModelCheckConsentResponse,
}


def list_model_types(
    context: Context, request: v2.ListModelTypesRequest
) -> v2.MultiModelTypeResponse:
    offset, limit = page_bounds(request.page, request.per_page)
    return v2.MultiModelTypeResponse(
        status=make_status(_Code.SUCCESS), model_types=MODEL_TYPES[offset : offset + limit]
    )


def get_model_type(context: Context, request: v2.GetModelTypeRequest) -> v2.SingleModelTypeResponse:
    for kind in MODEL_TYPES:
        if kind.id == request.model_type_id:
            return v2.SingleModelTypeResponse(status=make_status(_Code.SUCCESS), model_type=kind)
    raise ServiceError(
        _Code.MODEL_INVALID_ARGUMENT,
        f"this server has no model type {request.model_type_id!r}; ListModelTypes lists them",
    )


def list_licenses(
    context: Context, request: v2.ListOpenSourceLicensesRequest
) -> v2.ListOpenSourceLicensesResponse:
    return v2.ListOpenSourceLicensesResponse(status=make_status(_Code.SUCCESS), licenses=_LICENSES)


def _publish(kind: str, gettable: v2.Visibility.Gettable.ValueType) -> Callable[..., Message]:
    def publish(context: Context, request: Any) -> v2.BaseResponse:
        resource = RESOURCES[f"{kind}_version"]
        place = resource.place(context, request, write=True)
        if not request.publications:
            raise ServiceError(resource.kind.invalid, "the request names no versions")
        with context.state.store.transaction():
            for wanted in request.publications:
                change = resource.cls(id=wanted.version_id)
                change.visibility.gettable = gettable
                resource.change(context, place, change, "overwrite")
        return v2.BaseResponse(status=make_status(_Code.SUCCESS))

    return publish


def list_model_inputs(
    context: Context, request: v2.ListModelInputsRequest
) -> v2.MultiInputResponse:
    """Inputs that carry a concept which the version knows."""
    scope = context.scope(request.user_app_id)
    entry = context.model(scope, request.model_id)
    version = entry.version(request.version_id)
    offset, limit = page_bounds(request.page, request.per_page)
    known = {c.id for c in version.output_info.data.concepts} if version is not None else set()
    response = v2.MultiInputResponse(status=make_status(_Code.SUCCESS))
    for row in context.state.store.walk(Collection(INPUT_KIND, scope.user_id, scope.app_id)):
        item = v2.Input.FromString(row.body)
        if any(concept.id in known for concept in item.data.concepts):
            if offset:
                offset -= 1
            elif len(response.inputs) < limit:
                response.inputs.append(item)
            else:
                break
    return response


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "GetModelOutputInfo": get_model_output_info,
    "PostModelsSearches": search_models,
    "PatchModelToolkits": _patch_tags("toolkits", "toolkits"),
    "PatchModelUseCases": _patch_tags("use_cases", "usecases"),
    "PatchModelLanguages": _patch_tags("languages", "languages"),
    "PatchModelCheckConsents": _patch_tags("check_consents", "check_consents"),
    "ListModelTypes": list_model_types,
    "GetModelType": get_model_type,
    "ListOpenSourceLicenses": list_licenses,
    "ListModelInputs": list_model_inputs,
    "PostModelVersionsPublish": _publish("model", v2.Visibility.PUBLIC),
    "PostModelVersionsUnPublish": _publish("model", v2.Visibility.PRIVATE),
    "PostWorkflowVersionsPublish": _publish("workflow", v2.Visibility.PUBLIC),
    "PostWorkflowVersionsUnPublish": _publish("workflow", v2.Visibility.PRIVATE),
}
