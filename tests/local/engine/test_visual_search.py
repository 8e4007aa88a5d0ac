"""Searches for what looks or reads like an example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.engine.input_embeddings import similarities
from tests.local.conftest import PUBLIC, Raw, gone, ok, settled
from tests.local.handlers.test_model_training import add, image, text
from tests.local.pictures import digit, encoded, photograph
from tests.local.web import serving

Code = v2.StatusCode

_NAMES = ("astronaut", "coffee", "chelsea", "rocket", "coins", "brick")


def album(raw: Raw) -> None:
    """Photographs with a size in their concepts, and some texts."""
    add(
        raw,
        [
            (name, image(encoded(photograph(name).resize((96, 96)), "JPEG")), {f"p-{name[0]}": 1.0})
            for name in _NAMES
        ],
    )
    add(
        raw,
        [
            ("note-rain", text("rain and wind tomorrow"), {}),
            ("note-bill", text("the bill is overdue"), {}),
        ],
    )


@pytest.fixture(scope="module")
def shelf() -> Iterator[Raw]:
    with LocalServer() as server, grpc.insecure_channel(server.address) as channel:
        raw = Raw(server, v2.V2Stub(channel))
        album(raw)
        yield raw


def rank(**fields: Any) -> v2.Rank:
    negate = fields.pop("negate", False)
    return v2.Rank(annotation=v2.Annotation(**fields), negate=negate)


def search(*ranks: v2.Rank, filters: list[v2.Filter] | None = None, **fields: Any) -> v2.Search:
    return v2.Search(query=v2.Query(ranks=ranks, filters=filters or []), **fields)


def hits(raw: Raw, wanted: v2.Search, **page: int) -> list[tuple[str, float]]:
    request = v2.PostInputsSearchesRequest(searches=[wanted], pagination=v2.Pagination(**page))
    response = ok(raw("PostInputsSearches", request))
    return [(hit.input.id, hit.score) for hit in response.hits]


def assert_same(hit: tuple[str, float], input_id: str) -> None:
    """The hit is that input, and as like as can be."""
    assert hit[0] == input_id
    assert hit[1] == pytest.approx(1.0)


@pytest.mark.parametrize("name", _NAMES)
def test_a_picture_finds_itself_first(shelf: Raw, name: str) -> None:
    other_size = encoded(photograph(name).resize((240, 240)))
    found = hits(shelf, search(rank(data=image(other_size))))
    assert found[0][0] == name
    assert found[0][1] > 0.98
    assert {i for i, _ in found} == set(_NAMES)  # texts cannot be compared with it
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)


def test_by_bytes_by_url_by_id_and_by_vector_is_the_same(shelf: Raw) -> None:
    content = encoded(photograph("chelsea").resize((96, 96)), "JPEG")

    with serving(lambda: content) as web:
        linked = v2.Data(image=v2.Image(url=f"{web}/cat.jpg"))
        by_url = hits(shelf, search(rank(data=linked)))
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="image-embedding")
    request.inputs.add(data=image(content))
    output = ok(shelf("PostModelOutputs", request)).outputs[0].data
    by_bytes = hits(shelf, search(rank(data=image(content))))
    by_id = hits(shelf, search(rank(input_id="chelsea")))
    by_vector = hits(shelf, search(rank(data=v2.Data(embeddings=output.embeddings))))
    # The length of a vector says nothing.
    longer = v2.Embedding(vector=[10 * value for value in output.embeddings[0].vector])
    by_longer = hits(shelf, search(rank(data=v2.Data(embeddings=[longer]))))
    legacy = v2.Search()
    legacy.query.ands.add().output.input.data.image.base64 = content
    for found in (by_url, by_id, by_vector, by_longer, hits(shelf, legacy)):
        assert [i for i, _ in found] == [i for i, _ in by_bytes]
        assert [s for _, s in found] == pytest.approx([s for _, s in by_bytes], abs=1e-5)
    assert_same(by_bytes[0], "chelsea")


def test_the_score_is_half_of_one_plus_the_cosine(shelf: Raw) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="image-embedding")
    for name in ("coffee", "coins"):
        request.inputs.add().data.image.base64 = encoded(photograph(name).resize((96, 96)), "JPEG")
    one, two = (
        np.array(output.data.embeddings[0].vector)
        for output in ok(shelf("PostModelOutputs", request)).outputs
    )
    by_cosine = dict(hits(shelf, search(rank(input_id="coffee"))))
    assert by_cosine["coins"] == pytest.approx((1 + one @ two) / 2, abs=1e-5)
    euclidean = search(rank(input_id="coffee"), metric=v2.Search.EUCLIDEAN_DISTANCE)
    by_distance = dict(hits(shelf, euclidean))
    assert by_distance["coins"] == pytest.approx(1 / (1 + np.linalg.norm(one - two)), abs=1e-5)
    assert by_distance["coffee"] == pytest.approx(1.0, abs=1e-3)


def test_with_filters_least_values_pages_and_negation(shelf: Raw) -> None:
    like_coffee = rank(input_id="coffee")
    everything = [i for i, _ in hits(shelf, search(like_coffee))]
    pages = [
        [i for i, _ in hits(shelf, search(like_coffee), page=n, per_page=4)] for n in (1, 2, 3)
    ]
    assert pages == [everything[:4], everything[4:], []]
    backwards = rank(input_id="coffee", negate=True)
    assert [i for i, _ in hits(shelf, search(backwards))] == everything[::-1]
    few = hits(shelf, search(like_coffee, min_value=0.99))
    assert [i for i, _ in few] == ["coffee"]
    coins_or_coffee_or_chelsea = v2.Filter()
    coins_or_coffee_or_chelsea.annotation.data.concepts.add(id="p-c", value=1)
    narrowed = hits(shelf, search(like_coffee, filters=[coins_or_coffee_or_chelsea]))
    assert [i for i, _ in narrowed] == [i for i in everything if i.startswith("c")]
    coins_or_coffee_or_chelsea.negate = True
    others = hits(shelf, search(like_coffee, filters=[coins_or_coffee_or_chelsea]))
    assert [i for i, _ in others] == [i for i in everything if not i.startswith("c")]
    count = v2.PostInputsSearchesRequest(searches=[search(like_coffee)], only_count=True)
    assert ok(shelf("PostInputsSearches", count)).hit_counts[0].estimated_total == len(_NAMES)


def test_several_ranks_are_averaged(shelf: Raw) -> None:
    first = dict(hits(shelf, search(rank(input_id="coffee"))))
    second = dict(hits(shelf, search(rank(input_id="rocket"))))
    both = dict(hits(shelf, search(rank(input_id="coffee"), rank(input_id="rocket"))))
    for name in _NAMES:
        assert both[name] == pytest.approx((first[name] + second[name]) / 2, abs=1e-5)
    labelled = v2.Data(concepts=[v2.Concept(id="p-b", value=1)])
    mixed = dict(hits(shelf, search(rank(input_id="coffee"), rank(data=labelled))))
    assert mixed["brick"] == pytest.approx((first["brick"] + 1) / 2, abs=1e-5)
    assert mixed["coins"] == pytest.approx(first["coins"] / 2, abs=1e-5)
    # A text and a picture at once: nothing is both.
    assert not hits(shelf, search(rank(input_id="coffee"), rank(data=text("rain"))))


def test_texts_are_found_by_texts(shelf: Raw) -> None:
    found = hits(shelf, search(rank(data=text("an overdue bill"))))
    assert [i for i, _ in found] == ["note-bill", "note-rain"]
    assert found[0][1] > found[1][1] + 0.1
    by_id = hits(shelf, search(rank(input_id="note-rain")))
    assert_same(by_id[0], "note-rain")


def test_annotations_are_ranked_by_the_pictures_they_are_on(shelf: Raw) -> None:
    request = v2.PostAnnotationsRequest()
    for name in ("coffee", "coins", "rocket"):
        request.annotations.add(id=f"on-{name}", input_id=name).data.concepts.add(id="seen")
    ok(shelf("PostAnnotations", request))
    wanted = v2.PostAnnotationsSearchesRequest(searches=[search(rank(input_id="rocket"))])
    found = ok(shelf("PostAnnotationsSearches", wanted)).hits
    own = [hit for hit in found if hit.annotation.input_level]
    found = [hit for hit in found if not hit.annotation.input_level]
    by_input = dict(hits(shelf, search(rank(input_id="rocket"))))
    assert found[0].annotation.id == "on-rocket"
    assert {hit.annotation.id for hit in found} == {"on-coffee", "on-coins", "on-rocket"}
    assert {hit.annotation.input_id for hit in own} == {*by_input}
    for hit in (*found, *own):
        assert hit.score == pytest.approx(by_input[hit.input.id], abs=1e-5)
    ok(
        shelf(
            "DeleteAnnotations",
            v2.DeleteAnnotationsRequest(ids=[hit.annotation.id for hit in found]),
        )
    )


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (rank(input_id="no-such"), Code.SEARCH_INVALID_REQUEST),
        (rank(), Code.SUCCESS),  # says nothing, as the published SDK sends it
        (
            rank(data=v2.Data(embeddings=[v2.Embedding(vector=[1.0, 2.0])])),
            Code.SEARCH_INVALID_REQUEST,
        ),
        (rank(data=image(b"nonsense")), Code.INPUT_UNSUPPORTED_FORMAT),
        (rank(data=v2.Data(image=v2.Image(url="ftp://x/y"))), Code.INPUT_INVALID_URL),
    ],
)
def test_examples_that_cannot_be(shelf: Raw, example: v2.Rank, expected: int) -> None:
    request = v2.PostInputsSearchesRequest(searches=[search(example)])
    assert shelf("PostInputsSearches", request).status.code == expected


def test_an_input_that_could_not_be_processed_has_no_vector(shelf: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(id="broken").data.image.base64 = b"no image"
    ok(shelf("PostInputs", request))
    settled(shelf, "broken")
    ask = v2.PostInputsSearchesRequest(searches=[search(rank(input_id="broken"))])
    code = shelf("PostInputsSearches", ask).status.code
    assert code == Code.SEARCH_BY_NOT_FULLY_INDEXED_INPUT
    assert "broken" not in dict(hits(shelf, search(rank(input_id="coffee"))))
    shelf("DeleteInput", v2.DeleteInputRequest(input_id="broken"))


def test_what_is_deleted_or_added_shows_at_once(serve: Callable[..., Raw], tmp_path: Path) -> None:
    raw = serve(data_dir=tmp_path)
    add(raw, [(f"d{n}", image(digit(n, 0)), {}) for n in range(4)])
    like_two = search(rank(data=image(digit(2, 0))))
    assert_same(hits(raw, like_two)[0], "d2")
    ok(raw("DeleteInput", v2.DeleteInputRequest(input_id="d2")))
    gone(raw, "d2")
    assert "d2" not in dict(hits(raw, like_two))
    add(raw, [("again", image(digit(2, 0)), {}), ("said", text("two"), {})])
    assert_same(hits(raw, like_two)[0], "again")
    assert [i for i, _ in hits(raw, search(rank(data=text("two"))))] == ["said"]
    add(raw, [("more", text("two more"), {})])
    assert {i for i, _ in hits(raw, search(rank(data=text("two"))))} == {"said", "more"}
    before = hits(raw, like_two)
    raw.server.close(grace=0)
    raw = serve(data_dir=tmp_path, pat=raw.server.pat)
    assert hits(raw, like_two) == before
    assert_same(hits(raw, search(rank(input_id="said")))[0], "said")


def test_other_apps_stay_apart(shelf: Raw) -> None:
    apps = v2.PostAppsRequest(apps=[v2.App(id="other")])
    apps.user_app_id.user_id = shelf.server.user_id
    ok(shelf("PostApps", apps))
    request = v2.PostInputsSearchesRequest(
        user_app_id=v2.UserAppIDSet(user_id=shelf.server.user_id, app_id="other"),
        searches=[search(rank(data=image(encoded(photograph("coffee")))))],
    )
    assert not ok(shelf("PostInputsSearches", request)).hits


@given(
    rows=st.integers(1, 8),
    dimensions=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    euclidean=st.booleans(),
)
def test_similarities_lie_between_0_and_1_and_are_greatest_for_the_same(
    rows: int, dimensions: int, seed: int, euclidean: bool
) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(0, 3, (rows, dimensions)).astype(np.float32)
    vectors[chance.integers(0, rows)] = 0  # a text without letters has such a vector
    probe = vectors[chance.integers(0, rows)]
    found = similarities(vectors, probe, euclidean=euclidean)
    assert ((found >= 0) & (found <= 1)).all()
    if euclidean or probe.any():
        same = similarities(probe[np.newaxis], probe, euclidean=euclidean)[0]
        assert same == pytest.approx(1.0, abs=1e-5)
        assert same >= found.max() - 1e-5
