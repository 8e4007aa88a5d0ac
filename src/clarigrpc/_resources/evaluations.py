"""Evaluations of model versions on datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Collection, Creates, Lists, Paging
from clarigrpc._resources.long_running import FollowsWork, Waits
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan

PARTS = tuple(field.name for field in v2.FieldsValue.DESCRIPTOR.fields)
"""The parts of the metrics that the service sends only on request."""


class _GetsEvaluation(Collection[v2.EvalMetrics]):
    _message = v2.EvalMetrics

    @operation
    def get(
        self, evaluation_id: str, /, *parts: str, timeout: float | None = None
    ) -> Plan[v2.EvalMetrics]:
        """Fetch one evaluation.

        Args:
            evaluation_id: Id of the evaluation.
            parts: Parts of the metrics to include besides the summary: ``"confusion_matrix"``,
                ``"cooccurrence_matrix"``, ``"label_counts"``, ``"binary_metrics"``, ``"test_set"``,
                ``"metrics_by_area"``, ``"metrics_by_class"``.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The evaluation does not exist.
            TypeError: A part has another name.
        """
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise TypeError(f"unknown parts {', '.join(unknown)}; known are {', '.join(PARTS)}")
        fields = v2.FieldsValue(**dict.fromkeys(parts, True))
        return (yield from self._fetch(evaluation_id, timeout, fields=fields))


class _CreatesEvaluation(Creates[v2.EvalMetrics]):
    @operation
    def create(
        self, item: v2.EvalMetrics | str | Mapping[str, Any], *, timeout: float | None = None
    ) -> Plan[v2.EvalMetrics]:
        """Start an evaluation of a model version on a dataset version.

        A dataset version is a snapshot of a dataset. If there is none yet, make one::

            client.datasets.versions("my-dataset").create("my-version")
            client.datasets.versions("my-dataset").wait("my-version")

        Args:
            item: A message, or a mapping with the fields of one (as in JSON).
                ``ground_truth_dataset`` names the dataset, and its ``version`` the version. Of
                ``client.evaluations``, ``model`` names the model and its ``model_version``; the
                evaluations of a model version need none.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The evaluation in progress; ``wait`` waits for it, ``follow`` also tells its progress.

        Raises:
            AlreadyExistsError: The id is taken.
            NotFoundError: The model, the dataset or a version does not exist.
            InvalidArgumentError: The service rejects the evaluation (``details`` says why; often
                the dataset has no version), or the mapping has unknown fields.
            TypeError: ``item`` is of another type.
        """
        (made,) = yield from self._post([item], timeout, True)
        return made


@named_in("clarigrpc.types")
class EvaluationFilters(Paging, total=False):
    """Options of ``client.evaluations.list``."""

    all_apps: bool
    model_type_id: str
    eval_dataset_ids: Sequence[str]
    train_dataset_ids: Sequence[str]
    concept_ids: Sequence[str]
    show_failed_metrics: bool
    sort_ascending: bool
    sort_by_app_id: bool
    sort_by_model_id: bool
    sort_by_created_at: bool
    sort_by_eval_dataset_id: bool
    sort_by_train_dataset_id: bool
    sort_by_roc_auc: bool
    sort_by_f1: bool
    sort_by_mean_avg_precision: bool
    sort_by_precision: bool
    sort_by_recall: bool


class EvaluationOperations(
    _CreatesEvaluation, _GetsEvaluation, Waits[v2.EvalMetrics], FollowsWork[v2.EvalMetrics]
):
    """The evaluations of an app: of model versions on versions of datasets."""

    _create_rpc = "PostEvaluations"
    _get_rpc = "GetEvaluation"
    _list_rpc = "ListEvaluations"
    _work_name = "evaluation"

    @iteration
    def list(self, **options: Unpack[EvaluationFilters]) -> ItemPlan[v2.EvalMetrics]:
        """List the evaluations of the app.

        Args:
            all_apps: Whether to list the evaluations of all apps of the user. Default False.
            model_type_id: Filter by type of model.
            eval_dataset_ids: Filter by the datasets evaluated on.
            train_dataset_ids: Filter by the datasets that the models were trained on.
            concept_ids: Filter by concepts of the models.
            show_failed_metrics: Whether to include failed evaluations. Default False.
            sort_ascending: Whether to sort in ascending order. Default False.
            sort_by_app_id: Whether to sort by app. Set at most one ``sort_by_`` option.
            sort_by_model_id: Whether to sort by model.
            sort_by_created_at: Whether to sort by time of creation.
            sort_by_eval_dataset_id: Whether to sort by dataset evaluated on.
            sort_by_train_dataset_id: Whether to sort by dataset trained on.
            sort_by_roc_auc: Whether to sort by area under the ROC curve.
            sort_by_f1: Whether to sort by F1 score.
            sort_by_mean_avg_precision: Whether to sort by mean average precision.
            sort_by_precision: Whether to sort by precision.
            sort_by_recall: Whether to sort by recall.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Evaluations(EvaluationOperations, Sync): ...


class AsyncEvaluations(EvaluationOperations, Async): ...


class ModelVersionEvaluationOperations(
    _CreatesEvaluation,
    _GetsEvaluation,
    Lists[v2.EvalMetrics],
    Waits[v2.EvalMetrics],
    FollowsWork[v2.EvalMetrics],
):
    """The evaluations of one model version."""

    _create_rpc = "PostModelVersionEvaluations"
    _get_rpc = "GetModelVersionEvaluation"
    _list_rpc = "ListModelVersionEvaluations"
    _work_name = "evaluation"


class ModelVersionEvaluations(ModelVersionEvaluationOperations, Sync): ...


class AsyncModelVersionEvaluations(ModelVersionEvaluationOperations, Async): ...
