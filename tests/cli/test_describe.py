"""``clarigrpc call --describe``."""

from __future__ import annotations

import json
import re

import pytest

from clarigrpc._contract import methods
from clarigrpc.cli.describe import as_tree
from clarigrpc.cli.message_json import request_of_json
from tests.cli.conftest import Run


@pytest.mark.parametrize("columns", [80, 140])
def test_a_method(cli: Run, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    result = cli("call", "--describe", "PostInputs")
    assert (result.code, result.err) == (0, "")
    shown = re.sub("\x1b\\[[0-9;]*m", "", result.out)
    for text in (
        "Adds at most 128 inputs",
        "Inputs_Add",
        "  POST /v2/users/{user_app_id.user_id}/apps/{user_app_id.app_id}/inputs\n",
        "Request: PostInputsRequest",
        "repeated Input",
        "Response: MultiInputResponse",
        '"input_id_conflict_resolution": "INPUT_ID_CONFLICT_RESOLUTION_NOT_SET"',
    ):
        assert text in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_as_json(cli: Run) -> None:
    tree = json.loads(cli("call", "StreamModelOutputs", "--describe", "--json").out)
    assert tree["request_streaming"]
    assert tree["response_streaming"]
    assert tree["scopes"] == ["Apps_Get", "Concepts_Get", "Models_Get", "Predict"]
    assert tree["http"] == ["POST /v2/models/outputs/stream"]
    fields = {one["name"]: one for one in tree["request"]["fields"]}
    assert fields["inputs"]["type"] == "repeated Input"
    assert fields["version_id"]["description"] == "Version that answers. Empty: the latest."


def test_every_method_has_a_request_to_fill_in() -> None:
    for name in methods.names():
        row = methods.lookup(name)
        tree = as_tree(row)
        request_of_json(row, json.dumps(tree["skeleton"]))
        assert tree["description"]
        assert tree["request"]["fields"] or not row.request_class().DESCRIPTOR.fields


def test_unknown_and_missing_methods(cli: Run) -> None:
    assert "did you mean" in cli("call", "--describe", "PostInput").err
    assert cli("call", "--describe").code == 2
    assert cli("call").code == 2
