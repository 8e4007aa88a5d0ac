"""Evaluations of models against datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Collection, Creates, Lists, Paging
from clarigrpc._resources.long_running import Waits
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan

PARTS = tuple(field.name for field in v2.FieldsValue.DESCRIPTOR.fields)
"""The parts of the metrics that are sent when they are asked for."""


class _Gets(Collection[v2.EvalMetrics]):
    message = v2.EvalMetrics
    noun = "evaluation"

    @operation
    def get(
        self, evaluation_id: str, /, *parts: str, timeout: float | None = None
    ) -> Plan[v2.EvalMetrics]:
        """An evaluation by its id.

        Args:
            evaluation_id: Its id.
            parts: What is wanted beside the summary: ``"confusion_matrix"``,
                ``"cooccurrence_matrix"``, ``"label_counts"``, ``"binary_metrics"``,
                ``"test_set"``, ``"metrics_by_area"``, ``"metrics_by_class"``.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such evaluation.
        """
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise TypeError(f"get() takes {', '.join(PARTS)}; not {', '.join(unknown)}")
        fields = v2.FieldsValue(**dict.fromkeys(parts, True))
        return (yield from self._fetch(evaluation_id, timeout, fields=fields))


class EvaluationFilters(Paging, total=False):
    """Which evaluations are listed, and in which order.

    Attributes:
        all_apps: Those of all apps of the user.
        model_type_id: Only those of models of this type.
        eval_dataset_ids: Only those against one of these datasets.
        train_dataset_ids: Only those of models trained from one of these datasets.
        concept_ids: Only those of models with these concepts.
        show_failed_metrics: Those that failed, too.
        sort_ascending: Smallest or oldest first.
        sort_by_app_id: What the order is by; or one of ``sort_by_model_id``,
            ``sort_by_created_at``, ``sort_by_eval_dataset_id``, ``sort_by_train_dataset_id``,
            ``sort_by_roc_auc``, ``sort_by_f1``, ``sort_by_mean_avg_precision``,
            ``sort_by_precision``, ``sort_by_recall``.
    """

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


class EvaluationOperations(Creates[v2.EvalMetrics], _Gets, Waits[v2.EvalMetrics]):
    """The evaluations of an app: model versions against datasets."""

    plural = "Evaluations"
    singular = "Evaluation"

    @iteration
    def list(self, **options: Unpack[EvaluationFilters]) -> ItemPlan[v2.EvalMetrics]:
        """The evaluations of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Evaluations(EvaluationOperations, Sync): ...


class AsyncEvaluations(EvaluationOperations, Async): ...


class ModelVersionEvaluationOperations(
    Creates[v2.EvalMetrics], _Gets, Lists[v2.EvalMetrics], Waits[v2.EvalMetrics]
):
    """The evaluations of one model version."""

    plural = "ModelVersionEvaluations"
    singular = "ModelVersionEvaluation"


class ModelVersionEvaluations(ModelVersionEvaluationOperations, Sync): ...


class AsyncModelVersionEvaluations(ModelVersionEvaluationOperations, Async): ...
