"""HTTP/JSON form of requests and answers."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._transports import transcoding
from clarigrpc._transports.transcoding import TranscodingError
from tests.strategies import messages

with warnings.catch_warnings():
    # Some versions announce here when they will give up a version of Python.
    warnings.simplefilter("ignore", FutureWarning)
    from google.api_core import path_template

# Every address of these belongs to another method.
WITHOUT_ADDRESS = {"PatchRunners"}
REACHABLE = [name for name in methods.names() if name not in WITHOUT_ADDRESS]


def over_http(method: str, request: Message) -> Message:
    verb, target, body = transcoding.encode_request(method, request)
    path, _, query = target.partition("?")
    binding = transcoding.router().match(verb, path)
    assert binding is not None
    assert binding.method == method
    return transcoding.decode_request(binding, path, query, body or b"")


def decode(verb: str, target: str, body: Any = None) -> Any:
    path, _, query = target.partition("?")
    binding = transcoding.router().match(verb, path)
    assert binding is not None
    text = b"" if body is None else json.dumps(body).encode()
    return transcoding.decode_request(binding, path, query, text)


def fill_path(data: st.DataObject, binding: transcoding.Binding, message: Any) -> None:
    for variable in binding.variables:
        child = message
        for name in variable[:-1]:
            child = getattr(child, name)
        setattr(child, variable[-1], data.draw(st.text(min_size=1, max_size=8)))


@pytest.mark.parametrize("method", REACHABLE)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_request_survives_the_way_over_http(method: str, data: st.DataObject) -> None:
    row = methods.lookup(method)
    request: Any = data.draw(messages(row.request_class(), depth=3, hostile=True))
    own = [
        each
        for each in transcoding.bindings(method)
        if transcoding.router().match(each.verb, each.template) is each
    ]
    fill_path(data, data.draw(st.sampled_from(own)), request)
    try:
        arrived = over_http(method, request)
    except TranscodingError as error:
        # A random id may be a word of another path; hypothesis seldom finds one.
        assert "is that of another method" in str(error)  # noqa: PT017
        return
    # NaN is not equal to itself, its serialized form is.
    assert arrived.SerializeToString(deterministic=True) == request.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("method", methods.names())
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_response_survives_the_way_over_json(method: str, data: st.DataObject) -> None:
    response_class = methods.lookup(method).response_class()
    response: Message = data.draw(messages(response_class, depth=3, hostile=True))
    arrived = response_class()
    transcoding.from_json(
        transcoding.loads(transcoding.dumps(transcoding.to_json(response))), arrived
    )
    assert arrived.SerializeToString(deterministic=True) == response.SerializeToString(
        deterministic=True
    )


_LARGEST = float.fromhex("0x1.fffffep127")  # of 32 bits


@settings(max_examples=200, deadline=None)
@example(
    v2.MultiOutputResponse(outputs=[v2.Output(data=v2.Data(concepts=[v2.Concept(value=_LARGEST)]))])
)
@given(messages(v2.MultiOutputResponse, depth=5))
def test_json_is_protobufs_own_but_for_the_services_ways(response: v2.MultiOutputResponse) -> None:
    expected = json_format.MessageToDict(
        response, preserving_proto_field_name=True, use_integers_for_enums=True
    )
    assert _without_shown(response.DESCRIPTOR, transcoding.to_json(response), expected) == expected


def _without_shown(descriptor: Any, ours: Any, theirs: Any) -> Any:
    """Ours without the fields that only ours has, provided that these are empty."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return [_without_shown(descriptor, *pair) for pair in zip(ours, theirs, strict=True)]
    if not isinstance(ours, dict):
        # protobuf rounds the largest float up, to what no parser of its takes.
        largest = isinstance(ours, float) and abs(ours) == _LARGEST
        return theirs if largest and theirs == pytest.approx(ours, rel=1e-7) else ours
    kept = {}
    for name, value in ours.items():
        if name in theirs:
            kept[name] = _without_shown(descriptor, value, theirs[name])
        else:
            assert value in (0, "", "0", False, None, []), name
    return kept


@pytest.mark.parametrize("method", methods.names())
def test_the_binding_is_the_one_that_google_api_core_chooses(method: str) -> None:
    for binding in transcoding.bindings(method):
        request = methods.lookup(method).request_class()()
        for variable in binding.variables:
            child: Any = request
            for name in variable[:-1]:
                child = getattr(child, name)
            setattr(child, variable[-1], "some-id")
        options = [
            {"method": each.verb.lower(), "uri": each.template}
            for each in transcoding.bindings(method)
            if transcoding.router().match(each.verb, each.template) is each
        ]
        if not options:
            assert method in WITHOUT_ADDRESS
            continue
        if transcoding.router().match(binding.verb, binding.template) is not binding:
            continue
        transcode: Any = path_template.transcode
        chosen = transcode(options, request)
        verb, target, _ = transcoding.encode_request(method, request)
        assert (verb.lower(), target.partition("?")[0]) == (chosen["method"], chosen["uri"])


def test_every_method_has_an_address_but_those_known() -> None:
    router = transcoding.router()
    without = {
        name
        for name in methods.names()
        if not any(router.match(b.verb, b.template) is b for b in transcoding.bindings(name))
    }
    assert without == WITHOUT_ADDRESS


@pytest.mark.parametrize(
    ("verb", "path", "method"),
    [
        ("GET", "/v2/inputs/status", "GetInputCount"),
        ("GET", "/v2/inputs/an-id", "GetInput"),
        ("DELETE", "/v2/inputs/status", "DeleteInput"),
        ("GET", "/v2/pipelines", "ListPipelines"),
        ("POST", "/v2/users/u/compute_clusters/c/nodepools/n/runners", "PostRunners"),
        ("POST", "/v2/users/u/runners", "PostRunners"),
        ("POST", "/v2/models/m/outputs", "PostModelOutputs"),
        ("GET", "/v2/inputs/%73tatus", "GetInput"),
    ],
)
def test_routes(verb: str, path: str, method: str) -> None:
    binding = transcoding.router().match(verb, path)
    assert binding is not None
    assert binding.method == method


@pytest.mark.parametrize("path", ["/", "/v2", "/v2/", "/v2/inputs/", "/v2//", "/v2/inputs/a/b", ""])
def test_no_route(path: str) -> None:
    assert transcoding.router().match("GET", path) is None
    assert transcoding.router().verbs(path) == []


def test_the_verbs_of_a_path() -> None:
    assert transcoding.router().verbs("/v2/inputs") == ["DELETE", "GET", "PATCH", "POST"]


def test_path_fields_are_percent_encoded() -> None:
    ids = v2.UserAppIDSet(user_id="a/b", app_id="..")
    request = v2.GetInputRequest(user_app_id=ids, input_id="ü %2F?#")
    verb, target, body = transcoding.encode_request("GetInput", request)
    assert (verb, body) == ("GET", None)
    assert target == "/v2/users/a%2Fb/apps/%2E%2E/inputs/%C3%BC%20%252F%3F%23"
    assert over_http("GetInput", request) == request


def test_fields_that_no_path_can_do_without_are_named() -> None:
    with pytest.raises(TranscodingError, match=r"GetInput needs .*input_id"):
        transcoding.encode_request("GetInput", v2.GetInputRequest())


def test_an_id_that_is_a_word_of_another_path_is_refused() -> None:
    with pytest.raises(TranscodingError, match="another method; use gRPC"):
        transcoding.encode_request("GetInput", v2.GetInputRequest(input_id="status"))


def test_a_method_whose_address_belongs_to_another_is_refused() -> None:
    request = v2.PatchRunnersRequest(
        user_app_id=v2.UserAppIDSet(user_id="u"), compute_cluster_id="c", nodepool_id="n"
    )
    with pytest.raises(TranscodingError, match="no HTTP address of its own"):
        transcoding.encode_request("PatchRunners", request)


@pytest.mark.parametrize("key", ["user_app_id.user_id", "userAppId.userId", "userAppId.user_id"])
def test_query_parameters_nest_in_both_spellings(key: str) -> None:
    request = decode("GET", f"/v2/inputs?{key}=me&perPage=7&page=2")
    assert request == v2.ListInputsRequest(
        user_app_id=v2.UserAppIDSet(user_id="me"), per_page=7, page=2
    )


def test_query_parameters_of_all_kinds() -> None:
    ids = decode(
        "GET", "/v2/users/u/apps/a/pipeline_steps/p/versions?statusCodes=10000&status_codes=FAILURE"
    )
    assert list(ids.status_codes) == [10000, 10020]
    models = decode("GET", "/v2/models?trainedOnly=true&featured_only=1&visibility.gettable=PUBLIC")
    assert (models.trained_only, models.featured_only) == (True, True)
    assert models.visibility.gettable == v2.Visibility.PUBLIC
    empty = decode("GET", "/v2/inputs?status=%7B%7D")
    assert empty.HasField("status")
    groups = decode(
        "GET",
        "/v2/datasets/d/versions/v/metrics?values=%7B%22a%22%3A1%7D&values=%22x%22&values=2",
    )
    assert [json_format.MessageToDict(each) for each in groups.values] == [{"a": 1}, "x", 2]
    workers = decode("GET", ["/v2/users/u/apps/a/tasks", "worker_ids=%7B%22x%22%3A1%7D"][0])
    assert workers.user_app_id == v2.UserAppIDSet(user_id="u", app_id="a")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/v2/inputs?nonsense=1", "unknown query parameter 'nonsense'"),
        ("/v2/inputs?page.x=1", "unknown query parameter 'page.x'"),
        ("/v2/inputs?page=1&page=2", "'page' is given twice"),
        ("/v2/inputs?page=one", "page"),
        ("/v2/inputs?page=", "page"),
        ("/v2/models?trained_only=maybe", "true or false"),
        ("/v2/models?visibility.gettable=NOBODY", "NOBODY"),
        ("/v2/inputs?status=x", "not JSON"),
        ("/v2/inputs?status=1", "status"),
        ("/v2/inputs?page=%FF", "malformed"),
        ("/v2/inputs/%FF", "not UTF-8"),
    ],
)
def test_wrong_query_parameters_are_named(target: str, reason: str) -> None:
    with pytest.raises(TranscodingError, match=reason):
        decode("GET", target)


def test_bodies_are_read_in_both_spellings_and_both_base64_alphabets() -> None:
    raw = bytes([251, 255, 190, 63])
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        body = {"inputs": [{"data": {"image": {"base64": encode(raw).decode(), "hosted": None}}}]}
        body["userAppId"] = {"appId": "ignored: the path wins"}  # type: ignore[assignment]
        request = decode("POST", "/v2/users/u/apps/a/inputs", body)
        assert request.inputs[0].data.image.base64 == raw
        assert request.user_app_id == v2.UserAppIDSet(user_id="u", app_id="a")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "object is expected"),
        (b"1", "object is expected"),
        (b"[" * 100_000, "not JSON"),
        (b'{"inputs": 1}', "inputs"),
        (b'{"inputs": [{"idd": "x"}]}', 'no field named "idd"'),
        (b'{"inputs": [{"id": 5}]}', "id"),
        (b'{"inputs": [{"data": {"image": {"base64": "*"}}}]}', "base64"),
        (b'{"inputs": [{"created_at": "yesterday"}]}', "created_at|yesterday"),
        (b'{"inputs": [{"id": "\\ud800"}]}', "inputs"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"inputs": [' + b'{"data": {"regions": [' * 60 + b"]}}" * 60 + b"]}", "deep|recursion"),
    ],
)
def test_wrong_bodies_are_explained(body: bytes, reason: str) -> None:
    binding = transcoding.router().match("POST", "/v2/inputs")
    assert binding is not None
    with pytest.raises(TranscodingError, match=reason):
        transcoding.decode_request(binding, "/v2/inputs", "", body)


def test_a_concept_without_a_value_is_a_positive_one() -> None:
    body = {
        "inputs": [
            {"data": {"concepts": [{"id": "a"}, {"id": "b", "value": 0}, {"id": "c", "value": 1}]}}
        ]
    }
    request = decode("POST", "/v2/inputs", body)
    assert [concept.value for concept in request.inputs[0].data.concepts] == [1, 0, 1]
    assert over_http("PostInputs", request) == request


def test_answers_look_like_those_of_the_service() -> None:
    output = v2.Output(id="o", data=v2.Data(concepts=[v2.Concept(id="c", value=0.1)]))
    output.created_at.FromJsonString("2016-03-09T17:11:39.608845Z")
    output.model.visibility.gettable = v2.Visibility.PUBLIC
    output.data.frames.add(frame_info=v2.FrameInfo(time=1000))
    output.data.image.base64 = b"\xfb\xff"
    output.data.embeddings.add(vector=[0.25, float("nan")])
    response = v2.MultiOutputResponse(
        status=v2.Status(code=v2.StatusCode.SUCCESS), outputs=[output]
    )
    tree = json.loads(transcoding.dumps(transcoding.to_json(response)))
    assert tree["status"] == {"code": 10000}
    shown = tree["outputs"][0]
    assert shown["created_at"] == "2016-03-09T17:11:39.608845Z"
    assert shown["model"]["visibility"] == {"gettable": 50}
    assert shown["model"]["app_id"] == ""
    assert shown["data"]["concepts"][0] == {"id": "c", "value": 0.1}
    assert shown["data"]["frames"][0]["frame_info"] == {"index": 0, "time": "1000", "number": 0}
    assert shown["data"]["image"]["base64"] == "+/8="
    assert shown["data"]["embeddings"][0]["vector"] == [0.25, "NaN"]


def test_fields_shown_when_empty() -> None:
    assert transcoding.to_json(v2.MultiInputResponse()) == {"inputs": []}
    assert transcoding.to_json(v2.Concept()) == {"value": 0.0}
    # A list of the empty form is never shared between answers.
    transcoding.to_json(v2.MultiInputResponse())["inputs"].append(1)
    assert transcoding.to_json(v2.MultiInputResponse()) == {"inputs": []}


def test_a_value_without_json_is_refused() -> None:
    request = v2.PostInputsRequest(inputs=[v2.Input()])
    request.inputs[0].created_at.seconds = 10**12
    with pytest.raises(TranscodingError, match="no JSON form"):
        transcoding.encode_request("PostInputs", request)
