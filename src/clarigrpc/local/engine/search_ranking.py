"""What a search finds, and in which order: filters by the index, ranks by scores."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from clarigrpc import v2
from clarigrpc.local.engine import search_filters
from clarigrpc.local.engine.context import State
from clarigrpc.local.engine.input_embeddings import EMBEDDING_LENGTHS, EmbeddedMedium, similarities
from clarigrpc.local.engine.input_level_annotations import own_annotation
from clarigrpc.local.engine.request_checks import refuse_other_fields
from clarigrpc.local.engine.search_index import Lookups, SoughtKind
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, all_annotations_of
from clarigrpc.local.media import media_content
from clarigrpc.local.models.image_embedding import Vector
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.local.store.resource_store import Candidate, Row, StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

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
    "algorithm",
    "as_of",
)
_ALGORITHMS = ("", "nearest_neighbor", "brute_force")


def inputs_found(state: State, app: UserApp, search: v2.Search) -> Iterator[tuple[float, v2.Input]]:
    """Score and input of everything that a search finds, the best first, read on demand."""
    ranking = _Ranking(state, app, search, "input")

    def annotations(item: v2.Input) -> Iterator[v2.Annotation]:
        return all_annotations_of(state.store, app, item)

    def read(row: Row) -> _Found[v2.Input] | None:
        item = state.store.message(v2.Input, row)
        if item is None or not ranking.existed(item):
            return None
        if not ranking.filters.pass_input(item, annotations):
            return None
        return _Found(item, item, annotations(item))

    for score, _, hit in _best_first(ranking, search.min_value, read):
        yield score, hit


def annotations_found(
    state: State, app: UserApp, search: v2.Search
) -> Iterator[tuple[float, tuple[v2.Input, v2.Annotation]]]:
    """Score, input and annotation, those of the inputs themselves included, likewise."""
    ranking = _Ranking(state, app, search, "annotation")
    of_inputs = ranking.seeking("own annotation")
    inputs = StoredCollection.of_app(INPUT_KIND, app)

    def read(row: Row) -> _Found[tuple[v2.Input, v2.Annotation]] | None:
        annotation = state.store.message(v2.Annotation, row)
        if annotation is None:
            return None
        input_row = state.store.get(inputs, annotation.input_id)
        item = state.store.message(v2.Input, input_row) if input_row else None
        return passed(item or v2.Input(id=annotation.input_id), annotation)

    def read_own(row: Row) -> _Found[tuple[v2.Input, v2.Annotation]] | None:
        item = state.store.message(v2.Input, row)
        return None if item is None else passed(item, own_annotation(item, app))

    def passed(
        item: v2.Input, annotation: v2.Annotation
    ) -> _Found[tuple[v2.Input, v2.Annotation]] | None:
        if not ranking.existed(annotation):
            return None
        if not ranking.filters.pass_annotation(item, annotation):
            return None
        return _Found((item, annotation), item, [annotation])

    found = merge(
        _best_first(ranking, search.min_value, read),
        _best_first(of_inputs, search.min_value, read_own),
        key=lambda hit: (-hit[0], -hit[1]),
    )
    for score, _, hit in found:
        yield score, hit


_Hit = TypeVar("_Hit")


class _Found(NamedTuple, Generic[_Hit]):
    """A hit that passed the filters, and what it is ranked by."""

    hit: _Hit
    input: v2.Input
    labels: Iterable[v2.Annotation]


def _best_first(
    ranking: _Ranking,
    least: float,
    read: Callable[[Row], _Found[_Hit] | None],
) -> Iterator[tuple[float, int, _Hit]]:
    """Score, place in the store and hit, the best first, equal ones newest first.

    Resources that the index rules out are not read, and of the others no more than the caller
    takes, where the index tells the scores as well.
    """
    store, where, wanted = ranking.store, ranking.where, ranking.wanted
    if not ranking.query.ranks:
        if least > 1.0:
            return
        narrowed = [one.seq for one in store.matching(where, wanted)] if wanted else None
        for row in store.walk(where) if narrowed is None else store.rows(narrowed):
            found = read(row)
            if found is not None:
                yield 1.0, row.seq, found.hit
        return
    candidates = store.matching(where, wanted)
    scores = ranking.scores()
    if scores is None:
        hits = []
        for row in store.rows([one.seq for one in candidates]):
            found = read(row)
            score = ranking.score(found.input, found.labels) if found is not None else None
            if found is not None and score is not None and score >= least:
                hits.append((score, row.seq, found.hit))
        hits.sort(key=lambda hit: -hit[0])
        yield from hits
        return
    scored = [
        (score, one.seq)
        for one in candidates
        if (score := scores(one)) is not None and score >= least
    ]
    ordered = sorted(scored, key=lambda hit: -hit[0])
    known = {seq: score for score, seq in ordered}
    for row in store.rows([seq for _, seq in ordered]):
        found = read(row)
        if found is not None:
            yield known[row.seq], row.seq, found.hit


class _Ranking:
    """A search for inputs or annotations: what it looks up, and its ranks, ready to score.

    Concepts rank by their values on an input. An image, a text, a vector or the id of an input
    ranks by how much the inputs are alike, see ``embeddings.similarities``. What cannot be compared
    is no hit. Every algorithm finds the same, since all vectors are compared. ``as_of`` leaves out
    what was added later; what was changed since then is found as it is now.
    """

    def __init__(self, state: State, app: UserApp, search: v2.Search, kind: SoughtKind) -> None:
        refuse_other_fields(search, _SEARCH_FIELDS)
        if search.algorithm not in _ALGORITHMS:
            known = " or ".join(filter(None, _ALGORITHMS))
            raise ServiceError(
                StatusCode.SEARCH_INVALID_REQUEST,
                f"algorithm is {search.algorithm!r}; it must be {known}",
            )
        self.query = search_filters.simplified(search.query)
        self.filters = search_filters.Filters(self.query)
        self._as_of = search.as_of.ToNanoseconds() if search.HasField("as_of") else None
        self.store = state.store
        self._state = state
        self._app = app
        self._seek(kind)
        self._euclidean = search.metric == v2.Search.EUCLIDEAN_DISTANCE
        self._ranks = [(rank, self._similarities(rank)) for rank in self.query.ranks]

    def _seek(self, kind: SoughtKind) -> None:
        stored = "annotation" if kind == "annotation" else INPUT_KIND
        self.where = StoredCollection.of_app(stored, self._app)
        self._lookups = Lookups(self._app, kind)
        self.wanted = self._lookups.of_query(self.query)

    def seeking(self, kind: SoughtKind) -> _Ranking:
        """The same search for something else; what was compared is not compared again."""
        other = copy.copy(self)
        other._seek(kind)
        return other

    def existed(self, item: v2.Input | v2.Annotation) -> bool:
        """Whether it was there at the time that the search asks about."""
        return self._as_of is None or item.created_at.ToNanoseconds() <= self._as_of

    def _similarities(self, rank: v2.Rank) -> dict[str, float] | None:
        """Scores by the ids of inputs; None where concepts rank."""
        if rank.annotation.data.concepts:
            return None
        medium, probe = self._probe(rank.annotation)
        vectors = self._state.embeddings.all(self._app, medium)
        if not vectors.ids:
            return {}
        scores = similarities(vectors.rows, probe, euclidean=self._euclidean)
        return dict(zip(vectors.ids, scores.tolist(), strict=True))

    def _probe(self, example: v2.Annotation) -> tuple[EmbeddedMedium, Vector]:
        """The vector to compare with."""
        data, embeddings = example.data, self._state.embeddings
        if data.embeddings:
            vector = np.asarray(data.embeddings[0].vector, np.float32)
            for medium, dimensions in EMBEDDING_LENGTHS.items():
                if len(vector) == dimensions:
                    return medium, vector
            raise ServiceError(
                StatusCode.SEARCH_INVALID_REQUEST,
                f"the embedding has {len(vector)} dimensions; the server's embeddings have "
                + " or ".join(f"{n} ({medium})" for medium, n in EMBEDDING_LENGTHS.items()),
            )
        if data.HasField("image") or data.HasField("text"):
            kind = media_content.check(data)
            content = media_content.content_of(data, self._state.fetcher)
            if kind == "text":
                return "text", embeddings.of_text(media_content.decode_text(content))
            with media_content.open_image(content, self._state.fetcher.budget) as image:
                return "image", embeddings.of_image(image)
        inputs = StoredCollection.of_app(INPUT_KIND, self._app)
        if self._state.store.get(inputs, example.input_id) is None:
            raise ServiceError(
                StatusCode.SEARCH_INVALID_REQUEST,
                f"input {example.input_id!r} does not exist"
                if example.input_id
                else "a rank needs concepts, an image, a text, an embedding or the id of an input",
            )
        found = embeddings.of_input(self._app, example.input_id)
        if found is None:
            raise ServiceError(
                StatusCode.SEARCH_BY_NOT_FULLY_INDEXED_INPUT,
                f"input {example.input_id!r} is not an image or text that has been processed",
            )
        return found

    def scores(self) -> Callable[[Candidate], float | None] | None:
        """Tells a score by the index alone; None where a rank needs more than that."""
        of_inputs = self.where.kind == INPUT_KIND
        # For each rank, whether it goes by inputs, which annotations have as second names.
        tables: list[tuple[bool, bool, dict[str, float]]] = []
        for rank, alike in self._ranks:
            concepts = rank.annotation.data.concepts
            if alike is not None:
                tables.append((rank.negate, True, alike))
            elif len(concepts) == 1 and concepts[0].value >= 0.5:
                found = self.store.values(self.where, self._lookups.of_concept(concepts[0]))
                tables.append((rank.negate, of_inputs, defaultdict(float, found)))
            else:
                return None

        def score(found: Candidate) -> float | None:
            total = 0.0
            for negate, by_input, table in tables:
                try:
                    value = table[(found.key or "") if by_input and not of_inputs else found.id]
                except KeyError:  # it has no vector
                    return None
                total += 1.0 - value if negate else value
            return total / len(tables)

        return score

    def score(self, item: v2.Input, labels: Iterable[v2.Annotation]) -> float | None:
        """The mean of what the ranks say, 1 without ranks; None where one does not apply."""
        if not self._ranks:
            return 1.0
        total = 0.0
        found: list[v2.Annotation] = []
        for rank, alike in self._ranks:
            if alike is None:
                wanted = rank.annotation.data.concepts
                found = found or list(labels)  # read only where a rank asks
                score = max(search_filters.concept_score(one, wanted) for one in found)
            elif item.id in alike:
                score = alike[item.id]
            else:
                return None
            total += 1.0 - score if rank.negate else score
        return total / len(self._ranks)
