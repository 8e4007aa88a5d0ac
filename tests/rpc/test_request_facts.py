"""What a request is about, of messages and of their serialized forms."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._rpc.request_facts import METHOD_NAME, RequestFacts, facts_of

PREDICT = methods.lookup("PostModelOutputs")


def predict(model_id: str, version_id: str, names: list[str]) -> Any:
    inputs = []
    for name in names:
        one = v2.Input(id="i")
        if name:
            one.data.metadata[METHOD_NAME] = name
        inputs.append(one)
    return v2.PostModelOutputsRequest(model_id=model_id, version_id=version_id, inputs=inputs)


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text(), st.lists(st.text(max_size=5), max_size=4))
def test_both_forms_tell_the_same(model_id: str, version_id: str, names: list[str]) -> None:
    request = predict(model_id, version_id, names)
    first = names[0] if names else ""
    expected = RequestFacts(model_id, version_id, items=len(names), named_method=first)
    assert facts_of(PREDICT, request) == expected
    assert facts_of(PREDICT, request.SerializeToString()) == expected


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PostModelOutputs", "GetModel", "ListInputs", "DeleteInputs", "PostInputs"]),
    st.binary(max_size=60),
    st.integers(0, 60),
)
@example("PostModelOutputs", b"\xff" * 60, 0)
@example("PostModelOutputs", b"\x12" + b"\xff" * 9 + b"\x01", 0)
def test_bytes_that_are_no_message(name: str, put_in: bytes, at: int) -> None:
    encoded = predict("m", "v", ["name", ""]).SerializeToString()
    for given_bytes in (put_in, encoded[:at] + put_in, encoded[:at] + put_in + encoded[at:]):
        assert isinstance(facts_of(methods.lookup(name), given_bytes), RequestFacts)


def test_a_number_without_end_is_not_read_on() -> None:
    assert facts_of(PREDICT, b"\xff" * 4_000_000) == RequestFacts()


def test_other_things_tell_nothing() -> None:
    named = type("PostModelOutputsRequest", (), {})()
    for other in (None, 1, "m", object(), named, bytearray(b"m"), v2.GetModelRequest(model_id="m")):
        assert facts_of(PREDICT, other) == RequestFacts()
