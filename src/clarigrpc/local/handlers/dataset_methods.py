"""Datasets: their inputs, versions, numbers and exports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine import (
    dataset_membership,
    dataset_snapshots,
    hosted_media,
    search_filters,
)
from clarigrpc.local.engine.background_tasks import BackgroundTask, Waiting
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.dataset_snapshots import ExportFormat
from clarigrpc.local.engine.request_checks import page_bounds, refuse_other_fields
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, with_content
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.models.model_runtime import PredictOptions, predict
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status, overall
from clarigrpc.local.store.resource_store import Row, StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_FREEZE_SECONDS = 0.1
"""After so long a transaction of a version that is made ends, and others have their turn."""

_FORMATS = {
    ExportFormat.CLARIFAI_DATA_PROTOBUF: "clarifai_data_protobuf",
    ExportFormat.CLARIFAI_DATA_JSON: "clarifai_data_json",
    ExportFormat.COCO: "coco",
}


def _dataset(context: Context, request: Any, *, write: bool = False) -> UserApp:
    app = (context.writable if write else context.readable)(request.user_app_id)
    if not RESOURCES["dataset"].exists(context, Place(app), request.dataset_id):
        raise RESOURCES["dataset"].no(request.dataset_id)
    return app


def list_dataset_inputs(
    context: Context, request: v2.ListDatasetInputsRequest
) -> v2.MultiDatasetInputResponse:
    app = _dataset(context, request)
    offset, limit = page_bounds(request.page, request.per_page)
    rows = context.state.store.page(
        dataset_membership.members_of(app, request.dataset_id), offset, limit
    )
    return v2.MultiDatasetInputResponse(
        status=make_status(StatusCode.SUCCESS),
        dataset_inputs=[_pair(context, app, row) for row in rows],
    )


def get_dataset_input(
    context: Context, request: v2.GetDatasetInputRequest
) -> v2.SingleDatasetInputResponse:
    app = _dataset(context, request)
    row = context.state.store.get(
        dataset_membership.members_of(app, request.dataset_id), request.input_id
    )
    if row is None:
        raise ServiceError(
            StatusCode.INPUT_DOES_NOT_EXIST,
            f"dataset {request.dataset_id!r} has no input {request.input_id!r}",
        )
    return v2.SingleDatasetInputResponse(
        status=make_status(StatusCode.SUCCESS), dataset_input=_pair(context, app, row)
    )


def _pair(context: Context, app: UserApp, row: Row) -> v2.DatasetInput:
    pair = v2.DatasetInput.FromString(row.body)
    found = context.state.store.get(StoredCollection.of_app(INPUT_KIND, app), row.id)
    if found is None:
        pair.input.id = row.id
    else:
        pair.input.ParseFromString(found.body)
        hosted_media.show(pair.input, app, context.state.downloads.base)
    return pair


def post_dataset_inputs(
    context: Context, request: v2.PostDatasetInputsRequest
) -> v2.MultiDatasetInputResponse:
    app = _dataset(context, request, write=True)
    store = context.state.store
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    response = v2.MultiDatasetInputResponse(status=make_status(StatusCode.SUCCESS))
    if request.HasField("search"):
        if request.dataset_inputs:
            raise ServiceError(
                StatusCode.INPUT_INVALID_REQUEST, "set dataset_inputs or search, not both"
            )
        operation = v2.BulkOperation(search=request.search)
        operation.operation.add_to_dataset.dataset_id = request.dataset_id
        made = RESOURCES["bulk_operation"].add(context, Place(app), operation)
        context.state.background.wake()
        response.bulk_operation.CopyFrom(made)
        return response
    if not 1 <= len(request.dataset_inputs) <= MAX_ITEMS:
        raise ServiceError(
            StatusCode.INPUT_INVALID_REQUEST, f"the request must have 1 to {MAX_ITEMS} inputs"
        )
    statuses = []
    with store.transaction():
        for given in request.dataset_inputs:
            input_id = given.input.id
            if store.get(inputs, input_id) is None:
                status = make_status(
                    StatusCode.INPUT_DOES_NOT_EXIST, f"input {input_id!r} does not exist"
                )
            elif dataset_membership.join(store, app, request.dataset_id, input_id):
                status = make_status(StatusCode.SUCCESS)
            else:
                status = make_status(
                    StatusCode.DATASET_INPUT_DUPLICATE,
                    f"input {input_id!r} is already in the dataset",
                )
            statuses.append(status)
            row = store.get(dataset_membership.members_of(app, request.dataset_id), input_id)
            if row is None or status.code != StatusCode.SUCCESS:
                failed = response.dataset_inputs.add()
                failed.input.id = input_id
                failed.input.status.CopyFrom(status)
            else:
                response.dataset_inputs.append(_pair(context, app, row))
    response.status.CopyFrom(statuses[0] if len(statuses) == 1 else overall(statuses))
    return response


def delete_dataset_inputs(
    context: Context, request: v2.DeleteDatasetInputsRequest
) -> v2.BaseResponse:
    app = _dataset(context, request, write=True)
    if not 1 <= len(request.input_ids) <= MAX_ITEMS:
        raise ServiceError(
            StatusCode.INPUT_INVALID_REQUEST, f"the request must have 1 to {MAX_ITEMS} inputs"
        )
    store = context.state.store
    with store.transaction():
        gone = [
            dataset_membership.leave(store, app, request.dataset_id, input_id)
            for input_id in request.input_ids
        ]
    if not any(gone):
        raise ServiceError(
            StatusCode.INPUT_DOES_NOT_EXIST,
            f"dataset {request.dataset_id!r} has no input {request.input_ids[0]!r}",
        )
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


# Versions


def post_dataset_versions(
    context: Context, request: v2.PostDatasetVersionsRequest
) -> v2.MultiDatasetVersionResponse:
    app = _dataset(context, request, write=True)
    dataset = RESOURCES["dataset"].find(context, Place(app), request.dataset_id)
    prepared = v2.PostDatasetVersionsRequest()
    prepared.CopyFrom(request)
    for version in prepared.dataset_versions:
        if version.HasField("model_predict_config"):
            _check_model(context, version.model_predict_config.model)
        if version.HasField("processing_info") and not _sample_ms(version):
            raise ServiceError(
                StatusCode.CONN_INVALID_REQUEST, "frame_interpolation_info needs sample_ms"
            )
        version.ClearField("metrics")
        version.ClearField("export_info")
        if version.WhichOneof("data_config") == "model_predict_config":
            continue
        config = version.annotation_filter_config
        if not config.HasField("annotation_filter") and dataset.HasField(
            "default_annotation_filter"
        ):
            config.annotation_filter.CopyFrom(dataset.default_annotation_filter)
        _filter(context.state, app, version)  # refuses what cannot be looked up
    response: Any = RESOURCES["dataset_version"].post(context, prepared)
    context.state.background.wake()
    return response  # type: ignore[no-any-return]


def _sample_ms(version: v2.DatasetVersion) -> int:
    return version.processing_info.frame_interpolation_info.sample_ms


def _check_model(context: Context, model: v2.Model) -> None:
    """Completes the name of a model that predicts, and refuses one that cannot."""
    owner, entry = context.named_model(model)
    version = entry.version(model.model_version.id)
    if version is None or context.state.catalog.runtime(entry, version) is None:
        raise ServiceError(
            StatusCode.MODEL_INVALID_REQUEST, f"the local server cannot run model {model.id!r}"
        )
    model.user_id, model.app_id = owner.user_id, owner.app_id
    model.model_version.id = version.id


def _predictions(
    state: State, app: UserApp, dataset_id: str, version: v2.DatasetVersion
) -> dict[str, list[v2.Annotation]] | None:
    """What the model of a version says of each input; None for a version of annotations."""
    if not version.HasField("model_predict_config"):
        return None
    named = version.model_predict_config.model
    entry = state.catalog.find(UserApp(named.user_id, named.app_id), named.id)
    model_version = entry.version(named.model_version.id)
    runtime = state.catalog.runtime(entry, model_version) if model_version is not None else None
    if runtime is None:
        raise ServiceError(
            StatusCode.MODEL_INVALID_REQUEST, f"model {named.id!r} has no such version"
        )
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    found: dict[str, list[v2.Annotation]] = {}
    for member in state.store.walk(dataset_membership.members_of(app, dataset_id)):
        row = state.store.get(inputs, member.id)
        if row is None or row.status != StatusCode.INPUT_SUCCESS or state.background.closing:
            continue
        data = with_content(state.store, row.seq, v2.Input.FromString(row.body))
        said = predict(runtime, data, PredictOptions(state.fetcher, v2.OutputConfig()))
        label = v2.Annotation(
            id=new_id(),
            input_id=row.id,
            data=said,
            model_version_id=named.model_version.id,
            status=make_status(StatusCode.ANNOTATION_SUCCESS),
        )
        label.worker.model.CopyFrom(named)
        found[row.id] = [label]
    return found


def _filter(state: State, app: UserApp, version: v2.DatasetVersion) -> v2.Query:
    wanted = version.annotation_filter_config.annotation_filter
    if not wanted.HasField("search") and wanted.id:
        where = StoredCollection.of_app("annotation_filter", app)
        row = state.store.get(where, wanted.id)
        if row is None:
            raise RESOURCES["annotation_filter"].no(wanted.id)
        wanted = v2.AnnotationFilter.FromString(row.body)
    if wanted.search.query.ranks:
        raise ServiceError(
            StatusCode.CONN_INVALID_REQUEST, "an annotation filter cannot have ranks"
        )
    return search_filters.simplified(wanted.search.query)


def _freeze(state: State, where: StoredCollection, row: Row) -> None:
    """Takes a pending version to ready."""
    app = where.app
    version = v2.DatasetVersion.FromString(row.body)
    failure: ServiceError | None = None
    predictions = None
    try:
        # Not in the transaction: nobody else could write meanwhile.
        predictions = _predictions(state, app, where.parent, version)
    except ServiceError as error:
        failure = error
    if state.background.closing:
        return
    metrics = None
    try:
        if failure is not None:
            raise failure
        steps = dataset_snapshots.take(
            state.store,
            app,
            where.parent,
            version,
            _filter(state, app, version),
            predictions=predictions,
            sample_ms=_sample_ms(version),
        )
        while _go_on(state, row.seq, steps):
            pass
        content = dataset_snapshots.entries(state.store, app, where.parent, version.id)
        metrics = dataset_snapshots.count(content)
    except ServiceError as error:
        failure = error
    with state.store.transaction():
        found = state.store.by_seq(row.seq)
        if found is None or state.background.closing:
            return
        version = v2.DatasetVersion.FromString(found.body)
        if metrics is not None:
            version.metrics["/"].CopyFrom(metrics)
            version.status.CopyFrom(make_status(StatusCode.DATASET_VERSION_READY))
        else:
            version.status.CopyFrom(make_status(StatusCode.DATASET_VERSION_FAILURE, str(failure)))
        version.modified_at.GetCurrentTime()
        state.store.update(found.seq, version.SerializeToString(), version.status.code)


def _go_on(state: State, seq: int, steps: Iterator[None]) -> bool:
    """Does some of the steps in a transaction; False at their end, or that of the version."""
    end = time.monotonic() + _FREEZE_SECONDS
    with state.store.transaction():
        if state.store.by_seq(seq) is None or state.background.closing:
            return False
        for _ in steps:
            if time.monotonic() > end or state.store.crowded:
                return True
    return False


_IN_THE_MAKING = (
    StatusCode.DATASET_VERSION_PENDING,
    StatusCode.DATASET_VERSION_IN_PROGRESS,
)


def _version(context: Context, request: Any, *, write: bool = False) -> tuple[UserApp, Any]:
    app = _dataset(context, request, write=write)
    place = Place(app, (request.dataset_id,))
    return app, RESOURCES["dataset_version"].find(context, place, request.dataset_version_id)


def _ready(context: Context, request: Any, *, write: bool = False) -> tuple[UserApp, Any]:
    app, version = _version(context, request, write=write)
    if version.status.code != StatusCode.DATASET_VERSION_READY:
        raise ServiceError(
            StatusCode.DATASET_VERSION_CONFLICT,
            "the version is not ready",
            "Dataset version conflict",
        )
    return app, version


def list_metrics_groups(
    context: Context, request: v2.ListDatasetVersionMetricsGroupsRequest
) -> v2.MultiDatasetVersionMetricsGroupResponse:
    refuse_other_fields(
        request,
        (
            "user_app_id",
            "dataset_id",
            "dataset_version_id",
            "page",
            "per_page",
            "parent_paths",
            "types",
            "values",
        ),
    )
    offset, limit = page_bounds(request.page, request.per_page)
    if _version(context, request)[1].status.code in _IN_THE_MAKING:
        # The published SDK asks again while there are none.
        return v2.MultiDatasetVersionMetricsGroupResponse(status=make_status(StatusCode.SUCCESS))
    app, version = _ready(context, request)
    content = list(
        dataset_snapshots.entries(context.state.store, app, request.dataset_id, version.id)
    )
    found = [
        group
        for group in dataset_snapshots.groups(content)
        if (not request.types or group.type in request.types)
        and (not request.values or group.value in request.values)
        and (not request.parent_paths or group.parent_path in request.parent_paths)
    ]
    return v2.MultiDatasetVersionMetricsGroupResponse(
        status=make_status(StatusCode.SUCCESS),
        dataset_version_metrics_groups=found[offset : offset + limit],
    )


_EXPORT_KEPT = (
    StatusCode.DATASET_VERSION_EXPORT_PENDING,
    StatusCode.DATASET_VERSION_EXPORT_IN_PROGRESS,
    StatusCode.DATASET_VERSION_EXPORT_SUCCESS,
)


def put_exports(
    context: Context, request: v2.PutDatasetVersionExportsRequest
) -> v2.MultiDatasetVersionExportResponse:
    app, version = _ready(context, request, write=True)
    if not request.exports:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "the request has no exports")
    response = v2.MultiDatasetVersionExportResponse(status=make_status(StatusCode.SUCCESS))
    for wanted in request.exports:
        if wanted.format not in _FORMATS:
            raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "an export needs a format")
        if wanted.include_embeddings:
            raise ServiceError(
                StatusCode.NOT_IMPLEMENTED,
                "the dataset versions of the local server hold no embeddings",
            )
        before = getattr(version.export_info, _FORMATS[wanted.format])
        if before.status.code in _EXPORT_KEPT:
            # A version does not change, and programs repeat the request until it is done.
            response.exports.append(before)
            continue
        made = response.exports.add(format=wanted.format)
        made.status.CopyFrom(make_status(StatusCode.DATASET_VERSION_EXPORT_PENDING))
        getattr(version.export_info, _FORMATS[wanted.format]).CopyFrom(made)
        where = StoredCollection.of_app("dataset_export", app, request.dataset_id)
        name = f"{version.id}/{wanted.format}"
        context.state.store.delete(where, name)
        context.state.store.insert(
            where, name, made.SerializeToString(), status=StatusCode.DATASET_VERSION_EXPORT_PENDING
        )
    place = Place(app, (request.dataset_id,))
    RESOURCES["dataset_version"].save(context, place, version)
    context.state.background.wake()
    return response


def _export(state: State, where: StoredCollection, row: Row) -> None:
    """Writes a pending archive; the version says where it is."""
    app = where.app
    version_id, _, number = row.id.rpartition("/")
    versions = where._replace(kind="dataset_version")
    content = list(dataset_snapshots.entries(state.store, app, where.parent, version_id))
    name = state.downloads.name(".zip")
    path = state.downloads.path(name)
    for entry in content:
        hosted_media.show(entry.input, app, state.downloads.base)
    form = int(number)
    dataset_snapshots.export(path, form, content)  # type: ignore[arg-type]
    with state.store.transaction():
        found = state.store.get(versions, version_id)
        state.store.delete(where, row.id)
        if found is None:
            path.unlink()
            return
        version = v2.DatasetVersion.FromString(found.body)
        made = getattr(version.export_info, _FORMATS[form])  # type: ignore[index]
        made.status.CopyFrom(make_status(StatusCode.DATASET_VERSION_EXPORT_SUCCESS))
        made.url = state.downloads.url(name)
        made.size = path.stat().st_size
        state.downloads.keep(name, found.seq)
        version.modified_at.GetCurrentTime()
        state.store.update(found.seq, version.SerializeToString(), found.status)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "ListDatasetInputs": list_dataset_inputs,
    "GetDatasetInput": get_dataset_input,
    "PostDatasetInputs": post_dataset_inputs,
    "DeleteDatasetInputs": delete_dataset_inputs,
    "PostDatasetVersions": post_dataset_versions,
    "ListDatasetVersionMetricsGroups": list_metrics_groups,
    "PutDatasetVersionExports": put_exports,
}

BACKGROUND_TASKS: dict[Waiting, BackgroundTask] = {
    Waiting("dataset_version", StatusCode.DATASET_VERSION_PENDING): _freeze,
    Waiting("dataset_export", StatusCode.DATASET_VERSION_EXPORT_PENDING): _export,
}
