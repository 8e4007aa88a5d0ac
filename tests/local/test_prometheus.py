"""``/metrics`` of the local server."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from clarigrpc import errors, text, v2
from clarigrpc.local import LocalServer


@pytest.fixture
def server() -> Iterator[LocalServer]:
    def shout(words: str) -> str:
        return words.upper()

    with LocalServer(rest_port=0, models={"shout": shout}, public_models=False) as running:
        yield running


def samples(server: LocalServer) -> dict[tuple[str, str, str], float]:
    """The values by name, method and status."""
    response = httpx.get(f"{server.rest_base}/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (one.name, one.labels["method"], one.labels.get("status", "")): one.value
        for family in text_string_to_metric_families(response.text)
        for one in family.samples
    }


def test_calls_of_both_fronts_are_counted(server: LocalServer) -> None:
    assert samples(server) == {}
    with server.client() as grpc, server.client(transport="rest") as rest:
        for client in (grpc, rest):
            client.v2.ListModels(v2.ListModelsRequest())
        with pytest.raises(errors.NotFoundError):
            grpc.v2.GetModel(v2.GetModelRequest(model_id="none"))
        assert len(list(grpc.model("shout").generate(text("a")))) == 1
    found = samples(server)
    calls = "clarigrpc_local_calls_total"
    assert found[calls, "ListModels", "SUCCESS"] == 2
    assert found[calls, "GetModel", "MODEL_DOES_NOT_EXIST"] == 1
    assert found[calls, "GenerateModelOutputs", "SUCCESS"] == 1
    assert found["clarigrpc_local_call_duration_seconds_count", "ListModels", ""] == 2
    assert found["clarigrpc_local_calls_in_progress", "ListModels", ""] == 0


def test_a_fault_is_told_by_its_grpc_status(server: LocalServer) -> None:
    server.faults.unavailable_next = 1
    with server.client(retry=False) as client, pytest.raises(errors.UnavailableError):
        client.v2.ListModels(v2.ListModelsRequest())
    assert samples(server)["clarigrpc_local_calls_total", "ListModels", "UNAVAILABLE"] == 1


def test_no_secret_is_shown(server: LocalServer) -> None:
    with server.client() as client:
        client.v2.ListModels(v2.ListModelsRequest())
    assert server.pat not in httpx.get(f"{server.rest_base}/metrics").text
