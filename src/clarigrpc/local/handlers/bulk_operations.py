"""Work on many resources that goes on in the background: bulk operations, copies of apps."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.accounts.principal import Principal
from clarigrpc.local.engine import dataset_membership, patching
from clarigrpc.local.engine.app_concepts import AppConcepts
from clarigrpc.local.engine.background_tasks import BackgroundTask, Waiting
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.input_embeddings import EMBEDDING_LENGTHS
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.search_ranking import annotations_found, inputs_found
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, annotations_of
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.resource_facts import is_public
from clarigrpc.local.service_errors import ServiceError, StatusCodeValue, make_status
from clarigrpc.local.store.resource_store import PARENT_SEPARATOR, Row, StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode
from clarigrpc.v2._index import METHODS

_RESOURCES_PER_TRANSACTION = 100
"""Inputs that one transaction of a bulk operation changes."""


# Bulk operations


def post_bulk_operations(
    context: Context, request: v2.PostBulkOperationsRequest
) -> v2.MultiBulkOperationsResponse:
    resource = RESOURCES["bulk_operation"]
    app = context.writable(request.user_app_id)
    prepared = v2.PostBulkOperationsRequest()
    prepared.CopyFrom(request)
    for operation in prepared.bulk_operations:
        about_labels = operation.operation.HasField("delete_annotations")
        if operation.operation.WhichOneof("operation") is None and not about_labels:
            raise ServiceError(resource.kind.invalid, "the operation is not set")
        if operation.HasField("annotation_search") and not about_labels:
            raise ServiceError(
                resource.kind.invalid, "annotation_search goes with delete_annotations only"
            )
        sources = [operation.WhichOneof("input_source"), operation.WhichOneof("annotation_source")]
        if sum(source is not None for source in sources) != 1:
            besides = ", annotation_search" if about_labels else ""
            raise ServiceError(resource.kind.invalid, f"set input_ids, search{besides} or dataset")
        for dataset_id in _datasets(operation.operation):
            if not RESOURCES["dataset"].exists(context, Place(app), dataset_id):
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
    response = v2.MultiBulkOperationsResponse(status=make_status(StatusCode.SUCCESS))
    with context.state.store.transaction():
        for operation_id in request.ids:
            item = resource.find(context, place, operation_id)
            if item.status.code in (
                StatusCode.BULK_OPERATION_PENDING,
                StatusCode.BULK_OPERATION_IN_PROGRESS,
            ):
                item.status.CopyFrom(make_status(StatusCode.BULK_OPERATION_CANCELLED))
                resource.save(context, place, item)
            response.bulk_operation.append(item)
    if not request.ids:
        raise ServiceError(resource.kind.invalid, "the request has no ids")
    return response


def _operate(state: State, where: StoredCollection, row: Row) -> None:
    """Carries out a pending operation, a stretch of inputs at a time; stops when cancelled."""
    app = where.app
    operation = v2.BulkOperation.FromString(row.body)
    try:
        ids = _selected(state, app, operation)
    except ServiceError as error:
        operation.status.CopyFrom(make_status(StatusCode.BULK_OPERATION_FAILED, str(error)))
        state.store.update(row.seq, operation.SerializeToString(), operation.status.code)
        return
    choose = _chooser(operation, row.id)
    done, over = 0, False
    while not over:
        with state.store.transaction():
            now = state.store.get(where, row.id)
            if now is None or now.status == StatusCode.BULK_OPERATION_CANCELLED:
                return
            for input_id in ids[done : done + _RESOURCES_PER_TRANSACTION]:
                _change(state, app, operation.operation, input_id, choose)
                done += 1
                if state.store.crowded:
                    break
            operation.progress.processed = done
            operation.progress.last_processed_id = ids[done - 1] if done else ""
            over = done == len(ids)
            code = (
                StatusCode.BULK_OPERATION_SUCCESS if over else StatusCode.BULK_OPERATION_IN_PROGRESS
            )
            operation.status.CopyFrom(make_status(code))
            operation.last_modified_at.GetCurrentTime()
            state.store.update(row.seq, operation.SerializeToString(), code)


def _selected(state: State, app: UserApp, operation: v2.BulkOperation) -> list[str]:
    """The ids of what the operation is about: inputs, or annotations beside the inputs' own."""
    if operation.HasField("annotation_search"):
        found = annotations_found(state, app, operation.annotation_search)
        return [label.id for _, (_, label) in found if not label.input_level]
    inputs = _selected_inputs(state, app, operation)
    if operation.operation.HasField("delete_annotations"):
        return [label.id for i in inputs for label in annotations_of(state.store, app, i)]
    return inputs


def _selected_inputs(state: State, app: UserApp, operation: v2.BulkOperation) -> list[str]:
    source = operation.WhichOneof("input_source")
    if source == "input_ids":
        return list(operation.input_ids.input_ids)
    if source == "search":
        return [item.id for _, item in inputs_found(state, app, operation.search)]
    members = dataset_membership.members_of(app, operation.dataset.id)
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
    state: State, app: UserApp, operation: v2.Operation, selected: str, choose: Callable[[], str]
) -> None:
    """Does what the operation does with one input, or one annotation."""
    store = state.store
    if operation.HasField("delete_annotations"):
        store.delete(StoredCollection.of_app("annotation", app), selected)
        return
    input_id = selected
    kind = operation.WhichOneof("operation")
    row = store.get(StoredCollection.of_app(INPUT_KIND, app), input_id)
    if row is None:
        return
    if kind == "add_to_dataset":
        dataset_membership.join(store, app, operation.add_to_dataset.dataset_id, input_id)
        return
    if kind == "delete_from_dataset":
        dataset_membership.leave(store, app, operation.delete_from_dataset.dataset_id, input_id)
        return
    if kind == "split_into_datasets":
        dataset_membership.join(store, app, choose(), input_id)
        return
    item = v2.Input.FromString(row.body)
    data = item.data
    if kind == "add_concepts":
        patching.patch(data, v2.Data(concepts=operation.add_concepts.concepts), "merge")
        AppConcepts(store, app).complete(data, StatusCode.BULK_OPERATION_INVALID_REQUEST)
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
    source = context.readable(request.user_app_id)
    for given in request.app_duplications:
        for name in _wanted(given):
            for kind in _COPIED[name]:
                # Who may not list them may not copy them.
                context.readable(request.user_app_id, method=_list_of(kind))
    owner = context.caller.user_id
    resource = RESOURCES["app_duplication"]
    if not request.app_duplications:
        raise ServiceError(resource.kind.invalid, "the request has no app_duplications")
    response = v2.MultiAppDuplicationsResponse(status=make_status(StatusCode.SUCCESS))
    apps = Place(UserApp(owner, ""))
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
                StoredCollection("duplication_source", owner, "", made.id),
                "source",
                v2.UserAppIDSet(user_id=source.user_id, app_id=source.app_id).SerializeToString(),
            )
            response.app_duplications.append(made)
    context.state.background.wake()
    return response


_COPIED = {
    "copy_concepts": ("concept", "concept_language", "concept_relation"),
    "copy_inputs": (
        "input",
        *(f"{medium}_embedding" for medium in EMBEDDING_LENGTHS),
        "dataset",
        "dataset_input",
    ),
    "copy_annotations": ("annotation", "annotation_track"),
    "copy_models": ("model", "model_version"),
    "copy_workflows": ("workflow", "workflow_version"),
}
"""Field of the filter -> what it copies, in an order in which what is named is there before. A
filter that names none of them, and none at all, means all of them."""


def _wanted(job: v2.AppDuplication) -> list[str]:
    """The fields of the filter that say what to copy."""
    return [name for name in _COPIED if getattr(job.filter, name)] or list(_COPIED)


def _list_of(kind: str) -> str:
    """The method that shows resources of a kind that is copied."""
    resource = RESOURCES.get(kind)
    method = "" if resource is None else f"List{resource.plural}"
    return method if method in METHODS else "ListInputs"


def _duplicate(state: State, where: StoredCollection, row: Row) -> None:
    """Copies what a duplication asks for, a stretch at a time; what is there already stays."""
    store = state.store
    job = v2.AppDuplication.FromString(row.body)
    origin = store.get(StoredCollection("duplication_source", where.user_id, "", row.id), "source")
    if origin is None:  # deleted with the job
        return
    ids = v2.UserAppIDSet.FromString(origin.body)
    copy = _Copy(
        state, UserApp(ids.user_id, ids.app_id), UserApp(where.user_id, job.destination_app.id)
    )
    # Cut off by the end of the process it begins anew, and finds what it copied.
    del job.progress[:]

    def keep(code: StatusCodeValue) -> None:
        job.status.CopyFrom(make_status(code))
        job.last_modified_at.GetCurrentTime()
        store.update(row.seq, job.SerializeToString(), code)

    for name, kinds in ((name, _COPIED[name]) for name in _wanted(job)):
        progress = job.progress.add(field=name)
        for kind in kinds:
            for found in store.collections(kind, copy.source.user_id, copy.source.app_id):
                rows = store.walk(found, newest_first=False)
                copied = -1
                while copied:
                    copied = 0
                    with store.transaction():
                        # The whole job, or the app, may have been deleted meanwhile.
                        if state.background.closing or store.by_seq(row.seq) is None:
                            return
                        for one in islice(rows, _RESOURCES_PER_TRANSACTION):
                            copy.resource(found, one)
                            copied += 1
                            if store.crowded:
                                break
                        if kind == kinds[0]:
                            progress.value += copied
                        keep(StatusCode.APP_DUPLICATION_IN_PROGRESS)
    with store.transaction():
        if store.by_seq(row.seq) is not None:
            keep(StatusCode.APP_DUPLICATION_SUCCESS)
    state.accounts.forget()
    state.input_processor.wake()
    state.background.wake()


class _Copy:
    """Copies resources of one app to another.

    Args:
        state: The server's.
        source: The app that they are in.
        target: The app that they come to.
    """

    def __init__(self, state: State, source: UserApp, target: UserApp) -> None:
        self._state = state
        self.source = source
        self._target = target
        owner = Principal(target.user_id)
        self._only_public = {
            kind: state.accounts.is_stranger(owner, _list_of(kind), source)
            for kinds in _COPIED.values()
            for kind in kinds
        }

    def resource(self, found: StoredCollection, row: Row) -> None:
        """Copies one resource, unless the target has its id or lacks what it belongs to.

        What strangers do not see in the source they do not get by copying it.
        """
        store = self._state.store
        resource = RESOURCES.get(found.kind)
        if resource is not None:
            if self._only_public[found.kind] and not is_public(resource.cls.FromString(row.body)):
                return
            parents = zip(resource.kind.parents, found.parent.split(PARENT_SEPARATOR), strict=False)
            if not all(self._has(kind, resource_id) for kind, resource_id in parents):
                return
        to = found._replace(user_id=self._target.user_id, app_id=self._target.app_id)
        if store.get(to, row.id) is not None:
            return
        key = store.key(row.seq)
        if found.kind.startswith("annotation") and not self._has("input", key or ""):
            return
        content = store.content(row.seq)
        store.insert(
            to,
            row.id,
            self._body(found.kind, row.body),
            status=row.status,
            key=key,
            content=content,
        )
        uploads = self._state.uploads
        if uploads.path(*found, row.id).exists():
            shutil.copyfile(uploads.path(*found, row.id), uploads.path(*to, row.id))

    def _has(self, kind: str, resource_id: str) -> bool:
        where = StoredCollection.of_app(kind, self._target)
        return self._state.store.get(where, resource_id) is not None

    def _body(self, kind: str, body: bytes) -> bytes:
        """A message that names its own app, with the names of the other one."""
        if kind in ("input", "annotation"):
            labelled = (v2.Input if kind == "input" else v2.Annotation).FromString(body)
            AppConcepts(self._state.store, self._target).complete(labelled.data)
            return labelled.SerializeToString()
        if kind in ("model", "model_version"):
            owned = (v2.Model if kind == "model" else v2.ModelVersion).FromString(body)
            owned.user_id, owned.app_id = self._target.user_id, self._target.app_id
            return owned.SerializeToString()
        if kind == "workflow_version":
            version = v2.WorkflowVersion.FromString(body)
            for node in version.nodes:
                if UserApp(node.model.user_id, node.model.app_id) == self.source and self._has(
                    "model", node.model.id
                ):
                    node.model.user_id = self._target.user_id
                    node.model.app_id = self._target.app_id
            return version.SerializeToString()
        return body


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostBulkOperations": post_bulk_operations,
    "CancelBulkOperations": cancel_bulk_operations,
    "PostAppDuplications": post_app_duplications,
}
BACKGROUND_TASKS: dict[Waiting, BackgroundTask] = {
    Waiting("bulk_operation", StatusCode.BULK_OPERATION_PENDING): _operate,
    # Cut off by the end of the process: done again, which changes nothing twice.
    Waiting("bulk_operation", StatusCode.BULK_OPERATION_IN_PROGRESS): _operate,
    Waiting("app_duplication", StatusCode.APP_DUPLICATION_PENDING): _duplicate,
    Waiting("app_duplication", StatusCode.APP_DUPLICATION_IN_PROGRESS): _duplicate,
}
