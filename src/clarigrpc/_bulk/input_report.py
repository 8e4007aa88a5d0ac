"""The results of an upload of inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name
from clarigrpc._public_names import named_in


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class FailedInput:
    """An input that was not added. It can be passed to ``upload`` again.

    Attributes:
        index: Position in the source, from 0.
        id: Id of the input; empty if the input could not be read.
        status: Why it failed: the service's status of the input or of its request, or a status
            made by the client.
        input: The input with its id, or the function that should have made it.
        maybe_added: Whether the service may have added the input although no response was
            received. An upload of this object finds out.
        since: Start of the failed upload, in seconds since the epoch.
        source: Where it came from: the path of a file, or a file and line; empty if unknown.
    """

    index: int
    id: str
    status: v2.Status
    input: v2.Input | Callable[[], v2.Input] = field(repr=False)
    maybe_added: bool = False
    since: float = 0.0
    source: str = ""

    def __str__(self) -> str:
        text = f"{self.status.description} {self.status.details}".strip()
        name = ", ".join(filter(None, (self.id or "no id", self.source)))
        return (
            f"input {self.index} ({name}): {self.status.code} {code_name(self.status.code)} {text}"
        )


@named_in("clarigrpc.types")
@dataclass(slots=True)
class UploadReport:
    """Counts and failures of an upload of inputs.

    After the upload, ``taken == added + resumed + len(failed_inputs)``, even if it was aborted.

    Attributes:
        taken: Inputs read from the source.
        added: Inputs added by this upload.
        added_ids: Ids of those, in the order of the responses, for ``inputs.wait``.
        recognised: Inputs among ``added`` whose response was lost and that were found in the app.
        resumed: Inputs that were added before according to the journal, and not sent again.
        failed_inputs: Inputs that were not added.
        retries: Requests that were sent again after a failure.
        throttled: Requests that the service throttled.
        complete: Whether the source was read to its end and every input has its outcome.
    """

    taken: int = 0
    added: int = 0
    added_ids: list[str] = field(default_factory=list, repr=False)
    recognised: int = 0
    resumed: int = 0
    failed_inputs: list[FailedInput] = field(default_factory=list)
    retries: int = 0
    throttled: int = 0
    complete: bool = False

    @property
    def settled(self) -> int:
        """Number of inputs with an outcome."""
        return self.added + self.resumed + len(self.failed_inputs)

    @property
    def succeeded(self) -> bool:
        """Whether every input of the source was added."""
        return self.complete and not self.failed_inputs

    def __str__(self) -> str:
        parts = [f"{self.added} inputs added"]
        if self.resumed:
            parts.append(f"{self.resumed} added before")
        parts.append(f"{len(self.failed_inputs)} failed")
        if not self.complete:
            parts.append("not complete")
        return ", ".join(parts)
