"""The latest calls of a server, for tests that look at what a program sent."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._config.credentials import CREDENTIAL_KEYS
from clarigrpc._public_names import named_in
from clarigrpc.local.served_call import ServedCall
from clarigrpc.v2._index import METHODS


@named_in("clarigrpc.local")
@dataclass(frozen=True)
class RecordedCall:
    """A call that a local server received.

    Attributes:
        method: Name of the method.
        metadata: Its metadata with lower-case keys, without credentials.
        requests: What was received: one request, or those of a stream so far. Copies, which the
            server does not change.
        at: When it arrived, by ``time.monotonic``.
        remaining: Seconds that the caller gave it; None for no deadline.
    """

    method: str
    metadata: Mapping[str, str] = field(repr=False)
    requests: list[Any]
    at: float
    remaining: float | None

    @property
    def request(self) -> Any:
        """The only request.

        Raises:
            ValueError: There are several, or none.
        """
        (only,) = self.requests
        return only


class CallRecorder:
    """Keeps the latest calls.

    Args:
        limit: Number of calls to keep; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._calls: deque[RecordedCall] = deque(maxlen=limit)
        self._lock = threading.Lock()

    def record(self, call: ServedCall, *received: Message) -> list[Any]:
        """Keeps a call with what was received; what comes later goes into the list returned."""
        requests: list[Any] = []
        if self.limit:
            requests += map(_copy, received)
            metadata = {k: v for k, v in call.metadata.items() if k not in CREDENTIAL_KEYS}
            kept = RecordedCall(call.method, metadata, requests, time.monotonic(), call.remaining())
            with self._lock:
                self._calls.append(kept)
        return requests

    def each(self, call: ServedCall, requests: Iterator[Message]) -> Iterator[Message]:
        """Keeps a call, and its requests as they come."""
        kept = self.record(call)
        for request in requests:
            if self.limit:
                kept.append(_copy(request))
            yield request

    def calls(
        self,
        method: str | None,
        matching: Callable[[Any], bool] | None,
        fields: Mapping[str, Any],
    ) -> list[RecordedCall]:
        """The calls of a method, or of all, whose first request is as wanted."""
        if method is not None and method not in METHODS:
            raise ValueError(f"the service has no method {method!r}")
        if fields and method is None:
            raise ValueError("fields of requests need the name of a method")
        if method is not None:
            check_fields(getattr(v2, METHODS[method][0])(), fields)
        with self._lock:
            found = list(self._calls)
        return [
            call
            for call in found
            if method in (None, call.method)
            and (not (fields or matching) or call.requests)
            and all(_has(call.requests[0], name, value) for name, value in fields.items())
            and (matching is None or matching(call.requests[0]))
        ]

    def forget(self) -> None:
        """Keeps none of the calls so far."""
        with self._lock:
            self._calls.clear()


def _copy(message: Message) -> Message:
    # Handlers fill in and take away what is theirs.
    kept = type(message)()
    kept.CopyFrom(message)
    return kept


def check_fields(message: Any, fields: Mapping[str, Any], path: str = "") -> None:
    """Refuses names that are no fields, at any depth.

    Raises:
        ValueError: A name is no field of the message.
    """
    for name, value in fields.items():
        found = message.DESCRIPTOR.fields_by_name.get(name)
        if found is None:
            known = ", ".join(message.DESCRIPTOR.fields_by_name)
            raise ValueError(f"{message.DESCRIPTOR.name} has no field {path}{name}; it has {known}")
        if isinstance(value, Mapping) and found.message_type is not None:
            check_fields(getattr(message, name), value, f"{path}{name}.")


def _has(message: Any, name: str, wanted: Any) -> bool:
    value = getattr(message, name)
    if isinstance(wanted, Mapping) and isinstance(value, Message):
        return all(_has(value, inner, one) for inner, one in wanted.items())
    if isinstance(wanted, list | tuple):
        return list(value) == list(wanted)
    return bool(value == wanted)
