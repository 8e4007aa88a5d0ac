"""The inputs of an app in spans of time, which many can read without doubling one. Needs no Ray."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from clarigrpc import errors, v2
from clarigrpc.client import Client

STREAM_PAGE = 1000
"""Most inputs of a page of StreamInputs."""


@dataclass(frozen=True)
class InputSpan:
    """The inputs that were created after one of them, until another.

    Inputs that were created at the same time are in the same span, so that it does not matter in
    which order the service has them.

    Attributes:
        after: One of the last inputs of the span before; None begins with the oldest.
        until: One of the last inputs; None ends with the newest.
    """

    after: v2.Input | None = None
    until: v2.Input | None = None


def places(count: int, parts: int) -> list[int]:
    """Where parts of about the same size begin; one begins at 0 even of nothing."""
    return [count * part // parts for part in range(parts)] or [0]


def number_of_inputs(client: Client) -> int:
    """How many inputs the app has, of any status."""
    counts = client.inputs.status()
    return sum(int(value) for _, value in counts.ListFields())


def spans(client: Client, parallelism: int) -> Iterator[InputSpan]:
    """Spans of about the same size, whose ends are looked up by their place among all inputs."""
    total = number_of_inputs(client)
    ends: list[v2.Input] = []
    for start in places(total, min(parallelism, math.ceil(total / STREAM_PAGE)))[1:]:
        # Pages begin with the newest; inputs that come meanwhile move an end, and do no harm.
        for end in client.inputs.list(page=total - start + 1, per_page=1):
            if not ends or _created(end) > _created(ends[-1]):
                ends.append(end)
    for after, until in itertools.pairwise([None, *ends, None]):
        yield InputSpan(after, until)


def inputs_of(client: Client, span: InputSpan, per_page: int) -> Iterator[v2.Input]:
    """The inputs of a span, oldest first.

    A cursor may be deleted, one of the span's ends as well: then the inputs are read from the
    oldest one, and those are passed over that were read, or created before those.
    """
    begin = -1 if span.after is None else _created(span.after)
    end = math.inf if span.until is None else _created(span.until)
    last, reached = span.after, begin
    read: set[str] = set()  # of those that were created at the time that was reached
    start, passed = last.id if last else "", -1
    failed_at: v2.Input | None = None
    while True:
        try:
            for one in client.inputs.stream(start, per_page=per_page):
                created = _created(one)
                if created == begin or created < passed or (created == reached and one.id in read):
                    continue
                if created > end:
                    return
                yield one
                if created != reached:
                    reached = created
                    read.clear()
                read.add(one.id)
                last = one
        except errors.NotFoundError:
            if last is None or last is failed_at:  # it is the app that is not there
                raise
            start, passed, failed_at = "", reached, last
        else:
            return


def _created(one: v2.Input) -> int:
    return one.created_at.ToNanoseconds()
