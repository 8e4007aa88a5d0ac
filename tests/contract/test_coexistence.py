"""Our package and the published one in one process, and our messages with Python's tools."""

from __future__ import annotations

import json
import pickle
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given, settings

from clarigrpc import v2, wellknown
from tests.contract import peer
from tests.strategies import messages

SOME_MESSAGES = messages(v2.PostInputsRequest)
few = settings(max_examples=30, deadline=None, database=None)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_both_packages_work_in_one_process(peer_python: Path, first: str) -> None:
    results: Any = json.loads(peer.run_script(peer_python, "coexist.py", first, ours=True))
    assert results == {
        "ours": ["a", True],
        "theirs over their channel": ["b", True],
        "theirs over a plain channel": ["b", True],
        "converted": [True, True],
        "copied": True,
        "pickled": [True, True],
        "deepcopied": [True, True, True],
    }


@few
@given(SOME_MESSAGES)
def test_pickle(message: v2.PostInputsRequest) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(message, protocol))
        assert type(again) is v2.PostInputsRequest
        assert again == message


def test_pickle_a_nested_message() -> None:
    message = v2.MetricData.Label(value="n")
    again = pickle.loads(pickle.dumps(message))
    assert type(again) is v2.MetricData.Label
    assert again == message


def test_pickle_a_well_known_message() -> None:
    metadata = v2.Data(metadata=wellknown.struct({"a": 1})).metadata
    again = pickle.loads(pickle.dumps(metadata))
    assert type(again) is type(metadata)
    assert again == metadata


@few
@given(SOME_MESSAGES)
def test_copies_are_equal_and_apart(message: v2.PostInputsRequest) -> None:
    for duplicate in (copy(message), deepcopy(message)):
        assert type(duplicate) is v2.PostInputsRequest
        assert duplicate == message
        duplicate.inputs.add(id="another")
        assert duplicate != message


@few
@given(SOME_MESSAGES)
def test_json_format(message: v2.PostInputsRequest) -> None:
    text = json_format.MessageToJson(message)
    assert json_format.Parse(text, v2.PostInputsRequest()) == message
    as_dict = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert json_format.ParseDict(as_dict, v2.PostInputsRequest()) == message


@few
@given(SOME_MESSAGES)
def test_text_format(message: v2.PostInputsRequest) -> None:
    text = text_format.MessageToString(message)
    assert text_format.Parse(text, v2.PostInputsRequest()) == message
