"""Searches over the inputs and the annotations of an app, run at once or saved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc.local import matching, media
from clarigrpc.local.core import (
    Context,
    Scope,
    ServiceError,
    State,
    make_status,
    new_id,
    page_bounds,
    refuse_other_fields,
)
from clarigrpc.local.handlers.general import RESOURCES
from clarigrpc.local.jobs import INPUT_KIND
from clarigrpc.local.models.embedder import embed, similarity
from clarigrpc.local.resources import Place
from clarigrpc.local.store import Collection, DuplicateIdError, Store

_Code = v2.StatusCode
_Vector: TypeAlias = NDArray[np.float32]

_SEARCH_FIELDS = (
    "query",
    "id",
    "application_id",
    "name",
    "save",
    "min_value",
    "visibility",
    "created_at",
    "modified_at",
    "metric",
)


def annotations_of(store: Store, scope: Scope, input_id: str) -> Iterator[v2.Annotation]:
    """The annotations of an input, newest first."""
    where = Collection("annotation", scope.user_id, scope.app_id)
    for row in store.page(where, 0, -1, keys=(input_id,)):
        yield v2.Annotation.FromString(row.body)


def inputs_found(state: State, scope: Scope, search: v2.Search) -> Iterator[tuple[float, v2.Input]]:
    """Score and input of everything that a search finds, in no order of scores."""
    store = state.store
    ranking = _Ranking(state, scope, search)
    query = ranking.query
    where = Collection(INPUT_KIND, scope.user_id, scope.app_id)

    # Most inputs have none; looking for each in vain would cost more than the rest.
    annotated = store.keys(where._replace(kind="annotation"))

    def annotations(input_id: str) -> Iterator[v2.Annotation]:
        return annotations_of(store, scope, input_id) if input_id in annotated else iter(())

    wanted = [f.input.id for f in query.filters if f.input.id and not f.negate]
    rows = iter(store.page(where, 0, -1, ids=wanted[:1])) if wanted else store.walk(where)
    for row in rows:
        item = v2.Input.FromString(row.body)
        if not matching.input_matches(item, query, annotations):
            continue
        own = chain([matching.as_annotation(item)], annotations(item.id))
        score = ranking.score(item, own)
        if score is not None and score >= search.min_value:
            yield score, item


def _annotations_found(
    state: State, scope: Scope, search: v2.Search
) -> Iterator[tuple[float, v2.Input, v2.Annotation]]:
    store = state.store
    ranking = _Ranking(state, scope, search)
    query = ranking.query
    inputs = Collection(INPUT_KIND, scope.user_id, scope.app_id)
    where = Collection("annotation", scope.user_id, scope.app_id)
    for row in store.walk(where):
        annotation = v2.Annotation.FromString(row.body)
        above = store.get(inputs, annotation.input_id)
        item = v2.Input.FromString(above.body) if above else v2.Input(id=annotation.input_id)
        if not matching.annotation_matches(item, annotation, query):
            continue
        score = ranking.score(item, [annotation])
        if score is not None and score >= search.min_value:
            yield score, item, annotation


class _Ranking:
    """The ranks of a search, ready to score.

    Concepts rank by their values on an input; an image, a vector or the id of an input ranks by
    how much the images look alike. What cannot be compared is no hit.
    """

    def __init__(self, state: State, scope: Scope, search: v2.Search) -> None:
        refuse_other_fields(search, _SEARCH_FIELDS)
        self.query = matching.simplified(search.query)
        self._state = state
        self._inputs = Collection(INPUT_KIND, scope.user_id, scope.app_id)
        self._euclidean = search.metric == v2.Search.EUCLIDEAN_DISTANCE
        self._ranks = [(rank, self._probe(rank.annotation)) for rank in self.query.ranks]

    def _probe(self, example: v2.Annotation) -> _Vector | None:
        """The vector to compare with; None where concepts rank."""
        data = example.data
        if data.concepts:
            return None
        if data.embeddings:
            return np.asarray(data.embeddings[0].vector, np.float32)
        if data.HasField("image"):
            media.check(data)
            return embed(media.content_of(data, self._state.fetcher))
        row = self._state.store.get(self._inputs, example.input_id)
        if row is None:
            raise ServiceError(
                _Code.SEARCH_INVALID_REQUEST,
                "a rank needs concepts, an image, an embedding or the id of an input",
            )
        vector = self._vector(v2.Input.FromString(row.body))
        if vector is None:
            raise ServiceError(
                _Code.SEARCH_BY_NOT_FULLY_INDEXED_INPUT, f"input {row.id!r} has no image"
            )
        return vector

    def _vector(self, item: v2.Input) -> _Vector | None:
        """The vector of an input's image, made at its first use."""
        store = self._state.store
        where = self._inputs._replace(kind="embedding")
        kept = store.get(where, item.id)
        if kept is not None:
            return np.frombuffer(kept.body, np.float32)
        row = store.get(self._inputs, item.id)
        if (
            row is None
            or item.status.code != _Code.INPUT_SUCCESS
            or not item.data.HasField("image")
        ):
            return None
        content = store.content(row.seq) or media.content_of(item.data, self._state.fetcher)
        vector = embed(content)
        with contextlib.suppress(DuplicateIdError):  # another search was first
            store.insert(where, item.id, vector.tobytes(), key=item.id)
        return vector

    def score(self, item: v2.Input, labels: Iterable[v2.Annotation]) -> float | None:
        """The mean of what the ranks say, 1 without ranks; None where one does not apply."""
        if not self._ranks:
            return 1.0
        scores = []
        found: list[v2.Annotation] = []
        for rank, probe in self._ranks:
            if probe is None:
                wanted = rank.annotation.data.concepts
                found = found or list(labels)  # read only where a rank asks
                score = max(matching.concept_score(one, wanted) for one in found)
            else:
                vector = self._vector(item)
                if vector is None or vector.shape != probe.shape:
                    return None
                score = similarity(vector, probe, euclidean=self._euclidean)
            scores.append(1.0 - score if rank.negate else score)
        return sum(scores) / len(scores)


def _one(request: Any) -> v2.Search:
    if len(request.searches) != 1:
        raise ServiceError(
            _Code.SEARCH_INVALID_REQUEST, f"{len(request.searches)} searches; send one"
        )
    search = v2.Search()
    search.CopyFrom(request.searches[0])
    return search


def _keep(context: Context, scope: Scope, search: v2.Search) -> str:
    """Saves a search that wants it; returns its id."""
    if not search.save:
        return search.id or new_id()
    saved = context.state.accounts.scope(
        context.caller,
        context.call.method,
        v2.UserAppIDSet(user_id=scope.user_id, app_id=scope.app_id),
        write=True,
    )
    made = RESOURCES["search"].add(context, Place(saved), search)
    return str(made.id)


def post_inputs_searches(
    context: Context, request: v2.PostInputsSearchesRequest
) -> v2.MultiSearchResponse:
    scope = context.scope(request.user_app_id)
    search = _one(request)
    return _run_inputs(context, scope, search, request.pagination, only_count=request.only_count)


def post_searches(context: Context, request: v2.PostSearchesRequest) -> v2.MultiSearchResponse:
    scope = context.scope(request.user_app_id)
    if request.HasField("query") and not request.searches:
        search = v2.Search(query=request.query)
    else:
        search = _one(request)
    return _run_inputs(context, scope, search, request.pagination)


def post_searches_by_id(
    context: Context, request: v2.PostSearchesByIDRequest
) -> v2.MultiSearchResponse:
    scope = context.scope(request.user_app_id)
    search = RESOURCES["search"].find(context, Place(scope), request.id)
    search.save = False
    return _run_inputs(context, scope, search, request.pagination)


def _run_inputs(
    context: Context,
    scope: Scope,
    search: v2.Search,
    pagination: v2.Pagination,
    *,
    only_count: bool = False,
) -> v2.MultiSearchResponse:
    offset, limit = page_bounds(pagination.page, pagination.per_page)
    found = list(inputs_found(context.state, scope, search))
    response = v2.MultiSearchResponse(
        status=make_status(_Code.SUCCESS), id=_keep(context, scope, search), query=search.query
    )
    if only_count:
        response.hit_counts.add(estimated_total=len(found))
        return response
    found.sort(key=lambda hit: -hit[0])
    for score, item in found[offset : offset + limit]:
        response.hits.add(score=score, input=item, user_id=scope.user_id, app_id=scope.app_id)
    return response


def post_annotations_searches(
    context: Context, request: v2.PostAnnotationsSearchesRequest
) -> v2.MultiSearchResponse:
    scope = context.scope(request.user_app_id)
    search = _one(request)
    offset, limit = page_bounds(request.pagination.page, request.pagination.per_page)
    found = sorted(_annotations_found(context.state, scope, search), key=lambda hit: -hit[0])
    response = v2.MultiSearchResponse(
        status=make_status(_Code.SUCCESS), id=_keep(context, scope, search), query=search.query
    )
    for score, item, annotation in found[offset : offset + limit]:
        response.hits.add(
            score=score,
            input=item,
            annotation=annotation,
            user_id=scope.user_id,
            app_id=scope.app_id,
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
