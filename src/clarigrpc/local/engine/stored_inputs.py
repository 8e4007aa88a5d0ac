"""Where inputs are kept, with what belongs to them."""

from __future__ import annotations

from collections.abc import Iterator

from clarigrpc import v2
from clarigrpc.local.engine.input_level_annotations import own_annotation
from clarigrpc.local.media import media_content
from clarigrpc.local.store.resource_store import Store, StoredCollection
from clarigrpc.local.user_app import UserApp

INPUT_KIND = "input"


def annotations_of(store: Store, app: UserApp, input_id: str) -> Iterator[v2.Annotation]:
    """The annotations of an input beside its own, newest first."""
    where = StoredCollection.of_app("annotation", app)
    for row in store.walk(where, key=input_id):
        annotation = store.message(v2.Annotation, row)
        if annotation is not None:
            yield annotation


def all_annotations_of(store: Store, app: UserApp, item: v2.Input) -> Iterator[v2.Annotation]:
    """The annotations of an input, its own first."""
    yield own_annotation(item, app)
    yield from annotations_of(store, app, item.id)


def with_content(store: Store, seq: int, item: v2.Input) -> v2.Data:
    """The data of a stored input with its bytes, as a model takes it."""
    data = v2.Data()
    data.CopyFrom(item.data)
    content = store.content(seq)
    if content is not None:
        kind = media_content.kind_of(data)
        getattr(data, kind).base64 = content
    return data
