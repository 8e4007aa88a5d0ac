"""The async transport over HTTP/JSON."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import grpc
import httpx
from grpc import aio

from clarigrpc._config.environment_proxies import proxy_for
from clarigrpc._contract.methods import CallKind
from clarigrpc._transports.http_exchange import (
    Deadline,
    Exchange,
    HttpMethod,
    HttpOptions,
    StreamState,
    cancellation,
)
from clarigrpc._transports.transport import AsyncTransport, TransportError

_LATER = 0.1
"""Seconds for httpx to say first that a step took too long: it knows whether anything was sent."""


class AsyncHttpTransport(AsyncTransport):
    """Calls over HTTP/JSON with a pool of connections, for the loop that it is first used on."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._client = httpx.AsyncClient(
            verify=options.verify,
            limits=options.limits(),
            proxy=proxy_for(options.base),
            trust_env=False,  # as proxy_for has read it
        )
        self._running: set[asyncio.Task[Any]] = set()
        self._freeing: set[asyncio.Task[Any]] = set()
        self.streams: weakref.WeakSet[_StreamCall] = weakref.WeakSet()

    def client(self) -> httpx.AsyncClient:
        """The HTTP client.

        Raises:
            aio.UsageError: The transport is closed (as a channel of grpc.aio does).
        """
        if self._client.is_closed:
            raise aio.UsageError("Channel is closed.")
        return self._client

    def multicallable(self, kind: CallKind, path: str) -> Any:
        method = HttpMethod(self._options, kind, path)
        return (_StreamMethod if method.response_streaming else _UnaryMethod)(self, method)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task for a part of a call; ``close`` cancels it."""
        return _tracked(coroutine, self._running)

    def free(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Free what a call held, in a task that ``close`` waits for."""
        _tracked(coroutine, self._freeing)

    async def close(self, grace: float | None) -> None:
        if self._running and grace:
            await asyncio.wait(self._running, timeout=grace)
        for stream in list(self.streams):
            stream.cancel()
        rest = list(self._running)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.gather(*self._freeing, return_exceptions=True)
        await self._client.aclose()


def _tracked(
    coroutine: Coroutine[Any, Any, Any], tasks: set[asyncio.Task[Any]]
) -> asyncio.Task[Any]:
    """A task that is among ``tasks`` until it is done."""
    task = asyncio.ensure_future(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


class _Body:
    """The responses of an exchange as they come.

    No asynchronous generator: those have to be closed by whoever cancels a stream.
    """

    def __init__(self, client: httpx.AsyncClient, exchange: Exchange) -> None:
        self._client = client
        self._exchange = exchange
        self._chunks: Any = None
        self._complete: deque[bytes] = deque()
        self._over = False

    async def read(self) -> bytes | None:
        """The next response, None at the end."""
        while not self._complete and not self._over:
            with self._exchange.errors():
                await self._receive()
        if self._complete:
            return self._complete.popleft()
        await self.aclose()
        return None

    async def _receive(self) -> None:
        exchange = self._exchange
        remaining = exchange.deadline.remaining()
        try:
            # httpx waits anew for each piece of a head, or of what frames a chunk of the body.
            async with asyncio.timeout(None if remaining is None else remaining + _LATER):
                await self._receive_piece()
        except TimeoutError:
            exchange.deadline.check()
            raise

    async def _receive_piece(self) -> None:
        exchange = self._exchange
        if self._chunks is None:
            response = await self._client.send(exchange.request, stream=True)
            exchange.opened(response)
            self._chunks = response.aiter_raw()
        try:
            self._complete += exchange.feed(await anext(self._chunks))
        except StopAsyncIteration:
            self._over = True
            self._complete += exchange.end()

    async def aclose(self) -> None:
        """Give the connection back, or close it where the response has not ended."""
        http = self._exchange.http
        if http is None:
            return
        try:
            if self._chunks is not None:
                await self._chunks.aclose()
        finally:
            await http.aclose()


class _UnaryMethod:
    """Multicallable with one response."""

    def __init__(self, transport: AsyncHttpTransport, method: HttpMethod) -> None:
        self._transport = transport
        self._method = method

    def __call__(
        self,
        request: bytes,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        **hints: Any,
    ) -> Any:
        def prepare(deadline: Deadline) -> Exchange:
            return self._method.exchange(request, deadline, metadata, credentials)

        return _UnaryCall(self._transport, prepare, timeout)


class _UnaryCall(aio.UnaryUnaryCall[Any, Any]):
    """A running call; await it for its response."""

    def __init__(
        self,
        transport: AsyncHttpTransport,
        prepare: Callable[[Deadline], Exchange],
        timeout: float | None,
    ) -> None:
        self._deadline = Deadline(timeout)
        self._exchange: Exchange | None = None
        self._task = transport.run(self._run(transport.client(), prepare))

    async def _run(
        self, client: httpx.AsyncClient, prepare: Callable[[Deadline], Exchange]
    ) -> bytes | None:
        self._exchange = prepare(self._deadline)
        body = _Body(client, self._exchange)
        try:
            return await body.read()
        finally:
            await body.aclose()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._task.__await__()

    async def _outcome(self) -> TransportError | None:
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return cancellation()
        failure = self._task.exception()
        if failure is None or isinstance(failure, TransportError):
            return failure
        raise failure

    def cancel(self) -> bool:
        return self._task.cancel()

    def cancelled(self) -> bool:
        return self._task.cancelled()

    def done(self) -> bool:
        return self._task.done()

    def time_remaining(self) -> float | None:
        return self._deadline.remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._task.add_done_callback(lambda _: callback(self))

    async def code(self) -> grpc.StatusCode:
        failure = await self._outcome()
        return grpc.StatusCode.OK if failure is None else failure.code()

    async def details(self) -> str:
        failure = await self._outcome()
        return "" if failure is None else failure.details() or ""

    async def initial_metadata(self) -> aio.Metadata:
        await self._outcome()
        return aio.Metadata() if self._exchange is None else self._exchange.metadata

    async def trailing_metadata(self) -> aio.Metadata:
        return await self.initial_metadata()

    async def wait_for_connection(self) -> None:
        await self._outcome()


class _StreamMethod:
    """Multicallable with a stream of responses; for a stream of requests too, which is refused."""

    def __init__(self, transport: AsyncHttpTransport, method: HttpMethod) -> None:
        self._transport = transport
        self._method = method

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        **hints: Any,
    ) -> Any:
        def prepare(deadline: Deadline) -> Exchange:
            return self._method.exchange(request, deadline, metadata, credentials)

        call = _StreamCall(self._transport, prepare, timeout)
        self._transport.streams.add(call)
        return call


class _StreamCall(StreamState, aio.StreamStreamCall[Any, Any]):
    """The responses of a server stream; stands for a duplex one too, which cannot be opened."""

    def __init__(
        self,
        transport: AsyncHttpTransport,
        prepare: Callable[[Deadline], Exchange],
        timeout: float | None,
    ) -> None:
        super().__init__(timeout)
        self._transport = transport
        self._client = transport.client()
        self._prepare = prepare
        self._body: _Body | None = None
        self._reading: asyncio.Task[Any] | None = None

    async def read(self) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return aio.EOF
        self._reading = self._transport.run(self._read())
        try:
            response = await self._reading
        except asyncio.CancelledError:
            self._cancelled = True
            self._end(cancellation())
            raise
        except TransportError as error:
            self._end(error)
            raise
        finally:
            self._reading = None
        if response is None:
            self._end()
            return aio.EOF
        return response

    async def _read(self) -> bytes | None:
        if self._body is None:
            self.exchange = self._prepare(self._deadline)
            self._body = _Body(self._client, self.exchange)
        try:
            return await self._body.read()
        except BaseException:
            await self._body.aclose()
            raise

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        response = await self.read()
        if response is aio.EOF:
            raise StopAsyncIteration
        return response

    async def write(self, request: Any) -> None:
        await self.read()

    async def done_writing(self) -> None:
        await self.read()

    def cancel(self) -> bool:
        if self._ended or self._cancelled:
            return False
        self._cancelled = True
        if self._reading is not None:
            self._reading.cancel()
        else:
            self._end(cancellation())
            if self._body is not None:
                self._transport.free(self._body.aclose())
        return True

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._ended

    def time_remaining(self) -> float | None:
        return self._deadline.remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(lambda: callback(self))

    async def code(self) -> grpc.StatusCode:
        return self._code()

    async def details(self) -> str:
        return self._details()

    async def initial_metadata(self) -> Any:
        return self._metadata()

    async def trailing_metadata(self) -> Any:
        return self._metadata()

    async def wait_for_connection(self) -> None:
        return None
