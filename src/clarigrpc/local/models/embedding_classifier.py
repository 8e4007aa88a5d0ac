"""Classifiers of embeddings that the server trains: logistic regression, one row a concept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime, data_of, limit_concepts

Float32s: TypeAlias = NDArray[np.float32]
_Labels: TypeAlias = NDArray[np.bool_]

_INVERSE_STRENGTH = 10.0
"""scikit-learn's C. Vectors of length 1 lie close together: its default of 1 would hold the values
near one half."""

_ITERATIONS = 1000


_NEVER = -60.0
"""Bias of a concept that no input has."""


@dataclass(frozen=True)
class Weights:
    """What was learned.

    Attributes:
        concepts: Ids, in the order of the rows.
        rows: Weights, concepts x dimensions.
        bias: One number a concept.
        exclusive: Whether every input has exactly one of the concepts.
    """

    concepts: tuple[str, ...]
    rows: Float32s
    bias: Float32s
    exclusive: bool

    def values(self, vectors: Float32s) -> Float32s:
        """Values of all concepts, 0 to 1, examples x concepts."""
        scores = vectors @ self.rows.T + self.bias
        if not self.exclusive:
            values = 1.0 / (1.0 + np.exp(-np.clip(scores, -60, 60)))
        else:
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            values = powers / powers.sum(axis=1, keepdims=True)
        return np.asarray(values, np.float32)

    def among(self, concepts: Sequence[str]) -> Weights:
        """The same in the order of ``concepts``; those that nothing was learned of are always 0."""
        places = {concept: number for number, concept in enumerate(self.concepts)}
        rows = np.zeros((len(concepts), self.rows.shape[1]), np.float32)
        bias = np.full(len(concepts), _NEVER, np.float32)
        for number, concept in enumerate(concepts):
            if concept in places:
                rows[number] = self.rows[places[concept]]
                bias[number] = self.bias[places[concept]]
        return Weights(tuple(concepts), rows, bias, self.exclusive)

    def to_bytes(self) -> bytes:
        """As a file of arrays in numpy's format, without any code in it."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            concepts=packed(self.concepts),
            rows=self.rows,
            bias=self.bias,
            exclusive=np.array(self.exclusive),
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Weights:
        """From ``to_bytes``; ValueError for anything else."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(
                unpacked(arrays["concepts"]),
                arrays["rows"],
                arrays["bias"],
                bool(arrays["exclusive"]),
            )


def packed(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts of any content as an array of bytes; those of numpy lose zeros at their ends."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)


def unpacked(array: NDArray[np.uint8]) -> tuple[str, ...]:
    """What ``packed`` was given."""
    return tuple(json.loads(array.tobytes()))


def fit(
    concepts: Sequence[str],
    vectors: Float32s,
    labels: _Labels,
    *,
    exclusive: bool,
    check: Callable[[], None],
) -> Weights:
    """Learns from examples.

    Args:
        concepts: Ids; for each there is an example that has it, and one that has it not.
        vectors: Embeddings, examples x dimensions.
        labels: Which examples have which concepts, examples x concepts.
        exclusive: Whether every input has exactly one of the concepts; examples without any are
            then left out, and none has several.
        check: Called before each concept; ends the work by raising.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    def fitted(examples: Float32s, classes: NDArray[Any]) -> LogisticRegression:
        model = LogisticRegression(
            C=_INVERSE_STRENGTH, class_weight="balanced", max_iter=_ITERATIONS, random_state=0
        )
        # On matrices so small several threads wait for each other most of the time.
        with threadpool_limits(1):
            return model.fit(examples, classes)

    if exclusive:
        check()
        known = labels.any(axis=1)
        common = fitted(vectors[known], labels[known].argmax(axis=1))
        rows, bias = common.coef_, common.intercept_
        if len(concepts) == 2:  # scikit-learn then has one row, for the second
            rows, bias = np.vstack([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
    else:
        parts = []
        for column in range(len(concepts)):
            check()
            parts.append(fitted(vectors, labels[:, column]))
        rows = np.vstack([part.coef_ for part in parts])
        bias = np.concatenate([part.intercept_ for part in parts])
    return Weights(
        tuple(concepts), np.asarray(rows, np.float32), np.asarray(bias, np.float32), exclusive
    )


class EmbeddingClassifier(Runtime):
    """Concepts of an input by its embedding, the likeliest first; of a video for each frame.

    Args:
        embedder: The base model, which makes the embeddings.
        weights: What was learned.
        concepts: The concepts as outputs show them, in the order of the weights.
    """

    def __init__(self, embedder: Runtime, weights: Weights, concepts: Sequence[v2.Concept]) -> None:
        self._embedder = embedder
        self._weights = weights
        self._concepts = tuple(concepts)

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        return self._classified(self._embedder.predict(data, options), options)

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Data]:
        for embedded in self._embedder.generate(data, options):
            yield self._classified(data_of(embedded), options)

    def _classified(self, embedded: v2.Data, options: PredictOptions) -> v2.Data:
        result = v2.Data()
        if embedded.embeddings:
            vector = np.asarray(embedded.embeddings[0].vector, np.float32)
            values = self._weights.values(vector[np.newaxis])[0]
            concepts = []
            for index in np.argsort(-values, kind="stable"):
                concept = v2.Concept()
                concept.CopyFrom(self._concepts[index])
                concept.value = values[index]
                concepts.append(concept)
            result.concepts.extend(limit_concepts(concepts, options.output_config))
        for frame in embedded.frames:
            result.frames.add(
                id=frame.id,
                frame_info=frame.frame_info,
                data=self._classified(frame.data, options),
            )
        return result
