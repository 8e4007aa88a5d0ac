"""The record of what users did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clarigrpc import v2
from clarigrpc.local.handlers import audit_log_methods
from clarigrpc.v2 import EventType
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, message, ok

Code = v2.StatusCode


def entries(raw: Raw, **fields: Any) -> list[v2.AuditLogEntry]:
    request = message(v2.PostAuditLogSearchesRequest, **fields)
    request.user_app_id.user_id = "me"
    return list(ok(raw("PostAuditLogSearches", request)).entries)


def test_what_was_done_is_recorded(raw: Raw) -> None:
    made = ok(raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")])))
    twice = raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")]))
    assert twice.status.code == Code.DATABASE_DUPLICATE_KEY
    change = v2.PatchModelsRequest(action="overwrite", models=[v2.Model(id="m", notes="n")])
    ok(raw("PatchModels", change))
    ok(raw("PostApps", v2.PostAppsRequest(apps=[v2.App(id="a"), v2.App(id="b")])))
    ok(raw("DeleteModel", v2.DeleteModelRequest(model_id="m")))
    found = entries(raw)
    assert [(entry.operation, entry.success) for entry in found] == [
        (EventType.MODEL_DELETE, True),
        (EventType.APPLICATION_CREATE, True),
        (EventType.APPLICATION_CREATE, True),
        (EventType.MODEL_UPDATE, True),
        (EventType.MODEL_CREATE, False),
        (EventType.MODEL_CREATE, True),
    ]
    first = found[-1]
    assert (first.user.id, first.req_id) == (raw.server.user_id, made.status.req_id)
    (target,) = first.targets
    assert (target.model.id, target.model.app_id) == ("m", raw.server.app_id)
    assert [entry.targets[0].app.id for entry in found[1:3]] == ["b", "a"]
    # What only reads leaves no trace.
    ok(raw("ListModels", v2.ListModelsRequest()))
    assert len(entries(raw)) == len(found)


def test_searches(raw: Raw) -> None:
    for name in ("m", "n"):
        ok(raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id=name)])))
    raw("DeleteModel", v2.DeleteModelRequest(model_id="none"))
    versions = v2.PostModelVersionsRequest(model_id="m", model_versions=[v2.ModelVersion(id="v")])
    raw("PostModelVersions", versions)

    def operations(**query: Any) -> list[int]:
        return [entry.operation for entry in entries(raw, query=query)]

    every = operations()
    assert len(every) == 4
    assert operations(operations=["MODEL_CREATE"]) == [EventType.MODEL_CREATE] * 2
    assert operations(success=False)[-1] == EventType.MODEL_DELETE
    of_m = operations(targets=[{"model": {"id": "m"}}])
    assert of_m == [EventType.MODEL_VERSION_CREATE, EventType.MODEL_CREATE]
    assert operations(targets=[{"app": {"id": "m"}}]) == []
    assert operations(user_ids=["somebody"]) == []
    assert operations(user_ids=[raw.server.user_id]) == every
    assert operations(timestamp_to="2000-01-01T00:00:00Z") == []
    assert operations(timestamp_from="2000-01-01T00:00:00Z") == every
    assert operations(source_ips=["127.0.0.1"]) == []  # it does not know them
    oldest = entries(raw, sort_ascending=True, pagination={"page": 1, "per_page": 1})
    assert [entry.operation for entry in oldest] == [EventType.MODEL_CREATE]
    assert oldest[0].targets[0].model.id == "m"


def test_a_stranger_fills_nobody_else_s_log(serve: Callable[..., Raw]) -> None:
    users = [{"id": name, "pat": f"{name}-pat", "apps": [{"id": "app"}]} for name in ("a", "b")]
    raw = serve(config={"users": users})
    request = v2.PostModelsRequest(models=[v2.Model(id="m" * 100_000)])
    request.user_app_id.CopyFrom(v2.UserAppIDSet(user_id="b", app_id="app"))
    assert raw.with_key("a-pat")("PostModels", request).status.code != Code.SUCCESS
    assert entries(raw.with_key("b-pat")) == []
    (entry,) = entries(raw.with_key("a-pat"))
    assert not entry.success
    assert entry.targets[0].model.id == "m" * 256
    assert entry.ByteSize() < 2000


def test_a_log_keeps_the_newest(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log_methods, "MAX_AUDIT_ENTRIES", 3)
    for name in "abcde":
        ok(raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id=name)])))
    assert [entry.targets[0].model.id for entry in entries(raw)] == ["e", "d", "c"]
