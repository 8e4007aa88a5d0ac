"""Annotations: the methods beside the general ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine import input_level_annotations, patching
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.input_level_annotations import own_annotation
from clarigrpc.local.engine.request_checks import page_bounds
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.service_errors import ServiceError, make_status, overall
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode


def get_annotation(
    context: Context, request: v2.GetAnnotationRequest
) -> v2.SingleAnnotationResponse:
    found = RESOURCES["annotation"].find(
        context, Place(context.readable(request.user_app_id)), request.annotation_id
    )
    if request.input_id and found.input_id != request.input_id:
        raise RESOURCES["annotation"].no(request.annotation_id)
    return v2.SingleAnnotationResponse(status=make_status(StatusCode.SUCCESS), annotation=found)


def list_annotations(
    context: Context, request: v2.ListAnnotationsRequest
) -> v2.MultiAnnotationResponse:
    app = context.readable(request.user_app_id)
    offset, limit = page_bounds(request.page, request.per_page)
    every = merge(
        _given(context, app, request), _own(context, app, request), key=lambda found: -found[0]
    )
    # Read as far as the page needs.
    found = islice((item for _, item in every if _listed(item, request)), offset, offset + limit)
    return v2.MultiAnnotationResponse(status=make_status(StatusCode.SUCCESS), annotations=found)


def _given(
    context: Context, app: UserApp, request: v2.ListAnnotationsRequest
) -> Iterator[tuple[int, v2.Annotation]]:
    """Place in the store and annotation of those that were added to inputs, newest first."""
    resource = RESOURCES["annotation"]
    place = Place(app)
    where = resource.where(place)
    store = context.state.store
    if request.input_ids or request.ids:
        # By the indexes, not by a walk over all.
        rows = iter(store.page(where, 0, -1, keys=request.input_ids, ids=request.ids))
    else:
        rows = store.walk(where)
    for row in rows:
        yield row.seq, resource.shown(context, place, row)


def _own(
    context: Context, app: UserApp, request: v2.ListAnnotationsRequest
) -> Iterator[tuple[int, v2.Annotation]]:
    """Likewise of those that inputs have of themselves."""
    where = StoredCollection.of_app(INPUT_KIND, app)
    store = context.state.store
    by_model = request.model_version_ids or request.workflow_version_ids
    if request.task_id or (by_model and not request.user_ids):
        return  # none is by a model, or made in a task
    ids = list(request.input_ids)
    if request.ids:
        named = [i for i in map(input_level_annotations.input_id_of, request.ids) if i]
        ids = [i for i in named if i in ids] if ids else named
        if not ids:
            return
    for row in store.page(where, 0, -1, ids=ids) if ids else store.walk(where):
        yield row.seq, own_annotation(v2.Input.FromString(row.body), app)


def _listed(item: v2.Annotation, request: v2.ListAnnotationsRequest) -> bool:
    by_model = bool(item.model_version_id or item.workflow_version_id)
    workers = (
        (request.user_ids, "" if by_model else item.user_id),
        (request.model_version_ids, item.model_version_id),
        (request.workflow_version_ids, item.workflow_version_id),
    )
    asked = any(wanted for wanted, _ in workers)
    if asked and not any(value and value in wanted for wanted, value in workers):
        return False
    if by_model and not asked and not (request.list_all_annotations or request.return_model_output):
        return False
    if request.ids and item.id not in request.ids:
        return False
    codes = {status.code for status in request.statuses}
    if codes and item.status.code not in codes:
        return False
    return not request.task_id or item.task_id == request.task_id


def patch_annotations(
    context: Context, request: v2.PatchAnnotationsRequest
) -> v2.MultiAnnotationResponse:
    resource = RESOURCES["annotation"]
    response: Any = resource.patch(context, request)
    if request.delete_if_empty_data:
        place = Place(context.writable(request.user_app_id))
        for annotation in response.annotations:
            if annotation.input_level:
                continue  # it stays as long as its input
            if annotation.status.code in _FINE and not annotation.data.ListFields():
                resource.remove(context, place, annotation.id)
    return response  # type: ignore[no-any-return]


_FINE = frozenset(
    (
        StatusCode.ANNOTATION_SUCCESS,
        StatusCode.ANNOTATION_PENDING,
        StatusCode.ANNOTATION_AWAITING_REVIEW,
        StatusCode.ANNOTATION_AWAITING_CONSENSUS_REVIEW,
    )
)


def patch_annotations_status(
    context: Context, request: v2.PatchAnnotationsStatusRequest
) -> v2.PatchAnnotationsStatusResponse:
    place = Place(context.writable(request.user_app_id))
    patching.check_action(request.action or "overwrite", StatusCode.ANNOTATION_INVALID_ARGUMENT)
    if not request.task_id or not request.status_code:
        raise ServiceError(
            StatusCode.ANNOTATION_INVALID_ARGUMENT, "task_id and status_code are required"
        )
    resource = RESOURCES["annotation"]
    response = v2.PatchAnnotationsStatusResponse(status=make_status(StatusCode.SUCCESS))
    with context.state.store.transaction():
        for item in list(resource.walk(context, place)):
            if item.task_id != request.task_id:
                continue
            if request.user_ids and item.user_id not in request.user_ids:
                continue
            if request.status_codes and item.status.code not in request.status_codes:
                continue
            item.status.CopyFrom(make_status(request.status_code))
            resource.save(context, place, item)
            response.updated_count += 1
            if item.user_id not in response.user_ids:
                response.user_ids.append(item.user_id)
    return response


def delete_annotation(context: Context, request: v2.DeleteAnnotationRequest) -> v2.BaseResponse:
    place = Place(context.writable(request.user_app_id))
    resource = RESOURCES["annotation"]
    found = resource.find(context, place, request.annotation_id)
    if request.input_id and found.input_id != request.input_id:
        raise resource.no(request.annotation_id)
    resource.remove(context, place, request.annotation_id)
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


def delete_annotations(context: Context, request: v2.DeleteAnnotationsRequest) -> v2.BaseResponse:
    """By ids, which may each come with its input; by inputs alone, all of theirs."""
    place = Place(context.writable(request.user_app_id))
    resource = RESOURCES["annotation"]
    store = context.state.store
    count = len(request.ids) or len(request.input_ids)
    if not 1 <= count <= MAX_ITEMS or len(request.input_ids) > MAX_ITEMS:
        raise ServiceError(
            StatusCode.ANNOTATION_INVALID_ARGUMENT, f"the request must have 1 to {MAX_ITEMS} ids"
        )
    with store.transaction():
        if request.ids:
            paired = len(request.input_ids) == len(request.ids)
            statuses = []
            for index, annotation_id in enumerate(request.ids):
                try:
                    found = resource.find(context, place, annotation_id)
                    if paired and found.input_id != request.input_ids[index]:
                        raise resource.no(annotation_id)
                    resource.remove(context, place, annotation_id)
                    statuses.append(make_status(StatusCode.SUCCESS))
                except ServiceError as error:
                    statuses.append(error.status())
            if len(statuses) == 1:
                return v2.BaseResponse(status=statuses[0])
            return v2.BaseResponse(status=overall(statuses))
        rows = store.page(resource.where(place), 0, -1, keys=request.input_ids)
        for row in rows:
            resource.remove(context, place, row.id)
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


def list_annotation_workers(
    context: Context, request: v2.ListAnnotationWorkersRequest
) -> v2.MultiWorkerResponse:
    offset, limit = page_bounds(request.page, request.per_page)
    place = Place(context.readable(request.user_app_id))
    workers: dict[bytes, v2.Worker] = {}
    for item in RESOURCES["annotation"].walk(context, place):
        if request.trusted_only and not item.trusted:
            continue
        worker = v2.Worker()
        if item.model_version_id:
            worker.model.model_version.id = item.model_version_id
        elif item.workflow_version_id:
            worker.workflow.version.id = item.workflow_version_id
        else:
            worker.user.id = item.user_id
        workers[worker.SerializeToString(deterministic=True)] = worker
    if not request.trusted_only and context.state.store.count(
        StoredCollection.of_app(INPUT_KIND, place.app)
    ):
        owner = v2.Worker()
        owner.user.id = place.app.user_id
        workers[owner.SerializeToString(deterministic=True)] = owner
    return v2.MultiWorkerResponse(
        status=make_status(StatusCode.SUCCESS),
        workers=list(workers.values())[offset : offset + limit],
    )


def _task_count(of_inputs: bool) -> Callable[[Context, Any], v2.SingleTaskCountResponse]:
    fields = {
        StatusCode.ANNOTATION_PENDING: "pending",
        StatusCode.ANNOTATION_AWAITING_REVIEW: "awaiting_review",
        StatusCode.ANNOTATION_SUCCESS: "success",
        StatusCode.ANNOTATION_REVIEW_DENIED: "review_denied",
        StatusCode.ANNOTATION_AWAITING_CONSENSUS_REVIEW: "awaiting_consensus_review",
    }

    def count(context: Context, request: v2.GetTaskCountRequest) -> v2.SingleTaskCountResponse:
        app = context.readable(request.user_app_id)
        place = Place(app)
        RESOURCES["task"].find(context, place, request.task_id)
        response = v2.SingleTaskCountResponse(
            status=make_status(StatusCode.SUCCESS), app_id=app.app_id, task_id=request.task_id
        )
        seen: set[tuple[str, str, str]] = set()
        by_user: dict[str, v2.TaskStatusCountPerUser] = {}
        for item in RESOURCES["annotation"].walk(context, place):
            name = fields.get(item.status.code)
            if item.task_id != request.task_id or name is None:
                continue
            if request.user_ids and item.user_id not in request.user_ids:
                continue
            what = (item.user_id, name, item.input_id if of_inputs else item.id)
            if what in seen:
                continue
            seen.add(what)
            if item.user_id not in by_user:
                by_user[item.user_id] = response.counts.add(user_id=item.user_id)
            entry = by_user[item.user_id]
            setattr(entry, name, getattr(entry, name) + 1)
        return response

    return count


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "GetAnnotation": get_annotation,
    "ListAnnotations": list_annotations,
    "PatchAnnotations": patch_annotations,
    "PatchAnnotationsStatus": patch_annotations_status,
    "DeleteAnnotation": delete_annotation,
    "DeleteAnnotations": delete_annotations,
    "ListAnnotationWorkers": list_annotation_workers,
    "GetTaskAnnotationCount": _task_count(of_inputs=False),
    "GetTaskInputCount": _task_count(of_inputs=True),
}
