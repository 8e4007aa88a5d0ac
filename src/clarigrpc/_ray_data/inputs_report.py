"""What a write of inputs reports. Needs no Ray."""

from __future__ import annotations

from dataclasses import dataclass, field

from clarigrpc._public_names import named_in


@named_in("clarigrpc.ray")
@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row whose input was not added.

    Attributes:
        id: Id of the input; empty if it could not be made.
        code: Status code, such as ``v2.StatusCode.INPUT_INVALID_REQUEST``.
        error: Why, with the name of the code.
    """

    id: str
    code: int
    error: str


@named_in("clarigrpc.ray")
@dataclass(slots=True)
class InputsReport:
    """What ``write_inputs`` did: ``rows == added + found + failed``.

    Attributes:
        rows: Rows of the dataset.
        added: Rows whose input was added by this run.
        found: Rows whose input was in the app: from an earlier run, from a try of this one whose
            worker died, or from another row with the same content.
        failed: Rows whose input was not added.
        failures: Those, at most 1000 of each write task.
    """

    rows: int = 0
    added: int = 0
    found: int = 0
    failed: int = 0
    failures: list[FailedRow] = field(default_factory=list, repr=False)
