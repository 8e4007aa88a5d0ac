"""Searches by filters and ranks, saved ones, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, message, ok, png
from tests.local.library import library as library

Code = v2.StatusCode


def hits(raw: Raw, query: dict[str, Any], **search: Any) -> list[str]:
    request = v2.PostInputsSearchesRequest()
    request.searches.append(message(v2.Search, query=query, **search))
    return [hit.input.id for hit in ok(raw("PostInputsSearches", request)).hits]


def concept(name: str, value: float = 1.0) -> dict[str, Any]:
    return {"annotation": {"data": {"concepts": [{"id": name, "value": value}]}}}


def either(*names: str) -> dict[str, Any]:
    return {"annotation": {"data": {"concepts": [{"id": name, "value": 1} for name in names]}}}


def geo(**fields: Any) -> dict[str, Any]:
    return {"filters": [{"annotation": {"data": {"geo": fields}}}]}


BERLIN = {"longitude": 13.4, "latitude": 52.5}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"filters": [concept("cat")]}, {"berlin"}),
        ({"filters": [concept("cat", 0)]}, {"paris"}),
        ({"filters": [concept("cat") | {"negate": True}]}, {"paris", "nowhere"}),
        ({"filters": [concept("cat", 0), concept("dog")]}, {"paris"}),
        ({"filters": [concept("cat"), concept("dog")]}, set()),
        # The conditions inside one filter are alternatives.
        ({"filters": [either("cat", "dog")]}, {"berlin", "paris"}),
        ({"filters": [either("cow", "dog")]}, {"paris"}),
        ({"filters": [either("cat", "dog"), concept("dog")]}, {"paris"}),
        ({"filters": [either("cat", "dog") | {"negate": True}]}, {"nowhere"}),
        ({"filters": [{"input": {"id": "nowhere"}} | concept("dog")]}, {"nowhere", "paris"}),
        ({"filters": [{"input": {"data": {"text": {}}, "id": "paris"}}]}, {"paris"}),
        # A rank that says nothing is none.
        (
            {"ranks": [{"annotation": {"data": {}}}], "filters": [concept("cat")]},
            {"berlin"},
        ),
        ({"filters": [{"input": {"id": "paris"}}]}, {"paris"}),
        ({"filters": [{"annotation": {"data": {"metadata": {"k": "v"}}}}]}, {"berlin"}),
        ({"filters": [{"input": {"data": {"metadata": {"a": {"b": [2]}}}}}]}, {"berlin"}),
        ({"filters": [{"input": {"data": {"metadata": {"a": {"b": [3]}}}}}]}, set()),
        (
            geo(geo_point=BERLIN, geo_limit={"type": "withinKilometers", "value": 1000}),
            {"berlin", "paris"},
        ),
        (geo(geo_point=BERLIN, geo_limit={"type": "withinMiles", "value": 100}), {"berlin"}),
        (
            geo(
                geo_box=[
                    {"geo_point": {"longitude": 0, "latitude": 50}},
                    {"geo_point": {"longitude": 5, "latitude": 40}},
                ]
            ),
            {"paris"},
        ),
        ({"ands": [{"input": {"data": {"concepts": [{"id": "dog", "value": 1}]}}}]}, {"paris"}),
    ],
)
def test_filters(library: Raw, query: dict[str, Any], expected: set[str]) -> None:
    assert set(hits(library, query)) == expected


def test_ranks(library: Raw) -> None:
    assert hits(library, {"ranks": [concept("dog")]})[0] == "paris"
    assert hits(library, {"ranks": [concept("dog") | {"negate": True}]})[-1] == "paris"
    like = v2.PostInputsSearchesRequest()
    search = like.searches.add()
    search.query.ranks.add().annotation.data.image.base64 = png("blue")
    found = ok(library("PostInputsSearches", like)).hits
    assert [hit.input.id for hit in found] == ["nowhere", "paris", "berlin"]
    assert found[0].score == pytest.approx(1.0, abs=1e-6)
    by_id = {"ranks": [{"annotation": {"input_id": "nowhere"}}]}
    assert hits(library, by_id) == ["nowhere", "paris", "berlin"]
    assert hits(library, by_id, min_value=0.999) == ["nowhere"]
    both = {"ranks": by_id["ranks"], "filters": [concept("dog")]}
    assert hits(library, both) == ["paris"]


def test_counts_pages_and_saved_searches(library: Raw) -> None:
    request = v2.PostInputsSearchesRequest(only_count=True)
    request.searches.add()
    assert ok(library("PostInputsSearches", request)).hit_counts[0].estimated_total == 3
    request.only_count = False
    request.pagination.CopyFrom(v2.Pagination(page=2, per_page=2))
    assert len(ok(library("PostInputsSearches", request)).hits) == 1
    saved = v2.PostInputsSearchesRequest()
    saved.searches.append(
        message(v2.Search, id="cats", save=True, query={"filters": [concept("cat")]})
    )
    assert ok(library("PostInputsSearches", saved)).id == "cats"
    assert ok(library("GetSearch", v2.GetSearchRequest(id="cats"))).search.save
    again = ok(library("PostSearchesByID", v2.PostSearchesByIDRequest(id="cats")))
    assert [hit.input.id for hit in again.hits] == ["berlin"]
    patch = v2.PatchInputsSearchesRequest(action="overwrite")
    patch.searches.append(message(v2.Search, id="cats", query={"filters": [concept("dog")]}))
    ok(library("PatchInputsSearches", patch))
    again = ok(library("PostSearchesByID", v2.PostSearchesByIDRequest(id="cats")))
    assert [hit.input.id for hit in again.hits] == ["paris"]
    ok(library("DeleteSearch", v2.DeleteSearchRequest(id="cats")))
    assert not ok(library("ListSearches", v2.ListSearchesRequest())).searches


def test_annotation_searches(library: Raw) -> None:
    request = v2.PostAnnotationsRequest()
    for name in ("cat", "cow"):
        data = {"concepts": [{"id": name, "value": 1}]}
        request.annotations.append(message(v2.Annotation, id=name, input_id="paris", data=data))
    ok(library("PostAnnotations", request))
    search = v2.PostAnnotationsSearchesRequest()
    search.searches.append(message(v2.Search, query={"filters": [concept("cow")]}))
    (hit,) = ok(library("PostAnnotationsSearches", search)).hits
    assert (hit.annotation.id, hit.input.id) == ("cow", "paris")
    assert set(hits(library, {"filters": [concept("cow")]})) == {"paris"}


@pytest.mark.parametrize("algorithm", ["nearest_neighbor", "brute_force"])
def test_algorithms_find_the_same(library: Raw, algorithm: str) -> None:
    # The published SDK names the first of them in every search.
    by_id = {"ranks": [{"annotation": {"input_id": "nowhere"}}]}
    settings = {"algorithm": algorithm, "metric": "EUCLIDEAN_DISTANCE"}
    assert hits(library, by_id, **settings) == ["nowhere", "paris", "berlin"]
    assert hits(library, by_id, min_value=0.999, **settings) == ["nowhere"]


def test_a_search_as_of_a_time(library: Raw) -> None:
    get = v2.GetInputRequest(input_id="paris")
    added = ok(library("GetInput", get)).input.created_at.ToNanoseconds()
    before, after = ({"as_of": _time(added + step)} for step in (-1, 1))
    assert "paris" not in hits(library, {}, **before)
    assert "paris" in hits(library, {}, **after)


def _time(nanoseconds: int) -> str:
    moment = v2.Search().as_of
    moment.FromNanoseconds(nanoseconds)
    return moment.ToJsonString()


def test_what_a_search_cannot_do_is_refused(library: Raw) -> None:
    request = v2.PostInputsSearchesRequest()
    request.searches.add(algorithm="magic")
    refused = library("PostInputsSearches", request).status
    assert refused.code == Code.SEARCH_INVALID_REQUEST
    assert "nearest_neighbor or brute_force" in refused.details
    empty = v2.PostInputsSearchesRequest()
    assert library("PostInputsSearches", empty).status.code == Code.SEARCH_INVALID_REQUEST
