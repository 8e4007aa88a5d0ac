"""Searches narrow down by an index: they lose nothing by it, and read little."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import hypothesis
import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.engine import search_filters, search_index
from clarigrpc.local.engine.input_embeddings import EMBEDDING_LENGTHS
from clarigrpc.local.store.resource_store import Store, StoredCollection
from tests.local.conftest import Raw, gone, message, ok

Code = v2.StatusCode

# Small alphabets, so that random queries hit.
CONCEPTS = ("cat", "dog", "sun")
VALUES = (0.0, 0.3, 0.5, 0.9)
METADATA: tuple[Any, ...] = (1, "x", True, None, [1, "x"], {"b": 1}, {"b": {"c": "x"}, "a": 1})
TEXTS = ("One", "two", "It has one fine Day", 'He says "TWO"', "ÀÉ\0ßΑΣ and \U0001f600 two")
WANTED_TEXTS = ("ONE", "e", "fine d", 'ys "t', "\0ß", "éX", "ας AND \U0001f600", "é ßα", '"*^')
PLACES = ((0.0, 0.0), (10.0, 179.9), (10.0, -179.9), (89.5, 40.0), (-33.9, 151.2))


def data(dice: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {}
    chosen = dice.sample(CONCEPTS, dice.randint(0, 2))
    made["concepts"] = [{"id": c, "name": c.upper(), "value": dice.choice(VALUES)} for c in chosen]
    if dice.random() < 0.5:
        made["metadata"] = {"a": dice.choice(METADATA)}
    if dice.random() < 0.5:
        latitude, longitude = dice.choice(PLACES)
        made["geo"] = {"geo_point": {"latitude": latitude, "longitude": longitude}}
    if dice.random() < 0.3:
        regions = [{"data": {"concepts": [{"id": dice.choice(CONCEPTS), "value": 0.7}]}}]
        made["regions"] = regions
    if dice.random() < 0.3:
        made["text"] = {"raw": dice.choice(TEXTS)}
    return made


class App:
    """A server with random inputs and annotations, and what they are."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        dice = random.Random(5)
        ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
        for number in range(40):
            text = {"text": {"raw": dice.choice(TEXTS)}}
            given = message(v2.Input, id=f"i{number}", data={**data(dice), **text})
            if dice.random() < 0.3:
                given.dataset_ids.append("d")
            ok(raw("PostInputs", v2.PostInputsRequest(inputs=[given])))
            for count in range(dice.randint(0, 2)):
                annotation = message(
                    v2.Annotation, id=f"a{number}-{count}", input_id=f"i{number}", data=data(dice)
                )
                ok(raw("PostAnnotations", v2.PostAnnotationsRequest(annotations=[annotation])))
        listed = v2.ListInputsRequest(per_page=1000)
        self.inputs: list[v2.Input] = []
        while not self.inputs or any(i.status.code == Code.INPUT_PENDING for i in self.inputs):
            self.inputs = list(ok(raw("ListInputs", listed)).inputs)
        every = v2.ListAnnotationsRequest(per_page=1000)
        self.annotations = list(ok(raw("ListAnnotations", every)).annotations)

    def of(self, item: v2.Input) -> list[v2.Annotation]:
        return [a for a in self.annotations if a.input_id == item.id]

    def found(self, method: str, query: dict[str, Any]) -> list[v2.Hit]:
        request: Any = getattr(v2, f"{method}Request")()
        json_format.ParseDict(query, request.searches.add().query)
        request.pagination.per_page = 1000
        return list(ok(self.raw(method, request)).hits)


@pytest.fixture(scope="module", params=["all is indexed", "little is indexed"])
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    with LocalServer() as server, grpc.insecure_channel(server.address) as channel:
        with pytest.MonkeyPatch.context() as patch:
            if request.param == "little is indexed":
                patch.setattr(search_index, "_MOST_METADATA_VALUES", 1)
                patch.setattr(search_index, "_MOST_CHARACTERS", 9)
            made = App(Raw(server, v2.V2Stub(channel)))
        yield made


concept = st.fixed_dictionaries(
    {"value": st.sampled_from((0, 1))},
    optional={"id": st.sampled_from(CONCEPTS), "name": st.sampled_from(("Cat", "DOG"))},
)
geo = st.one_of(
    st.builds(
        lambda point, km: {
            "geo_point": {"latitude": point[0], "longitude": point[1]},
            "geo_limit": {"type": "withinKilometers", "value": km},
        },
        st.sampled_from(PLACES),
        st.sampled_from((0.5, 30, 2000, 30_000)),
    ),
    st.builds(
        lambda one, two: {
            "geo_box": [
                {"geo_point": {"latitude": latitude, "longitude": longitude}}
                for latitude, longitude in (one, two)
            ]
        },
        st.sampled_from(PLACES),
        st.sampled_from(PLACES),
    ),
)
content = st.fixed_dictionaries(
    {},
    optional={
        "concepts": st.lists(concept, max_size=2),
        "metadata": st.sampled_from(METADATA).map(lambda value: {"a": value}),
        "geo": geo,
        "text": st.sampled_from(WANTED_TEXTS).map(lambda raw: {"raw": raw}),
    },
)
condition = st.fixed_dictionaries(
    {"negate": st.booleans()},
    optional={
        "annotation": st.fixed_dictionaries(
            {"data": content},
            optional={
                "id": st.sampled_from(("a1-0", "i2", "input-level-i2")),
                "input_id": st.sampled_from(("i1", "none")),
                "user_id": st.sampled_from(("local-user", "other")),
            },
        ),
        "input": st.fixed_dictionaries(
            {"data": content},
            optional={
                "id": st.sampled_from(("i1", "none")),
                "dataset_ids": st.sampled_from((["d"], ["d", "e"], ["e"])),
                "status": st.sampled_from(({"code": 30000}, {"code": 30002})),
            },
        ),
    },
)
queries = st.fixed_dictionaries({"filters": st.lists(condition, min_size=1, max_size=3)})


@hypothesis.settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(query=queries)
def test_the_index_loses_nothing(app: App, query: dict[str, Any]) -> None:
    filters = search_filters.Filters(json_format.ParseDict(query, v2.Query()))
    hits = {hit.input.id for hit in app.found("PostInputsSearches", query)}
    assert hits == {i.id for i in app.inputs if filters.pass_input(i, app.of)}
    labels = {hit.annotation.id for hit in app.found("PostAnnotationsSearches", query)}
    by_id = {i.id: i for i in app.inputs}
    assert labels == {
        a.id for a in app.annotations if filters.pass_annotation(by_id[a.input_id], a)
    }


@pytest.mark.parametrize("negate", [False, True])
@pytest.mark.parametrize("named", ["id", "name"])
def test_scores_by_the_index(app: App, negate: bool, named: str) -> None:
    wanted = message(v2.Concept, value=1, **{named: "cat"})
    rank = {"annotation": {"data": {"concepts": [json_format.MessageToDict(wanted)]}}}
    hits = app.found("PostInputsSearches", {"ranks": [{**rank, "negate": negate}]})
    assert len(hits) == len(app.inputs)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 2
    for hit in hits:
        labels = app.of(hit.input)
        value = max(search_filters.concept_score(label, [wanted]) for label in labels)
        assert hit.score == pytest.approx(1 - value if negate else value)


def test_a_change_is_found_at_once(app: App) -> None:
    query = {"filters": [{"annotation": {"data": {"concepts": [{"id": "new", "value": 1}]}}}]}
    assert not app.found("PostInputsSearches", query)
    change = message(v2.Input, id="i7", data={"concepts": [{"id": "new", "value": 1}]})
    for action, expected in (("merge", ["i7"]), ("remove", [])):
        request = v2.PatchInputsRequest(inputs=[change], action=action)
        ok(app.raw("PatchInputs", request))
        assert [h.input.id for h in app.found("PostInputsSearches", query)] == expected


# Scale

SIZES = {"small": 400, "large": 8000}


@pytest.fixture(scope="module")
def grown() -> Iterator[Raw]:
    """Two apps, one twenty times the other; of each, what is searched for is ten."""
    config = {"users": [{"id": "me", "apps": [{"id": name} for name in SIZES]}]}
    with (
        LocalServer(config=config) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        store = _store(server)
        for name, size in SIZES.items():
            _fill(store, name, size)
        yield Raw(server, v2.V2Stub(channel))


def _store(server: LocalServer) -> Store:
    assert server._service is not None
    return server._service.state.store


def _fill(store: Store, app_id: str, size: int) -> None:
    every = size // 10
    inputs = StoredCollection("input", "me", app_id)
    with store.transaction():
        for number in range(size):
            item = v2.Input(id=f"i{number}", status=v2.Status(code=Code.INPUT_SUCCESS))
            item.data.text.raw = f"a common text, number {number}"
            item.data.concepts.add(id="common", value=1)
            point = item.data.geo.geo_point
            point.latitude, point.longitude = -40.0 + number % 10, number % 90
            if number % every == 0:
                item.data.concepts.add(id="rare", value=1)
                item.data.metadata["number"] = 5
                item.data.text.raw += " with something Rare in it"
                item.dataset_ids.append("d")
                point.latitude, point.longitude = 50.0, 10.0
                label = v2.Annotation(id=f"a{number}", input_id=item.id, user_id="me")
                label.data.concepts.add(id="seen", value=1)
                where = inputs._replace(kind="annotation")
                store.insert(where, label.id, label.SerializeToString(), key=item.id)
            elif number % 4 == 0:
                label = v2.Annotation(id=f"a{number}", input_id=item.id, user_id="me")
                where = inputs._replace(kind="annotation")
                store.insert(where, label.id, label.SerializeToString(), key=item.id)
            failed = number % every == 1
            item.status.code = Code.INPUT_FAILED if failed else Code.INPUT_SUCCESS
            store.insert(inputs, item.id, item.SerializeToString(), status=item.status.code)


def search(**query: Any) -> tuple[str, Any]:
    return "PostInputsSearches", message(
        v2.PostInputsSearchesRequest,
        searches=[{"query": query}],
        pagination={"per_page": 5, "page": 2},
    )


def by_label(**content: Any) -> dict[str, Any]:
    return {"annotation": {"data": content}}


RARE = by_label(concepts=[{"id": "rare", "value": 1}])
CIRCLE = {
    "geo_point": {"latitude": 50, "longitude": 10},
    "geo_limit": {"type": "withinKilometers", "value": 5},
}
CALLS: dict[str, tuple[str, Any]] = {
    "list": ("ListInputs", v2.ListInputsRequest(per_page=5, page=2)),
    "filter": (
        "ListInputs",
        message(v2.ListInputsRequest, per_page=5, page=2, status={"code": 30002}),
    ),
    "stream": ("StreamInputs", v2.StreamInputsRequest(per_page=5, last_id="i30")),
    "annotations": ("ListAnnotations", v2.ListAnnotationsRequest(per_page=5)),
    "everything": search(),
    "concept": search(filters=[RARE]),
    "common and rare": search(filters=[by_label(concepts=[{"id": "seen", "value": 1}]), RARE]),
    "metadata": search(filters=[by_label(metadata={"number": 5})]),
    "text": search(filters=[by_label(text={"raw": "COMMON"}), by_label(text={"raw": "g rare"})]),
    "text of inputs": search(filters=[{"input": {"data": {"text": {"raw": "g rare"}}}}]),
    "short text": search(filters=[by_label(text={"raw": "on"})]),
    "geo": search(filters=[by_label(geo=CIRCLE)]),
    "dataset": search(filters=[{"input": {"dataset_ids": ["d"]}}]),
    "status": search(filters=[{"input": {"status": {"code": 30002}}}]),
    "negated": search(filters=[{**RARE, "negate": True}]),
    "ranked": search(filters=[RARE], ranks=[by_label(concepts=[{"id": "rare", "value": 1}])]),
}


@pytest.mark.parametrize("name", CALLS)
def test_work_does_not_grow_with_the_app(grown: Raw, name: str) -> None:
    """Counted in steps of SQLite's machine, which the clock has no part in."""
    method, request = CALLS[name]
    database = _store(grown.server)._db
    steps: dict[str, int] = {}
    for app_id in SIZES:
        request.user_app_id.app_id = app_id
        ok(grown(method, request))  # what is read once for all
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        database.set_progress_handler(step, 10)
        response = ok(grown(method, request))
        database.set_progress_handler(None, 10)
        (items,) = (value for field, value in response.ListFields() if field.is_repeated)
        assert len(items) == 5
        steps[app_id] = count
    assert steps["large"] < 2 * steps["small"] + 50, json.dumps(steps)


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """What SQLite is asked meanwhile."""
    asked: list[str] = []
    store._db.set_trace_callback(asked.append)
    yield asked
    store._db.set_trace_callback(None)


@pytest.mark.parametrize("app_id", SIZES)
def test_concepts_are_counted_without_the_inputs(grown: Raw, app_id: str) -> None:
    store = _store(grown.server)
    inputs = store._number(StoredCollection("input", "me", app_id))
    request = v2.GetConceptCountsRequest()
    request.user_app_id.app_id = app_id
    with statements(store) as asked:
        counts = {c.id: c for c in ok(grown("GetConceptCounts", request)).concept_counts}
    size = SIZES[app_id]
    assert counts["common"].concept_type_count.positive == size
    assert counts["common"].detail_concept_count.processed.positive == size - 10
    assert counts["common"].detail_concept_count.errors.positive == 10
    assert counts["rare"].concept_type_count.positive == 10
    (counting,) = (s for s in asked if "tags" in s)
    assert not [s for s in asked if "body" in s and f"collection = {inputs}" in s]
    plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {counting}")]
    assert plan == ["SEARCH tags USING PRIMARY KEY (collection=?)"]


@pytest.fixture(scope="module")
def seen(grown: Raw) -> Raw:
    """The small app has vectors."""
    store = _store(grown.server)
    where = StoredCollection("input", "me", "small")
    dice = np.random.default_rng(3)
    with store.transaction():
        for row in store.page(where, 0, -1):
            vector = dice.random(EMBEDDING_LENGTHS["image"], np.float32)
            above = where._replace(kind="image_embedding")
            store.insert(above, row.id, vector.tobytes(), key=row.id)
    return grown


@pytest.mark.parametrize("kind", ["input", "annotation"])
def test_looks_are_compared_without_the_messages(seen: Raw, kind: str) -> None:
    store = _store(seen.server)
    where = StoredCollection(kind, "me", "small")
    _, request = search(ranks=[{"annotation": {"input_id": "i8"}}])
    if kind == "annotation":
        request = v2.PostAnnotationsSearchesRequest.FromString(request.SerializeToString())
    method = f"Post{kind.capitalize()}sSearches"
    request.user_app_id.app_id = "small"
    request.pagination.page = 1
    with statements(store) as asked:
        hits = ok(seen(method, request)).hits
    assert (hits[0].input.id, hits[0].score) == ("i8", pytest.approx(1))
    # That of the input itself was added later here.
    assert hits[0].annotation.id == ("input-level-i8" if kind == "annotation" else "")
    bodies = [s for s in asked if "body" in s]
    walk = f"collection = {store._number(where)}"
    assert not [s for s in bodies if walk in s and " AND id = " not in s]
    # Five are on the page; what is read at once is a little more.
    reads = [s.partition("seq IN")[2] for s in bodies if "seq IN" in s]
    assert len(reads) == (2 if kind == "annotation" else 1)
    assert all(5 <= places.count(",") + 1 <= 32 for places in reads)


def test_what_is_deleted_is_in_no_index(app: App) -> None:
    store = _store(app.raw.server)

    def sizes() -> list[int]:
        tables = ("terms", "places", "tags", "texts")
        with store.transaction():  # never in the midst of one by a job: it is the same connection
            return [store._db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]

    before = sizes()
    one = message(
        v2.Input,
        id="short-lived",
        data={
            "text": {"raw": "some text"},
            "concepts": [{"id": "c", "value": 1}],
            "geo": {"geo_point": {"latitude": 1}},
        },
    )
    ok(app.raw("PostInputs", v2.PostInputsRequest(inputs=[one])))
    assert all(now > then for now, then in zip(sizes(), before, strict=True))
    ok(app.raw("DeleteInput", v2.DeleteInputRequest(input_id=one.id)))
    gone(app.raw, one.id)
    assert sizes() == before


def test_an_old_folder_is_indexed_anew(tmp_path: Any) -> None:
    name, size = "small", SIZES["small"]
    config = {"users": [{"id": "me", "apps": [{"id": name}]}]}
    with LocalServer(data_dir=tmp_path, config=config) as server:
        store = _store(server)
        _fill(store, name, size)
        for table in ("terms", "places", "tags", "texts"):
            store._db.execute(f"DELETE FROM {table}")
        store._db.execute("PRAGMA user_version = 0")
    with (
        LocalServer(data_dir=tmp_path, config=config) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        method, request = CALLS["geo"]
        request.user_app_id.app_id = name
        assert len(ok(Raw(server, v2.V2Stub(channel))(method, request)).hits) == 5
