"""What users did that the service keeps a record of, and searches in that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.request_checks import page_bounds, refuse_other_fields
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import make_status
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import EventType, StatusCode
from clarigrpc.v2._index import METHODS

MAX_AUDIT_ENTRIES = 10_000
"""Entries that a user's log keeps: the newest."""
_MAX_ID_LENGTH = 256


class _Recorded(NamedTuple):
    """A method whose calls are recorded.

    Attributes:
        operation: What it does.
        target: The field of ``AuditLogTarget`` for what it does that to.
    """

    operation: EventType.ValueType
    target: str


# Name in methods -> beginning of the operations' names, field of the target.
_KINDS_IN_METHODS = {
    "Model": ("MODEL", "model"),
    "ModelVersion": ("MODEL_VERSION", "model_version"),
    "Workflow": ("WORKFLOW", "workflow"),
    "WorkflowVersion": ("WORKFLOW_VERSION", "workflow_version"),
    "App": ("APPLICATION", "app"),
    "ComputeCluster": ("COMPUTE_CLUSTER", "compute_cluster"),
    "Nodepool": ("NODEPOOL", "nodepool"),
    "Deployment": ("DEPLOYMENT", "deployment"),
}
_OPERATION_OF_VERB = {"Post": "CREATE", "Patch": "UPDATE", "Delete": "DELETE"}

RECORDED: Mapping[str, _Recorded] = {
    method: _Recorded(EventType.Value(f"{operation}_{done}"), target)
    for kind, (operation, target) in _KINDS_IN_METHODS.items()
    for verb, done in _OPERATION_OF_VERB.items()
    for method in (f"{verb}{kind}", f"{verb}{kind}s")
    if method in METHODS
}
"""The methods whose calls are recorded."""


def _log(user_id: str) -> StoredCollection:
    return StoredCollection("audit_log_entry", user_id, "")


def record(context: Context, request: Any, response: Any) -> None:
    """Records a call of one of ``RECORDED``, an entry for each object.

    It stands in the log of the user whose resources they are; in the caller's own where that one
    was refused what is somebody else's.

    Args:
        context: Of the call.
        request: What was asked for.
        response: What came of it, with the id of the request in its status.
    """
    method = context.call.method
    operation, field = RECORDED[method]
    success = response.status.code in (StatusCode.SUCCESS, StatusCode.MIXED_STATUS)
    found = list(_objects(field, response)) or list(_objects(field, request))
    targets = [_of_object(field, item) for item in found]
    targets = targets or [_named(field, resource_id) for resource_id in _ids(field, request)]
    store = context.state.store
    where = _log(_owner(context, request.user_app_id, success))
    with store.transaction():
        for target in targets:
            entry = v2.AuditLogEntry(
                operation=operation,
                description=f"{method}: {field.replace('_', ' ')} {getattr(target, field).id}",
                success=success,
                req_id=response.status.req_id[:_MAX_ID_LENGTH],
                targets=[target],
            )
            parent = field.removesuffix("_version")
            if parent != field:
                entry.targets.append(_named(parent, getattr(request, f"{parent}_id")))
            entry.user.id = context.caller.user_id
            entry.timestamp.GetCurrentTime()
            store.insert(where, new_id(), entry.SerializeToString())
        store.keep_newest(where, MAX_AUDIT_ENTRIES)


def _owner(context: Context, ids: v2.UserAppIDSet, success: bool) -> str:
    """In whose log a call belongs."""
    caller = context.caller.user_id
    app = UserApp(caller if ids.user_id in ("", "me") else ids.user_id, ids.app_id)
    return app.user_id if success or not context.is_stranger(app) else caller


def _of_object(field: str, item: Any) -> v2.AuditLogTarget:
    """A target with what identifies an object, and no more of it."""
    target = _named(field, item.id)
    for name in ("user_id", "app_id"):
        if getattr(item, name, ""):
            setattr(getattr(target, field), name, getattr(item, name)[:_MAX_ID_LENGTH])
    return target


def _named(field: str, resource_id: str) -> v2.AuditLogTarget:
    target = v2.AuditLogTarget()
    getattr(target, field).id = resource_id[:_MAX_ID_LENGTH]
    return target


def _objects(field: str, message: Any) -> Iterator[Any]:
    """The objects of a kind in a request or a response; a version may be inside its model."""
    wanted = v2.AuditLogTarget.DESCRIPTOR.fields_by_name[field].message_type
    for found, value in message.ListFields():
        if found.message_type is wanted:
            yield from value if found.is_repeated else [value]
        elif found.message_type is v2.Model.DESCRIPTOR and field == "model_version":
            for model in value if found.is_repeated else [value]:
                if model.HasField("model_version"):
                    yield model.model_version


def _ids(field: str, request: Any) -> Iterator[str]:
    """The ids of what is to be deleted."""
    if field == "app":
        yield request.user_app_id.app_id
        return
    fields = request.DESCRIPTOR.fields_by_name
    last = field.rpartition("_")[2]
    for name in (f"{field}_id", f"{last}_id", f"{field}_ids", f"{last}_ids", "ids"):
        if name in fields:
            value = getattr(request, name)
            yield from [value] if isinstance(value, str) else value
            return


def search_audit_log(
    context: Context, request: v2.PostAuditLogSearchesRequest
) -> v2.MultiAuditLogEntryResponse:
    refuse_other_fields(request, ("user_app_id", "query", "sort_ascending", "pagination"))
    offset, limit = page_bounds(request.pagination.page, request.pagination.per_page)
    where = _log(context.user(request.user_app_id))
    rows = context.state.store.walk(where, newest_first=not request.sort_ascending)
    entries = (v2.AuditLogEntry.FromString(row.body) for row in rows)
    found = (entry for entry in entries if _fits(entry, request.query))
    return v2.MultiAuditLogEntryResponse(
        status=make_status(StatusCode.SUCCESS), entries=islice(found, offset, offset + limit)
    )


def _fits(entry: v2.AuditLogEntry, query: v2.AuditLogQuery) -> bool:
    when = entry.timestamp.ToNanoseconds()
    if query.HasField("timestamp_from") and when < query.timestamp_from.ToNanoseconds():
        return False
    if query.HasField("timestamp_to") and when > query.timestamp_to.ToNanoseconds():
        return False
    if query.user_ids and entry.user.id not in query.user_ids:
        return False
    if query.operations and entry.operation not in query.operations:
        return False
    if query.HasField("success") and entry.success != query.success.value:
        return False
    if query.source_ips and entry.source_ip not in query.source_ips:
        return False
    return not query.targets or any(
        _is_about(have, wanted) for have in entry.targets for wanted in query.targets
    )


def _is_about(have: v2.AuditLogTarget, wanted: v2.AuditLogTarget) -> bool:
    """Whether a target is of the kind, and has the ids, of one that is searched for."""
    kind = wanted.WhichOneof("target")
    if kind is None or have.WhichOneof("target") != kind:
        return False
    mine, theirs = getattr(have, kind), getattr(wanted, kind)
    return all(
        getattr(mine, name, "") == getattr(theirs, name)
        for name in ("id", "user_id", "app_id")
        if getattr(theirs, name, "")
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostAuditLogSearches": search_audit_log,
}
