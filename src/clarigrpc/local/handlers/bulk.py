"""Work on many resources that goes on in the background: bulk operations, copies of apps."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local import membership, patching
from clarigrpc.local.background import Waiting, Work
from clarigrpc.local.core import Context, Scope, ServiceError, State, make_status
from clarigrpc.local.handlers.general import RESOURCES
from clarigrpc.local.handlers.searches import inputs_found
from clarigrpc.local.jobs import INPUT_KIND
from clarigrpc.local.resources import Place
from clarigrpc.local.store import Collection, Row

_Code = v2.StatusCode

_STRETCH = 100
"""Inputs that one transaction of a bulk operation changes."""


# Bulk operations


def post_bulk_operations(
    context: Context, request: v2.PostBulkOperationsRequest
) -> v2.MultiBulkOperationsResponse:
    resource = RESOURCES["bulk_operation"]
    scope = context.writable(request.user_app_id)
    prepared = v2.PostBulkOperationsRequest()
    prepared.CopyFrom(request)
    for operation in prepared.bulk_operations:
        if operation.operation.HasField("delete_annotations"):
            raise ServiceError(
                _Code.NOT_IMPLEMENTED, "bulk operations here work on inputs, not on annotations"
            )
        if operation.operation.WhichOneof("operation") is None:
            raise ServiceError(resource.kind.invalid, "the operation is not set")
        if operation.WhichOneof("input_source") is None:
            raise ServiceError(resource.kind.invalid, "name the inputs, a search or a dataset")
        for dataset_id in _datasets(operation.operation):
            if not RESOURCES["dataset"].exists(context, Place(scope), dataset_id):
                raise RESOURCES["dataset"].no(dataset_id)
        operation.ClearField("progress")
        operation.created_by = context.caller.user_id
    response: Any = resource.post(context, prepared)
    context.state.background.wake()
    return response  # type: ignore[no-any-return]


def _datasets(operation: v2.Operation) -> list[str]:
    return [
        name
        for name in (
            operation.add_to_dataset.dataset_id,
            operation.delete_from_dataset.dataset_id,
            *(split.dataset.id for split in operation.split_into_datasets.dataset_splits),
        )
        if name
    ]


def cancel_bulk_operations(
    context: Context, request: v2.CancelBulkOperationRequest
) -> v2.MultiBulkOperationsResponse:
    resource = RESOURCES["bulk_operation"]
    place = Place(context.writable(request.user_app_id))
    response = v2.MultiBulkOperationsResponse(status=make_status(_Code.SUCCESS))
    with context.state.store.transaction():
        for operation_id in request.ids:
            item = resource.find(context, place, operation_id)
            if item.status.code in (_Code.BULK_OPERATION_PENDING, _Code.BULK_OPERATION_IN_PROGRESS):
                item.status.CopyFrom(make_status(_Code.BULK_OPERATION_CANCELLED))
                resource.save(context, place, item)
            response.bulk_operation.append(item)
    if not request.ids:
        raise ServiceError(resource.kind.invalid, "the request has no ids")
    return response


def _operate(state: State, where: Collection, row: Row) -> None:
    """Carries out a pending operation, a stretch of inputs at a time; stops when cancelled."""
    scope = Scope(where.user_id, where.app_id)
    operation = v2.BulkOperation.FromString(row.body)
    try:
        ids = _targets(state, scope, operation)
    except ServiceError as error:
        operation.status.CopyFrom(make_status(_Code.BULK_OPERATION_FAILED, str(error)))
        state.store.update(row.seq, operation.SerializeToString(), operation.status.code)
        return
    choose = _chooser(operation, row.id)
    for start in range(0, max(len(ids), 1), _STRETCH):
        stretch = ids[start : start + _STRETCH]
        with state.store.transaction():
            now = state.store.get(where, row.id)
            if now is None or now.status == _Code.BULK_OPERATION_CANCELLED:
                return
            for input_id in stretch:
                _change(state, scope, operation.operation, input_id, choose)
            operation.progress.processed = start + len(stretch)
            operation.progress.last_processed_id = stretch[-1] if stretch else ""
            over = start + _STRETCH >= len(ids)
            code = _Code.BULK_OPERATION_SUCCESS if over else _Code.BULK_OPERATION_IN_PROGRESS
            operation.status.CopyFrom(make_status(code))
            operation.last_modified_at.GetCurrentTime()
            state.store.update(row.seq, operation.SerializeToString(), code)


def _targets(state: State, scope: Scope, operation: v2.BulkOperation) -> list[str]:
    source = operation.WhichOneof("input_source")
    if source == "input_ids":
        return list(operation.input_ids.input_ids)
    if source == "search":
        return [item.id for _, item in inputs_found(state, scope, operation.search)]
    members = membership.members_of(scope, operation.dataset.id)
    return [row.id for row in state.store.walk(members)]


def _chooser(operation: v2.BulkOperation, seed: str) -> Callable[[], str]:
    """Draws the dataset of an input by the shares; the operation's id is the seed."""
    splits = operation.operation.split_into_datasets.dataset_splits
    # Not for secrets: shares.
    dice = random.Random(seed)
    return lambda: dice.choices(
        [split.dataset.id for split in splits], [split.percentage for split in splits]
    )[0]


def _change(
    state: State, scope: Scope, operation: v2.Operation, input_id: str, choose: Callable[[], str]
) -> None:
    store = state.store
    row = store.get(Collection(INPUT_KIND, scope.user_id, scope.app_id), input_id)
    if row is None:
        return
    kind = operation.WhichOneof("operation")
    if kind == "add_to_dataset":
        membership.join(store, scope, operation.add_to_dataset.dataset_id, input_id)
        return
    if kind == "delete_from_dataset":
        membership.leave(store, scope, operation.delete_from_dataset.dataset_id, input_id)
        return
    if kind == "split_into_datasets":
        membership.join(store, scope, choose(), input_id)
        return
    item = v2.Input.FromString(row.body)
    data = item.data
    if kind == "add_concepts":
        patching.patch(data, v2.Data(concepts=operation.add_concepts.concepts), "merge")
        for concept in data.concepts:
            concept.name = concept.name or concept.id
            concept.app_id = scope.app_id
    elif kind == "delete_concepts":
        gone = v2.Data(concepts=operation.delete_concepts.concepts)
        patching.patch(data, gone, "remove")
    elif kind == "add_metadata":
        patching.patch(data, v2.Data(metadata=operation.add_metadata.metadata), "merge")
    elif kind == "delete_metadata":
        patching.patch(data, v2.Data(metadata=operation.delete_metadata.metadata), "remove")
    elif kind == "overwrite_geo":
        data.geo.CopyFrom(operation.overwrite_geo.geo)
    else:
        data.ClearField("geo")
    item.modified_at.GetCurrentTime()
    store.update(row.seq, item.SerializeToString(), row.status)


# Copies of apps


def post_app_duplications(
    context: Context, request: v2.PostAppDuplicationsRequest
) -> v2.MultiAppDuplicationsResponse:
    source = context.scope(request.user_app_id)
    owner = context.caller.user_id
    resource = RESOURCES["app_duplication"]
    if not request.app_duplications:
        raise ServiceError(resource.kind.invalid, "the request has no app_duplications")
    response = v2.MultiAppDuplicationsResponse(status=make_status(_Code.SUCCESS))
    apps = Place(Scope(owner, ""))
    with context.state.store.transaction():
        for given in request.app_duplications:
            wanted = v2.AppDuplication()
            wanted.CopyFrom(given)
            new_id = wanted.destination_app.id or wanted.existing_app_id or wanted.new_app_id
            app = v2.App(id=new_id, name=wanted.destination_app.name or wanted.new_app_name)
            if not (new_id and RESOURCES["app"].exists(context, apps, new_id)):
                if wanted.existing_app_id:
                    raise RESOURCES["app"].no(wanted.existing_app_id)
                app = RESOURCES["app"].add(context, apps, app)
            wanted.destination_app.Clear()
            wanted.destination_app.id, wanted.destination_app.user_id = app.id, owner
            wanted.ClearField("progress")
            made = resource.add(context, apps, wanted)
            # Where it comes from is the job's business alone.
            context.state.store.insert(
                Collection("duplication_source", owner, "", made.id),
                "source",
                v2.UserAppIDSet(user_id=source.user_id, app_id=source.app_id).SerializeToString(),
            )
            response.app_duplications.append(made)
    context.state.background.wake()
    return response


_COPIED = {
    "copy_inputs": ("input", "image_embedding", "text_embedding", "dataset", "dataset_input"),
    "copy_concepts": ("concept", "concept_language", "concept_relation"),
    "copy_annotations": ("annotation", "annotation_track"),
    "copy_models": ("model", "model_version"),
    "copy_workflows": ("workflow", "workflow_version"),
    "copy_installed_module_versions": ("installed_module_version",),
}


def _duplicate(state: State, where: Collection, row: Row) -> None:
    """Copies what a pending duplication asks for; what is in the destination already stays."""
    job = v2.AppDuplication.FromString(row.body)
    origin = state.store.get(Collection("duplication_source", where.user_id, "", row.id), "source")
    assert origin is not None
    source = v2.UserAppIDSet.FromString(origin.body)
    target = Scope(where.user_id, job.destination_app.id)
    with state.store.transaction():
        for name, kinds in _COPIED.items():
            if not getattr(job.filter, name):
                continue
            done = sum(
                _copy(state, found, target)
                for kind in kinds
                for found in state.store.collections(kind, source.user_id, source.app_id)
            )
            job.progress.add(field=name.removeprefix("copy_"), value=done)
        job.status.CopyFrom(make_status(_Code.APP_DUPLICATION_SUCCESS))
        job.last_modified_at.GetCurrentTime()
        state.store.update(row.seq, job.SerializeToString(), job.status.code)
    state.accounts.forget()
    state.worker.wake()


def _copy(state: State, found: Collection, target: Scope) -> int:
    store = state.store
    to = found._replace(user_id=target.user_id, app_id=target.app_id)
    done = 0
    for row in store.walk(found, newest_first=False):
        if store.get(to, row.id) is not None:
            continue
        body, key = row.body, store.key(row.seq)
        if found.kind == "model":
            model = v2.Model.FromString(body)
            model.user_id, model.app_id = target.user_id, target.app_id
            body = model.SerializeToString()
        store.insert(to, row.id, body, status=row.status, key=key, content=store.content(row.seq))
        done += 1
    return done


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostBulkOperations": post_bulk_operations,
    "CancelBulkOperations": cancel_bulk_operations,
    "PostAppDuplications": post_app_duplications,
}
BACKGROUND: dict[Waiting, Work] = {
    Waiting("bulk_operation", _Code.BULK_OPERATION_PENDING): _operate,
    # Cut off by the end of the process: done again, which changes nothing twice.
    Waiting("bulk_operation", _Code.BULK_OPERATION_IN_PROGRESS): _operate,
    Waiting("app_duplication", _Code.APP_DUPLICATION_PENDING): _duplicate,
}
