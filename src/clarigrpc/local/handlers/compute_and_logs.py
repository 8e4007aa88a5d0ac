"""Small methods beside the general ones: states of nodepools, uses of modules, log entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.accounts import user_accounts
from clarigrpc.local.engine.context import (
    MAX_ITEMS,
    Context,
    Scope,
    ServiceError,
    make_status,
    new_id,
    page_bounds,
)
from clarigrpc.local.engine.resource_operations import Place
from clarigrpc.local.handlers.resource_hooks import RESOURCES
from clarigrpc.local.store.resource_store import Collection

_Code = v2.StatusCode

_LOG_FIELDS = (
    "model_id",
    "model_version_id",
    "workflow_id",
    "compute_cluster_user_id",
    "compute_cluster_id",
    "nodepool_id",
    "runner_id",
    "pipeline_id",
    "pipeline_version_id",
    "pipeline_version_run_id",
    "pipeline_step_id",
    "pipeline_step_version_id",
)


def post_nodepool_status(
    context: Context, request: v2.PostNodepoolStatusRequest
) -> v2.BaseResponse:
    """What the agent of a cluster says of a nodepool."""
    resource = RESOURCES["nodepool"]
    place = resource.place(context, request, write=True)
    pool = resource.find(context, place, request.nodepool_id)
    pool.status, pool.status_description = request.status, request.status_description
    resource.save(context, place, pool)
    return v2.BaseResponse(status=make_status(_Code.SUCCESS))


def count_module_uses(
    context: Context, request: v2.GetModuleVersionUsageCountRequest
) -> v2.SingleModuleVersionUsageCountResponse:
    resource = RESOURCES["module_version"]
    place = resource.place(context, request)
    version = resource.find(context, place, request.module_version_id)
    uses = 0
    for where in context.state.store.collections("installed_module_version"):
        for row in context.state.store.walk(where):
            used = v2.InstalledModuleVersion.FromString(row.body).module_version
            uses += (used.id, used.module_id, used.app_id, used.user_id) == (
                version.id,
                version.module_id,
                version.app_id,
                version.user_id,
            )
    return v2.SingleModuleVersionUsageCountResponse(
        status=make_status(_Code.SUCCESS), usage_count=uses
    )


def post_module_key(
    context: Context, request: v2.PostInstalledModuleVersionsKeyRequest
) -> v2.SingleKeyResponse:
    """A key of the caller for what an installed module does; it is the same at every call."""
    scope = context.writable(request.user_app_id)
    resource = RESOURCES["installed_module_version"]
    place = Place(scope)
    installed = resource.find(context, place, request.installed_module_version_id)
    keys = RESOURCES["key"]
    owner = Place(Scope(context.user(v2.UserAppIDSet()), ""))
    if not installed.key_id or not keys.exists(context, owner, installed.key_id):
        wanted = v2.Key(type=user_accounts.API_KEY, scopes=["All"], description=installed.id)
        wanted.apps.add(id=scope.app_id)
        with context.state.store.transaction():
            installed.key_id = keys.add(context, owner, wanted).id
            resource.save(context, place, installed)
    return v2.SingleKeyResponse(
        status=make_status(_Code.SUCCESS), key=keys.find(context, owner, installed.key_id)
    )


def _logs(user_id: str) -> Collection:
    return Collection("log_entry", user_id, "")


def post_log_entries(context: Context, request: v2.PostLogEntriesRequest) -> v2.BaseResponse:
    if not 1 <= len(request.log_entries) <= MAX_ITEMS:
        raise ServiceError(
            _Code.LOG_ENTRIES_INVALID_REQUEST, f"one request takes 1 to {MAX_ITEMS} entries"
        )
    with context.state.store.transaction():
        for entry in request.log_entries:
            where = _logs(context.caller.user_id)
            context.state.store.insert(where, new_id(), entry.SerializeToString())
    return v2.BaseResponse(status=make_status(_Code.SUCCESS))


def list_log_entries(
    context: Context, request: v2.ListLogEntriesRequest
) -> v2.MultiLogEntryResponse:
    offset, limit = page_bounds(request.page, request.per_page)
    rows = context.state.store.walk(_logs(context.user(request.user_app_id)), newest_first=False)
    entries = [v2.LogEntry.FromString(row.body) for row in rows]
    found = [entry for entry in entries if _fits(entry, request)]
    return v2.MultiLogEntryResponse(
        status=make_status(_Code.SUCCESS),
        log_entries=found[offset : offset + limit],
        page=max(request.page, 1),
        per_page=limit,
    )


def _fits(entry: v2.LogEntry, request: v2.ListLogEntriesRequest) -> bool:
    if request.log_type not in ("", entry.log_type):
        return False
    wanted = {name: getattr(request, name) for name in _LOG_FIELDS}
    return all(getattr(entry.meta, name, "") == value for name, value in wanted.items() if value)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostNodepoolStatus": post_nodepool_status,
    "GetModuleVersionUsageCount": count_module_uses,
    "PostInstalledModuleVersionsKey": post_module_key,
    "PostLogEntries": post_log_entries,
    "ListLogEntries": list_log_entries,
}
