"""Searches over the inputs and the annotations of an app, run at once or saved."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine import hosted_media
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.request_checks import page_bounds
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.search_ranking import annotations_found, inputs_found
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode


def _one(request: Any) -> v2.Search:
    if len(request.searches) != 1:
        raise ServiceError(
            StatusCode.SEARCH_INVALID_REQUEST,
            f"the request has {len(request.searches)} searches; it must have one",
        )
    search = v2.Search()
    search.CopyFrom(request.searches[0])
    return search


def _keep(context: Context, app: UserApp, search: v2.Search) -> str:
    """Saves a search that wants it; returns its id."""
    if not search.save:
        return search.id or new_id()
    with context.state.store.transaction():
        saved = context.state.accounts.resolve(
            context.caller,
            context.call.method,
            v2.UserAppIDSet(user_id=app.user_id, app_id=app.app_id),
            write=True,
        )
        made = RESOURCES["search"].add(context, Place(saved), search)
    return str(made.id)


def post_inputs_searches(
    context: Context, request: v2.PostInputsSearchesRequest
) -> v2.MultiSearchResponse:
    app = context.readable(request.user_app_id)
    search = _one(request)
    return _run_inputs(context, app, search, request.pagination, only_count=request.only_count)


def post_searches(context: Context, request: v2.PostSearchesRequest) -> v2.MultiSearchResponse:
    app = context.readable(request.user_app_id)
    if request.HasField("query") and not request.searches:
        search = v2.Search(query=request.query)
    else:
        search = _one(request)
    return _run_inputs(context, app, search, request.pagination)


def post_searches_by_id(
    context: Context, request: v2.PostSearchesByIDRequest
) -> v2.MultiSearchResponse:
    app = context.readable(request.user_app_id)
    search = RESOURCES["search"].find(context, Place(app), request.id)
    search.save = False
    return _run_inputs(context, app, search, request.pagination)


def _run_inputs(
    context: Context,
    app: UserApp,
    search: v2.Search,
    pagination: v2.Pagination,
    *,
    only_count: bool = False,
) -> v2.MultiSearchResponse:
    offset, limit = page_bounds(pagination.page, pagination.per_page)
    found = inputs_found(context.state, app, search)
    response = v2.MultiSearchResponse(
        status=make_status(StatusCode.SUCCESS), id=_keep(context, app, search), query=search.query
    )
    if only_count:
        response.hit_counts.add(estimated_total=sum(1 for _ in found))
        return response
    for score, item in islice(found, offset, offset + limit):
        shown = hosted_media.show(item, app, context.state.downloads.base)
        response.hits.add(score=score, input=shown, user_id=app.user_id, app_id=app.app_id)
    return response


def post_annotations_searches(
    context: Context, request: v2.PostAnnotationsSearchesRequest
) -> v2.MultiSearchResponse:
    app = context.readable(request.user_app_id)
    search = _one(request)
    offset, limit = page_bounds(request.pagination.page, request.pagination.per_page)
    found = annotations_found(context.state, app, search)
    response = v2.MultiSearchResponse(
        status=make_status(StatusCode.SUCCESS), id=_keep(context, app, search), query=search.query
    )
    for score, (item, annotation) in islice(found, offset, offset + limit):
        response.hits.add(
            score=score,
            input=hosted_media.show(item, app, context.state.downloads.base),
            annotation=annotation,
            user_id=app.user_id,
            app_id=app.app_id,
        )
    return response


def _patch_searches(context: Context, request: Any) -> Message:
    return RESOURCES["search"].patch(context, request)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostInputsSearches": post_inputs_searches,
    "PostAnnotationsSearches": post_annotations_searches,
    "PostSearches": post_searches,
    "PostSearchesByID": post_searches_by_id,
    "PatchInputsSearches": _patch_searches,
    "PatchAnnotationsSearches": _patch_searches,
}
