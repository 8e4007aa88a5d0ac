"""Training of classifiers: which examples there are, and what is learned from them.

A version is trained on the inputs that have been processed when it is made. What they are and how
they are labelled is kept with the version until it is trained, so that later changes do not count
and a restart can go on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clarigrpc import v2
from clarigrpc.local.engine import dataset_snapshots, evaluation_metrics
from clarigrpc.local.engine.dataset_membership import members_of
from clarigrpc.local.engine.input_level_annotations import own_annotation
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.models.embedding_classifier import Float32s, Weights, fit, packed, unpacked
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import Store, StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

PRESENT = 0.5
"""From this value on a label says that the concept is there."""

_FOLDS = 5
_MAX_HELD_OUT = 1000
"""Parts of a cross-validation, and most examples in it."""


class Labelled(NamedTuple):
    """An input with labels: its concepts, and which of them are there."""

    item: v2.Input
    labels: Mapping[str, bool]


def labelled_inputs(store: Store, app: UserApp, dataset: v2.Dataset) -> Iterator[Labelled]:
    """The inputs that can be trained on, the oldest first.

    These are all of the app's that have been processed and have a label, or those of the dataset
    or of its version. Labels are the concepts of the inputs and those of their finished annotations
    of the whole input; one that says that a concept is there wins over one that denies it.
    """
    if dataset.version.id:
        for entry in dataset_snapshots.entries(store, app, dataset.id, dataset.version.id):
            yield from _usable(entry.input, entry.annotations)
        return
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    annotated: dict[str, list[v2.Annotation]] = {}
    for row in store.walk(inputs._replace(kind="annotation")):
        annotation = v2.Annotation.FromString(row.body)
        if annotation.data.concepts:
            annotated.setdefault(annotation.input_id, []).append(annotation)
    if dataset.id:
        members = store.walk(members_of(app, dataset.id), newest_first=False)
        rows = (found for member in members if (found := store.get(inputs, member.id)))
    else:
        rows = (row for row in store.walk(inputs, newest_first=False))
    for row in rows:
        if row.status == StatusCode.INPUT_SUCCESS:
            item = v2.Input.FromString(row.body)
            yield from _usable(
                item, [own_annotation(item, inputs.app), *annotated.get(item.id, ())]
            )


def _usable(item: v2.Input, annotations: Iterable[v2.Annotation]) -> Iterator[Labelled]:
    if item.status.code != StatusCode.INPUT_SUCCESS:
        return
    labels: dict[str, bool] = {}
    for annotation in annotations:
        if annotation.status.code in (StatusCode.ANNOTATION_SUCCESS, StatusCode.INPUT_SUCCESS):
            for concept in annotation.data.concepts:
                labels[concept.id] = labels.get(concept.id, False) or concept.value >= PRESENT
    if labels:
        yield Labelled(item, labels)


@dataclass
class Examples:
    """What a training has to go by, without the inputs themselves.

    Attributes:
        inputs: Ids of inputs.
        concepts: Ids of concepts.
        labels: Which inputs have which concepts, inputs x concepts. An input that says nothing of
            a concept counts as without it.
    """

    inputs: list[str] = field(default_factory=list)
    concepts: list[str] = field(default_factory=list)
    labels: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))

    @classmethod
    def gather(cls, found: Iterable[Labelled], concepts: Iterable[str]) -> Examples:
        """From labelled inputs.

        Args:
            found: The inputs; those that say nothing of any of the concepts are left out.
            concepts: Those to learn; all that there are for none.
        """
        wanted = list(dict.fromkeys(concepts))
        kept = [one for one in found if not wanted or not one.labels.keys().isdisjoint(wanted)]
        wanted = wanted or sorted({concept for one in kept for concept in one.labels})
        labels = [[one.labels.get(concept, False) for concept in wanted] for one in kept]
        return cls(
            [one.item.id for one in kept],
            wanted,
            np.array(labels, np.bool_).reshape(len(kept), len(wanted)),
        )

    def only(self, numbers: Sequence[int]) -> Examples:
        """Those at some places."""
        return Examples(
            [self.inputs[number] for number in numbers],
            self.concepts,
            self.labels[np.array(numbers, np.intp)],
        )

    def to_bytes(self) -> bytes:
        """As a file of arrays in numpy's format."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            inputs=packed(self.inputs),
            concepts=packed(self.concepts),
            labels=self.labels,
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Examples:
        """From ``to_bytes``."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            inputs, concepts = unpacked(arrays["inputs"]), unpacked(arrays["concepts"])
            return cls(list(inputs), list(concepts), arrays["labels"])


class Learned(NamedTuple):
    """What came of a training.

    Attributes:
        weights: What predicts.
        log: The examples in words.
        metrics: How well examples are predicted that were held out, by cross-validation; without
            numbers where there are too few examples for that.
    """

    weights: Weights
    log: str
    metrics: v2.EvalMetrics


def learn(
    examples: Examples,
    vectors: Float32s,
    negatives: Float32s | None,
    *,
    exclusive: bool,
    need_all: bool,
    named: bool,
    check: Callable[[], None],
) -> Learned:
    """Trains on examples.

    Args:
        examples: Their labels.
        vectors: Their embeddings, in the same order.
        negatives: Embeddings of further examples, which have none of the concepts; not used where
            every input has one.
        exclusive: Whether every input has exactly one of the concepts.
        need_all: Whether a concept that no example has is a failure.
        named: Whether the concepts were asked for: then one that no example has stays, with the
            value 0 for every input. Otherwise it is left out.
        check: Called now and then; ends the work by raising.

    Raises:
        ServiceError: The status of a version that cannot be trained: MODEL_TRAINING_NO_DATA
            (21110), MODEL_TRAINING_NO_POSITIVES (21111), MODEL_TRAINING_ONE_VS_N_SINGLE_CLASS
            (21112) or MODEL_TRAINING_INSUFFICIENT_DATA (21117).
    """
    if not len(vectors):
        raise ServiceError(
            StatusCode.MODEL_TRAINING_NO_DATA,
            "no processed input has both a label for the concepts and an embedding",
        )
    labels = examples.labels
    if exclusive:  # of several the first counts
        labels = labels & (labels.cumsum(axis=1) == 1)
    counts = labels.sum(axis=0).tolist()
    lacking = [c for c, count in zip(examples.concepts, counts, strict=True) if not count]
    if lacking and (need_all or (not named and len(lacking) == len(examples.concepts))):
        raise ServiceError(
            StatusCode.MODEL_TRAINING_NO_POSITIVES,
            f"no input is labelled with {', '.join(lacking)}",
        )
    concepts = [concept for concept in examples.concepts if concept not in set(lacking)]
    labels = labels[:, labels.any(axis=0)]
    if exclusive and len(concepts) < 2:
        raise ServiceError(
            StatusCode.MODEL_TRAINING_ONE_VS_N_SINGLE_CLASS,
            "mutually exclusive concepts must be at least two; the inputs have only "
            + (", ".join(concepts) or "inputs without any"),
        )
    if negatives is None or exclusive:
        negatives = np.zeros((0, vectors.shape[1]), np.float32)
    if not len(negatives) and labels.all(axis=0).any():
        raise ServiceError(
            StatusCode.MODEL_TRAINING_INSUFFICIENT_DATA,
            f"all inputs have {concepts[int(labels.all(axis=0).argmax())]}; add inputs without it",
        )

    def trained_on(rows: NDArray[np.intp]) -> Weights:
        if not concepts:
            empty = np.zeros((0, vectors.shape[1]), np.float32)
            return Weights((), empty, np.zeros(0, np.float32), exclusive)
        nothing = np.zeros((len(negatives), len(concepts)), np.bool_)
        return fit(
            concepts,
            np.concatenate([vectors[rows], negatives]),
            np.concatenate([labels[rows], nothing]),
            exclusive=exclusive,
            check=check,
        )

    weights = trained_on(np.arange(len(vectors)))
    if named:
        weights = weights.among(examples.concepts)
    log = [f"{len(vectors)} inputs, {len(negatives)} background images"]
    log += [f"{c}: {n} inputs" for c, n in zip(examples.concepts, counts, strict=True)]
    return Learned(weights, "\n".join(log), _held_out(concepts, vectors, labels, trained_on))


def _held_out(
    concepts: Sequence[str],
    vectors: Float32s,
    labels: NDArray[np.bool_],
    trained_on: Callable[[NDArray[np.intp]], Weights],
) -> v2.EvalMetrics:
    """The numbers of a cross-validation, for which each part has to see each concept."""
    found = v2.EvalMetrics(status=make_status(StatusCode.MODEL_NOT_EVALUATED))
    if not concepts:
        return found
    chance = np.random.default_rng(0)
    rows = chance.permutation(len(vectors))[:_MAX_HELD_OUT]
    # Dealt in the order of the labels, so that the parts are alike.
    rows = rows[np.lexsort(labels[rows].T)]
    parts = np.arange(len(rows)) % _FOLDS
    values = np.zeros((len(rows), len(concepts)), np.float32)
    for part in range(_FOLDS):
        training = rows[parts != part]
        seen = labels[training]
        if not len(seen) or not seen.any(axis=0).all() or seen.all(axis=0).any():
            return found
        values[parts == part] = trained_on(training).values(vectors[rows[parts == part]])
    examples = [
        evaluation_metrics.Example(
            v2.Input(),
            dict(zip(concepts, labels[row].astype(float).tolist(), strict=True)),
            dict(zip(concepts, value.tolist(), strict=True)),
        )
        for row, value in zip(rows, values, strict=True)
    ]
    evaluation_metrics.evaluate(examples, found)
    summary = v2.EvalMetrics(status=make_status(StatusCode.MODEL_EVALUATED), summary=found.summary)
    summary.label_counts.CopyFrom(found.label_counts)
    return summary
