"""A stand-in for the hosted clustering of embeddings: which cell of a fixed division has them."""

from __future__ import annotations

import numpy as np

from clarigrpc import v2
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

_PLANES = 16


class EmbeddingCluster(Runtime):
    """Gives the cell of each embedding in ``data.clusters``, by its id.

    The cells are made by 16 random planes through the origin, the same for every server: embeddings
    of a small angle to each other often share one. Nothing is learned from the app's inputs.
    """

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        result = v2.Data()
        for embedding in data.embeddings:
            vector = np.asarray(embedding.vector, np.float64)
            planes = np.random.default_rng(0).normal(size=(_PLANES, len(vector)))
            sides = (planes @ vector) > 0
            bits = "".join("01"[int(side)] for side in sides)
            result.clusters.add(id=f"{int(bits[:8], 2)}_{int(bits[8:], 2)}")
        if not result.clusters:
            raise ServiceError(
                StatusCode.INPUT_INVALID_ARGUMENT, "this model needs data.embeddings"
            )
        return result
