"""Which output of a response belongs to which input of its request."""

from __future__ import annotations

from collections import deque
from typing import Any

from clarigrpc import errors
from clarigrpc._rpc.encoding import NUMBERED


def in_order(ids: list[str], response: Any, field: str = "outputs") -> list[Any]:
    """The outputs of a response, in the order of the inputs with these ids.

    They are matched by ``output.input.id``, and by their position where a service repeats no ids or
    gives ids of its own to inputs that were sent without one.

    Args:
        ids: The ids that the inputs were sent with.
        response: The response.
        field: Its field with the outputs.

    Raises:
        InternalError: The outputs are not those of the inputs.
    """
    outputs = [*getattr(response, field)]
    if len(outputs) != len(ids):
        raise _mismatch(f"sent {len(ids)} inputs, received {len(outputs)} outputs", response)
    answered = [output.input.id for output in outputs]
    if answered == ids or not any(answered):
        return outputs
    places: dict[str, deque[int]] = {}
    for place, one in enumerate(answered):
        places.setdefault(one, deque()).append(place)
    if places.keys().isdisjoint(ids) and all(one.startswith(NUMBERED) for one in ids):
        return outputs
    if all(one in ("", sent) for one, sent in zip(answered, ids, strict=True)):
        return outputs
    found = []
    for sent in ids:
        if not places.get(sent):
            raise _mismatch(f"received no output for the input with the id {sent!r}", response)
        found.append(outputs[places[sent].popleft()])
    return found


def _mismatch(what: str, response: Any) -> errors.InternalError:
    method = "PostModelOutputs" if hasattr(response, "outputs") else "PostWorkflowResults"
    return errors.InternalError(what, method=method, request_id=response.status.req_id)
