"""Concepts: searches and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from itertools import chain, islice
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.model_catalog import CatalogEntry
from clarigrpc.local.engine.request_checks import page_bounds
from clarigrpc.local.engine.resource_handlers import Place, ResourceHandlers, nested_place
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.models.model_types import use_of_type
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.local.user_app import PUBLIC_APP, UserApp
from clarigrpc.v2 import StatusCode

_STATES: dict[int, str] = {
    StatusCode.INPUT_SUCCESS: "processed",
    StatusCode.INPUT_PENDING: "to_process",
    StatusCode.INPUT_FAILED: "errors",
    StatusCode.INPUT_IN_PROGRESS: "processing",
}


def search_concepts(
    context: Context, request: v2.PostConceptsSearchesRequest
) -> v2.MultiConceptResponse:
    """By the beginning of a word of the name; ``*`` stands for any text.

    The concepts of the app come first, then those of the model or workflow that the query
    names, or, where it names none, those of the public app.
    """
    app = context.readable(request.user_app_id)
    query = request.concept_query
    offset, limit = page_bounds(request.pagination.page, request.pagination.per_page)
    if query.workflow_id and query.WhichOneof("source") is None:
        query.workflow.id = query.workflow_id
    if query.use_cases and not query.HasField("workflow"):
        raise ServiceError(
            StatusCode.CONCEPTS_INVALID_REQUEST,
            "use_cases chooses among the models of a workflow: name one in workflow",
        )
    place = Place(app)

    def is_wanted(name: str) -> bool:
        return _named_like(name, query.name)

    found: list[v2.Concept] = []
    if not query.ignore_app_concepts:
        # Without the vocabulary, which has an index of each language.
        for concept in ResourceHandlers.walk(RESOURCES["concept"], context, place):
            if query.language not in ("", concept.language):
                nested = nested_place(place, concept.id)
                if not RESOURCES["concept_language"].exists(context, nested, query.language):
                    continue
                name = RESOURCES["concept_language"].find(context, nested, query.language)
                concept.name, concept.language = name.name, name.id
                concept.definition = name.definition or concept.definition
            found.append(concept)
    if query.HasField("model"):
        found += _of_named_model(context, query.model, app)
    if query.HasField("workflow"):
        found += _of_workflow(context, query.workflow, app, set(query.use_cases))
    hits: Iterable[v2.Concept] = (concept for concept in found if is_wanted(concept.name))
    hidden = query.ignore_app_concepts and app == PUBLIC_APP
    if query.WhichOneof("source") is None and not hidden:
        hits = chain(hits, context.state.vocabulary.concepts(query.language, is_wanted))
    return v2.MultiConceptResponse(
        status=make_status(StatusCode.SUCCESS), concepts=islice(hits, offset, offset + limit)
    )


def _named_like(name: str, wanted: str) -> bool:
    if "*" in wanted:
        return _fits(name.lower(), wanted.lower().split("*"))
    words = wanted.lower().split()
    starts = name.lower().replace("_", " ").replace("-", " ").split()
    return name.lower().startswith(wanted.lower()) or all(
        any(start.startswith(word) for start in starts) for word in words
    )


def _fits(name: str, parts: Sequence[str]) -> bool:
    """Whether a name has the parts in that order, the first one at the beginning of a word.

    Each is taken where it comes first, so that the time does not grow with the ways to take them.
    """
    first, *others = parts
    at = next(
        (
            place
            for place in range(len(name) + 1)
            if (place == 0 or name[place - 1] in " _-") and name.startswith(first, place)
        ),
        None,
    )
    if at is None:
        return False
    at += len(first)
    for part in others:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _of_named_model(context: Context, model: v2.Model, home: UserApp) -> Iterable[v2.Concept]:
    """What a model says that it recognizes, in the version that is named or in the newest."""
    _, entry = context.named_model(model, home)
    return _of_entry(entry, model.model_version.id)


def _of_entry(entry: CatalogEntry, version_id: str) -> Iterable[v2.Concept]:
    version = entry.version(version_id)
    return version.output_info.data.concepts if version is not None else []


def _of_workflow(
    context: Context,
    named: v2.Workflow,
    home: UserApp,
    uses: Set[v2.WorkflowModelUseCase.ValueType],
) -> list[v2.Concept]:
    """What the models of a workflow say that they recognize, each concept once.

    With uses it is what those say that have one of them, by the types of the models.
    """
    ids = v2.UserAppIDSet(user_id=named.user_id or home.user_id, app_id=named.app_id or home.app_id)
    app = context.readable(ids, method="GetWorkflow")
    workflow = RESOURCES["workflow"].find(context, Place(app), named.id)
    if named.version.id:
        nested = nested_place(Place(app), workflow.id)
        version = RESOURCES["workflow_version"].find(context, nested, named.version.id)
    else:
        version = workflow.version
    found = {}
    for node in version.nodes:
        _, entry = context.named_model(node.model, app)
        if uses and use_of_type(entry.model.model_type_id) not in uses:
            continue
        for concept in _of_entry(entry, node.model.model_version.id):
            found[concept.user_id, concept.app_id, concept.id] = concept
    return list(found.values())


def _of_model(
    context: Context, model_id: str, version_id: str, request: Any
) -> Iterable[v2.Concept]:
    entry = context.model(context.readable(request.user_app_id), model_id)
    return _of_entry(entry, version_id)


def list_model_concepts(
    context: Context, request: v2.ListModelConceptsRequest
) -> v2.MultiConceptResponse:
    offset, limit = page_bounds(request.page, request.per_page)
    concepts = [
        concept
        for concept in _of_model(context, request.model_id, request.version_id, request)
        if _named_like(concept.name, request.search)
    ]
    return v2.MultiConceptResponse(
        status=make_status(StatusCode.SUCCESS), concepts=concepts[offset : offset + limit]
    )


def get_concept_counts(
    context: Context, request: v2.GetConceptCountsRequest
) -> v2.MultiConceptCountResponse:
    """How many inputs carry a concept, marked as there or as not there, by state of the input."""
    app = context.readable(request.user_app_id)
    offset, limit = page_bounds(request.page, request.per_page)
    counts: dict[str, v2.ConceptCount] = {}
    for concept in RESOURCES["concept"].walk(context, Place(app)):
        counts[concept.id] = v2.ConceptCount(id=concept.id, name=concept.name)
    where = StoredCollection.of_app(INPUT_KIND, app)
    for found in context.state.store.count_tags(where):
        entry = counts.setdefault(found.id, v2.ConceptCount(id=found.id, name=found.name))
        side = "positive" if found.positive else "negative"
        places: list[Any] = [entry.concept_type_count]
        if found.status in _STATES:
            places.append(getattr(entry.detail_concept_count, _STATES[found.status]))
        for place in places:
            setattr(place, side, getattr(place, side) + found.total)
    ordered = sorted(counts.values(), key=lambda entry: entry.id)
    return v2.MultiConceptCountResponse(
        status=make_status(StatusCode.SUCCESS), concept_counts=ordered[offset : offset + limit]
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostConceptsSearches": search_concepts,
    "ListModelConcepts": list_model_concepts,
    "GetConceptCounts": get_concept_counts,
}
