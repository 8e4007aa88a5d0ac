"""The sync and the async driver of an upload of inputs: they send, wait and read the source."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import Any

from clarigrpc import errors
from clarigrpc._bulk.input_batches import InputBatch
from clarigrpc._bulk.input_engine import Finish, ReadSource, SendBatch
from clarigrpc._bulk.input_report import UploadReport
from clarigrpc._bulk.input_upload import InputUpload


def run_sync(upload: InputUpload) -> UploadReport:
    """Run an upload. Its calls are gRPC futures, so that no other thread is needed."""
    try:
        _SyncDriver(upload).run()
    except BaseException as raised:
        upload.end(raised)
        raise
    upload.end(None)
    return upload.report


class _SyncDriver:
    def __init__(self, upload: InputUpload) -> None:
        self._upload = upload
        self._running: dict[Any, InputBatch] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        upload = self._upload
        if isinstance(upload.source, AsyncIterable):
            raise TypeError("an async source needs an AsyncClient")
        values = iter(upload.source)
        try:
            while True:
                while not self._ended.empty():
                    self._settle(self._ended.get())
                step = upload.engine.step(time.monotonic())
                if isinstance(step, SendBatch):
                    upload.save()
                    self._send(step.batch)
                elif isinstance(step, ReadSource):
                    # Reads values up to the one that completes a batch.
                    if not any(map(upload.take, values)):
                        upload.engine.exhausted()
                elif isinstance(step, Finish):
                    step.check()
                    return
                else:
                    self._wait(step.seconds)
        finally:
            for future in self._running:
                future.cancel()

    def _send(self, batch: InputBatch) -> None:
        multicallable, request, timeout = self._upload.request(batch)
        try:
            future = multicallable.future(request, timeout=timeout)
        except errors.ApiError as error:  # e.g. no credentials
            self._upload.engine.failed(batch, error, time.monotonic())
            return
        self._running[future] = batch
        future.add_done_callback(self._ended.put)

    def _wait(self, seconds: float | None) -> None:
        try:
            future = self._ended.get(timeout=seconds)
        except queue.Empty:
            return
        self._settle(future)

    def _settle(self, future: Any) -> None:
        self._upload.settle(self._running.pop(future), future.result)
        self._upload.save()
        self._upload.show_progress()


async def run_async(upload: InputUpload) -> UploadReport:
    """Run an upload on the event loop, with a task per request."""
    try:
        await _AsyncDriver(upload).run()
    except BaseException as raised:
        upload.end(raised)
        raise
    upload.end(None)
    return upload.report


class _AsyncDriver:
    def __init__(self, upload: InputUpload) -> None:
        self._upload = upload
        self._running: dict[asyncio.Task[Any], InputBatch] = {}

    async def run(self) -> None:
        upload = self._upload
        values = _aiter(upload.source)
        try:
            while True:
                step = upload.engine.step(time.monotonic())
                if isinstance(step, SendBatch):
                    await asyncio.to_thread(upload.save)
                    self._send(step.batch)
                elif isinstance(step, ReadSource):
                    await self._read(values)
                    await self._wait(0)
                elif isinstance(step, Finish):
                    step.check()
                    return
                else:
                    await self._wait(step.seconds)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await values.aclose()

    async def _read(self, values: AsyncIterator[Any]) -> None:
        async for value in values:
            if self._upload.take(value):
                return
        self._upload.engine.exhausted()

    def _send(self, batch: InputBatch) -> None:
        multicallable, request, timeout = self._upload.request(batch)

        async def attempt() -> Any:
            return await multicallable(request, timeout=timeout, retry=False)

        self._running[asyncio.ensure_future(attempt())] = batch

    async def _wait(self, seconds: float | None) -> None:
        if not self._running:
            await asyncio.sleep(seconds or 0)
            return
        ended, _ = await asyncio.wait(
            self._running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in ended:
            self._upload.settle(self._running.pop(task), task.result)
        if ended:
            await asyncio.to_thread(self._upload.save)
            self._upload.show_progress()


async def _aiter(values: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield value
        return
    for value in values:  # a sync source is read on the event loop
        yield value
