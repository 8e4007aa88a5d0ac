"""Random messages cross between our package and the published one byte-equal, both ways."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.v2 import _index
from tests.contract import tables
from tests.contract.peer import Echo
from tests.strategies import messages

RETIRED_METHODS = tables.retired_methods()
RETIRED_FIELDS = tables.retired_fields()
CURRENT = {name: row for name, row in _index.METHODS.items() if name not in RETIRED_METHODS}
# The published package does not know the retired ones (column `era` of the tables).
REQUESTS = sorted({row[0] for row in CURRENT.values()})
RESPONSES = sorted({row[1] for row in CURRENT.values()} - set(REQUESTS))

CROSSING = settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def _serialized(message: Any) -> bytes:
    """What a reader that knows the message makes of it: unknown fields do not count."""
    message.DiscardUnknownFields()
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _cross_from_ours(name: str, echo: Echo, data: st.DataObject) -> None:
    cls = getattr(v2, name)
    message = data.draw(messages(cls, exclude=RETIRED_FIELDS, hostile=True))
    ours = message.SerializeToString(deterministic=True)
    assert echo(cls.DESCRIPTOR.full_name, ours) == ours


def _cross_from_theirs(theirs: Descriptor, echo: Echo, data: st.DataObject) -> None:
    cls = getattr(v2, theirs.name)
    drawn: Any = data.draw(messages(theirs, hostile=True))
    sent = drawn.SerializeToString(deterministic=True)
    assert echo(theirs.full_name, sent) == sent
    assert _serialized(cls.FromString(sent)) == sent


@pytest.fixture(scope="session")
def their_messages(peer_files: list[FileDescriptor]) -> dict[str, Descriptor]:
    return {m.full_name: m for m in tables.messages_of(peer_files)}


def test_there_are_requests_to_cross() -> None:
    assert len(REQUESTS) > 250
    assert len(RETIRED_METHODS) == 31


@pytest.mark.parametrize("name", REQUESTS)
@CROSSING
@given(data=st.data())
def test_request_from_ours(name: str, peer_echo: Echo, data: st.DataObject) -> None:
    _cross_from_ours(name, peer_echo, data)


@pytest.mark.parametrize("name", REQUESTS)
@CROSSING
@given(data=st.data())
def test_request_from_theirs(
    name: str, their_messages: dict[str, Descriptor], peer_echo: Echo, data: st.DataObject
) -> None:
    full_name = getattr(v2, name).DESCRIPTOR.full_name
    _cross_from_theirs(their_messages[full_name], peer_echo, data)


@pytest.mark.parametrize("name", RESPONSES)
@settings(CROSSING, max_examples=6)
@given(data=st.data())
def test_response_from_theirs(
    name: str, their_messages: dict[str, Descriptor], peer_echo: Echo, data: st.DataObject
) -> None:
    full_name = getattr(v2, name).DESCRIPTOR.full_name
    _cross_from_theirs(their_messages[full_name], peer_echo, data)


def test_a_retired_field_is_unknown_to_the_peer(peer_echo: Echo) -> None:
    # Why they are kept out above, and proof that the peer drops what it does not know.
    request = v2.GetWorkflowRequest(workflow_id="w", exclude_clarifai_workflows=True)
    answer = peer_echo(request.DESCRIPTOR.full_name, request.SerializeToString())
    assert answer == v2.GetWorkflowRequest(workflow_id="w").SerializeToString()
