"""Labelling tasks at work: what a labeler is to do next, hands in, and reviewers decide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine import dataset_membership, hosted_media
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.search_index import Lookups
from clarigrpc.local.engine.search_ranking import inputs_found
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, annotations_of
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.service_errors import ServiceError, StatusCodeValue, make_status, overall
from clarigrpc.local.store.resource_store import PARENT_SEPARATOR, Row, StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_AssignmentAction = v2.PutTaskAssignmentsRequestAction
_TaskSource = v2.TaskInputSource

MAX_NEXT_INPUTS = 10
"""Most inputs that a labeler is given at once."""

# What becomes of the annotations that an assignment is about.
_ANNOTATION_STATUS = {
    StatusCode.TASK_ASSIGNMENT_PENDING: StatusCode.ANNOTATION_PENDING,
    StatusCode.TASK_ASSIGNMENT_AWAITING_REVIEW: StatusCode.ANNOTATION_AWAITING_REVIEW,
    StatusCode.TASK_ASSIGNMENT_SUCCESS: StatusCode.ANNOTATION_SUCCESS,
    StatusCode.TASK_ASSIGNMENT_REJECTED: StatusCode.ANNOTATION_REVIEW_DENIED,
}
# A decision in a review, the field with its settings, and the state that it leads to.
_DECISIONS = {
    _AssignmentAction.REVIEW_APPROVE: ("review_approve_config", StatusCode.TASK_ASSIGNMENT_SUCCESS),
    _AssignmentAction.REVIEW_REQUEST_CHANGES: (
        "review_request_changes_config",
        StatusCode.TASK_ASSIGNMENT_PENDING,
    ),
    _AssignmentAction.REVIEW_REJECT: ("review_reject_config", StatusCode.TASK_ASSIGNMENT_REJECTED),
}


def _assignments(app: UserApp, task_id: str) -> StoredCollection:
    """Where the assignments of a task are kept, by input and worker."""
    return StoredCollection.of_app("task_assignment", app, task_id)


def _id(input_id: str, user_id: str) -> str:
    return PARENT_SEPARATOR.join((input_id, user_id))


def _workers(task: v2.Task) -> list[str]:
    """Users who label; empty for whoever comes."""
    named = [worker.user.id for worker in task.worker.workers if worker.user.id]
    return named or [user.id for user in task.worker.users] or list(task.worker.user_ids)


def _reviewers(task: v2.Task) -> list[str]:
    return [user.id for user in task.review.users] or list(task.review.user_ids)


def _inputs_of(context: Context, app: UserApp, task: v2.Task) -> Iterator[v2.Input]:
    """The inputs that a task is about and that are ready, as its source finds them."""
    store = context.state.store
    where = StoredCollection.of_app(INPUT_KIND, app)
    source = task.input_source
    if source.type == _TaskSource.SAVED_SEARCH:
        search = RESOURCES["search"].find(context, Place(app), source.id)
        found = (item for _, item in inputs_found(context.state, app, search))
    else:
        rows: Iterable[Row | None]
        if source.type == _TaskSource.DATASET:
            members = store.walk(dataset_membership.members_of(app, source.id), newest_first=False)
            rows = (store.get(where, member.id) for member in members)
        elif source.type == _TaskSource.INPUT:
            rows = [store.get(where, source.id)]
        else:
            rows = store.walk(where, newest_first=False)
        found = (v2.Input.FromString(row.body) for row in rows if row is not None)
    return (item for item in found if item.status.code == StatusCode.INPUT_SUCCESS)


def _is_for(task: v2.Task, input_id: str, user_id: str) -> bool:
    """Whether a worker of a task gets an input. The parts of workers follow from ids alone."""
    workers = _workers(task)
    if workers and user_id not in workers:
        return False
    if task.worker.strategy != v2.TaskWorker.PARTITIONED or not workers:
        return True
    info = task.worker.partitioned_strategy_info
    even = info.type != v2.TaskWorkerPartitionedStrategyInfo.WEIGHTED
    shares = {
        worker: 1.0 if even else info.weights.fields[worker].number_value for worker in workers
    }

    def turn(worker: str) -> float:
        # A worker with twice the weight comes first twice as often (weighted rendezvous hashing).
        digest = hashlib.blake2b(_id(input_id, worker).encode(), digest_size=7).digest()
        draw = (int.from_bytes(digest, "big") + 1) / (2**56 + 1)
        return float(draw ** (1 / shares[worker])) if shares[worker] > 0 else -1.0

    first = sorted(workers, key=turn, reverse=True)[: max(info.workers_per_input, 1)]
    return user_id in first


def list_next(
    context: Context, request: v2.ListNextTaskAssignmentsRequest
) -> v2.MultiInputResponse:
    app = context.readable(request.user_app_id)
    task = RESOURCES["task"].find(context, Place(app), request.task_id)
    store, where = context.state.store, _assignments(app, task.id)
    me = context.caller.user_id
    taken: set[str] = set()
    if task.worker.strategy == v2.TaskWorker.DYNAMIC:
        ids = (row.id.split(PARENT_SEPARATOR) for row in store.walk(where))
        taken = {input_id for input_id, user_id in ids if user_id != me}

    def is_open(item: v2.Input) -> bool:
        if item.id in taken or not _is_for(task, item.id, me):
            return False
        row = store.get(where, _id(item.id, me))
        return row is None or row.status == StatusCode.TASK_ASSIGNMENT_PENDING

    found = islice(filter(is_open, _inputs_of(context, app, task)), MAX_NEXT_INPUTS)
    return v2.MultiInputResponse(status=make_status(StatusCode.SUCCESS), inputs=found)


def put_assignments(
    context: Context, request: v2.PutTaskAssignmentsRequest
) -> v2.MultiTaskAssignmentResponse:
    app = context.writable(request.user_app_id)
    task = RESOURCES["task"].find(context, Place(app), request.task_id)
    me = context.caller.user_id
    action, config = request.action, request.WhichOneof("action_config")
    response = v2.MultiTaskAssignmentResponse(status=make_status(StatusCode.SUCCESS))
    with context.state.store.transaction():
        if action == _AssignmentAction.LABEL_START:
            made = _start(context, app, task, request.input_id, me)
            response.task_assignments.append(made)
        elif action == _AssignmentAction.LABEL_SUBMIT:
            given = request.label_submit_config.task_assignments
            ids = [one.input.id for one in given] or [request.input_id]
            step = (StatusCode.TASK_ASSIGNMENT_PENDING, _submitted(task))
            _move(context, app, task, [_id(i, me) for i in ids], step, response)
        else:
            reviewers = _reviewers(task)
            if me != app.user_id and me not in reviewers:
                raise ServiceError(
                    StatusCode.TASK_PERMISSION_DENIED, f"{me} is not a reviewer of task {task.id!r}"
                )
            if action == _AssignmentAction.REVIEW_START:
                waiting = _awaiting(context, app, task, request.review_start_config.workers)
                response.task_assignments.extend(waiting)
            elif action in _DECISIONS:
                field, code = _DECISIONS[action]
                if config != field:
                    raise ServiceError(
                        StatusCode.CONN_INVALID_REQUEST, f"this action requires {field}"
                    )
                decided = getattr(request, field)
                named = [_id(a.input.id, a.worker.user.id) for a in decided.task_assignments]
                if not named:
                    waiting = _awaiting(context, app, task, decided.workers)
                    named = [_id(a.input.id, a.worker.user.id) for a in waiting]
                step = (StatusCode.TASK_ASSIGNMENT_AWAITING_REVIEW, code)
                _move(context, app, task, named, step, response)
            else:
                raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "action is not set")
    return response


def _submitted(task: v2.Task) -> StatusCodeValue:
    """The state of what a labeler hands in."""
    if task.review.strategy == v2.TaskReview.CONSENSUS:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED, "the local server does not support consensus review"
        )
    if task.review.strategy == v2.TaskReview.MANUAL:
        return StatusCode.TASK_ASSIGNMENT_AWAITING_REVIEW
    return StatusCode.TASK_ASSIGNMENT_SUCCESS


def _start(
    context: Context, app: UserApp, task: v2.Task, input_id: str, user_id: str
) -> v2.TaskAssignment:
    store, where = context.state.store, _assignments(app, task.id)
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    if store.get(inputs, input_id) is None:
        raise ServiceError(StatusCode.INPUT_DOES_NOT_EXIST, f"input {input_id!r} does not exist")
    if not _is_for(task, input_id, user_id):
        raise ServiceError(
            StatusCode.TASK_PERMISSION_DENIED, f"input {input_id!r} is not assigned to {user_id}"
        )
    row = store.get(where, _id(input_id, user_id))
    if row is not None:
        return v2.TaskAssignment.FromString(row.body)
    made = v2.TaskAssignment(
        id=hashlib.blake2b(_id(input_id, user_id).encode(), digest_size=16).hexdigest(),
        status=make_status(StatusCode.TASK_ASSIGNMENT_PENDING),
    )
    made.input.id, made.worker.user.id = input_id, user_id
    made.created_at.GetCurrentTime()
    made.modified_at.CopyFrom(made.created_at)
    store.insert(where, _id(input_id, user_id), made.SerializeToString(), status=made.status.code)
    return made


def _awaiting(
    context: Context, app: UserApp, task: v2.Task, workers: Any
) -> list[v2.TaskAssignment]:
    """What waits for a review, of these workers or of all."""
    users = {worker.user.id for worker in workers}
    rows = context.state.store.page(
        _assignments(app, task.id),
        0,
        MAX_ITEMS,
        newest_first=False,
        status=StatusCode.TASK_ASSIGNMENT_AWAITING_REVIEW,
    )
    found = [v2.TaskAssignment.FromString(row.body) for row in rows]
    return [one for one in found if not users or one.worker.user.id in users]


def _move(
    context: Context,
    app: UserApp,
    task: v2.Task,
    ids: list[str],
    step: tuple[StatusCodeValue, StatusCodeValue],
    response: v2.MultiTaskAssignmentResponse,
) -> None:
    """Takes assignments from one state to another, and their annotations with them."""
    if not 1 <= len(ids) <= MAX_ITEMS:
        raise ServiceError(
            StatusCode.CONN_INVALID_REQUEST, f"the request must have 1 to {MAX_ITEMS} assignments"
        )
    store, where = context.state.store, _assignments(app, task.id)
    before, after = step
    outcomes = []
    for name in ids:
        row = store.get(where, name)
        input_id, user_id = name.split(PARENT_SEPARATOR)
        if row is None or row.status != before:
            why = "was not started" if row is None else "is in another state"
            failed = response.task_assignments.add(
                status=make_status(
                    StatusCode.TASK_CONFLICT, f"the assignment of input {input_id!r} {why}"
                )
            )
            failed.input.id, failed.worker.user.id = input_id, user_id
            outcomes.append(failed.status)
            continue
        moved = response.task_assignments.add()
        moved.ParseFromString(row.body)
        moved.status.CopyFrom(make_status(after))
        moved.modified_at.GetCurrentTime()
        store.update(row.seq, moved.SerializeToString(), after)
        outcomes.append(make_status(StatusCode.SUCCESS))
        labels = RESOURCES["annotation"]
        for label in annotations_of(store, app, input_id):
            if (label.task_id, label.user_id) == (task.id, user_id):
                label.status.CopyFrom(make_status(_ANNOTATION_STATUS[after]))
                labels.save(context, Place(app), label)
    response.status.CopyFrom(overall(outcomes))


def get_samples(
    context: Context, request: v2.GetInputSamplesRequest
) -> v2.MultiInputAnnotationResponse:
    """What was labelled in a task: an input with an annotation each, the newest ones."""
    app = context.readable(request.user_app_id)
    RESOURCES["task"].find(context, Place(app), request.task_id)
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    store = context.state.store
    task = v2.Query()
    task.filters.add().annotation.task_id = request.task_id
    wanted = Lookups(app, "annotation").of_query(task)
    response = v2.MultiInputAnnotationResponse(status=make_status(StatusCode.SUCCESS))
    places = [one.seq for one in store.matching(inputs._replace(kind="annotation"), wanted)]
    for row in store.rows(places):
        label = v2.Annotation.FromString(row.body)
        item = store.get(inputs, label.input_id)
        if item is None or label.task_id != request.task_id:
            continue
        if request.user_ids and label.user_id not in request.user_ids:
            continue
        hit = response.hits.add(score=1.0, annotation=label)
        hit.input.ParseFromString(item.body)
        hosted_media.show(hit.input, app, context.state.downloads.base)
        if len(response.hits) == MAX_ITEMS:
            break
    return response


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "ListNextTaskAssignments": list_next,
    "PutTaskAssignments": put_assignments,
    "GetInputSamples": get_samples,
}
