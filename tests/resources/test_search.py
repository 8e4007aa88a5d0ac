"""Searches by every condition of ``clarigrpc.query``, on a real server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import errors, image, query, text, v2
from tests.both import Both
from tests.local.conftest import png


async def add(both: Both) -> None:
    c = both.client
    red = image(png("red"), id="red", concepts={"warm": 1, "cold": 0}, metadata={"n": {"k": 1}})
    red.data.geo.geo_point.CopyFrom(v2.GeoPoint(latitude=52.5, longitude=13.4))
    blue = image(png("blue"), id="blue", concepts={"warm": 0, "cold": 1})
    blue.data.geo.geo_point.CopyFrom(v2.GeoPoint(latitude=48.1, longitude=11.6))
    word = text("a word", id="word")
    await both.run(c.inputs.create, [red, blue, word])
    await both.run(c.inputs.wait, ["red", "blue", "word"])


async def ids(both: Both, *conditions: query.Condition, **options: object) -> list[str]:
    hits = await both.collect(both.client.search.inputs(*conditions, **options))
    return [hit.input.id for hit in hits]


async def test_words_and_alternatives(both: Both) -> None:
    await add(both)
    assert await ids(both, query.has_text("WORD")) == ["word"]
    assert await ids(both, query.has_text("sentence")) == []
    warm, cold = query.has_concept("warm"), query.has_concept("cold")
    assert set(await ids(both, query.any_of(warm, cold))) == {"red", "blue"}
    assert set(await ids(both, query.any_of(warm, query.has_text("word")))) == {"red", "word"}
    assert await ids(both, query.negate(query.any_of(warm, cold))) == ["word"]
    assert not warm.input.data.ByteSize()
    assert (await ids(both, query.like_text("a word")))[0] == "word"


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ([], "at least one"),
        ([query.has_text("a"), query.has_text("b")], "only one condition on text"),
        ([query.has_metadata({"a": 1}), query.has_metadata({"b": 1})], "on metadata"),
        ([query.negate(query.has_concept("a"))], "negated"),
        ([query.updated(datetime(2026, 1, 1, tzinfo=UTC))], "range of time"),
    ],
)
def test_what_one_filter_cannot_say(filters: list[v2.Filter], reason: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=reason):
        query.any_of(*filters)
    with pytest.raises(errors.InvalidArgumentError, match="empty"):
        query.has_text("")
    with pytest.raises(errors.InvalidArgumentError, match="empty"):
        query.like_text("")
    with pytest.raises(TypeError, match="not Rank"):
        query.any_of(query.like_text("a"))  # type: ignore[arg-type]


async def test_filters(both: Both) -> None:
    await add(both)
    assert set(await ids(both)) == {"red", "blue", "word"}
    assert await ids(both, query.has_concept("warm")) == ["red"]
    assert await ids(both, query.has_concept("warm", value=0)) == ["blue"]
    assert await ids(both, query.has_metadata({"n": {"k": 1}})) == ["red"]
    assert await ids(both, query.has_metadata({"n": {"k": 2}})) == []
    assert await ids(both, query.near(52.0, 13.0, within=100)) == ["red"]
    assert await ids(both, query.near(48.0, 11.0, within=100, unit="miles")) == ["blue"]
    assert await ids(both, query.in_box((52, 13), (53, 14))) == ["red"]
    # Across the 180th meridian, and not the long way round past red.
    assert await ids(both, query.in_box((52, 170), (53, -170))) == []
    assert await ids(both, query.is_input("word")) == ["word"]
    assert await ids(both, query.is_kind("text")) == ["word"]
    done = query.has_status(v2.StatusCode.INPUT_SUCCESS)
    assert len(await ids(both, done)) == 3
    assert await ids(both, query.negate(done)) == []
    both_hold = (query.is_kind("image"), query.negate(query.has_concept("warm")))
    assert await ids(both, *both_hold) == ["blue"]
    assert await both.run(both.client.search.count, query.is_kind("image")) == 2
    now = datetime.now(UTC)
    assert len(await ids(both, query.updated(since=now - timedelta(hours=1)))) == 3
    assert await ids(both, query.updated(until=now - timedelta(hours=1))) == []
    assert len(await ids(both, query.updated(since=(now - timedelta(days=1)).date()))) == 3


async def test_datasets_and_urls(both: Both) -> None:
    c = both.client
    await add(both)
    await both.run(c.datasets.create, "d")
    await both.run(c.datasets.inputs("d").add, ["blue"])
    assert await ids(both, query.in_dataset("d")) == ["blue"]
    assert await ids(both, query.has_url("https://example.org/cat.jpg")) == []


async def test_ranks(both: Both) -> None:
    await add(both)
    assert (await ids(both, query.like_image(png("#f01010"))))[0] == "red"
    assert (await ids(both, query.like_input("blue")))[0] == "blue"
    assert (await ids(both, query.negate(query.like_image(png("red")))))[0] == "blue"
    hits = await both.collect(both.client.search.inputs(query.by_concept("warm")))
    assert (hits[0].input.id, hits[0].score) == ("red", 1.0)
    only = await both.collect(both.client.search.inputs(query.like_input("red"), min_value=0.99))
    assert [hit.input.id for hit in only] == ["red"]
    with pytest.raises(errors.ApiError, match="input 'no-such-input' does not exist"):
        await ids(both, query.like_input("no-such-input"))


async def test_pages(both: Both) -> None:
    await add(both)
    assert len(await ids(both, page=1, per_page=2)) == 2
    assert len(await ids(both, page=2, per_page=2)) == 1
    assert set(await ids(both, per_page=1)) == {"red", "blue", "word"}


async def test_saved_searches(both: Both) -> None:
    c = both.client
    await add(both)
    search = query.search(query.has_concept("warm"), id="warm", name="what is warm")
    kept = await both.run(c.search.saved.create, search)
    assert (kept.id, kept.name) == ("warm", "what is warm")
    assert not search.save
    hits = await both.collect(c.search.saved.run("warm"))
    assert [hit.input.id for hit in hits] == ["red"]
    changed = v2.Search(id="warm", name="renamed")
    assert (await both.run(c.search.saved.patch, changed, action="overwrite")).name == "renamed"
    await both.run(c.search.saved.patch_many, [changed], action="overwrite")
    assert (await both.run(c.search.saved.get, "warm")).name == "renamed"
    assert [one.id for one in await both.collect(c.search.saved.list())] == ["warm"]
    with pytest.raises(errors.AlreadyExistsError):
        await both.run(c.search.saved.create, search)
    await both.run(c.search.saved.delete, "warm")
    with pytest.raises(errors.NotFoundError):
        await both.collect(c.search.saved.run("warm"))


def test_conditions_that_cannot_be() -> None:
    with pytest.raises(errors.InvalidArgumentError, match="latitude must be"):
        query.near(91, 0, within=1)
    with pytest.raises(errors.InvalidArgumentError, match="kilometers"):
        query.near(0, 0, within=1, unit="parsecs")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match="vector"):
        query.like_embedding([])
    with pytest.raises(errors.InvalidArgumentError, match="concept"):
        query.has_concept("")
    with pytest.raises(errors.InvalidArgumentError, match="smell"):
        query.is_kind("smell")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"clarigrpc\.query"):
        query.search("dog")  # type: ignore[arg-type]


async def test_options_that_are_none(both: Both) -> None:
    with pytest.raises(TypeError, match=r"unknown options rank; known are language, "):
        await ids(both, rank="dog")


conditions = st.lists(
    st.one_of(
        st.text(min_size=1).map(query.has_concept),
        st.text(min_size=1).map(query.by_concept),
        st.lists(st.floats(-1, 1), min_size=1).map(query.like_embedding),
        st.dictionaries(st.text(), st.integers(-9, 9), max_size=3).map(query.has_metadata),
    )
)


@given(conditions)
def test_a_search_holds_all_its_conditions_in_order(wanted: list[query.Condition]) -> None:
    made = query.search(*wanted).query
    assert list(made.filters) == [one for one in wanted if isinstance(one, v2.Filter)]
    assert list(made.ranks) == [one for one in wanted if isinstance(one, v2.Rank)]
    for one in wanted:
        opposite = query.negate(one)
        assert opposite.negate != one.negate
        assert query.negate(opposite) == one


@pytest.mark.parametrize(
    "make",
    [
        query.has_concept,
        query.by_concept,
        query.is_input,
        query.like_input,
        query.in_dataset,
        query.has_url,
        query.has_text,
        query.like_text,
    ],
)
def test_a_condition_names_something(make: Any) -> None:
    """An empty id would be no condition: everything would be found."""
    with pytest.raises(errors.InvalidArgumentError, match="is empty"):
        make("")
    with pytest.raises(TypeError, match="has to be a string, not int"):
        make(3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: query.has_status(v2.StatusCode.ZERO), "the status is 0"),
        (lambda: query.near(1, 2, within=-3), "within must be 0 or more"),
        (lambda: query.in_box(1, 2), r"a place is \(latitude, longitude\), not 1"),  # type: ignore[arg-type]
        (lambda: query.like_embedding([float("nan")]), "NaN"),
        (lambda: query.like_embedding(np.zeros((2, 2))), "not a sequence of numbers"),  # type: ignore[arg-type]
        (lambda: query.negate("a"), "expected a v2.Filter or v2.Rank"),  # type: ignore[type-var]
    ],
)
def test_a_condition_that_means_nothing(make: Any, said: str) -> None:
    with pytest.raises((errors.InvalidArgumentError, TypeError), match=said):
        make()
