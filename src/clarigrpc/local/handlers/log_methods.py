"""Log entries: added, listed and followed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.request_checks import page_bounds
from clarigrpc.local.engine.runner_queues import LOST_ITEM
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import (
    MAX_PAGE_BYTES,
    PageTooLargeError,
    Row,
    Store,
    StoredCollection,
)
from clarigrpc.v2 import StatusCode

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

EVENTS_LOG_TYPE = "runner.events"
"""Log of what becomes of the workers of a runner; what they write themselves is in ``runner``."""

MAX_LOG_ENTRIES = 100_000
"""Entries that a user's logs keep when the server adds some of its own: the newest."""

_ENTRIES_PER_RESPONSE = 128
# Between two looks for new entries.
_FOLLOW_SECONDS = 0.1


def _logs(user_id: str) -> StoredCollection:
    return StoredCollection("log_entry", user_id, "")


def post_log_entries(context: Context, request: v2.PostLogEntriesRequest) -> v2.BaseResponse:
    if not 1 <= len(request.log_entries) <= MAX_ITEMS:
        raise ServiceError(
            StatusCode.LOG_ENTRIES_INVALID_REQUEST,
            f"the request must have 1 to {MAX_ITEMS} entries",
        )
    with context.state.store.transaction():
        for entry in request.log_entries:
            where = _logs(context.caller.user_id)
            context.state.store.insert(where, new_id(), entry.SerializeToString())
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


def list_log_entries(
    context: Context, request: v2.ListLogEntriesRequest
) -> v2.MultiLogEntryResponse:
    offset, limit = page_bounds(request.page, request.per_page)
    _keep_events(context)
    rows = context.state.store.walk(_logs(context.user(request.user_app_id)), newest_first=False)
    entries = (v2.LogEntry.FromString(row.body) for row in rows)
    found = (entry for entry in entries if _fits(entry, request))
    return v2.MultiLogEntryResponse(
        status=make_status(StatusCode.SUCCESS),
        log_entries=_of_one_page(islice(found, offset, offset + limit)),
        page=max(request.page, 1),
        per_page=limit,
    )


def _of_one_page(entries: Iterable[v2.LogEntry]) -> Iterator[v2.LogEntry]:
    size = 0
    for entry in entries:
        size += entry.ByteSize()
        if size > MAX_PAGE_BYTES:
            raise PageTooLargeError
        yield entry


def stream_log_entries(
    context: Context, request: v2.StreamLogEntriesRequest
) -> Iterator[v2.MultiLogEntryResponse]:
    """The entries that are there, and then those that come, until the client leaves.

    The first response comes at once, also without entries: the client knows that it is heard.
    """
    if not request.log_type:
        raise ServiceError(StatusCode.LOG_ENTRIES_INVALID_REQUEST, "log_type is empty")
    where = _logs(context.user(request.user_app_id))
    share = context.call.waiting
    if not share.most:
        raise ServiceError(
            StatusCode.LOG_ENTRIES_INVALID_REQUEST,
            f"a server with {share.workers} workers has none for calls that follow logs: start it "
            "with 4 or more",
        )
    if not share.take():
        raise ServiceError(
            StatusCode.CONN_THROTTLED,
            f"{share.most} calls follow logs already, the maximum of a server with "
            f"{share.workers} workers",
        )
    try:
        yield from _followed(context, request, where)
    finally:
        share.give_back()


def _followed(
    context: Context, request: v2.StreamLogEntriesRequest, where: StoredCollection
) -> Iterator[v2.MultiLogEntryResponse]:
    last_id, is_first = "", True
    while context.call.is_active():
        _keep_events(context)
        rows = _following(context.state.store, where, last_id)
        entries = [v2.LogEntry.FromString(row.body) for row in rows]
        found = [entry for entry in entries if _fits(entry, request)]
        if found or is_first:
            is_first = False
            yield v2.MultiLogEntryResponse(
                status=make_status(StatusCode.SUCCESS), log_entries=found
            )
        if rows:
            last_id = rows[-1].id
        else:
            time.sleep(_FOLLOW_SECONDS)


def _keep_events(context: Context) -> None:
    """Adds what the workers of runners have done since the last time.

    The form is that of the hosted service, whose entries are events of Kubernetes.
    """
    for event in context.state.runners.events():
        user_id, runner_id = event.runner
        row = context.state.store.get(StoredCollection("runner", user_id, ""), runner_id)
        if row is None:
            continue  # deleted, with its log
        runner = v2.Runner.FromString(row.body)
        model, pool = runner.worker.model, runner.nodepool
        meta = v2.ComputeSourceMetadata(
            user_app_id=v2.UserAppIDSet(user_id=model.user_id or user_id, app_id=model.app_id),
            model_id=model.id,
            model_version_id=model.model_version.id,
            compute_cluster_user_id=user_id,
            compute_cluster_id=pool.compute_cluster.id,
            nodepool_id=pool.id,
            runner_id=runner_id,
        )
        kind = "Warning" if event.reason == LOST_ITEM else "Normal"
        message = (
            f"Name: {event.replica or runner_id}, Type: {kind}, Reason: {event.reason}, "
            f"FirstTimestamp: {event.time}, LastTimestamp: {event.time}, Message: {event.message}"
        )
        entry = v2.LogEntry(message=message, log_type=EVENTS_LOG_TYPE, meta=meta)
        context.state.store.insert(_logs(user_id), new_id(), entry.SerializeToString())
        context.state.store.keep_newest(_logs(user_id), MAX_LOG_ENTRIES)


def _following(store: Store, where: StoredCollection, last_id: str) -> list[Row]:
    """The next entries after one; fewer where they are long."""
    limit = _ENTRIES_PER_RESPONSE
    while True:
        try:
            return store.after(where, last_id, limit) or []
        except PageTooLargeError:
            if limit == 1:
                raise
            limit //= 2


def _fits(entry: v2.LogEntry, request: Any) -> bool:
    if request.log_type not in ("", entry.log_type):
        return False
    wanted = {name: getattr(request, name) for name in _LOG_FIELDS}
    return all(getattr(entry.meta, name, "") == value for name, value in wanted.items() if value)


SERVER_STREAM: dict[str, Callable[[Context, Any], Iterator[Message]]] = {
    "StreamLogEntries": stream_log_entries,
}
UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostLogEntries": post_log_entries,
    "ListLogEntries": list_log_entries,
}
