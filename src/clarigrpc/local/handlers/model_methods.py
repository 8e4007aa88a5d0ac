"""Models and their versions: get, list, search, create; their inputs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine import hosted_media
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.model_catalog import CatalogEntry, models_in
from clarigrpc.local.engine.remote_models import replica_count
from clarigrpc.local.engine.request_checks import page_bounds, refuse_other_fields
from clarigrpc.local.engine.resource_handlers import WORD, relevance
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.models.model_types import LISTED_MODEL_TYPES
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import DuplicateIdError, StoredCollection
from clarigrpc.local.user_app import PUBLIC_APP
from clarigrpc.v2 import StatusCode


def _entry(context: Context, request: Any) -> CatalogEntry:
    """The model that a request means."""
    return context.model(context.readable(request.user_app_id), request.model_id)


def get_model(context: Context, request: v2.GetModelRequest) -> v2.SingleModelResponse:
    entry = _entry(context, request)
    version = entry.version(request.version_id)
    response = v2.SingleModelResponse(
        status=make_status(StatusCode.SUCCESS), model=entry.described(version)
    )
    response.model.replica_count = replica_count(
        context, response.model if request.version_id else entry.model
    )
    return response


def _input_count(entry: CatalogEntry) -> int:
    newest = entry.version("")
    return newest.total_input_count if newest is not None else 0


_MODEL_SORT_KEYS: dict[str, Callable[[CatalogEntry, v2.ListModelsRequest], Any]] = {
    "sort_by_name": lambda entry, request: entry.model.id,
    "sort_by_created_at": lambda entry, request: entry.model.created_at.ToNanoseconds(),
    "sort_by_modified_at": lambda entry, request: entry.model.modified_at.ToNanoseconds(),
    "sort_by_num_inputs": lambda entry, request: _input_count(entry),
    "sort_by_star_count": lambda entry, request: entry.model.star_count,
    "sort_by_relevance": lambda entry, request: relevance(entry.model, request.search),
}


def _any_tag(name: str) -> Callable[[CatalogEntry, Any], bool]:
    return lambda entry, wanted: not set(wanted).isdisjoint(getattr(entry.model, name))


def _type_has(name: str) -> Callable[[CatalogEntry, Any], bool]:
    fields = {kind.id: set(getattr(kind, name)) for kind in LISTED_MODEL_TYPES}
    return lambda entry, wanted: set(wanted) <= fields.get(entry.model.model_type_id, set())


def _is_trained(entry: CatalogEntry) -> bool:
    newest = entry.version("")
    return newest is not None and newest.status.code == StatusCode.MODEL_TRAINED


def _is_named(entry: CatalogEntry, pattern: str, *, owner: bool) -> bool:
    texts = [entry.model.id, entry.model.description, *([entry.model.user_id] if owner else [])]
    return any(fnmatch.fnmatch(text.lower(), f"*{pattern.lower()}*") for text in texts)


def _fits_words(entry: CatalogEntry, query: str) -> bool:
    """Whether one of the words occurs, and none of those with a minus before them."""
    model = entry.model
    have = set(WORD.findall(f"{model.id} {model.name} {model.description}".lower()))
    words = query.lower().split()
    wanted = {word for word in words if not word.startswith("-")}
    unwanted = {word[1:] for word in words if word.startswith("-")}
    return have.isdisjoint(unwanted) and not (wanted and have.isdisjoint(wanted))


_FILTERS: dict[str, Callable[[CatalogEntry, Any], bool]] = {
    "model_type_id": lambda entry, wanted: entry.model.model_type_id == wanted,
    "trained_only": lambda entry, wanted: _is_trained(entry),
    "input_fields": _type_has("input_fields"),
    "output_fields": _type_has("output_fields"),
    "license": lambda entry, wanted: any(v.license == wanted for v in entry.versions),
    "license_type": lambda entry, wanted: entry.model.license_type == wanted,
    "featured_only": lambda entry, wanted: False,  # nobody here picks what to feature
    "starred_only": lambda entry, wanted: entry.model.is_starred,
    "toolkits": _any_tag("toolkits"),
    "use_cases": _any_tag("use_cases"),
    "languages": _any_tag("languages"),
    "bookmark": lambda entry, wanted: entry.model.HasField("bookmark_origin"),
    "model_version_ids": lambda entry, wanted: (
        not set(wanted).isdisjoint(version.id for version in entry.versions)
    ),
    "source": lambda entry, wanted: entry.model.source == wanted,
    "creator": lambda entry, wanted: entry.model.creator == wanted,
    "visibility": lambda entry, wanted: entry.model.visibility.gettable == wanted.gettable,
    "search": lambda entry, wanted: relevance(entry.model, wanted) > 0,
    "query": _fits_words,
}


def list_models(context: Context, request: v2.ListModelsRequest) -> v2.MultiModelResponse:
    app = context.readable(request.user_app_id, all_apps=True)
    offset, limit = page_bounds(request.page, request.per_page)
    entries = context.models(app)
    named = request.user_app_id.user_id or request.user_app_id.app_id
    if not named and not request.dont_fetch_from_main and app != PUBLIC_APP:
        # As in the service, whose published gRPC client's tests list models so.
        entries += context.models(PUBLIC_APP)
    for field, value in request.ListFields():
        test = _FILTERS.get(field.name)
        if test is not None:
            entries = [entry for entry in entries if test(entry, value)]
    if request.name:
        owner = request.filter_by_user_id
        entries = [entry for entry in entries if _is_named(entry, request.name, owner=owner)]
    if request.min_replicas:
        least = request.min_replicas
        entries = [e for e in entries if replica_count(context, e.model) >= least]
    key = _MODEL_SORT_KEYS[request.WhichOneof("sort_by") or "sort_by_modified_at"]
    entries.sort(key=lambda entry: key(entry, request), reverse=not request.sort_ascending)
    response = v2.MultiModelResponse(status=make_status(StatusCode.SUCCESS))
    for entry in entries[offset : offset + limit]:
        model = response.models.add()
        model.CopyFrom(entry.described(entry.version("")))
        if request.show_replicas:
            model.replica_count = replica_count(context, entry.model)
    return response


def post_models(context: Context, request: v2.PostModelsRequest) -> v2.SingleModelResponse:
    app = context.writable(request.user_app_id)
    given = list(request.models) or ([request.model] if request.HasField("model") else [])
    if len(given) != 1:
        raise ServiceError(
            StatusCode.MODEL_INVALID_REQUEST,
            f"the request has {len(given)} models; it must have one, in `models`",
        )
    model = v2.Model()
    model.CopyFrom(given[0])
    if not model.id:
        raise ServiceError(StatusCode.MODEL_INVALID_ARGUMENT, "the model needs an id")
    if model.HasField("model_version") or model.HasField("output_info"):
        raise ServiceError(
            StatusCode.MODEL_INVALID_ARGUMENT,
            "PostModels creates no version: send output_info with PostModelVersions",
        )
    # As in the service, whose clients create models to train without naming a type.
    model.model_type_id = model.model_type_id or "embedding-classifier"
    model.user_id, model.app_id = app.user_id, app.app_id
    model.ClearField("replica_count")
    if not model.visibility.gettable:
        model.visibility.gettable = v2.Visibility.PRIVATE
    model.created_at.GetCurrentTime()
    model.modified_at.CopyFrom(model.created_at)
    taken = context.state.catalog.has(app, model.id)
    if not taken:
        try:
            context.state.store.insert(models_in(app), model.id, model.SerializeToString())
        except DuplicateIdError:
            taken = True
    if taken:
        raise ServiceError(StatusCode.DATABASE_DUPLICATE_KEY, f"model {model.id!r} already exists")
    return v2.SingleModelResponse(status=make_status(StatusCode.SUCCESS), model=model)


def get_model_version(
    context: Context, request: v2.GetModelVersionRequest
) -> v2.SingleModelVersionResponse:
    entry = _entry(context, request)
    if not request.version_id:
        raise ServiceError(StatusCode.MODEL_INVALID_REQUEST, "version_id is empty")
    return v2.SingleModelVersionResponse(
        status=make_status(StatusCode.SUCCESS), model_version=entry.version(request.version_id)
    )


_VERSION_SORT_KEYS: dict[str, Callable[[v2.ModelVersion], object]] = {
    "sort_by_status_code": lambda version: version.status.code,
    "sort_by_description": lambda version: version.description,
    "sort_by_created_at": lambda version: version.created_at.ToNanoseconds(),
    "sort_by_num_inputs": lambda version: version.total_input_count,
}


def _replicas(context: Context, entry: CatalogEntry, version: v2.ModelVersion) -> int:
    model = v2.Model(id=entry.model.id, user_id=entry.model.user_id, app_id=entry.model.app_id)
    model.model_version.id = version.id
    return replica_count(context, model)


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
            "concept_ids",
            "min_replicas",
            "sort_ascending",
            *_VERSION_SORT_KEYS,
        ),
    )
    entry = _entry(context, request)
    offset, limit = page_bounds(request.page, request.per_page)
    versions = [
        version
        for version in entry.versions
        if (not request.trained_only or version.status.code == StatusCode.MODEL_TRAINED)
        and {c.id for c in version.output_info.data.concepts} >= set(request.concept_ids)
        and (not request.min_replicas or _replicas(context, entry, version) >= request.min_replicas)
    ]
    key = _VERSION_SORT_KEYS[request.WhichOneof("sort_by") or "sort_by_created_at"]
    versions.sort(key=key, reverse=not request.sort_ascending)  # type: ignore[arg-type]
    return v2.MultiModelVersionResponse(
        status=make_status(StatusCode.SUCCESS), model_versions=versions[offset : offset + limit]
    )


def get_model_output_info(context: Context, request: v2.GetModelRequest) -> v2.SingleModelResponse:
    entry = _entry(context, request)
    version = entry.version(request.version_id)
    model = entry.described(version)
    if version is not None:
        # At the model too, where this method has always had it.
        model.output_info.CopyFrom(version.output_info)
    return v2.SingleModelResponse(status=make_status(StatusCode.SUCCESS), model=model)


def _answers_to(entry: CatalogEntry, wanted: str) -> bool:
    """Whether a model has a name: one of its ids, or its name, in which ``*`` is any text."""
    names = [name.lower() for name in (entry.model.id, entry.model.name, *entry.other_ids)]
    if "*" in wanted:
        return any(fnmatch.fnmatchcase(name, wanted.lower()) for name in names)
    return any(wanted.lower() in name for name in names) or bool(relevance(entry.model, wanted))


def search_models(context: Context, request: v2.PostModelsSearchesRequest) -> v2.MultiModelResponse:
    app = context.readable(request.user_app_id)
    offset, limit = page_bounds(request.pagination.page, request.pagination.per_page)
    query = request.model_query
    found = [
        entry.described(entry.version(""))
        for entry in context.models(app)
        if query.model_type_id in ("", entry.model.model_type_id)
        and (not query.name or _answers_to(entry, query.name))
    ]
    return v2.MultiModelResponse(
        status=make_status(StatusCode.SUCCESS), models=found[offset : offset + limit]
    )


def list_model_inputs(
    context: Context, request: v2.ListModelInputsRequest
) -> v2.MultiInputResponse:
    """Inputs that carry a concept which the version knows."""
    app = context.readable(request.user_app_id)
    entry = context.model(app, request.model_id)
    version = entry.version(request.version_id)
    offset, limit = page_bounds(request.page, request.per_page)
    known = {c.id for c in version.output_info.data.concepts} if version is not None else set()
    response = v2.MultiInputResponse(status=make_status(StatusCode.SUCCESS))
    for row in context.state.store.walk(StoredCollection.of_app(INPUT_KIND, app)):
        item = v2.Input.FromString(row.body)
        if any(concept.id in known for concept in item.data.concepts):
            if offset:
                offset -= 1
            elif len(response.inputs) < limit:
                response.inputs.append(hosted_media.show(item, app, context.state.downloads.base))
            else:
                break
    return response


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "GetModel": get_model,
    "ListModels": list_models,
    "PostModels": post_models,
    "GetModelVersion": get_model_version,
    "ListModelVersions": list_model_versions,
    "GetModelOutputInfo": get_model_output_info,
    "PostModelsSearches": search_models,
    "ListModelInputs": list_model_inputs,
}
