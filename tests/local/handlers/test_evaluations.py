"""Evaluations and their numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clarigrpc import v2
from clarigrpc.local.engine import evaluation_metrics
from tests.local.conftest import Raw, add_image, ok
from tests.waiting import until

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


def of_version(raw: Raw, version_id: str, **fields: bool) -> Any:
    request = v2.GetModelVersionMetricsRequest(
        user_app_id=v2.UserAppIDSet(user_id="me", app_id=raw.server.app_id),
        model_id="learner",
        version_id=version_id,
        fields=v2.FieldsValue(**fields),
    )
    return ok(raw("GetModelVersionMetrics", request)).model_version.metrics


def test_the_metrics_of_a_version(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    for number, text in enumerate(("cats purr", "a cat sleeps", "dogs bark", "a dog runs")):
        label = "cat" if "cat" in text else "dog"
        item = request.inputs.add(id=f"{label}-{number}")
        item.data.text.raw = text
        item.data.concepts.add(id=label, value=1)
    ok(raw("PostInputs", request))
    until(
        lambda: (
            raw("GetInputCount", v2.GetInputCountRequest()).counts.processed == len(request.inputs)
        )
    )
    model = v2.PostModelsRequest(models=[v2.Model(id="learner", model_type_id="text-classifier")])
    ok(raw("PostModels", model))
    estimate = v2.PostModelVersionsTrainingTimeEstimateRequest(model_id="learner")
    assert raw("PostModelVersionsTrainingTimeEstimate", estimate).status.code != Code.SUCCESS
    estimate.model_versions.add()

    def estimated(count: int = 0) -> float:
        estimate.estimated_input_count = count
        found = ok(raw("PostModelVersionsTrainingTimeEstimate", estimate))
        (one,) = found.training_time_estimates
        return float(one.ToMilliseconds() / 1000)

    assert 0 < estimated() < estimated(100_000)
    versions = v2.PostModelVersionsRequest(model_id="learner", model_versions=[v2.ModelVersion()])
    version_id = ok(raw("PostModelVersions", versions)).model.model_version.id
    get = v2.GetModelVersionRequest(model_id="learner", version_id=version_id)
    until(lambda: raw("GetModelVersion", get).model_version.status.code == Code.MODEL_TRAINED)
    # The training has tested it.
    post = v2.PostModelVersionMetricsRequest(model_id="learner", version_id=version_id)
    trained = ok(raw("PostModelVersionMetrics", post)).model_version.metrics
    assert trained.status.code == Code.MODEL_EVALUATED
    assert trained == of_version(raw, version_id)
    # On the hits of a search it is tested anew.
    post.test_search.query.filters.add().input.id = "cat-0"
    queued = ok(raw("PostModelVersionMetrics", post)).model_version.metrics
    assert queued.status.code == Code.MODEL_QUEUED_FOR_EVALUATION
    until(lambda: of_version(raw, version_id).status.code == Code.MODEL_EVALUATED)
    tested = of_version(raw, version_id, test_set=True, binary_metrics=True)
    assert [entry.input.id for entry in tested.test_set] == ["cat-0"]
    assert [metric.concept.id for metric in tested.binary_metrics] == ["cat"]
    # Without a label among them there is nothing to compare with.
    post.test_search.query.filters[0].input.id = "nothing"
    ok(raw("PostModelVersionMetrics", post))
    until(lambda: of_version(raw, version_id).status.code == Code.MODEL_EVALUATION_NEED_INPUTS)
    gone = v2.DeleteModelVersionRequest(model_id="learner", version_id=version_id)
    ok(raw("DeleteModelVersion", gone))
    missing = raw("PostModelVersionMetrics", post).status.code
    assert missing == Code.MODEL_DOES_NOT_EXIST


def test_who_may_test_a_public_model(raw: Raw) -> None:
    prepared(raw)
    request = v2.GetModelVersionMetricsRequest(
        user_app_id=v2.UserAppIDSet(user_id="clarifai", app_id="main"),
        model_id="color-recognition",
    )
    request.version_id = next(
        version.id
        for version in ok(
            raw(
                "ListModelVersions",
                v2.ListModelVersionsRequest(
                    user_app_id=request.user_app_id, model_id=request.model_id
                ),
            )
        ).model_versions
    )
    metrics = ok(raw("GetModelVersionMetrics", request)).model_version.metrics
    assert metrics.status.code == Code.MODEL_NOT_EVALUATED
    # It is nobody's to test but its owner's.
    post = v2.PostModelVersionMetricsRequest(
        user_app_id=request.user_app_id,
        model_id=request.model_id,
        version_id=request.version_id,
    )
    assert raw("PostModelVersionMetrics", post).status.code == Code.CONN_INSUFFICIENT_SCOPES
