"""Evaluations and their numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clarigrpc import v2
from clarigrpc.local.engine import evaluation_metrics
from tests.local.conftest import Raw, add_image, ok, until

Code = v2.StatusCode


@pytest.fixture(params=["grpc", "rest"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test runs over both fronts."""
    return str(request.param)


def prepared(raw: Raw) -> None:
    """A dataset version whose labels agree with the colours in two cases of three."""
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    for name, colour, label in (("a", "red", "red"), ("b", "blue", "blue"), ("c", "red", "blue")):
        add_image(raw, name, colour, concepts=[{"id": label, "value": 1}])
        join = v2.PostDatasetInputsRequest(dataset_id="d")
        join.dataset_inputs.add().input.id = name
        ok(raw("PostDatasetInputs", join))
    request = v2.PostDatasetVersionsRequest(dataset_id="d")
    request.dataset_versions.add(id="v")
    ok(raw("PostDatasetVersions", request))
    get = v2.GetDatasetVersionRequest(dataset_id="d", dataset_version_id="v")
    until(
        lambda: (
            raw("GetDatasetVersion", get).dataset_version.status.code == Code.DATASET_VERSION_READY
        )
    )


def evaluation() -> v2.PostEvaluationsRequest:
    request = v2.PostEvaluationsRequest()
    wanted = request.eval_metrics.add(id="e")
    wanted.model.id, wanted.model.user_id, wanted.model.app_id = (
        "color-recognition",
        "clarifai",
        "main",
    )
    wanted.ground_truth_dataset.id = "d"
    return request


def test_a_model_against_labels(raw: Raw) -> None:
    prepared(raw)
    made = ok(raw("PostEvaluations", evaluation())).eval_metrics[0]
    assert made.status.code == Code.MODEL_QUEUED_FOR_EVALUATION
    get = v2.GetEvaluationRequest(evaluation_id="e")

    def done() -> Any:
        found = ok(raw("GetEvaluation", get)).eval_metrics
        return found if found.status.code == Code.MODEL_EVALUATED else None

    found = until(done)
    # red is found in a and c, and is there in a; blue is found in b, and is there in b and c.
    assert found.summary.macro_avg_precision == pytest.approx((0.5 + 1) / 2)
    assert found.summary.macro_avg_recall == pytest.approx((1 + 0.5) / 2)
    assert found.summary.macro_avg_roc_auc == pytest.approx(0.75)
    assert not found.binary_metrics
    get.fields.binary_metrics = get.fields.confusion_matrix = get.fields.label_counts = True
    full = ok(raw("GetEvaluation", get)).eval_metrics
    assert [m.concept.id for m in full.binary_metrics] == ["blue", "red"]
    assert {(e.predicted, e.actual): e.value for e in full.confusion_matrix.matrix} == {
        ("red", "red"): 1.0,
        ("blue", "blue"): 0.5,
        ("red", "blue"): 0.5,
    }
    listed = ok(raw("ListEvaluations", v2.ListEvaluationsRequest(eval_dataset_ids=["d"])))
    assert [e.id for e in listed.eval_metrics] == ["e"]
    other = ok(raw("ListEvaluations", v2.ListEvaluationsRequest(concept_ids=["green"])))
    assert not other.eval_metrics


def test_what_is_not_there(raw: Raw) -> None:
    code = raw("PostEvaluations", evaluation()).status.code
    assert code == Code.EVALUATION_INVALID_ARGUMENT
    request = evaluation()
    request.eval_metrics[0].model.id = "none"
    assert raw("PostEvaluations", request).status.code == Code.MODEL_DOES_NOT_EXIST
    missing = v2.GetEvaluationRequest(evaluation_id="none")
    assert raw("GetEvaluation", missing).status.code == Code.CONN_DOES_NOT_EXIST


def test_area_under_the_curve() -> None:
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    assert evaluation_metrics.roc_auc(np.array([False, False, True, True]), scores) == 0.75
    assert evaluation_metrics.roc_auc(np.array([False, True]), np.array([0.5, 0.5])) == 0.5
    assert math.isnan(evaluation_metrics.roc_auc(np.array([True]), np.array([0.5])))


def test_numbers_of_one_concept() -> None:
    truth = np.array([True, True, False, False])
    found = evaluation_metrics.binary("x", truth, np.array([0.9, 0.4, 0.6, 0.1]))
    assert (found.num_pos, found.num_neg, found.num_tot) == (2, 2, 4)
    assert found.f1 == pytest.approx(0.5)
    assert found.roc_auc == pytest.approx(0.75)
    assert found.avg_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
