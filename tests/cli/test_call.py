"""``clarigrpc call``."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from clarigrpc._contract import methods
from clarigrpc.local import LocalServer
from tests.cli.conftest import COMMAND, Run, one_line

PUBLIC = {"user_id": "clarifai", "app_id": "main"}
PROMPT = json.dumps(
    {
        "user_app_id": PUBLIC,
        "model_id": "text-stream",
        "inputs": [{"data": {"text": {"raw": "one two"}}}],
    }
)


def _texts(out: str) -> list[str]:
    return [json.loads(line)["outputs"][0]["data"]["text"]["raw"] for line in out.splitlines()]


def test_unary(cli: Run) -> None:
    result = cli("call", "ListModels", json.dumps({"userAppId": PUBLIC, "per_page": 1}))
    assert (result.code, result.err) == (0, "")
    response = json.loads(result.out)
    assert response["status"]["code"] == "SUCCESS"
    assert len(response["models"]) == 1
    assert "model_type_id" in response["models"][0]


def test_user_and_app_are_filled_in(cli: Run) -> None:
    owner = ("--user-id", "clarifai", "--app-id", "main")
    assert len(json.loads(cli("call", "ListModels", *owner).out)["models"]) > 1


def test_request_from_a_file_and_from_stdin(cli: Run, process: Run, tmp_path: Path) -> None:
    text = json.dumps({"user_app_id": PUBLIC, "model_id": "color-recognition"}, indent=2)
    (tmp_path / "request.json").write_text(text)
    for result in (
        cli("call", "GetModel", f"@{tmp_path / 'request.json'}"),
        process("call", "GetModel", "-", stdin=text),
    ):
        assert json.loads(result.out)["model"]["id"] == "color-recognition"


def test_server_stream_is_a_line_each(cli: Run) -> None:
    result = cli("call", "GenerateModelOutputs", PROMPT)
    assert (result.code, _texts(result.out)) == (0, ["one", " two"])


def test_client_stream_reads_lines(cli: Run, process: Run, tmp_path: Path) -> None:
    lines = f"{PROMPT}\n\n{PROMPT}\n"
    (tmp_path / "lines").write_text(lines)
    for result in (
        process("call", "StreamModelOutputs", "-", stdin=lines),
        cli("call", "StreamModelOutputs", f"@{tmp_path / 'lines'}"),
    ):
        assert (result.code, _texts(result.out)) == (0, ["one", " two"] * 2)


def test_a_bad_line_of_a_stream(process: Run) -> None:
    result = process("call", "StreamModelOutputs", "-", stdin=f"{PROMPT}\n{{\n")
    assert result.code == 2
    assert "not JSON" in result.err
    assert "Traceback" not in result.err


@pytest.mark.measures
def test_ends_while_stdin_is_open(environment: dict[str, str]) -> None:
    started = time.monotonic()
    with subprocess.Popen(
        [*COMMAND, "call", "StreamModelOutputs", "-", "--pat", "wrong"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait(20) == 1
    assert "CONN_KEY" in one_line(err)
    assert time.monotonic() - started < 20


def test_partial_failure_prints_the_response(cli: Run) -> None:
    inputs = [{"id": "twice", "data": {"text": {"raw": "x"}}}] * 2
    result = cli("call", "PostInputs", json.dumps({"inputs": inputs}))
    assert result.code == 1
    codes = [one["status"]["code"] for one in json.loads(result.out)["inputs"]]
    assert codes == ["INPUT_PENDING", "INPUT_DUPLICATE"]
    assert "1 of 2 items failed" in one_line(result.err)


@pytest.mark.parametrize("method", methods.names())
def test_every_method_can_be_called(cli: Run, method: str) -> None:
    result = cli("call", method, "--timeout", "10")
    told = result.err.splitlines(keepends=True)
    if methods.lookup(method).deprecated:
        assert f"clarigrpc: {method} is deprecated: " in told.pop(0)
    if result.code == 0:
        assert not told
    else:
        assert result.code == 1
        assert f"clarigrpc: {method}: " in one_line("".join(told))


def test_list(cli: Run) -> None:
    result = cli("call", "--list")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == methods.names()
    assert all(len(line.split()) > 2 for line in result.out.splitlines())
    assert re.search(
        "StreamModelOutputs +\\(stream of requests, stream of responses\\) [A-Z]", result.out
    )
    found = cli("call", "--list", "workflow")
    assert found.code == 0
    assert 10 < len(found.out.splitlines()) < 100
    assert "PostWorkflowResults" in found.out
    assert "DeleteInputs " not in found.out
    first = json.loads(cli("call", "--list", "PostInputsSearches", "--json").out.splitlines()[0])
    assert (first["method"], first["request_streaming"]) == ("PostInputsSearches", False)
    nothing = cli("call", "--list", "no such thing")
    assert (nothing.code, nothing.out) == (1, "")
    one_line(nothing.err)


@pytest.mark.parametrize(
    ("method", "hint"),
    [("ListModel", "did you mean ListModels"), ("getmodel", "GetModel"), ("Qqq", "--list")],
)
def test_unknown_method(cli: Run, method: str, hint: str) -> None:
    result = cli("call", method)
    assert result.code == 2
    assert hint in result.err


@pytest.mark.parametrize(
    ("request_text", "text"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "JSON object"),
        ("3", "JSON object"),
        ('{"nope": 1}', "nope"),
        ('{"model_id": 3}', "model_id"),
        ('{"user_app_id": "me"}', "not a valid GetModelRequest"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_wrong_request(cli: Run, request_text: str, text: str) -> None:
    result = cli("call", "GetModel", request_text)
    assert (result.code, result.out) == (2, "")
    assert text in result.err


def test_request_file_that_is_no_text(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "request").write_bytes(b"\xff\xfe{}")
    result = cli("call", "GetModel", f"@{tmp_path / 'request'}")
    assert result.code == 2
    assert "UTF-8" in result.err
    result = cli("call", "GetModel", f"@{tmp_path / 'missing'}")
    assert result.code == 1
    assert "missing: No such file or directory" in one_line(result.err)


def test_streams_of_requests_need_grpc(cli: Run, server: LocalServer) -> None:
    rest = ("--transport", "rest", "--base", str(server.rest_base))
    result = cli("call", "StreamModelOutputs", PROMPT, *rest)
    assert result.code == 1
    assert "use gRPC" in one_line(result.err)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1" + "0" * 5000, "[" * 5000]
)
def test_values_that_json_or_a_message_cannot_hold(cli: Run, value: str) -> None:
    data = '{"text":{"raw":"x"},"metadata":{"a":' + value
    request = '{"inputs":[{"data":' + data + "}}}]}"
    result = cli("call", "PostInputs", request)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "Error: " in result.err
