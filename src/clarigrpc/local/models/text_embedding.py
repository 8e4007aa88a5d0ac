"""text-embedding: which pieces of words a text has, as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.models.text_stream import text_of

TEXT_EMBEDDING_LENGTH = 1024
"""Length of a vector: each counts the pieces that fall on it."""


class TextEmbedding(Runtime):
    """Gives the vector of a text, of length 1, in ``data.embeddings``.

    scikit-learn's hashing of all pieces of three and four letters inside words. Texts that share
    words or stems come close; meaning beyond that is not seen, and nothing is learned. The vector
    of a text without letters is zero.
    """

    @cached_property
    def _hashing(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(
            analyzer="char_wb", ngram_range=(3, 4), n_features=TEXT_EMBEDDING_LENGTH
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of some texts, in rows."""
        return np.asarray(self._hashing.transform(texts).toarray(), np.float32)

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        (vector,) = self.embed([text_of(data, options.fetcher)])
        result = v2.Data()
        result.embeddings.add(vector=vector.tolist(), num_dimensions=TEXT_EMBEDDING_LENGTH)
        return result
