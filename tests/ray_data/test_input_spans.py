"""Spans of inputs, read while inputs are deleted: none is lost, none is read twice."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.internal import well_known_types
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import errors, text, v2
from clarigrpc._ray_data.input_spans import InputSpan, inputs_of
from clarigrpc.local import LocalServer

Code = v2.StatusCode


def test_inputs_of_one_time_are_read_after_the_cursor_was_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def same_time(stamp: Any) -> None:
        stamp.seconds = 1_700_000_000

    monkeypatch.setattr(well_known_types.Timestamp, "GetCurrentTime", same_time)
    names = [f"i{number}" for number in range(12)]
    with LocalServer() as server, server.client() as client, contextlib.ExitStack() as faults:
        client.inputs.upload([text(name, id=name) for name in names])
        read = []
        for one in inputs_of(client, InputSpan(), 4):
            read.append(one.id)
            if len(read) in (4, 8):
                client.inputs.delete(one.id)
                # This server knows where a deleted input was; another may not.
                gone = server.faults.fail("StreamInputs", Code.INPUT_DOES_NOT_EXIST, count=1)
                faults.enter_context(gone)
        assert read == names


class _Forgetful:
    """Streams inputs as the service does, and does not know cursors that were deleted."""

    def __init__(self, kept: list[v2.Input]) -> None:
        self.inputs = self
        self._kept = kept

    def delete(self, gone: v2.Input) -> None:
        self._kept.remove(gone)

    def stream(self, start: str, *, per_page: int) -> Iterator[v2.Input]:
        while True:
            ids = ["", *(one.id for one in self._kept)]
            if start not in ids:
                raise errors.NotFoundError("no such input")
            place = ids.index(start)
            page = self._kept[place : place + per_page]
            yield from page
            if len(page) < per_page:
                return
            start = page[-1].id


@given(
    steps=st.lists(st.integers(0, 1), min_size=1, max_size=16),
    ends=st.sets(st.integers(0, 15), max_size=4),
    gone=st.sets(st.integers(0, 15), max_size=8),
    per_page=st.integers(1, 5),
)
def test_each_input_is_in_one_span(
    steps: list[int], ends: set[int], gone: set[int], per_page: int
) -> None:
    every = []
    for number, seconds in enumerate(itertools.accumulate(steps)):
        every.append(v2.Input(id=f"i{number}"))
        every[-1].created_at.seconds = seconds
    # As ``spans`` does, one end of each time, in the order of time.
    found = {every[end].created_at.seconds: every[end] for end in ends if end < len(every)}
    bounds = [found[seconds] for seconds in sorted(found)]
    client: Any = _Forgetful(every[:])
    read: list[str] = []
    for after, until in itertools.pairwise([None, *bounds, None]):
        for one in inputs_of(client, InputSpan(after, until), per_page):
            read.append(one.id)
            if every.index(one) in gone:
                client.delete(one)
    assert read == [one.id for one in every]
