"""Which inputs are in which datasets.

An input says it itself, in ``dataset_ids``; beside that a row for every pair keeps the order in
which a dataset got its inputs and when.
"""

from __future__ import annotations

from collections.abc import Iterable

from clarigrpc import v2
from clarigrpc.local.engine.input_embeddings import EMBEDDING_LENGTHS, vectors_of
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.store.resource_store import DuplicateIdError, Store, StoredCollection
from clarigrpc.local.user_app import UserApp


def datasets_of(app: UserApp) -> StoredCollection:
    """Where the datasets of an app are kept."""
    return StoredCollection.of_app("dataset", app)


def members_of(app: UserApp, dataset_id: str) -> StoredCollection:
    """Where the pairs of a dataset and its inputs are kept, by the input's id."""
    return StoredCollection.of_app("dataset_input", app, dataset_id)


def unknown(store: Store, app: UserApp, dataset_ids: Iterable[str]) -> list[str]:
    """Those of the datasets that the app does not have."""
    return [i for i in dataset_ids if store.get(datasets_of(app), i) is None]


def update(
    store: Store, app: UserApp, input_id: str, before: Iterable[str], after: Iterable[str]
) -> None:
    """Keeps the pairs in step with a change of an input's datasets."""
    old, new = set(before), set(after)
    for dataset_id in old - new:
        store.delete(members_of(app, dataset_id), input_id)
    for dataset_id in new - old:
        pair = v2.DatasetInput()
        pair.created_at.GetCurrentTime()
        try:
            store.insert(members_of(app, dataset_id), input_id, pair.SerializeToString())
        except DuplicateIdError:
            continue


def join(store: Store, app: UserApp, dataset_id: str, input_id: str) -> bool:
    """Puts an input into a dataset; False where it is in it already."""
    row = store.get(StoredCollection.of_app(INPUT_KIND, app), input_id)
    assert row is not None
    item = v2.Input.FromString(row.body)
    if dataset_id in item.dataset_ids:
        return False
    update(store, app, input_id, item.dataset_ids, [*item.dataset_ids, dataset_id])
    item.dataset_ids.append(dataset_id)
    store.update(row.seq, item.SerializeToString(), row.status)
    return True


def leave(store: Store, app: UserApp, dataset_id: str, input_id: str) -> bool:
    """Takes an input out of a dataset; False where it is not in it."""
    row = store.get(StoredCollection.of_app(INPUT_KIND, app), input_id)
    if row is None:
        return store.delete(members_of(app, dataset_id), input_id)
    item = v2.Input.FromString(row.body)
    if dataset_id not in item.dataset_ids:
        return False
    kept = [i for i in item.dataset_ids if i != dataset_id]
    update(store, app, input_id, item.dataset_ids, kept)
    item.dataset_ids[:] = kept
    store.update(row.seq, item.SerializeToString(), row.status)
    return True


def forget_input(store: Store, app: UserApp, input_id: str) -> None:
    """Drops what hangs on an input that is being deleted: annotations, tracks, pairs."""
    row = store.get(StoredCollection.of_app(INPUT_KIND, app), input_id)
    if row is None:
        return
    update(store, app, input_id, v2.Input.FromString(row.body).dataset_ids, ())
    for medium in EMBEDDING_LENGTHS:
        store.delete(vectors_of(app, medium), input_id)
    for kind in ("annotation", "annotation_track", "video_manifest"):
        where = StoredCollection.of_app(kind, app)
        for found in store.walk(where, key=input_id):
            store.delete(where, found.id)
