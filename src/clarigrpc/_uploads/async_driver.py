"""The awaiting driver of an upload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from clarigrpc import errors
from clarigrpc._uploads.part_state import AwaitAnswer, EndStream, SendConfig, SendPart
from clarigrpc._uploads.upload_session import ANSWER_SECONDS, UploadResult, UploadSession

T = TypeVar("T")

_READ_AHEAD = 3 << 20
"""Bytes of parts that are read at a time."""


async def run(session: UploadSession, channel: Any) -> UploadResult:
    """Upload, over as many streams as it takes.

    Args:
        session: The upload.
        channel: A ``clarigrpc._rpc.async_channel.AioChannel``.
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
                    await asyncio.sleep(session.failed(error))
        return await worker.do(session.finish)
    except BaseException:
        session.interrupted()
        raise
    finally:
        await worker.close()
        session.source.close()


async def _stream(session: UploadSession, worker: _Worker, open_stream: Any) -> None:
    session.open()
    answered = asyncio.Event()
    call = open_stream(timeout=session.remaining)

    async def write() -> None:
        try:
            await _write(session, worker, call, answered)
        except errors.ApiError as error:
            if error.grpc_code is None:  # of the source; that of the call, reading tells as well
                call.cancel()
                raise
        except asyncio.InvalidStateError:  # the call is over, as reading tells
            pass
        except Exception:
            call.cancel()
            raise

    writer = asyncio.create_task(write())
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            save = session.take(response)
            answered.set()
            if save:
                await worker.do(session.save)
            if session.machine.finished:
                return
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
            writer.exception()  # raised above, or of a stream that is over
    session.ended()


async def _write(
    session: UploadSession, worker: _Worker, call: Any, answered: asyncio.Event
) -> None:
    machine = session.machine
    read_ahead = 0 if session.source.must_be_followed else _READ_AHEAD
    step = machine.next()
    while True:
        if isinstance(step, AwaitAnswer):
            try:
                await asyncio.wait_for(answered.wait(), ANSWER_SECONDS)
            except TimeoutError:
                machine.unanswered()
            step = machine.next()
        if isinstance(step, (AwaitAnswer, EndStream)):
            break
        # The way to the worker and back costs a tenth of what sending a part does, so it is made
        # for several at a time; not where the source may let them wait.
        steps, size = [], 0
        while isinstance(step, (SendConfig, SendPart)):
            steps.append(step)
            size += step.size if isinstance(step, SendPart) else 0
            step = machine.next()
            if size + machine.part_size > read_ahead:
                break
        for message in await worker.do(_messages, session, steps):
            await call.write(message)
    await call.done_writing()


def _messages(session: UploadSession, steps: list[SendConfig | SendPart]) -> list[bytes]:
    return [session.message(step) for step in steps]


class _Worker:
    """One thread that reads the source and writes the state, so that the loop does not wait."""

    def __init__(self, session: UploadSession) -> None:
        self._source = session.source
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="clarigrpc-upload")

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work`` returns."""
        return await asyncio.wrap_future(self._pool.submit(work, *arguments))

    async def close(self) -> None:
        """End the thread; one that waits for a source which cannot be told to stop is left."""
        self._source.stop()
        idle = self._pool.submit(int)
        await asyncio.wait([asyncio.wrap_future(idle)], timeout=0.5)
        self._pool.shutdown(wait=idle.done(), cancel_futures=True)
