"""Streaming predictions: ``GenerateModelOutputs`` and ``StreamModelOutputs``."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from clarigrpc import errors
from clarigrpc._streams.flow_control import FlowControl, FlowStep
from clarigrpc._streams.response_stream import StreamSession

T = TypeVar("T")
ReadItems = Callable[[Any], Iterator[T]]
"""Returns the items of a response; the iterator may end with an error."""

logger = logging.getLogger("clarigrpc")


class RequestEncoder(Protocol):
    """Encodes values as requests."""

    def encode(self, value: Any) -> bytes:
        """The request for a value."""

    def empty(self) -> bytes | None:
        """The request of a stream without values; None if none is to be sent."""


class GenerateSession(StreamSession[T]):
    """One request, any number of responses. The channel retries a refused call."""

    def __init__(self, request: bytes, read_items: ReadItems[T]) -> None:
        self._request = request
        self._read_items = read_items

    def request(self) -> bytes:
        return self._request

    def accept(self, response: Any) -> Iterator[T]:
        return self._read_items(response)


class _BidiSessionBase(StreamSession[T]):
    """Sends the values of a source while it receives responses.

    Args:
        flow: The flow control.
        encoder: Encodes the values as requests.
        read_items: Returns the items of a response.
        finish: Whether an error of the source is raised after the responses to the values before
            it (independent values); otherwise the call is cancelled (parts of one argument).
    """

    def __init__(
        self, flow: FlowControl, encoder: RequestEncoder, read_items: ReadItems[T], *, finish: bool
    ) -> None:
        self._flow = flow
        self._encoder = encoder
        self._read_items = read_items
        self._finish = finish
        self._empty = True
        self._warned = False

    def may_resume(self, error: errors.ApiError) -> bool:
        if self._flow.error is not None:
            raise self._flow.error from error
        return self._flow.resumable

    def check(self) -> None:
        if self._flow.error is not None:
            raise self._flow.error

    def _take(self, value: Any) -> None:
        try:
            request = self._encoder.encode(value)
        except Exception as error:  # noqa: BLE001 - raised to the consumer
            self._flow.failed(error)
        else:
            self._flow.pulled(request)
            self._empty = False

    def _exhausted(self) -> None:
        if self._empty and (request := self._encoder.empty()) is not None:
            self._flow.pulled(request)
        self._flow.exhausted()

    def _poll(self, attempt: int) -> bytes | float | FlowStep:
        step = self._flow.poll(attempt, time.monotonic())
        if self._flow.error is not None and not self._finish:
            raise self._flow.error
        if self._flow.stalled and not self._warned:
            self._warned = True
            logger.warning(
                "%s: no response while the window was full; sending the rest. Use drain_first=True "
                "for a server that reads all inputs before it responds, or a larger patience= for "
                "a slow server",
                "StreamModelOutputs",
            )
        return step


class BidiSession(_BidiSessionBase[T]):
    """A sync bidi stream. gRPC's thread reads ``values``; it ends with the call."""

    def __init__(
        self,
        values: Iterable[Any],
        flow: FlowControl,
        encoder: RequestEncoder,
        read_items: ReadItems[T],
        *,
        finish: bool,
    ) -> None:
        super().__init__(flow, encoder, read_items, finish=finish)
        self._values = iter(values)
        # Entered by itself, as an interrupt in the Python code of a condition leaves it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._attempt = 0

    def request(self) -> Iterator[bytes]:
        with self._lock:
            self._attempt = self._flow.begin()
            self._changed.notify_all()
        return self._requests(self._attempt)

    def opened(self, call: Any) -> None:
        attempt = self._attempt

        def over() -> None:
            with self._lock:
                self._flow.ended(attempt)
                self._changed.notify_all()

        if not call.add_callback(over):
            over()

    def accept(self, response: Any) -> Iterator[T]:
        with self._lock:
            self._flow.responded()
            self._changed.notify_all()
        return self._read_items(response)

    def close(self) -> None:
        with self._lock:
            self._flow.close()
            self._changed.notify_all()

    def _requests(self, attempt: int) -> Iterator[bytes]:
        while True:
            with self._lock:
                step = self._poll(attempt)
                if isinstance(step, float):
                    self._changed.wait(None if step == math.inf else step)
                    continue
            if isinstance(step, bytes):
                yield step
            elif step is FlowStep.PULL:
                self._pull()
            else:
                return

    def _pull(self) -> None:
        error: Exception | None = None
        ended = False
        value = None
        try:
            value = next(self._values)  # without the lock, as it may block
        except StopIteration:
            ended = True
        except Exception as failure:  # noqa: BLE001 - raised to the consumer
            error = failure
        with self._lock:
            if error is not None:
                self._flow.failed(error)
            elif ended:
                self._exhausted()
            else:
                self._take(value)
            self._changed.notify_all()


class _AttemptRequests(AsyncIterator[bytes]):
    """The requests of one attempt. No async generator: gRPC drops it without closing it."""

    def __init__(self, session: AsyncBidiSession[Any], attempt: int) -> None:
        self._session = session
        self._attempt = attempt

    async def __anext__(self) -> bytes:
        return await self._session.next_request(self._attempt)


class AsyncBidiSession(_BidiSessionBase[T]):
    """An async bidi stream. A task reads an async source; a sync one is read between sends."""

    def __init__(
        self,
        values: AsyncIterable[Any] | Iterable[Any],
        flow: FlowControl,
        encoder: RequestEncoder,
        read_items: ReadItems[T],
        *,
        finish: bool,
    ) -> None:
        super().__init__(flow, encoder, read_items, finish=finish)
        self._source = aiter(values) if isinstance(values, AsyncIterable) else None
        self._values = None if isinstance(values, AsyncIterable) else iter(values)
        self._changed = asyncio.Event()
        self._attempt = 0
        # Separate from gRPC's task, which is cancelled with its attempt, while the next attempt
        # needs the value.
        self._pulling: asyncio.Task[None] | None = None

    def request(self) -> AsyncIterator[bytes]:
        self._attempt = self._flow.begin()
        self._changed.set()
        return _AttemptRequests(self, self._attempt)

    def accept(self, response: Any) -> Iterator[T]:
        self._flow.responded()
        self._changed.set()
        return self._read_items(response)

    def close(self) -> None:
        self._flow.close()
        self._changed.set()
        if self._pulling is not None:
            self._pulling.cancel()

    async def next_request(self, attempt: int) -> bytes:
        """The next request of an attempt, when it may be sent."""
        while True:
            self._changed.clear()
            step = self._poll(attempt)
            if isinstance(step, float):
                await self._wait(step)
            elif isinstance(step, bytes):
                return step
            elif step is FlowStep.END:
                raise StopAsyncIteration
            elif self._values is not None:
                self._pull(self._values)
            else:
                self._pulling = asyncio.create_task(self._await_value())
                await self._wait(math.inf)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _pull(self, values: Iterator[Any]) -> None:
        try:
            value = next(values)
        except StopIteration:
            self._exhausted()
        except Exception as error:  # noqa: BLE001 - raised to the consumer
            self._flow.failed(error)
        else:
            self._take(value)

    async def _await_value(self) -> None:
        assert self._source is not None
        try:
            value = await anext(self._source)
        except StopAsyncIteration:
            self._exhausted()
        except Exception as error:  # noqa: BLE001 - raised to the consumer
            self._flow.failed(error)
        else:
            self._take(value)
        self._changed.set()
