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


def test_what_a_search_cannot_do_is_refused(library: Raw) -> None:
    request = v2.PostInputsSearchesRequest()
    request.searches.add().as_of.GetCurrentTime()
    assert library("PostInputsSearches", request).status.code == Code.NOT_IMPLEMENTED
    empty = v2.PostInputsSearchesRequest()
    assert library("PostInputsSearches", empty).status.code == Code.SEARCH_INVALID_REQUEST
