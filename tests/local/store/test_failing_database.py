"""The store when statements fail: what was acknowledged is there, and nothing else."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc.local.store.resource_store import (
    DuplicateIdError,
    Indexed,
    Store,
    StoredCollection,
    StoreError,
    Tag,
)
from tests.local.store.failing_sqlite import FailingConnection, Failure, connections

ANNA, BERT = (StoredCollection("concept", user, "app") for user in ("anna", "bert"))
ELSEWHERE = StoredCollection("concept", "anna", "other", "parent")
COLLECTIONS = (ANNA, BERT, ELSEWHERE)

Content = dict[StoredCollection, dict[str, bytes]]
"""What each collection should hold, by id."""


def indexed(body: bytes) -> Indexed:
    return Indexed(
        {(1, float(len(body)))}, (1.0, 2.0), body.decode(), frozenset({Tag("t", True, "t")})
    )


INDEXERS = {"concept": indexed}


class Expected:
    """A store and what it should hold; a change that fails must leave both as they were."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.content: Content = defaultdict(dict)

    def attempt(self, *changes: Callable[[Store, Content], None]) -> bool:
        """Whether the changes, in one transaction, were acknowledged."""
        changed: Content = defaultdict(dict, {k: dict(v) for k, v in self.content.items()})
        try:
            with self.store.transaction():
                for change in changes:
                    change(self.store, changed)
        except StoreError:
            return False
        self.content = changed
        return True

    def check(self, store: Store | None = None) -> None:
        """Compares."""
        store = store or self.store
        for where in COLLECTIONS:
            held = {row.id: row.body for row in store.walk(where)}
            assert held == self.content[where]
            assert store.count(where) == len(held)
            assert sum(tags.total for tags in store.count_tags(where)) == len(held)


def insert(
    where: StoredCollection, name: str, body: bytes = b"body"
) -> Callable[[Store, Content], None]:
    def change(store: Store, content: Content) -> None:
        try:
            with store.savepoint():
                store.insert(where, name, body, content=b"x" * 5000, key=name)
        except DuplicateIdError:
            assert name in content[where]
        else:
            assert name not in content[where]
            content[where][name] = body

    return change


def update(where: StoredCollection, name: str, body: bytes) -> Callable[[Store, Content], None]:
    def change(store: Store, content: Content) -> None:
        row = store.get(where, name)
        assert (row is not None) == (name in content[where])
        if row is not None:
            store.update(row.seq, body, 1)
            content[where][name] = body

    return change


def delete(where: StoredCollection, name: str) -> Callable[[Store, Content], None]:
    def change(store: Store, content: Content) -> None:
        assert store.delete(where, name) == (content[where].pop(name, None) is not None)

    return change


def insert_and_undo(where: StoredCollection, name: str) -> Callable[[Store, Content], None]:
    """An item of a call that fails after it was written."""

    def change(store: Store, content: Content) -> None:
        try:
            with store.savepoint():
                store.insert(where, name, b"undone")
                store.insert(where, name, b"refused")
        except DuplicateIdError:
            pass

    return change


def rename(where: StoredCollection, old: str, new: str) -> Callable[[Store, Content], None]:
    def change(store: Store, content: Content) -> None:
        if old in content[where] and new not in content[where]:
            store.rename(where, old, new)
            content[where][new] = content[where].pop(old)

    return change


def move(where: StoredCollection, to: StoredCollection) -> Callable[[Store, Content], None]:
    def change(store: Store, content: Content) -> None:
        if content[where]:
            store.move(where, to)
            content[to] = content.pop(where)

    return change


CALLS: tuple[tuple[Callable[[Store, Content], None], ...], ...] = (
    (insert(ANNA, "one"),),
    (insert_and_undo(BERT, "one"), insert(ELSEWHERE, "one")),
    (insert(BERT, "two"), insert(BERT, "two"), insert_and_undo(ANNA, "three")),
    (update(ANNA, "one", b"changed"), delete(ELSEWHERE, "one")),
    (rename(ANNA, "one", "first"), insert(ANNA, "one")),
    (move(ANNA, ELSEWHERE), insert(ANNA, "again")),
    (delete(BERT, "two"), insert(BERT, "last")),
)
"""Calls of users, each a transaction."""


@pytest.mark.parametrize("failure", Failure)
def test_whichever_statement_fails(failure: Failure, tmp_path: Path) -> None:
    number, failed = 0, True
    while failed:
        number += 1
        with connections() as made:
            # A file for one kind alone: opening it takes most of the time.
            path = tmp_path / f"{number}.sqlite" if failure is Failure.TRANSACTION else None
            store = Store(path, INDEXERS)
            expected = Expected(store)
            (connection,) = made
            connection.fail_at, connection.failure = connection.count + number, failure
            results = [expected.attempt(*call) for call in CALLS]
            failed = not all(results)
            # One call fails, those after it do not, whatever the failure left.
            assert results.count(False) <= 1
            connection.fail_at = -1
            expected.check()
        if path is not None:
            _killed(path, expected)
        store.close()
    assert number > 50


def _killed(path: Path, expected: Expected) -> None:
    """Compares with what another process would find after this one was killed."""
    copy = path.with_name("copy.sqlite")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    store = Store(copy, INDEXERS)
    expected.check(store)
    store.close()


names, places = st.sampled_from("abc"), st.sampled_from(COLLECTIONS)
changes = st.one_of(
    st.builds(insert, places, names, st.sampled_from((b"xyz", b"longer text"))),
    st.builds(insert_and_undo, places, names),
    st.builds(update, places, names, st.sampled_from((b"changed", b"zz"))),
    st.builds(delete, places, names),
    st.builds(rename, places, names, names),
    st.builds(move, places, places),
)


@given(
    st.lists(
        st.tuples(
            st.lists(changes, min_size=1, max_size=4),
            st.none() | st.tuples(st.integers(1, 40), st.sampled_from(Failure)),
        ),
        max_size=8,
    )
)
def test_random_calls_and_failures(
    calls: list[tuple[list[Callable[[Store, Content], None]], tuple[int, Failure] | None]],
) -> None:
    with connections() as made:
        store = Store(indexers=INDEXERS)
        expected = Expected(store)
        (connection,) = made
        for call, fault in calls:
            if fault is not None:
                connection.fail_at, connection.failure = connection.count + fault[0], fault[1]
            expected.attempt(*call)
            connection.fail_at = -1
            expected.check()
        store.close()


def failing(store: Store, connection: FailingConnection) -> None:
    """A transaction that its last statement, the commit, undoes."""
    with store.transaction():
        store.insert(ANNA, "x", b"body")
        connection.fail_at = connection.count + 1


def test_what_follows_a_commit_waits_for_it() -> None:
    done: list[str] = []
    with connections() as made:
        store = Store()
        store.after_commit(lambda: done.append("outside"))
        with store.transaction():
            store.after_commit(lambda: done.append("kept"))
            with pytest.raises(LookupError), store.savepoint():
                store.after_commit(lambda: done.append("undone with a part"))
                raise LookupError
            assert done == ["outside"]
        assert done == ["outside", "kept"]
        with pytest.raises(StoreError, match="full"), store.transaction():
            store.after_commit(lambda: done.append("undone"))
            failing(store, made[0])
        store.insert(ANNA, "y", b"body")
        assert done == ["outside", "kept"]
        store.close()


def test_what_was_remembered_of_an_undone_transaction_is_forgotten() -> None:
    forgotten: list[bool] = []
    with connections() as made:
        store = Store()
        store.when_undone(lambda: forgotten.append(True))
        store.insert(ANNA, "a", b"body")
        assert not forgotten
        with pytest.raises(StoreError):
            failing(store, made[0])
        assert forgotten == [True]
        store.close()


def test_a_failure_that_is_caught_inside_still_undoes_the_transaction() -> None:
    with connections() as made:
        store = Store()
        with pytest.raises(StoreError), store.transaction():
            store.insert(ANNA, "a", b"body")
            made[0].fail_at = made[0].count + 1
            with pytest.raises(StoreError):
                store.insert(ANNA, "b", b"body")
            with pytest.raises(StoreError, match="undone"):
                store.insert(ANNA, "c", b"body")
        assert store.count(ANNA) == 0
        store.close()
