"""What is read a stretch at a time is bounded by bytes, too."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import query, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.local.store import resource_store
from clarigrpc.local.store.resource_store import Row, Store, StoredCollection
from tests.waiting import until

WHERE = StoredCollection("thing", "u", "a")
Walk = Callable[[Store], Iterator[Row]]


def filled(sizes: list[int]) -> Store:
    store = Store()
    for number, size in enumerate(sizes):
        store.insert(WHERE, f"i{number}", bytes(size), status=number % 2, key=f"k{number % 3}")
    return store


def backwards(store: Store) -> Iterator[Row]:
    return store.walk(WHERE)


def by_places(store: Store) -> Iterator[Row]:
    return store.rows([row.seq for row in store.page(WHERE, 0, -1)])


@pytest.mark.parametrize("walk", [backwards, by_places])
@given(sizes=st.lists(st.integers(0, 40), max_size=100), most=st.integers(0, 100))
def test_every_row_comes_once(walk: Walk, sizes: list[int], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resource_store, "BYTES_PER_READ", most)
        store = filled(sizes)
        try:
            every = [(f"i{n}", n % 2, size) for n, size in enumerate(sizes)]
            assert [(row.id, row.status, len(row.body)) for row in walk(store)] == every[::-1]
            found = [row.id for row in store.walk(WHERE, newest_first=False, status=1)]
            assert found == [f"i{n}" for n in range(len(sizes)) if n % 2]
            found = [row.id for row in store.walk(WHERE, newest_first=False, key="k2")]
            assert found == [f"i{n}" for n in range(len(sizes)) if n % 3 == 2]
        finally:
            store.close()


@pytest.mark.measures
@pytest.mark.parametrize("walk", [backwards, by_places])
def test_long_rows_are_not_read_many_at_once(walk: Walk) -> None:
    size = 1 << 20
    store = filled([size] * 96)
    try:
        rows = walk(store)
        tracemalloc.start()
        try:
            assert sum(len(row.body) for row in rows) == 96 * size
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # A few stretches: the next one is read before the last is let go.
        assert peak < 3 * resource_store.BYTES_PER_READ + 4 * size
    finally:
        store.close()


def test_texts_of_more_bytes_than_a_page_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalServer() as server, server.client() as client:
        texts = [f"{word} " * 2_000 for word in ("cats", "boats", "trees", "clouds")]
        client.inputs.create([text(t, id=t[:4]) for t in texts])
        client.inputs.wait(["cats", "boat", "tree", "clou"])
        monkeypatch.setattr(resource_store, "MAX_PAGE_BYTES", 40_000)
        hits = client.search.inputs(query.like_text("boats"))
        assert next(iter(hits)).input.id == "boat"


def test_an_input_with_more_annotations_than_fit_in_a_page_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource_store, "MAX_PAGE_BYTES", 40_000)
    with LocalServer() as server, server.client() as client:
        client.inputs.create([text("a text", id="i")])
        client.inputs.wait(["i"])
        for name in ("a", "b"):
            annotation = v2.Annotation(id=name, input_id="i")
            annotation.data.metadata["note"] = "x" * 30_000
            client.annotations.create(annotation)
        client.inputs.delete(["i"])
        until(lambda: not [*client.inputs.list()])
