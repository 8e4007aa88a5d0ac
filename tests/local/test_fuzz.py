"""Random requests to every method: each is answered with a status, never with a crash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local.auth import Credentials
from clarigrpc.local.core import Call
from clarigrpc.local.service import Service
from clarigrpc.v2._index import METHODS
from tests.strategies import messages

Code = v2.StatusCode


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = Service(Credentials("user", "app", pat="pat"))
    call = _call("PostInputs")
    inputs = v2.PostInputsRequest()
    inputs.inputs.add(id="0").data.text.raw = "x"
    made.unary("PostInputs", inputs, call)
    made.unary("PostModels", v2.PostModelsRequest(models=[v2.Model(id="0")]), call)
    yield made
    made.close()


def _call(method: str) -> Call:
    return Call(method, {"authorization": "Key pat"}, lambda: True, lambda: None)


@pytest.mark.parametrize("method", sorted(filter(Service.implements, METHODS)))
def test_random_requests(service: Service, method: str) -> None:
    request_name, _, many, streams, *_ = METHODS[method]
    ids = st.sampled_from([v2.UserAppIDSet(), v2.UserAppIDSet(user_id="clarifai", app_id="main")])

    @settings(
        max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        requests=st.lists(messages(getattr(v2, request_name)), min_size=1, max_size=3),
        known=st.booleans(),
        scope=ids,
    )
    def check(requests: list[Any], known: bool, scope: v2.UserAppIDSet) -> None:
        for request in requests:
            _aim(request, scope, known)
        if many:
            responses = list(service.duplex(method, iter(requests), _call(method)))
        elif streams:
            responses = list(service.server_stream(method, requests[0], _call(method)))
        else:
            responses = [service.unary(method, requests[0], _call(method))]
        for response in responses:
            code = response.status.code  # type: ignore[attr-defined]
            assert code not in (Code.ZERO, Code.INTERNAL_UNCATEGORIZED), response
            response.SerializeToString()

    check()


def _aim(request: Any, scope: v2.UserAppIDSet, known: bool) -> None:
    """Half the time at what exists, so that the request gets past the first check."""
    names = {field.name for field in request.DESCRIPTOR.fields}
    if "user_app_id" in names:
        request.user_app_id.CopyFrom(scope)
    if known and "model_id" in names:
        request.model_id = "text-stream" if scope.app_id else "0"
        if "version_id" in names:
            request.version_id = ""
    for name in ("page", "per_page"):
        if known and name in names:
            setattr(request, name, getattr(request, name) % 100)
