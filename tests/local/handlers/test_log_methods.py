"""Log entries: long ones, and those who follow them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from clarigrpc import v2
from clarigrpc.local.store import resource_store
from tests.local.conftest import Raw, ok
from tests.waiting import until


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


@pytest.mark.parametrize(("workers", "most"), [(4, 1), (16, 4), (64, 16), (100, 16)])
def test_so_many_follow_logs_at_once(serve: Callable[..., Raw], workers: int, most: int) -> None:
    raw = serve(workers=workers)
    calls = [follow(raw) for _ in range(most)]
    for call in calls:
        ok(next(call))
    refused = [follow(raw) for _ in range(workers)]
    for one in refused:
        (response,) = one
        assert response.status.code == v2.StatusCode.CONN_THROTTLED
        assert response.status.details == (
            f"{most} calls follow logs already, the maximum of a server with {workers} workers"
        )
    ok(raw("GetInputCount", v2.GetInputCountRequest()))
    for call in calls:
        call.cancel()

    def is_heard() -> bool:
        call = follow(raw)
        code = next(call).status.code
        call.cancel()
        return bool(code == v2.StatusCode.SUCCESS)

    until(is_heard)


def test_a_server_with_few_workers_lets_nobody_follow_logs(serve: Callable[..., Raw]) -> None:
    (response,) = follow(serve(workers=3))
    # Not a code that tells clients to try again.
    assert response.status.code == v2.StatusCode.LOG_ENTRIES_INVALID_REQUEST
    assert response.status.details.startswith("a server with 3 workers has none")


def test_a_stream_over_http_ends_at_its_deadline(serve: Callable[..., Raw]) -> None:
    raw = serve(rest_port=0)
    request = v2.StreamLogEntriesRequest(
        log_type="runner", pipeline_id="p", pipeline_version_id="v", pipeline_version_run_id="r"
    )
    request.user_app_id.user_id = "me"
    verb, path, body = raw._encoded("StreamLogEntries", request)
    headers = {**dict(raw.metadata), "content-type": "application/json", "grpc-timeout": "1S"}
    with httpx.Client(base_url=raw.server.rest_base or "", timeout=20, trust_env=False) as web:
        answer = web.request(verb, path, content=body or None, headers=headers)
    first, last = map(json.loads, answer.text.splitlines())
    assert first["result"]["status"]["code"] == v2.StatusCode.SUCCESS
    assert last["error"]["code"] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


def test_open_questions_about_the_services_leave_workers(serve: Callable[..., Raw]) -> None:
    raw = serve(workers=4)
    asked = threading.Event()

    def asking() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        asked.wait(60)

    with grpc.insecure_channel(raw.server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        first = stub.ServerReflectionInfo(asking(), timeout=60)
        try:
            assert next(first).list_services_response.service
            for _ in range(4):
                with pytest.raises(grpc.RpcError, match="1 streams of reflection") as caught:
                    next(stub.ServerReflectionInfo(asking(), timeout=60))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            ok(raw("GetInputCount", v2.GetInputCountRequest()))
        finally:
            asked.set()
        assert not [*first]
        until(lambda: next(stub.ServerReflectionInfo(asking(), timeout=60)))
