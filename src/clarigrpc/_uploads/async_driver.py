"""The async driver of a file upload."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import grpc

from clarigrpc import errors
from clarigrpc._rpc.async_streams import write_all
from clarigrpc._transports.call_threads import CallThreads
from clarigrpc._uploads.part_encoding import PartEncoder
from clarigrpc._uploads.part_state import AwaitResponse, EndStream, SendConfig, SendPart
from clarigrpc._uploads.upload_session import (
    GATHER_SECONDS,
    RESPONSE_SECONDS,
    UploadResult,
    UploadSession,
)

T = TypeVar("T")

_READ_AHEAD = 3 << 20
"""Maximum bytes of the parts that are read in one step."""


async def run(session: UploadSession, channel: Any) -> UploadResult:
    """Upload, over as many streams as needed.

    Args:
        session: The upload.
        channel: A ``clarigrpc._rpc.async_channel.AsyncChannel``.
    """
    worker = _Worker(session)
    try:
        await worker.do(session.prepare)
        open_stream = channel.stream_stream(session.path, None, session.response_class.FromString)
        with session.reporting():
            while not session.machine.finished:
                try:
                    await _stream(session, worker, open_stream)
                except errors.ApiError as error:
                    await channel.pause(session.failed(error))
        return await worker.do(session.finish)
    except BaseException:
        session.interrupted()
        raise
    finally:
        await worker.close()
        session.close()


async def _stream(session: UploadSession, worker: _Worker, open_stream: Any) -> None:
    session.open()
    worker.begin()
    responded = asyncio.Event()
    call = open_stream(timeout=session.remaining)

    async def write() -> None:
        try:
            await _write(session, worker, call, responded)
        except errors.ApiError as error:
            if error.grpc_code is None:  # from the source; the reader raises the error of the call
                call.cancel()
                raise
        except asyncio.InvalidStateError:  # the call has ended, which the reader sees
            pass
        except Exception:
            call.cancel()
            raise

    writer = asyncio.create_task(write())
    try:
        asked = time.monotonic()
        while (response := await call.read()) is not grpc.aio.EOF:
            gathers = session.gathers(asked)
            save = session.responded(response)
            responded.set()
            if save:
                await worker.do(session.save)
            if session.machine.finished:
                return
            if gathers:
                await asyncio.wait([writer], timeout=GATHER_SECONDS)
            asked = time.monotonic()
    except (asyncio.CancelledError, errors.ApiError):
        if writer.done() and not writer.cancelled() and (failure := writer.exception()):
            raise failure from None
        raise
    finally:
        session.source.stop()
        call.cancel()
        writer.cancel()
        await asyncio.wait([writer])
        if not writer.cancelled():
            writer.exception()  # raised above, or of a stream that has ended
    session.ended()


async def _write(
    session: UploadSession, worker: _Worker, call: Any, responded: asyncio.Event
) -> None:
    machine = session.machine
    step = machine.next()
    while True:
        if isinstance(step, AwaitResponse):
            try:
                await asyncio.wait_for(responded.wait(), RESPONSE_SECONDS)
            except TimeoutError:
                machine.response_missing()
            step = machine.next()
        if isinstance(step, (AwaitResponse, EndStream)):
            break
        steps: list[SendConfig | SendPart] = []
        while isinstance(step, (SendConfig, SendPart)) and len(steps) < worker.ahead:
            steps.append(step)
            step = machine.next()
        await write_all(call, await worker.do(worker.messages, steps))
    await call.done_writing()


class _Worker:
    """A thread that reads the source and writes the state without blocking the event loop."""

    ahead = 0
    """Messages to make in one go. A round trip to the thread costs a tenth of sending a part."""

    _encoder: PartEncoder

    def __init__(self, session: UploadSession) -> None:
        self._session = session
        self._source = session.source
        # The end of the process does not wait for it either.
        self._thread = CallThreads(1, "clarigrpc-upload")

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run ``work`` on the thread; returns its result."""
        return await asyncio.wrap_future(self._thread.submit(partial(work, *arguments)))

    def begin(self) -> None:
        """A stream begins. An upload that started again may have parts of another size."""
        session = self._session
        at_once = _READ_AHEAD // session.machine.part_size
        ahead = 1 if session.source.needs_digest else max(1, at_once)  # such a one may block
        if ahead != self.ahead:
            # For all streams: the messages of one are made after those of the one before.
            self.ahead, self._encoder = ahead, session.encoder(ahead)

    def messages(self, steps: list[SendConfig | SendPart]) -> list[bytes]:
        """The serialized messages of steps; reads the source."""
        return [self._session.message(step, self._encoder) for step in steps]

    async def close(self) -> None:
        """End the thread, or abandon it while a source blocks that cannot be stopped."""
        self._source.stop()
        idle = self._thread.submit(int)
        self._thread.close()
        await asyncio.wait([asyncio.wrap_future(idle)], timeout=0.5)
