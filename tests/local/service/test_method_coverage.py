"""Every method, over both fronts, is what the page on methods says it is."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import httpx
import pytest

from clarigrpc import v2
from clarigrpc._contract import deprecations
from clarigrpc._transports import transcoding
from clarigrpc.local import LocalServer
from clarigrpc.local.service.method_coverage import IMPLEMENTED, UNIMPLEMENTED, status
from clarigrpc.local.service.method_coverage import page as written
from clarigrpc.v2._index import METHODS

PAGE = Path(__file__).parents[3] / "docs" / "local-server-methods.md"


def test_the_page_is_as_the_code() -> None:
    assert PAGE.read_text() == written(), (
        "python -m clarigrpc.local.service.method_coverage writes the page anew"
    )


def page() -> dict[str, str]:
    text = PAGE.read_text()
    missing, works = text[text.index("## Not") :].split("## Resources are stored")
    found = dict.fromkeys(re.findall(r"^- (\w+): ", missing, re.MULTILINE), UNIMPLEMENTED)
    return found | dict.fromkeys(re.findall(r"\b\w+(?=,|\n)", works), IMPLEMENTED)


def test_the_page_has_every_method() -> None:
    found = page()
    assert {method: found.get(method) for method in METHODS} == {
        method: status(method) for method in METHODS
    }


def test_it_says_why_a_method_is_not_there() -> None:
    reasons = dict(re.findall(r"^- (\w+): (.*)$", PAGE.read_text(), re.MULTILINE))
    assert reasons
    for method, reason in reasons.items():
        assert reason, method
        if "today's service" in reason:
            assert "today's service" in deprecations.METHODS[method], method


def test_every_method_over_both_fronts() -> None:
    expected = page()
    with (
        LocalServer(rest_port=0) as server,
        grpc.insecure_channel(server.address) as channel,
        httpx.Client(
            base_url=server.rest_base or "", headers={"authorization": f"Key {server.pat}"}
        ) as web,
    ):
        stub = v2.V2Stub(channel)
        metadata = (("authorization", f"Key {server.pat}"),)
        for name, (request_name, _, many, streams, *_) in METHODS.items():
            missing = expected[name] == UNIMPLEMENTED
            request = getattr(v2, request_name)()
            call = getattr(stub, name)
            try:
                result = call(iter([request]) if many else request, metadata=metadata, timeout=20)
                for response in result if streams else [result]:
                    assert response.status.code, name
            except grpc.RpcError as error:
                code = error.code()
            else:
                code = grpc.StatusCode.OK
            unimplemented = grpc.StatusCode.UNIMPLEMENTED
            assert code is (unimplemented if missing else grpc.StatusCode.OK), name
            for binding in transcoding.bindings(name):
                path = "/".join(
                    "x" if part.startswith("{") else part for part in binding.template.split("/")
                )
                found = transcoding.router().match(binding.verb, path)
                assert found is not None
                if found.method != name:  # two methods have this address; it leads to the other
                    continue
                answer = web.request(binding.verb, path, json={} if binding.has_body else None)
                assert (answer.status_code == 501) == (missing or _says(answer)), (name, path)
                assert answer.json()["status"]["code"] if not streams else True


def _says(answer: httpx.Response) -> bool:
    """Whether a method that works has no answer to this one request."""
    if answer.headers.get("content-type") != "application/json":
        return False
    status = answer.json().get("status", {})
    return bool(status.get("code") == v2.StatusCode.NOT_IMPLEMENTED) and (
        "grpc-status" not in answer.headers
    )


@pytest.mark.parametrize("method", ["PostComputePlaneMetrics", "ListPipelineTemplates"])
def test_what_needs_a_cloud_is_not_there(method: str) -> None:
    assert status(method) == UNIMPLEMENTED
