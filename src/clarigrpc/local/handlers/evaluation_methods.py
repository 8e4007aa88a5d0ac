"""Evaluations: a model's concepts, predicted anew, against the labels of a dataset version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine import (
    classifier_training,
    dataset_snapshots,
    evaluation_metrics,
    search_filters,
)
from clarigrpc.local.engine.background_tasks import BackgroundTask, Waiting
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.model_catalog import CatalogEntry
from clarigrpc.local.engine.request_checks import page_bounds, refuse_other_fields
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.search_ranking import inputs_found
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, all_annotations_of, with_content
from clarigrpc.local.handlers.kind_handlers import (
    RESOURCES,
    VERSION_METRICS_KIND,
    metrics_of_versions,
)
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime, predict
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import Row, StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_METRIC_PARTS = (
    "confusion_matrix",
    "cooccurrence_matrix",
    "label_counts",
    "binary_metrics",
    "test_set",
    "metrics_by_area",
    "metrics_by_class",
)


def _where(app: UserApp) -> StoredCollection:
    return StoredCollection.of_app("evaluation", app)


def post_evaluations(
    context: Context, request: v2.PostEvaluationsRequest
) -> v2.MultiEvalMetricsResponse:
    app = context.writable(request.user_app_id)
    if not 1 <= len(request.eval_metrics) <= MAX_ITEMS:
        raise ServiceError(
            StatusCode.EVALUATION_INVALID_ARGUMENT,
            f"the request must have 1 to {MAX_ITEMS} evaluations",
        )
    response = v2.MultiEvalMetricsResponse(status=make_status(StatusCode.SUCCESS))
    with context.state.store.transaction():
        for given in request.eval_metrics:
            made = response.eval_metrics.add(
                id=given.id or new_id(), user_id=app.user_id, app_id=app.app_id
            )
            _check(context, app, given, made)
            made.status.CopyFrom(make_status(StatusCode.MODEL_QUEUED_FOR_EVALUATION))
            context.state.store.insert(
                _where(app), made.id, made.SerializeToString(), status=made.status.code
            )
    context.state.background.wake()
    return response


def _check(context: Context, app: UserApp, given: v2.EvalMetrics, made: v2.EvalMetrics) -> None:
    """Completes what an evaluation names, and refuses what is not there."""
    model = given.model
    owner, entry = context.named_model(model, app)
    version = entry.version(model.model_version.id)
    if version is None:
        raise ServiceError(
            StatusCode.EVALUATION_INVALID_ARGUMENT, f"model {model.id!r} has no version"
        )
    made.model.user_id, made.model.app_id = owner.user_id, owner.app_id
    made.model.id = entry.model.id
    made.model.model_type_id = entry.model.model_type_id
    made.model.model_version.id = version.id
    if given.eval_info.params.fields:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED, "the local server does not support eval_info.params"
        )
    sources = [("ground_truth_dataset", given.ground_truth_dataset)]
    if given.HasField("predictions_dataset"):
        sources.append(("predictions_dataset", given.predictions_dataset))
    elif context.state.catalog.runtime(entry, version) is None:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED,
            f"the local server cannot run {model.id!r}: set predictions_dataset",
        )
    for name, dataset in sources:
        nested = Place(app, (dataset.id,))
        versions = RESOURCES["dataset_version"]
        if dataset.version.id:
            frozen = versions.find(context, nested, dataset.version.id)
        else:
            frozen = versions.newest(context, nested)
        if frozen is None or frozen.status.code != StatusCode.DATASET_VERSION_READY:
            raise ServiceError(
                StatusCode.EVALUATION_INVALID_ARGUMENT,
                f"{name} {dataset.id!r} has no version that is ready",
            )
        target = getattr(made, name)
        target.id, target.user_id, target.app_id = dataset.id, app.user_id, app.app_id
        target.version.id = frozen.id


def _labels(annotations: Iterable[v2.Annotation]) -> dict[str, float]:
    found: dict[str, float] = {}
    for annotation in annotations:
        for concept in search_filters.concepts_of(annotation.data):
            found[concept.id] = max(found.get(concept.id, 0.0), concept.value)
    return found


def _evaluate(state: State, where: StoredCollection, row: Row) -> None:
    """Carries out a queued evaluation."""
    app = where.app
    result = v2.EvalMetrics.FromString(row.body)
    try:
        examples = _usable(_examples(state, app, result))
        evaluation_metrics.evaluate(examples, result)
        result.status.CopyFrom(make_status(StatusCode.MODEL_EVALUATED))
    except ServiceError as error:
        result.status.CopyFrom(make_status(StatusCode.MODEL_EVALUATION_FAILED, str(error)))
    with state.store.transaction():
        now = state.store.get(where, row.id)
        if now is not None:
            state.store.update(now.seq, result.SerializeToString(), result.status.code)


def _usable(found: Iterable[evaluation_metrics.Example]) -> list[evaluation_metrics.Example]:
    examples = list(found)
    if not examples:
        raise ServiceError(StatusCode.MODEL_EVALUATION_NEED_INPUTS, "the version has no inputs")
    # A label may also say that a concept is not there.
    if not any(example.truth for example in examples):
        raise ServiceError(StatusCode.MODEL_EVALUATION_NEED_LABELS, "no input has a label")
    return examples


def _examples(
    state: State, app: UserApp, result: v2.EvalMetrics
) -> Iterable[evaluation_metrics.Example]:
    truth = result.ground_truth_dataset
    predictions = None
    if result.HasField("predictions_dataset"):
        given = result.predictions_dataset
        predictions = {
            entry.input.id: _labels(entry.annotations)
            for entry in dataset_snapshots.entries(state.store, app, given.id, given.version.id)
        }
    owner = UserApp(result.model.user_id, result.model.app_id)
    evaluated = state.catalog.find(owner, result.model.id)
    version = evaluated.version(result.model.model_version.id)
    runtime = state.catalog.runtime(evaluated, version) if version is not None else None
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    for entry in dataset_snapshots.entries(state.store, app, truth.id, truth.version.id):
        if predictions is not None:
            predicted = predictions.get(entry.input.id, {})
        else:
            assert runtime is not None
            live = state.store.get(inputs, entry.input.id)
            if live is None:
                raise ServiceError(
                    StatusCode.MODEL_EVALUATION_FAILED, f"input {entry.input.id!r} was deleted"
                )
            predicted = _predicted(state, runtime, live.seq, entry.input)
        yield evaluation_metrics.Example(entry.input, _labels(entry.annotations), predicted)


def _predicted(state: State, runtime: Runtime, seq: int, item: v2.Input) -> dict[str, float]:
    data = with_content(state.store, seq, item)
    output = predict(runtime, data, PredictOptions(state.fetcher, v2.OutputConfig()))
    return {concept.id: concept.value for concept in output.concepts}


def _trimmed(body: bytes, fields: v2.FieldsValue) -> v2.EvalMetrics:
    found = v2.EvalMetrics.FromString(body)
    _trim(found, fields)
    return found


def _trim(found: v2.EvalMetrics, fields: v2.FieldsValue) -> None:
    """Leaves the summary, and of the rest the parts that were asked for."""
    for name in _METRIC_PARTS:
        if not getattr(fields, name):
            found.ClearField(name)  # type: ignore[arg-type]


def get_evaluation(
    context: Context, request: v2.GetEvaluationRequest
) -> v2.SingleEvalMetricsResponse:
    row = context.state.store.get(
        _where(context.readable(request.user_app_id)), request.evaluation_id
    )
    if row is None:
        raise ServiceError(
            StatusCode.CONN_DOES_NOT_EXIST, f"evaluation {request.evaluation_id!r} does not exist"
        )
    return v2.SingleEvalMetricsResponse(
        status=make_status(StatusCode.SUCCESS), eval_metrics=_trimmed(row.body, request.fields)
    )


_EVALUATION_SORT_KEYS: dict[str, Callable[[v2.EvalMetrics], Any]] = {
    "sort_by_app_id": lambda e: e.app_id,
    "sort_by_roc_auc": lambda e: e.summary.macro_avg_roc_auc,
    "sort_by_f1": lambda e: e.summary.macro_avg_f1_score,
    "sort_by_mean_avg_precision": lambda e: e.summary.mean_avg_precision_iou_50,
    "sort_by_precision": lambda e: e.summary.macro_avg_precision,
    "sort_by_recall": lambda e: e.summary.macro_avg_recall,
    "sort_by_model_id": lambda e: e.model.id,
    "sort_by_eval_dataset_id": lambda e: e.ground_truth_dataset.id,
}


def list_evaluations(
    context: Context, request: v2.ListEvaluationsRequest
) -> v2.MultiEvalMetricsResponse:
    refuse_other_fields(
        request,
        (
            "user_app_id",
            "page",
            "per_page",
            "sort_ascending",
            "sort_by_created_at",
            *_EVALUATION_SORT_KEYS,
            "model_type_id",
            "eval_dataset_ids",
            "concept_ids",
            "show_failed_metrics",
        ),
    )
    app = context.readable(request.user_app_id, all_apps=True)
    apps = [app.app_id] if app.app_id else context.apps_of(app.user_id)
    offset, limit = page_bounds(request.page, request.per_page)
    found = [
        v2.EvalMetrics.FromString(row.body)
        for app_id in apps
        for row in context.state.store.walk(_where(UserApp(app.user_id, app_id)))
    ]
    found = [item for item in found if _listed(item, request)]
    chosen = request.WhichOneof("sort_by") or "sort_by_created_at"
    if chosen in _EVALUATION_SORT_KEYS:
        found.sort(key=_EVALUATION_SORT_KEYS[chosen], reverse=not request.sort_ascending)
    elif request.sort_ascending:
        found.reverse()
    nothing = v2.FieldsValue()
    return v2.MultiEvalMetricsResponse(
        status=make_status(StatusCode.SUCCESS),
        eval_metrics=[
            _trimmed(item.SerializeToString(), nothing) for item in found[offset : offset + limit]
        ],
    )


def _listed(item: v2.EvalMetrics, request: v2.ListEvaluationsRequest) -> bool:
    if item.status.code == StatusCode.MODEL_EVALUATION_FAILED and not request.show_failed_metrics:
        return False
    if request.model_type_id not in ("", item.model.model_type_id):
        return False
    if request.eval_dataset_ids and item.ground_truth_dataset.id not in request.eval_dataset_ids:
        return False
    known = {metric.concept.id for metric in item.binary_metrics}
    return not request.concept_ids or not known.isdisjoint(request.concept_ids)


# The same under the address of a model version.


def _post_of_version(context: Context, request: v2.PostModelVersionEvaluationsRequest) -> Message:
    every = v2.PostEvaluationsRequest(
        user_app_id=request.user_app_id, eval_metrics=request.eval_metrics
    )
    for wanted in every.eval_metrics:
        wanted.model.id = request.model_id
        wanted.model.model_version.id = request.model_version_id
    return post_evaluations(context, every)


def _get_of_version(context: Context, request: v2.GetModelVersionEvaluationRequest) -> Message:
    one = v2.GetEvaluationRequest(
        user_app_id=request.user_app_id,
        evaluation_id=request.evaluation_id,
        fields=request.fields,
    )
    found = get_evaluation(context, one)
    if not _is_of(found.eval_metrics, request):
        raise ServiceError(
            StatusCode.CONN_DOES_NOT_EXIST, "the evaluation belongs to another model version"
        )
    return found


def _list_of_version(context: Context, request: v2.ListModelVersionEvaluationsRequest) -> Message:
    offset, limit = page_bounds(request.page, request.per_page)
    rows = context.state.store.walk(_where(context.readable(request.user_app_id)))
    found = [_trimmed(row.body, v2.FieldsValue()) for row in rows]
    found = [item for item in found if _is_of(item, request)]
    return v2.MultiEvalMetricsResponse(
        status=make_status(StatusCode.SUCCESS), eval_metrics=found[offset : offset + limit]
    )


def _is_of(item: v2.EvalMetrics, request: Any) -> bool:
    return (item.model.id, item.model.model_version.id) == (
        request.model_id,
        request.model_version_id,
    )


# The evaluation of a version that is part of it, older than the evaluations above.


def post_model_version_metrics(
    context: Context, request: v2.PostModelVersionMetricsRequest
) -> v2.SingleModelVersionResponse:
    """Tests a version on labelled inputs: the hits of a search, or else all of the app.

    A version that was trained here has been tested on what it was trained on, by
    cross-validation; without a search that stays.
    """
    app = context.writable(request.user_app_id)
    entry, version = _evaluated_version(context, app, request)
    if request.eval_info.params.fields:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED, "the local server does not support eval_info.params"
        )
    if version.status.code != StatusCode.MODEL_TRAINED:
        raise ServiceError(StatusCode.MODEL_INVALID_REQUEST, f"version {version.id!r} is not ready")
    if request.HasField("test_search"):
        found = [item for _, item in inputs_found(context.state, app, request.test_search)]
    elif version.metrics.status.code == StatusCode.MODEL_EVALUATED:
        return _with_metrics(context, app, entry, version, v2.FieldsValue())
    else:
        labelled = classifier_training.labelled_inputs(context.state.store, app, v2.Dataset())
        found = [one.item for one in labelled]
    if context.state.catalog.runtime(entry, version) is None:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED, f"the local server cannot run {entry.model.id!r}"
        )
    made = v2.EvalMetrics(status=make_status(StatusCode.MODEL_QUEUED_FOR_EVALUATION))
    made.id, made.user_id, made.app_id = new_id(), app.user_id, app.app_id
    made.model.id, made.model.model_version.id = entry.model.id, version.id
    for item in found:
        made.test_set.add().input.id = item.id
    store, where = context.state.store, metrics_of_versions(app, entry.model.id)
    with store.transaction():
        store.delete(where, version.id)
        store.insert(where, version.id, made.SerializeToString(), status=made.status.code)
    context.state.background.wake()
    return _with_metrics(context, app, entry, version, v2.FieldsValue())


def get_model_version_metrics(
    context: Context, request: v2.GetModelVersionMetricsRequest
) -> v2.SingleModelVersionResponse:
    app = context.readable(request.user_app_id)
    entry, version = _evaluated_version(context, app, request)
    return _with_metrics(context, app, entry, version, request.fields)


def _evaluated_version(
    context: Context, app: UserApp, request: Any
) -> tuple[CatalogEntry, v2.ModelVersion]:
    entry = context.model(app, request.model_id)
    version = entry.version(request.version_id)
    if version is None:
        raise ServiceError(
            StatusCode.MODEL_DOES_NOT_EXIST, f"model {request.model_id!r} has no version"
        )
    return entry, version


def _with_metrics(
    context: Context,
    app: UserApp,
    entry: CatalogEntry,
    version: v2.ModelVersion,
    fields: v2.FieldsValue,
) -> v2.SingleModelVersionResponse:
    """A version with its latest metrics, and of those the parts that were asked for."""
    response = v2.SingleModelVersionResponse(
        status=make_status(StatusCode.SUCCESS), model_version=version
    )
    metrics = response.model_version.metrics
    where = metrics_of_versions(app, entry.model.id)
    row = context.state.store.get(where, version.id)
    if row is not None:
        metrics.ParseFromString(row.body)
    elif not metrics.status.code:
        metrics.status.CopyFrom(make_status(StatusCode.MODEL_NOT_EVALUATED))
    _trim(metrics, fields)
    return response


def _test_version(state: State, where: StoredCollection, row: Row) -> None:
    """Carries out a queued test of a version."""
    app = where.app
    queued = v2.EvalMetrics.FromString(row.body)
    result = v2.EvalMetrics()
    result.CopyFrom(queued)
    del result.test_set[:]
    try:
        evaluation_metrics.evaluate(_usable(_tests(state, app, queued)), result)
        result.status.CopyFrom(make_status(StatusCode.MODEL_EVALUATED))
    except ServiceError as error:
        code = error.code
        if code not in (
            StatusCode.MODEL_EVALUATION_NEED_INPUTS,
            StatusCode.MODEL_EVALUATION_NEED_LABELS,
        ):
            code = StatusCode.MODEL_EVALUATION_FAILED
        result.status.CopyFrom(make_status(code, str(error)))
    with state.store.transaction():
        now = state.store.by_seq(row.seq)
        if now is not None:
            state.store.update(now.seq, result.SerializeToString(), result.status.code)


def _tests(
    state: State, app: UserApp, queued: v2.EvalMetrics
) -> Iterable[evaluation_metrics.Example]:
    entry = state.catalog.find(app, queued.model.id)
    version = entry.version(queued.model.model_version.id)
    runtime = state.catalog.runtime(entry, version) if version is not None else None
    if runtime is None:
        raise ServiceError(StatusCode.MODEL_EVALUATION_FAILED, "the version cannot be run")
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    for tested in queued.test_set:
        row = state.store.get(inputs, tested.input.id)
        if row is None or row.status != StatusCode.INPUT_SUCCESS:
            continue
        item = v2.Input.FromString(row.body)
        truth = _labels(all_annotations_of(state.store, app, item))
        if truth:
            predicted = _predicted(state, runtime, row.seq, item)
            yield evaluation_metrics.Example(item, truth, predicted)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostModelVersionMetrics": post_model_version_metrics,
    "GetModelVersionMetrics": get_model_version_metrics,
    "PostEvaluations": post_evaluations,
    "GetEvaluation": get_evaluation,
    "ListEvaluations": list_evaluations,
    "PostModelVersionEvaluations": _post_of_version,
    "GetModelVersionEvaluation": _get_of_version,
    "ListModelVersionEvaluations": _list_of_version,
}
BACKGROUND_TASKS: dict[Waiting, BackgroundTask] = {
    Waiting("evaluation", StatusCode.MODEL_QUEUED_FOR_EVALUATION): _evaluate,
    Waiting(VERSION_METRICS_KIND, StatusCode.MODEL_QUEUED_FOR_EVALUATION): _test_version,
}
