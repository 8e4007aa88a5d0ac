"""What may watch the calls of a process: tracing, for example.

An observer is installed for the process, as instrumentation is (``clarigrpc.opentelemetry``). A
channel that is made while there is one has multicallables that tell it of every call
(``sync_observed``, ``async_observed``). Other channels have the plain ones, and pay nothing.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from clarigrpc import errors
from clarigrpc._transports.transport import Metadata

if TYPE_CHECKING:
    from clarigrpc._rpc.call import BoundMethod, CallCore, Deserializer, RetryLoop, Serializer


class CallObservation(Protocol):
    """One call as an observer sees it."""

    metadata: Metadata
    """What is sent with the call: the pairs that the caller gives, and those of the observer."""

    def retrying(self, error: errors.ApiError, delay: float) -> None:
        """An attempt failed; the next one begins in ``delay`` seconds."""

    def received(self, response: Any) -> None:
        """A stream has given a response."""

    def ended(
        self, failure: BaseException | None, response: Any = None, request_id: str = ""
    ) -> None:
        """The call is over. Only the first time counts.

        Args:
            failure: What is raised to the caller, if anything.
            response: The response, where there is one in all.
            request_id: The client's id of the call, where it is known.
        """

    def dropped(self, failure: BaseException, request_id: str = "") -> None:
        """The call is over, because nobody has it any more: ``ended`` for finalizers.

        The garbage collector may call this within any code, the observer's and that of what the
        observer uses included. So this takes no lock: what is to be done is done later.
        """


class BulkWork(Protocol):
    """What an observer can ask bulk work about; counts are of inputs."""

    taken: int
    settled: int
    failures: int
    repeated: int

    @property
    def limit(self) -> int:
        """Maximum number of requests in flight now."""

    @property
    def size(self) -> int:
        """Number of inputs of a request now."""

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""


class BulkObservation(Protocol):
    """Bulk work as an observer sees it."""

    def sending(self) -> AbstractContextManager[object]:
        """The calls that begin within are those of the work."""

    def ended(self, failure: BaseException | None) -> None:
        """The work is over.

        Takes no lock if the failure is a ``GeneratorExit``: the garbage collector may have closed
        the iterator, within any code.
        """


class CoalescedCalls(Protocol):
    """What an observer can ask about single predicts that share requests."""

    @property
    def waiting(self) -> int:
        """Number of predicts that wait to be sent."""

    @property
    def in_flight(self) -> int:
        """Number of shared requests in flight."""


class CallObserver(Protocol):
    """Watches the calls of all clients that are made while it is installed."""

    def opened(self, core: CallCore) -> None:
        """A client, or a view of one, was made."""

    def begin(self, method: BoundMethod, request: Any, extra: Metadata | None) -> CallObservation:
        """A call begins.

        Args:
            method: What is called.
            request: The request, a message or serialized; None for a stream of requests.
            extra: The metadata that the caller gives.
        """

    def sent(self, method: BoundMethod, size: int) -> None:
        """A message of so many bytes was made ready to be sent; not told again for a retry."""

    def arrived(self, method: BoundMethod, size: int) -> None:
        """A message of so many bytes was received."""

    def bulk_began(self, work: BulkWork, name: str) -> BulkObservation:
        """Bulk work begins; ``name`` is the method that a user called."""

    def coalescing(self, calls: CoalescedCalls) -> None:
        """Predicts share requests from now on, as long as somebody has ``calls``."""

    def item_served(self, runner_id: str, outcome: str, seconds: float) -> None:
        """A runner is done with an item: ``succeeded``, ``failed``, ``cancelled`` or ``lost``."""

    def removed(self) -> None:
        """Another observer, or none, is installed for the clients that are made from now on."""


class _Process:
    """What belongs to the process as a whole, as instrumentation does."""

    observer: CallObserver | None = None


_PROCESS = _Process()


def install(observer: CallObserver | None) -> None:
    """Have ``observer`` watch the calls of clients that are made from now on; None: nobody."""
    before, _PROCESS.observer = _PROCESS.observer, observer
    if before is not None:
        before.removed()


def installed() -> CallObserver | None:
    """The observer of the process, if there is one."""
    return _PROCESS.observer


def measured_codec(method: BoundMethod, observer: CallObserver) -> tuple[Serializer, Deserializer]:
    """The serializer and deserializer of a method that tell the observer the bytes."""
    serialize, deserialize = method.serialize, method.deserialize

    def serialize_measured(request: Any) -> bytes:
        encoded = serialize(request)
        observer.sent(method, len(encoded))
        return encoded

    def deserialize_measured(encoded: bytes) -> Any:
        observer.arrived(method, len(encoded))
        return deserialize(encoded)

    return serialize_measured, deserialize_measured


def watched(loop: RetryLoop, seen: CallObservation | None) -> RetryLoop:
    """A retry loop that tells of each attempt that follows."""
    if seen is None:
        return loop
    told = _telling(loop, seen)
    next(told)
    return told


def _telling(loop: RetryLoop, seen: CallObservation) -> RetryLoop:
    with contextlib.closing(loop):
        error = yield 0.0
        while True:
            delay = loop.send(error)
            seen.retrying(error, delay)
            error = yield delay
