"""Log entries: long ones, and those who follow them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest

from clarigrpc import v2
from clarigrpc.local.handlers.log_methods import MAX_FOLLOWERS
from clarigrpc.local.store import resource_store
from tests.local.conftest import Raw, ok, until


def follow(raw: Raw) -> Any:
    request = v2.StreamLogEntriesRequest(log_type="runner")
    request.user_app_id.user_id = "me"
    return raw.stub.StreamLogEntries(request, metadata=raw.metadata, timeout=30)


def test_long_log_entries_come_in_several_responses(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:0400}" for number in range(9)]
    request = v2.PostLogEntriesRequest()
    for name in names:
        request.log_entries.add(message=name, log_type="runner")
    ok(raw("PostLogEntries", request))
    monkeypatch.setattr(resource_store, "MAX_PAGE_BYTES", 1000)
    call = follow(raw)
    found: list[str] = []
    while len(found) < len(names):
        found += [entry.message for entry in ok(next(call)).log_entries]
    call.cancel()
    assert found == names
    listed = ok(raw("ListLogEntries", v2.ListLogEntriesRequest(page=2, per_page=2))).log_entries
    assert [entry.message for entry in listed] == names[2:4]


def test_so_many_follow_logs_at_once(raw: Raw) -> None:
    calls = [follow(raw) for _ in range(MAX_FOLLOWERS)]
    for call in calls:
        ok(next(call))
    assert [response.status.code for response in follow(raw)] == [v2.StatusCode.CONN_THROTTLED]
    for call in calls:
        call.cancel()

    def is_heard() -> bool:
        call = follow(raw)
        code = next(call).status.code
        call.cancel()
        return bool(code == v2.StatusCode.SUCCESS)

    until(is_heard)


def test_a_stream_over_http_ends_at_its_deadline(serve: Callable[..., Raw]) -> None:
    raw = serve(rest_port=0)
    request = v2.StreamLogEntriesRequest(
        log_type="runner", pipeline_id="p", pipeline_version_id="v", pipeline_version_run_id="r"
    )
    request.user_app_id.user_id = "me"
    verb, path, body = raw._encoded("StreamLogEntries", request)
    headers = {**dict(raw.metadata), "content-type": "application/json", "grpc-timeout": "300m"}
    with httpx.Client(base_url=raw.server.rest_base or "", timeout=20, trust_env=False) as web:
        answer = web.request(verb, path, content=body or None, headers=headers)
    first, last = map(json.loads, answer.text.splitlines())
    assert first["result"]["status"]["code"] == v2.StatusCode.SUCCESS
    assert last["error"]["code"] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
