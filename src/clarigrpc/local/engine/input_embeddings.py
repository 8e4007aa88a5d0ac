"""The vectors of an app's inputs: made once, kept beside the inputs, compared by searches.

Images get theirs when they are processed. A text is noted then, and gets its vector when a search
or a training first needs the vectors of texts: that work loads scikit-learn.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from clarigrpc.local.models import image_embedding, text_embedding
from clarigrpc.local.models.image_embedding import Vector
from clarigrpc.local.store.resource_store import (
    BYTES_PER_READ,
    DuplicateIdError,
    Row,
    Store,
    StoredCollection,
)
from clarigrpc.local.user_app import UserApp

EmbeddedMedium: TypeAlias = Literal["image", "text"]

EMBEDDING_LENGTHS: Mapping[EmbeddedMedium, int] = {
    "image": image_embedding.IMAGE_EMBEDDING_LENGTH,
    "text": text_embedding.TEXT_EMBEDDING_LENGTH,
}
"""The kinds of inputs that have vectors, and the lengths of those."""

_READY, _NOTED = 0, 1
_TEXTS_PER_ROUND = 256
_CACHED = 4


def vectors_of(app: UserApp, medium: EmbeddedMedium) -> StoredCollection:
    """Where the vectors of an app's images or texts are kept, by the ids of the inputs."""
    return StoredCollection.of_app(f"{medium}_embedding", app)


class Vectors(NamedTuple):
    """Vectors in rows, with the ids of the inputs that they are of."""

    ids: tuple[str, ...]
    rows: NDArray[np.float32]


def similarities(
    rows: NDArray[np.float32], probe: Vector, *, euclidean: bool = False
) -> NDArray[np.float32]:
    """How alike vectors in rows are to another one, each 0 to 1.

    That is half of 1 + the cosine of the angle between them, or 1 / (1 + their distance).
    """
    if euclidean:
        alike = 1.0 / (1.0 + np.linalg.norm(rows - probe, axis=1))
    else:
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(probe)
        cosines = np.divide(rows @ probe, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        alike = (1.0 + cosines) / 2
    return np.asarray(np.clip(alike, 0.0, 1.0), np.float32)


class Embeddings:
    """Keeps and finds the vectors.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._text = text_embedding.TextEmbedding()
        self._lock = threading.Lock()
        self._cache: OrderedDict[StoredCollection, tuple[tuple[int, int], Vectors]] = OrderedDict()

    def add(self, app: UserApp, input_id: str, content: Vector | str) -> None:
        """Keeps the vector of an image, or notes a text."""
        if isinstance(content, str):
            where, body, status = vectors_of(app, "text"), content.encode(), _NOTED
        else:
            where, body, status = vectors_of(app, "image"), content.tobytes(), _READY
        try:
            self._store.insert(where, input_id, body, status=status, key=input_id)
        except DuplicateIdError:
            return

    def of_image(self, image: PIL.Image.Image) -> Vector:
        """The vector of an image."""
        return image_embedding.embed(image)

    def of_text(self, text: str) -> Vector:
        """The vector of a text."""
        return self._text.embed([text])[0]  # type: ignore[no-any-return]

    def of_input(self, app: UserApp, input_id: str) -> tuple[EmbeddedMedium, Vector] | None:
        """The vector of an input, None where it has none."""
        for medium in EMBEDDING_LENGTHS:
            where = vectors_of(app, medium)
            row = self._store.get(where, input_id)
            if row is not None and row.status == _NOTED:
                with self._lock:
                    self._complete(where)
                row = self._store.get(where, input_id)
            if row is not None:
                return medium, np.frombuffer(row.body, np.float32)
        return None

    def all(self, app: UserApp, medium: EmbeddedMedium) -> Vectors:
        """The vectors of all images or texts of an app that have been processed."""
        where = vectors_of(app, medium)
        with self._lock:
            self._complete(where)
            state = self._store.extent(where)
            kept = self._cache.get(where)
            if kept is None or kept[0] != state:
                kept = (state, self._read(where))
                self._cache[where] = kept
                if len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(where)
            return kept[1]

    def _complete(self, where: StoredCollection) -> None:
        """Gives the texts that were noted their vectors."""
        while rows := self._noted(where):
            vectors = self._text.embed([row.body.decode() for row in rows])
            with self._store.transaction():
                for row, vector in zip(rows, vectors, strict=True):
                    self._store.update(row.seq, vector.tobytes(), _READY)
            # Bodies have changed in place, which the extent does not show.
            self._cache.pop(where, None)

    def _noted(self, where: StoredCollection) -> list[Row]:
        """The next texts without a vector: a round of them, fewer where they are long."""
        rows, size = [], 0
        for row in self._store.walk(where, status=_NOTED):
            rows.append(row)
            size += len(row.body)
            if len(rows) == _TEXTS_PER_ROUND or size > BYTES_PER_READ:
                break
        return rows

    def _read(self, where: StoredCollection) -> Vectors:
        ids, bodies = [], []
        for row in self._store.walk(where):
            if row.status == _READY:  # others came after they were completed
                ids.append(row.id)
                bodies.append(row.body)
        flat = np.frombuffer(b"".join(bodies), np.float32)
        return Vectors(tuple(ids), flat.reshape(len(ids), -1) if ids else flat.reshape(0, 0))
