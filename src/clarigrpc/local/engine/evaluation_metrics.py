"""How well predicted concepts agree with labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clarigrpc import v2

THRESHOLD = 0.5
"""From this value on a predicted concept counts as present, in F1, precision and recall."""


class Example(NamedTuple):
    """An input with the values of its true concepts and of the predicted ones."""

    input: v2.Input
    truth: dict[str, float]
    predicted: dict[str, float]


def roc_auc(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Area under the ROC curve; NaN where all examples are of one side.

    It is the chance that an example with the concept scores above one without, ties half.
    """
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return float("nan")
    order = np.sort(negative)
    lower = np.searchsorted(order, positive, "left")
    level = np.searchsorted(order, positive, "right") - lower
    return float((lower + level / 2).sum() / (len(positive) * len(negative)))


def binary(concept: str, truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> v2.BinaryMetrics:
    """The numbers of one concept, with its curves."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    metrics = v2.BinaryMetrics(num_pos=positives, num_neg=negatives, num_tot=len(truth))
    metrics.concept.id = concept
    area = roc_auc(truth, scores)
    metrics.roc_auc = 0.0 if np.isnan(area) else area
    found, right = scores >= THRESHOLD, int((truth & (scores >= THRESHOLD)).sum())
    if right:
        precision, recall = right / int(found.sum()), right / positives
        metrics.f1 = 2 * precision * recall / (precision + recall)
    thresholds = np.unique(scores)[::-1]
    hits = np.array([(truth & (scores >= t)).sum() for t in thresholds], float)
    taken = np.array([(scores >= t).sum() for t in thresholds], float)
    recalls, precisions = hits / max(positives, 1), hits / np.maximum(taken, 1)
    metrics.roc_curve.thresholds.extend(thresholds.tolist())
    metrics.roc_curve.tpr.extend(recalls.tolist())
    metrics.roc_curve.fpr.extend(((taken - hits) / max(negatives, 1)).tolist())
    curve = metrics.precision_recall_curve
    curve.thresholds.extend(thresholds.tolist())
    curve.recall.extend(recalls.tolist())
    curve.precision.extend(precisions.tolist())
    metrics.avg_precision = float((np.diff(recalls, prepend=0.0) * precisions).sum())
    return metrics


def evaluate(examples: list[Example], metrics: v2.EvalMetrics) -> None:
    """Fills in the results for all concepts that some example truly has.

    Where examples only lack concepts, just ``test_set`` says what was predicted.
    """
    concepts = sorted({c for e in examples for c, value in e.truth.items() if value >= THRESHOLD})
    truth = np.array([[e.truth.get(c, 0.0) >= THRESHOLD for c in concepts] for e in examples])
    scores = np.array([[e.predicted.get(c, 0.0) for c in concepts] for e in examples])
    precisions, recalls = [], []
    for column, concept in enumerate(concepts):
        metrics.binary_metrics.append(binary(concept, truth[:, column], scores[:, column]))
        found = scores[:, column] >= THRESHOLD
        right = int((truth[:, column] & found).sum())
        precisions.append(right / max(int(found.sum()), 1))
        recalls.append(right / int(truth[:, column].sum()))
        count = metrics.label_counts.positive_label_counts.add(count=int(truth[:, column].sum()))
        count.concept.id = concept
    if concepts:  # there is no mean of nothing
        _summarize(metrics, precisions, recalls)
    _confuse(examples, concepts, metrics)
    for example in examples:
        entry = metrics.test_set.add()
        entry.input.id = example.input.id
        for concept, value in sorted(example.truth.items()):
            entry.ground_truth_concepts.add(id=concept, value=value)
        for concept, value in sorted(example.predicted.items(), key=lambda pair: -pair[1]):
            entry.predicted_concepts.add(id=concept, value=value)


def _summarize(metrics: v2.EvalMetrics, precisions: list[float], recalls: list[float]) -> None:
    summary = metrics.summary
    # A concept that all examples have, or none, has no ROC curve.
    areas = [m.roc_auc for m in metrics.binary_metrics if m.num_pos and m.num_neg]
    scores = [m.f1 for m in metrics.binary_metrics]
    if areas:
        summary.macro_avg_roc_auc = float(np.mean(areas))
        summary.macro_std_roc_auc = float(np.std(areas))
    summary.macro_avg_f1_score = float(np.mean(scores))
    summary.macro_std_f1_score = float(np.std(scores))
    summary.macro_avg_precision = float(np.mean(precisions))
    summary.macro_avg_recall = float(np.mean(recalls))


def _confuse(examples: list[Example], concepts: list[str], metrics: v2.EvalMetrics) -> None:
    """For each true concept, which of the concepts is predicted first, as shares."""
    pairs: dict[tuple[str, str], float] = {}
    for example in examples:
        true = [c for c in concepts if example.truth.get(c, 0.0) >= THRESHOLD]
        if not true:
            continue
        first = max(concepts, key=lambda c: example.predicted.get(c, 0.0))
        for concept in true:
            pairs[first, concept] = pairs.get((first, concept), 0.0) + 1.0
    totals = {c: sum(n for (_, other), n in pairs.items() if other == c) for c in concepts}
    metrics.confusion_matrix.concept_ids.extend(concepts)
    for (first, actual), number in sorted(pairs.items()):
        entry = metrics.confusion_matrix.matrix.add(
            predicted=first, actual=actual, value=number / totals[actual]
        )
        entry.predicted_concept.id, entry.actual_concept.id = first, actual
