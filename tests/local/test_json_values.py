"""What JSON cannot say never enters, over both fronts; what entered earlier is listed as null."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._transports import transcoding
from clarigrpc.local import LocalServer, json_values
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2._index import METHODS
from tests.local.conftest import PUBLIC, Raw, ok, png, settled
from tests.strategies import messages

Code = v2.StatusCode
_NOT_FINITE = (math.nan, math.inf, -math.inf)
_REQUESTS = sorted({METHODS[method][0] for method in filter(V2Service.implements, METHODS)})


def _holders(message: Message) -> Iterator[Any]:
    """The values of structs and the times in a message."""
    name = message.DESCRIPTOR.full_name
    if name in ("google.protobuf.Value", "google.protobuf.Timestamp", "google.protobuf.Duration"):
        yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            values = [value[key] for key in value if isinstance(value[key], Message)]
        else:
            values = list(value) if field.is_repeated else [value]
        for each in values:
            yield from _holders(each)


def _spoil(draw: Callable[[Any], Any], holder: Any) -> None:
    if holder.DESCRIPTOR.name == "Value":
        holder.number_value = draw(st.sampled_from(_NOT_FINITE))
    elif draw(st.booleans()):
        sign = draw(st.sampled_from((-1, 1)))
        holder.seconds = sign * draw(st.integers(315_576_000_001, 2**63 - 1))
    else:
        holder.nanos = draw(st.sampled_from((-(2**31), 10**9, 2**31 - 1)))


@given(st.sampled_from(_REQUESTS).flatmap(lambda name: messages(getattr(v2, name))), st.data())
def test_a_request_is_refused_just_when_json_cannot_say_it(
    request_: Any, data: st.DataObject
) -> None:
    json_values.check(request_)
    transcoding.to_json(request_)
    holders = list(_holders(request_))
    if not holders:
        return
    _spoil(data.draw, data.draw(st.sampled_from(holders)))
    with pytest.raises(transcoding.TranscodingError):
        transcoding.to_json(request_)
    with pytest.raises(ServiceError) as caught:
        json_values.check(request_)
    assert caught.value.code == Code.CONN_INVALID_REQUEST
    before = request_.SerializeToString(deterministic=True)
    shown, flaws = json_values.with_nulls(request_)
    transcoding.to_json(shown)
    assert len(flaws) == 1
    assert flaws[0] == caught.value.details
    assert request_.SerializeToString(deterministic=True) == before


@given(st.sampled_from(_NOT_FINITE), st.sampled_from(["one", "list", "map"]))
def test_numbers_are_finite(number: float, form: str) -> None:
    item = v2.Input()
    if form == "one":
        item.data.geo.geo_point.latitude = number
        path = "inputs[1].data.geo.geo_point.latitude"
    elif form == "list":
        item.data.embeddings.add(vector=[1.0, number])
        path = "inputs[1].data.embeddings[0].vector[1]"
    else:
        item.data.regions.add().region_info.bounding_box.top_row = number
        path = "inputs[1].data.regions[0].region_info.bounding_box.top_row"
    with pytest.raises(ServiceError) as caught:
        json_values.check(v2.PostInputsRequest(inputs=[v2.Input(), item]))
    assert caught.value.details == f"{path}: {number} is not a finite number"


def test_large_finite_numbers_may_add_up_to_infinity() -> None:
    item = v2.Input()
    item.data.embeddings.add(vector=[3e38] * 4)
    json_values.check(v2.PostInputsRequest(inputs=[item]))


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"k": value}
    return value


def test_nesting_that_answers_could_not_hold(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(id="fine").data.text.raw = "x"
    request.inputs[0].data.metadata.update(_nested(30))
    ok(raw("PostInputs", request))
    request.inputs[0].data.metadata.update(_nested(31))
    refused = raw("PostInputs", request).status
    assert refused.code == Code.CONN_INVALID_REQUEST
    assert refused.details.startswith("inputs[0].data.metadata.k.k.k.")
    assert "nested more than 30 levels deep" in refused.details
    deep = v2.Annotation(input_id="fine")
    data = deep.data
    for _ in range(47):
        data = data.regions.add().data
    data.text.raw = "x"
    refused = raw("PostAnnotations", v2.PostAnnotationsRequest(annotations=[deep])).status
    assert refused.code == Code.CONN_INVALID_REQUEST
    assert "nested more than 90 messages deep" in refused.details
    assert "regions[0].data.regions[0]" in refused.details


@pytest.fixture
def both() -> Iterator[Raw]:
    """A server with both fronts, called by gRPC."""
    import grpc

    with (
        LocalServer(rest_port=0) as server,
        grpc.insecure_channel(server.address) as channel,
        httpx.Client(
            base_url=server.rest_base or "", headers={"authorization": f"Key {server.pat}"}
        ) as web,
    ):
        yield Raw(server, v2.V2Stub(channel), web=web)


def _bad_struct(message: Any, field: str = "metadata") -> Any:
    getattr(message, field).update({"deep": [{"score": math.nan}]})
    return message


_FLAW = "metadata.deep[0].score: nan has no JSON form"
_BAD_GRPC: dict[str, tuple[Any, str]] = {
    "PostInputs": (
        v2.PostInputsRequest(inputs=[v2.Input(id="a", data=_bad_struct(v2.Data()))]),
        f"inputs[0].data.{_FLAW}",
    ),
    "PatchInputs": (
        v2.PatchInputsRequest(
            action="merge", inputs=[v2.Input(id="a", data=_bad_struct(v2.Data()))]
        ),
        f"inputs[0].data.{_FLAW}",
    ),
    "PostAnnotations": (
        v2.PostAnnotationsRequest(
            annotations=[v2.Annotation(input_id="a", data=_bad_struct(v2.Data()))]
        ),
        f"annotations[0].data.{_FLAW}",
    ),
    "PostDatasets": (
        v2.PostDatasetsRequest(datasets=[_bad_struct(v2.Dataset(id="d"))]),
        f"datasets[0].{_FLAW}",
    ),
    "PostModels": (
        v2.PostModelsRequest(
            models=[_bad_struct(v2.Model(id="m", model_type_id="visual-classifier"))]
        ),
        f"models[0].{_FLAW}",
    ),
    "PostApps": (v2.PostAppsRequest(apps=[_bad_struct(v2.App(id="b"))]), f"apps[0].{_FLAW}"),
    "PatchApps": (
        v2.PatchAppsRequest(action="overwrite", apps=[_bad_struct(v2.App(id="b"))]),
        f"apps[0].{_FLAW}",
    ),
    "PostWorkflows": (
        v2.PostWorkflowsRequest(workflows=[_bad_struct(v2.Workflow(id="w"))]),
        f"workflows[0].{_FLAW}",
    ),
    "PostKeys": (
        v2.PostKeysRequest(keys=[v2.Key(scopes=["All"], expires_at={"seconds": 2**62})]),  # type: ignore[arg-type]
        f"keys[0].expires_at: {2**62} seconds since 1970",
    ),
    "PostInputsSearches": (
        v2.PostInputsSearchesRequest(
            searches=[
                v2.Search(
                    query=v2.Query(
                        filters=[v2.Filter(annotation=v2.Annotation(data=_bad_struct(v2.Data())))]
                    )
                )
            ]
        ),
        f"searches[0].query.filters[0].annotation.data.{_FLAW}",
    ),
    "PostModelOutputs": (
        v2.PostModelOutputsRequest(
            user_app_id=PUBLIC,
            model_id="color-recognition",
            inputs=[v2.Input(data=_bad_struct(v2.Data()))],
        ),
        f"inputs[0].data.{_FLAW}",
    ),
}


@pytest.mark.parametrize("method", _BAD_GRPC)
def test_refused_over_grpc(both: Raw, method: str) -> None:
    request, text = _BAD_GRPC[method]
    status = Raw(both.server, both.stub)(method, request).status
    assert status.code == Code.CONN_INVALID_REQUEST
    assert status.details.startswith(text)
    _nothing_is_there(both)


_HUGE = "1" + "0" * 400
_BAD_JSON = {
    "NaN": "inputs[0].data.metadata.a: nan has no JSON form",
    "Infinity": "inputs[0].data.metadata.a: inf has no JSON form",
    "-Infinity": "inputs[0].data.metadata.a: -inf has no JSON form",
    "1e999": "inputs[0].data.metadata.a: inf has no JSON form",
    _HUGE: "inputs[0].data.metadata.a: the integer is too large for a double",
    f'[0,{{"b":{_HUGE}}}]': "inputs[0].data.metadata.a[1].b: the integer is too large",
    json.dumps(_nested(40)): "inputs[0].data.metadata.a.k.k.k",
    "[" * 5_000 + "]" * 5_000: "",
    "[" * 500_000: "",
    "1" * 5_000: "",
}


@pytest.mark.parametrize("value", _BAD_JSON, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("verb", ["POST", "PATCH"])
def test_refused_over_http(both: Raw, verb: str, value: str) -> None:
    action = '"action":"merge",' if verb == "PATCH" else ""
    body = '{%s"inputs":[{"id":"a","data":{"text":{"raw":"x"},"metadata":{"a":%s}}}]}'
    assert both.web is not None
    answer = both.web.request(verb, "/v2/inputs", content=body % (action, value))
    assert answer.status_code == 400
    assert answer.json()["status"]["details"].startswith(_BAD_JSON[value])
    _nothing_is_there(both)


@pytest.mark.parametrize(
    "latitude", ['"NaN"', '"Infinity"', "NaN", "1e400", _HUGE], ids=lambda text: text[:8]
)
def test_numbers_refused_over_http(both: Raw, latitude: str) -> None:
    point = f'{{"geo":{{"geo_point":{{"latitude":{latitude}}}}},"text":{{"raw":"x"}}}}'
    assert both.web is not None
    answer = both.web.post("/v2/inputs", content=f'{{"inputs":[{{"data":{point}}}]}}')
    assert answer.status_code == 400
    assert "latitude" in answer.json()["status"]["details"]
    _nothing_is_there(both)


def _nothing_is_there(both: Raw) -> None:
    assert both.web is not None
    me = f"/v2/users/{both.server.user_id}"
    app = f"{me}/apps/{both.server.app_id}"
    for path in ("inputs", "annotations", "datasets", "models", "workflows"):
        answer = both.web.get(f"{app}/{path}")
        assert answer.status_code == 200, answer.text
        assert not answer.json()[path]
    assert [each["id"] for each in both.web.get(f"{me}/apps").json()["apps"]] == [
        both.server.app_id
    ]


def test_too_deep_for_protobuf_is_refused_by_name(raw: Raw) -> None:
    import grpc

    request = v2.PostInputsRequest()
    request.inputs.add(id="a").data.metadata.update(_nested(40))
    with pytest.raises(grpc.RpcError) as caught:
        raw("PostInputs", request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = caught.value.details() or ""
    assert details.startswith("inputs.data.metadata.fields.")
    assert "nested more than 100 messages deep" in details
    assert not ok(raw("ListInputs", v2.ListInputsRequest())).inputs


def test_earlier_data_is_listed_with_null_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import grpc

    with monkeypatch.context() as patched, LocalServer(tmp_path) as server:
        patched.setattr(json_values, "check", lambda request: None)
        with grpc.insecure_channel(server.address) as channel:
            raw = Raw(server, v2.V2Stub(channel))
            request = v2.PostInputsRequest()
            item = request.inputs.add(id="old")
            item.data.image.base64 = png("red")
            item.data.metadata.update({"bad": math.nan, "good": 1, "in": {"x": [math.inf, "y"]}})
            ok(raw("PostInputs", request))
            settled(raw, "old")
            keys = v2.PostKeysRequest(
                user_app_id=v2.UserAppIDSet(user_id="me"),
                keys=[v2.Key(type="personal_access_token", scopes=["All"])],
            )
            keys.keys[0].expires_at.seconds = 2**62
            ok(raw("PostKeys", keys))
    with (
        LocalServer(tmp_path, rest_port=0) as server,
        httpx.Client(
            base_url=f"{server.rest_base}/v2/users/{server.user_id}",
            headers={"authorization": f"Key {server.pat}"},
        ) as web,
        caplog.at_level(logging.WARNING),
    ):
        for path in (f"/apps/{server.app_id}/inputs", f"/apps/{server.app_id}/inputs/old"):
            answer = web.get(path)
            assert answer.status_code == 200
            found = answer.json()
            metadata = (found.get("input") or found["inputs"][0])["data"]["metadata"]
            assert metadata == {"bad": None, "good": 1, "in": {"x": [None, "y"]}}
        keys_answer = web.get("/keys")
        assert keys_answer.status_code == 200
        assert any("expires_at" not in key for key in keys_answer.json()["keys"])
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "ListInputs: inputs[0].data.metadata.bad: nan has no JSON form; "
        "over HTTP such values are null (said once)"
    ] or said == [
        "ListInputs: inputs[0].data.metadata.in.x[0]: inf has no JSON form; "
        "over HTTP such values are null (said once)"
    ]


def test_a_model_whose_output_json_cannot_say_fails(serve: Callable[..., Raw]) -> None:
    def wrong(text: str) -> v2.Data:
        return _bad_struct(v2.Data())  # type: ignore[no-any-return]

    raw = serve(models={"wrong": wrong})
    request = v2.PostModelOutputsRequest(model_id="wrong")
    request.user_app_id.user_id, request.user_app_id.app_id = raw.server.user_id, raw.server.app_id
    request.inputs.add().data.text.raw = "x"
    (output,) = raw("PostModelOutputs", request).outputs
    assert output.status.code == Code.MODEL_PREDICTION_FAILED
    assert output.status.details.endswith(_FLAW)


@pytest.mark.parametrize("text", [".nan", ".inf", "1" + "0" * 400])
def test_a_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"users: [{{id: u, apps: [{{id: a, metadata: {{score: {text}}}}}]}}]")
    with pytest.raises(ValueError, match=r"configuration: 'a': "):
        LocalServer(config=file)
