"""Models and their versions: get, list, create."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.catalog import Entry, models_in
from clarigrpc.local.core import (
    Context,
    ServiceError,
    make_status,
    page_bounds,
    refuse_other_fields,
)
from clarigrpc.local.store import DuplicateIdError

_Code = v2.StatusCode


def get_model(context: Context, request: v2.GetModelRequest) -> v2.SingleModelResponse:
    entry = context.state.catalog.find(context.scope(request.user_app_id), request.model_id)
    version = entry.version(request.version_id)
    return v2.SingleModelResponse(status=make_status(_Code.SUCCESS), model=entry.described(version))


_SORT_KEYS: dict[str, Callable[[Entry], object]] = {
    "sort_by_name": lambda entry: entry.model.id,
    "sort_by_created_at": lambda entry: entry.model.created_at.ToNanoseconds(),
    "sort_by_modified_at": lambda entry: entry.model.modified_at.ToNanoseconds(),
}


def list_models(context: Context, request: v2.ListModelsRequest) -> v2.MultiModelResponse:
    refuse_other_fields(
        request,
        (
            "user_app_id",
            "page",
            "per_page",
            "additional_fields",
            "dont_fetch_from_main",
            "sort_ascending",
            *_SORT_KEYS,
            "model_type_id",
            "trained_only",
            "search",
            "model_version_ids",
        ),
    )
    scope = context.scope(request.user_app_id, all_apps=True)
    offset, limit = page_bounds(request.page, request.per_page)
    entries = [
        entry
        for entry in context.state.catalog.all(scope, context.apps_of(scope.user_id))
        if _matches(entry, request)
    ]
    key = _SORT_KEYS[request.WhichOneof("sort_by") or "sort_by_modified_at"]
    entries.sort(key=key, reverse=not request.sort_ascending)  # type: ignore[arg-type]
    response = v2.MultiModelResponse(status=make_status(_Code.SUCCESS))
    for entry in entries[offset : offset + limit]:
        response.models.append(entry.described(entry.version("")))
    return response


def _matches(entry: Entry, request: v2.ListModelsRequest) -> bool:
    model = entry.model
    if request.model_type_id and model.model_type_id != request.model_type_id:
        return False
    newest = entry.version("")
    if request.trained_only and (newest is None or newest.status.code != _Code.MODEL_TRAINED):
        return False
    wanted = set(request.model_version_ids)
    if wanted and not wanted & {version.id for version in entry.versions}:
        return False
    text = " ".join((model.id, model.name, model.description, model.notes)).lower()
    return all(word in text for word in request.search.lower().split())


def post_models(context: Context, request: v2.PostModelsRequest) -> v2.SingleModelResponse:
    scope = context.writable(request.user_app_id)
    given = list(request.models) or ([request.model] if request.HasField("model") else [])
    if len(given) != 1:
        raise ServiceError(
            _Code.MODEL_INVALID_REQUEST, f"{len(given)} models; send one, in `models`"
        )
    model = v2.Model()
    model.CopyFrom(given[0])
    if not model.id:
        raise ServiceError(_Code.MODEL_INVALID_ARGUMENT, "the model needs an id")
    if model.HasField("model_version") or model.HasField("output_info"):
        raise ServiceError(
            _Code.MODEL_INVALID_ARGUMENT,
            "PostModels creates no version: give output_info and the like to PostModelVersions",
        )
    model.user_id, model.app_id = scope.user_id, scope.app_id
    if not model.visibility.gettable:
        model.visibility.gettable = v2.Visibility.PRIVATE
    model.created_at.GetCurrentTime()
    model.modified_at.CopyFrom(model.created_at)
    taken = context.state.catalog.is_builtin(scope, model.id)
    if not taken:
        try:
            context.state.store.insert(models_in(scope), model.id, model.SerializeToString())
        except DuplicateIdError:
            taken = True
    if taken:
        raise ServiceError(_Code.DATABASE_DUPLICATE_KEY, f"there is a model {model.id!r} already")
    return v2.SingleModelResponse(status=make_status(_Code.SUCCESS), model=model)


def get_model_version(
    context: Context, request: v2.GetModelVersionRequest
) -> v2.SingleModelVersionResponse:
    entry = context.state.catalog.find(context.scope(request.user_app_id), request.model_id)
    if not request.version_id:
        raise ServiceError(_Code.MODEL_INVALID_REQUEST, "version_id is empty")
    return v2.SingleModelVersionResponse(
        status=make_status(_Code.SUCCESS), model_version=entry.version(request.version_id)
    )


_VERSION_SORT_KEYS: dict[str, Callable[[v2.ModelVersion], object]] = {
    "sort_by_status_code": lambda version: version.status.code,
    "sort_by_description": lambda version: version.description,
    "sort_by_created_at": lambda version: version.created_at.ToNanoseconds(),
    "sort_by_num_inputs": lambda version: version.total_input_count,
}


def list_model_versions(
    context: Context, request: v2.ListModelVersionsRequest
) -> v2.MultiModelVersionResponse:
    refuse_other_fields(
        request,
        (
            "user_app_id",
            "model_id",
            "page",
            "per_page",
            "trained_only",
            "sort_ascending",
            *_VERSION_SORT_KEYS,
        ),
    )
    entry = context.state.catalog.find(context.scope(request.user_app_id), request.model_id)
    offset, limit = page_bounds(request.page, request.per_page)
    versions = [
        version
        for version in entry.versions
        if not request.trained_only or version.status.code == _Code.MODEL_TRAINED
    ]
    key = _VERSION_SORT_KEYS[request.WhichOneof("sort_by") or "sort_by_created_at"]
    versions.sort(key=key, reverse=not request.sort_ascending)  # type: ignore[arg-type]
    return v2.MultiModelVersionResponse(
        status=make_status(_Code.SUCCESS), model_versions=versions[offset : offset + limit]
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "GetModel": get_model,
    "ListModels": list_models,
    "PostModels": post_models,
    "GetModelVersion": get_model_version,
    "ListModelVersions": list_model_versions,
}
