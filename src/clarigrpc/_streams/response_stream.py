"""Streams of responses as iterators that can be cancelled and that retry refused calls.

A ``StreamSession`` defines the requests and the items of the responses. ``Stream`` and
``AsyncStream`` run it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, Self, TypeVar

from grpc import aio

from clarigrpc import errors
from clarigrpc._public_names import named_in
from clarigrpc._rpc.connected import Connected

T = TypeVar("T")


class StreamSession(ABC, Generic[T]):
    """The requests of a stream, and the items of its responses."""

    @abstractmethod
    def request(self) -> Any:
        """The requests of an attempt: a serialized request, or an iterator of them."""

    @abstractmethod
    def accept(self, response: Any) -> Iterator[T]:
        """The items of a response; the iterator may end with an error."""

    def may_resume(self, error: errors.ApiError) -> bool:
        """Whether another attempt would neither lose nor repeat an item."""
        return False

    def opened(self, call: Any) -> None:
        """An attempt has started."""

    def check(self) -> None:
        """The stream ended with OK; raises the error of the source, if there is one."""

    def close(self) -> None:
        """No further attempt follows. Called from any thread, any number of times."""


class _StreamBase(Connected, Generic[T]):
    """What sync and async streams have in common."""

    _finished = True  # until the call is open

    def __init__(
        self, multicallable: Any, session: StreamSession[T], timeout: float | None
    ) -> None:
        _, self._deadline = multicallable.core.deadline(timeout, streaming=True)
        self._multicallable = multicallable
        self._session = session
        self._items: Iterator[T] = iter(())
        self._retries: Any = None
        self._open()
        self._finished = False

    def _open(self) -> None:
        try:
            self._call = self._multicallable(
                self._session.request(), timeout=max(0.001, self._deadline - time.monotonic())
            )
            # What has come already is taken without a coroutine for each item; interceptors have
            # none.
            self._received = getattr(self._call, "received", lambda: None)
            self._arrival = getattr(self._call, "arrival", lambda: None)
            self._session.opened(self._call)
        except BaseException:  # an interrupt, say, when the thread that sends has begun
            self._session.close()
            raise

    @property
    def request_id(self) -> str:
        """Id of the request, for logs and support."""
        return str(self._call.request_id)

    def _delay(self, error: errors.ApiError) -> float:
        """Seconds until the next attempt; raises the error if there is none."""
        if not self._session.may_resume(error):
            raise error
        if self._retries is None:
            self._retries = self._multicallable.retries(True, self._deadline)
        return float(self._retries.send(error))

    def _accept(self, response: Any) -> None:
        self._items = self._session.accept(response)
        self._retries = None  # after progress, the next failure starts a new retry loop

    def _finish(self) -> None:
        self._finished = True
        self._session.close()
        self._call.cancel()

    def _was_cancelled(self) -> errors.CancelledError:
        cancelled: errors.CancelledError = self._multicallable.cancelled(self.request_id)
        return cancelled


@named_in("clarigrpc.types")
class Stream(_StreamBase[T], Iterator[T]):
    """An iterator of items as they are received.

    The call ends when the stream is exhausted, cancelled, deleted, or its ``with`` block is left.
    One thread may iterate; any thread may cancel.
    """

    def __init__(
        self, multicallable: Any, session: StreamSession[T], timeout: float | None
    ) -> None:
        self._stopped = threading.Event()
        super().__init__(multicallable, session, timeout)

    def __next__(self) -> T:
        while not self._finished:
            try:
                for item in self._items:
                    return item
                try:
                    response = self._receive()
                except StopIteration:
                    self._finish()
                    self._session.check()
                else:
                    self._accept(response)
            except BaseException:
                self._finish()
                raise
        raise StopIteration

    def _receive(self) -> Any:
        while True:
            if self._stopped.is_set():
                raise self._was_cancelled()
            try:
                return next(self._call)
            except errors.PartialFailureError as error:
                return error.response  # the items have a status each
            except errors.ApiError as error:
                if self._stopped.is_set():
                    raise
                delay = self._delay(error)
            self._call.cancel()
            if not self._multicallable.pause(delay, self._stopped):
                self._open()

    def cancel(self) -> None:
        """Cancel the call. A thread that waits for the next item gets ``CancelledError``."""
        self._stopped.set()
        self._session.close()
        self._call.cancel()

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if not self._finished:
            self._stopped.set()
            self._session.close()
            self._call.drop()


@named_in("clarigrpc.types")
class AsyncStream(_StreamBase[T], AsyncIterator[T]):
    """An async iterator of items as they are received.

    The call ends when the stream is exhausted, cancelled, deleted, or its ``async with`` block is
    left.
    """

    def __init__(
        self, multicallable: Any, session: StreamSession[T], timeout: float | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.Future[None] | None = None
        self._cancelled = False
        super().__init__(multicallable, session, timeout)

    async def __anext__(self) -> T:
        while not self._finished:
            try:
                for item in self._items:
                    return item
                try:
                    response = self._received()
                    if response is None and (arrival := self._arrival()) is not None:
                        await arrival
                        response = self._received()
                    if response is None:
                        response = await self._read()
                except errors.PartialFailureError as error:
                    response = error.response  # the items have a status each
                except errors.ApiError as error:
                    await self._open_again(error)
                    continue
                if response is aio.EOF:
                    self._finish()
                    self._session.check()
                else:
                    self._accept(response)
            except asyncio.CancelledError:
                self._finish()
                task = asyncio.current_task()
                if self._cancelled and task is not None and not task.cancelling():
                    raise self._was_cancelled() from None
                raise
            except BaseException:
                self._finish()
                raise
        raise StopAsyncIteration

    async def _read(self) -> Any:
        if self._cancelled:
            raise self._was_cancelled()
        return await self._call.read()

    async def _open_again(self, error: errors.ApiError) -> None:
        """Make the next attempt after a delay; raises the error if there is none."""
        if self._cancelled:
            raise error
        delay = self._delay(error)
        self._call.cancel()
        self._pause = self._multicallable.pause(delay)
        await self._pause
        if self._cancelled:
            raise self._was_cancelled()
        self._open()

    def cancel(self) -> None:
        """Cancel the call. A task that waits for the next item gets ``errors.CancelledError``."""
        self._cancelled = True
        if self._pause is not None:
            self._pause.cancel()
        self._session.close()
        self._call.cancel()

    async def aclose(self) -> None:
        """Cancel the call."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if self._finished:
            return
        # The garbage collector may run on any thread, and after the loop was closed.
        session, call = self._session, self._call

        def end() -> None:
            session.close()
            call.cancel()

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(end)
