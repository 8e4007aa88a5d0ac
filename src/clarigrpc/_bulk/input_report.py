"""What an upload of inputs came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name


@dataclass(frozen=True, slots=True)
class FailedInput:
    """An input that was not added. Give it to ``upload`` again once the reason is gone.

    Attributes:
        index: Its place in the source, from 0.
        id: Its id; empty when it could not even be read.
        status: Why: the service's status of the input or of its batch, or one made here.
        input: The input, with its id, or the function that was to make it.
        maybe_added: Whether the service may have added it all the same, because the answer was
            lost. An upload that is given this object finds out.
        since: When the upload that failed began, in seconds since the epoch.
    """

    index: int
    id: str
    status: v2.Status
    input: v2.Input | Callable[[], v2.Input] = field(repr=False)
    maybe_added: bool = False
    since: float = 0.0

    def __str__(self) -> str:
        text = f"{self.status.description} {self.status.details}".strip()
        return (
            f"input {self.index} ({self.id or 'no id'}): {self.status.code} "
            f"{code_name(self.status.code)} {text}"
        )


@dataclass(slots=True)
class UploadReport:
    """The counts of an upload and its failures; nothing is kept of what went well.

    ``taken == added + resumed + len(failed_inputs)`` once the upload is over, however it ended.

    Attributes:
        taken: Inputs that were read from the source.
        added: Inputs that this upload added, as the service acknowledged.
        recognised: Those among ``added`` whose acknowledgement had been lost and that were found
            to be there.
        resumed: Inputs that the journal knew to be added, and that were not sent again.
        failed_inputs: The inputs that were not added.
        retries: Requests that were sent again after a failure.
        throttled: Times that the service asked to slow down.
        complete: Whether the source was read to its end and every input has its outcome.
    """

    taken: int = 0
    added: int = 0
    recognised: int = 0
    resumed: int = 0
    failed_inputs: list[FailedInput] = field(default_factory=list)
    retries: int = 0
    throttled: int = 0
    complete: bool = False

    @property
    def settled(self) -> int:
        """Inputs that have their outcome."""
        return self.added + self.resumed + len(self.failed_inputs)

    @property
    def succeeded(self) -> bool:
        """Whether every input of the source is in the app."""
        return self.complete and not self.failed_inputs

    def __str__(self) -> str:
        parts = [f"{self.added} inputs added"]
        if self.resumed:
            parts.append(f"{self.resumed} added before")
        parts.append(f"{len(self.failed_inputs)} failed")
        if not self.complete:
            parts.append("not complete")
        return ", ".join(parts)
