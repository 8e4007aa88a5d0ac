"""Credentials, scopes, statuses, and the life of a server."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from clarigrpc import v2
from clarigrpc.local import Faults, LocalServer
from clarigrpc.v2._index import METHODS
from tests.local.conftest import PUBLIC, Raw, png, predict_request

Code = v2.StatusCode


def code_of(raw: Raw, authorization: str | None) -> int:
    metadata = (("authorization", authorization),) if authorization else ()
    response = raw("GetInputCount", v2.GetInputCountRequest(), metadata=metadata)
    return int(response.status.code)


def test_credentials(raw: Raw) -> None:
    assert code_of(raw, f"Key {raw.server.pat}") == Code.SUCCESS
    assert code_of(raw, f"Bearer {raw.server.pat}") == Code.SUCCESS
    assert code_of(raw, f"Key {raw.server.api_key}") == Code.SUCCESS
    assert code_of(raw, None) == Code.CONN_KEY_INVALID
    assert code_of(raw, "Key") == Code.CONN_KEY_INVALID
    assert code_of(raw, f"Basic {raw.server.pat}") == Code.CONN_KEY_INVALID
    assert code_of(raw, "Key wrong") == Code.CONN_KEY_INVALID
    session = raw(
        "GetInputCount",
        v2.GetInputCountRequest(),
        metadata=(("x-clarifai-session-token", raw.server.session_token),),
    )
    assert session.status.code == Code.SUCCESS
    wrong = raw(
        "GetInputCount",
        v2.GetInputCountRequest(),
        metadata=(("x-clarifai-session-token", "wrong"),),
    )
    assert wrong.status.code == Code.CONN_KEY_INVALID


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, Code.CONN_KEY_INVALID),
        ({"authorization": "Basic x"}, Code.CONN_KEY_INVALID),
        ({"authorization": "Key wrong"}, Code.CONN_KEY_INVALID),
        ({"x-clarifai-session-token": "wrong"}, Code.CONN_KEY_INVALID),
    ],
)
def test_wrong_credentials_over_http(
    serve: Callable[..., Raw], headers: dict[str, str], code: int
) -> None:
    raw = serve(rest_port=0)
    response = httpx.get(f"{raw.server.rest_base}/v2/inputs", headers=headers)
    assert (response.status_code, response.json()["status"]["code"]) == (401, code)


def test_secrets_differ_between_servers_and_stay_out_of_texts(serve: Callable[..., Raw]) -> None:
    one, two = serve(), serve()
    assert one.server.pat != two.server.pat
    assert one.server.pat not in repr(one.server)


def test_methods_without_auth_need_none(raw: Raw) -> None:
    response = raw("ListStatusCodes", v2.ListStatusCodesRequest(), metadata=())
    assert response.status.code == Code.SUCCESS
    assert {s.code for s in response.statuses} == {n for n in Code.values() if n}
    one = raw("GetStatusCode", v2.GetStatusCodeRequest(status_code_id="21200"), metadata=())
    assert (one.status.code, one.status.description) == (21200, "Model does not exist")
    none = raw("GetStatusCode", v2.GetStatusCodeRequest(status_code_id="17"), metadata=())
    assert none.status.code == Code.CONN_DOES_NOT_EXIST


@pytest.mark.parametrize(
    ("code", "text"),
    [
        # As the service's documentation shows responses and lists codes.
        (Code.SUCCESS, "Ok"),
        (Code.MODEL_TRAINED, "Model is trained and ready"),
        (Code.MODEL_DOES_NOT_EXIST, "Model does not exist"),
        (Code.INPUT_PENDING, "Download pending"),
        (Code.INPUT_SUCCESS, "Download complete"),
        (Code.SEARCH_INVALID_REQUEST, "Invalid search request"),
        (Code.DATASET_VERSION_READY, "The dataset version is ready to be used"),
    ],
)
def test_texts_of_codes(raw: Raw, code: int, text: str) -> None:
    request = v2.GetStatusCodeRequest(status_code_id=str(code))
    assert raw("GetStatusCode", request, metadata=()).status.description == text


def test_me_and_empty_mean_the_caller(raw: Raw) -> None:
    for ids in (
        v2.UserAppIDSet(),
        v2.UserAppIDSet(user_id="me"),
        v2.UserAppIDSet(user_id="me", app_id=raw.server.app_id),
        v2.UserAppIDSet(user_id=raw.server.user_id, app_id=raw.server.app_id),
    ):
        response = raw("GetInputCount", v2.GetInputCountRequest(user_app_id=ids))
        assert response.status.code == Code.SUCCESS
    strange = v2.GetInputCountRequest(user_app_id=v2.UserAppIDSet(user_id="x", app_id="y"))
    assert raw("GetInputCount", strange).status.code == Code.CONN_DOES_NOT_EXIST


def test_key_is_confined_to_its_app(raw: Raw) -> None:
    key = Raw(raw.server, raw.stub, raw.server.api_key)
    response = key("PostModelOutputs", predict_request(png("red")))
    assert response.status.code == Code.CONN_INSUFFICIENT_SCOPES
    own = predict_request(png("red"))
    own.ClearField("user_app_id")
    assert key("PostModelOutputs", own).status.code == Code.MODEL_DOES_NOT_EXIST


def test_others_apps_are_read_only(raw: Raw) -> None:
    request = v2.PostInputsRequest(user_app_id=PUBLIC)
    request.inputs.add().data.text.raw = "x"
    assert raw("PostInputs", request).status.code == Code.CONN_INSUFFICIENT_SCOPES


def test_request_id_carries_the_prefix(raw: Raw) -> None:
    metadata = (*raw.metadata, ("x-clarifai-request-id-prefix", "mine-7"))
    response = raw("GetInputCount", v2.GetInputCountRequest(), metadata=metadata)
    assert response.status.req_id.startswith("mine-7-")
    assert raw("GetInputCount", v2.GetInputCountRequest()).status.req_id


def test_methods_that_are_not_there_say_so(raw: Raw) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raw("PostTrendingMetricsView", v2.PostTrendingMetricsViewRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "PostTrendingMetricsView" in str(caught.value.details())


def test_every_method_answers_or_is_unimplemented(raw: Raw) -> None:
    """An empty request: never a crash, and never success from a method that is not there."""
    for name, (request_name, _, many, streams, *_) in METHODS.items():
        request = getattr(v2, request_name)()
        try:
            result = raw(name, iter([request]) if many else request)
            responses = list(result) if streams else [result]
        except grpc.RpcError as error:
            code = error.code()
        else:
            code = grpc.StatusCode.OK
            for response in responses:
                assert response.status.code not in (0, Code.INTERNAL_UNCATEGORIZED), name
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED), name


def test_close_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with LocalServer() as server, grpc.insecure_channel(server.address) as channel:
        metadata = (("authorization", f"Key {server.pat}"),)
        v2.V2Stub(channel).ListModels(v2.ListModelsRequest(), metadata=metadata)
    left = [t for t in set(threading.enumerate()) - before if t.name.startswith("clarigrpc")]
    assert left == []
    server.close()  # a second time does nothing


def test_a_server_can_start_again(tmp_path: Path) -> None:
    server = LocalServer(tmp_path)
    for _ in range(2):
        with server:
            assert server.base == f"http://127.0.0.1:{server.port}"


def test_port_in_use_is_an_error(raw: Raw) -> None:
    with pytest.raises(OSError, match="cannot listen"):
        LocalServer(port=raw.server.port).start()


def test_credentials_are_kept_for_the_owner_alone(tmp_path: Path) -> None:
    with LocalServer(tmp_path) as server:
        pat = server.pat
    with LocalServer(tmp_path) as server:
        assert server.pat == pat
    mode = stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode)
    assert mode == 0o600


def test_one_server_a_folder(serve: Callable[..., Raw], tmp_path: Path) -> None:
    serve(data_dir=tmp_path)
    with pytest.raises(OSError, match="in use"):
        LocalServer(tmp_path).start()


def test_fixture_of_the_plugin(clarifai_local: LocalServer) -> None:
    with clarifai_local.client() as client:
        models = client.v2.ListModels(v2.ListModelsRequest(user_app_id=PUBLIC)).models
    assert "color-recognition" in {model.id for model in models}


def test_health_and_reflection(raw: Raw) -> None:
    with grpc.insecure_channel(raw.server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "clarifai.api.V2"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="clarifai.api.V2")
        (answer,) = stub.ServerReflectionInfo(iter([request]))
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(file)
            for file in answer.file_descriptor_response.file_descriptor_proto
        ]
        methods = [m.name for file in files for s in file.service for m in s.method]
        assert sorted(methods) == sorted(METHODS)


@pytest.mark.measures
def test_close_does_not_wait_for_slow_calls(serve: Callable[..., Raw]) -> None:
    raw = serve(faults=Faults(latency_seconds=60))
    future = raw.stub.GetInputCount.future(v2.GetInputCountRequest(), metadata=raw.metadata)
    time.sleep(0.1)
    start = time.monotonic()
    raw.server.close(grace=0.1)
    assert time.monotonic() - start < 5
    assert future.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


SCRIPT = """
import sys
from clarigrpc.local import Faults, LocalServer
server = LocalServer(sys.argv[1]).start()
server.serve_until_signalled(ready=lambda: print(server.base, flush=True))
print("closed", flush=True)
"""


def test_sigterm_closes_gracefully(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "closed\n"
        assert process.wait(10) == 0


def test_what_is_recorded_is_what_was_sent(serve: Callable[..., Raw]) -> None:
    raw = serve(record_calls=2)
    request = v2.PostInputsRequest(inputs_add_job_id="job", inputs=[v2.Input(id="i")])
    request.inputs[0].data.text.raw = "hello"
    raw("PostInputs", request)
    (call,) = raw.server.calls("PostInputs")
    assert call.request == request
