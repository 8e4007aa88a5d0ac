"""Injected failures: what is no fault is refused, what is one happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import grpc
import pytest

from clarigrpc import v2
from clarigrpc.local import Faults, LocalServer
from clarigrpc.local.service_errors import ServiceError
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, ok

Code = v2.StatusCode

_WRONG: list[tuple[str, Any, type[Exception]]] = [
    ("unavailable_next", "three", TypeError),
    ("unavailable_next", 1.0, TypeError),
    ("unavailable_next", True, TypeError),
    ("unavailable_next", -1, ValueError),
    ("stream_fail_after", -1, ValueError),
    ("stream_fail_after", "1", TypeError),
    ("stream_fail_code", 14, TypeError),
    ("stream_fail_code", grpc.StatusCode.OK, ValueError),
    ("latency_seconds", -1, ValueError),
    ("latency_seconds", float("nan"), ValueError),
    ("latency_seconds", float("inf"), ValueError),
    ("latency_seconds", None, TypeError),
    ("deploy_seconds", "1", TypeError),
    ("train_seconds", True, TypeError),
    ("rate_limit", 0, ValueError),
    ("rate_limit", "10/second", TypeError),
    ("rate_burst", -2, ValueError),
    ("rate_counts_items", 1, TypeError),
    ("drain_first", "no", TypeError),
    ("fail_inputs", "x1", TypeError),
    ("fail_inputs", b"x1", TypeError),
    ("fail_inputs", [1], TypeError),
    ("fail_inputs", None, TypeError),
    ("fail_methods", ["PostInputs"], TypeError),
    ("fail_methods", {"PostInput": grpc.StatusCode.INTERNAL}, ValueError),
    ("fail_methods", {"PostInputs": "INTERNAL"}, TypeError),
    ("fail_methods", {"PostInputs": grpc.StatusCode.OK}, ValueError),
    ("fail_methods", {"PostInputs": Code.SUCCESS}, ValueError),
    ("fail_methods", {"PostInputs": 123456}, ValueError),
]


@pytest.mark.parametrize(("name", "value", "error"), _WRONG)
def test_what_cannot_be_a_fault(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        Faults(**{name: value})
    faults = Faults()
    before = getattr(faults, name)
    with pytest.raises(error, match=name):
        setattr(faults, name, value)
    assert getattr(faults, name) == before


def test_every_fault_is_checked() -> None:
    assert {name for name, _, _ in _WRONG} == {
        each.name for each in fields(Faults) if not each.name.startswith("_")
    }


def test_misspelt_names() -> None:
    with pytest.raises(
        AttributeError, match=r"no 'unavailible_next'; they have .*unavailable_next"
    ):
        Faults().unavailible_next = 3
    server = LocalServer()
    with pytest.raises(AttributeError):
        server.faults = Faults()  # type: ignore[misc]


@pytest.mark.parametrize("status", [Code.CONN_THROTTLED, Code.INTERNAL_UNCATEGORIZED])
def test_a_method_that_fails_with_a_v2_status(
    serve: Callable[..., Raw], status: v2.StatusCode.ValueType
) -> None:
    raw = serve(faults=Faults(fail_methods={"ListInputs": status}))
    assert raw("ListInputs", v2.ListInputsRequest()).status.code == status
    ok(raw("ListDatasets", v2.ListDatasetsRequest()))
    raw.server.faults.fail_methods = {}
    ok(raw("ListInputs", v2.ListInputsRequest()))


@pytest.mark.parametrize("status", [each for each in grpc.StatusCode if each.value[0]])
def test_a_method_that_fails_with_a_grpc_status(status: grpc.StatusCode) -> None:
    with (
        LocalServer(faults=Faults(fail_methods={"ListInputs": status})) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw = Raw(server, v2.V2Stub(channel))
        with pytest.raises(grpc.RpcError) as caught:
            raw("ListInputs", v2.ListInputsRequest())
        assert caught.value.code() == status
        ok(raw("ListDatasets", v2.ListDatasetsRequest()))


def test_whole_seconds_of_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = "clarigrpc.local.engine.faults.time.monotonic"
    now = 100.0
    monkeypatch.setattr(clock, lambda: now)
    faults = Faults(deploy_seconds=1)
    for _ in range(2):
        for after, code in (
            (0.0, Code.MODEL_DEPLOYING),
            (0.49, Code.MODEL_DEPLOYING),
            (0.51, Code.MODEL_LOADING),
            (0.99, Code.MODEL_LOADING),
        ):
            monkeypatch.setattr(clock, lambda at=now + after: at)
            with pytest.raises(ServiceError) as caught:
                faults.deploying("m")
            assert caught.value.code == code
        now += 1.01
        monkeypatch.setattr(clock, lambda at=now: at)
        faults.deploying("m")
        faults.deploy_seconds = 1  # once more
