"""The two drivers of an upload. They move bytes and wait; ``machine.py`` decides."""

from __future__ import annotations

import asyncio
import functools
import inspect
import queue
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import Any, Concatenate, ParamSpec

from clarigrpc import errors
from clarigrpc._bulk.input_batches import Batch
from clarigrpc._bulk.input_engine import Finish, Read, Send
from clarigrpc._bulk.input_job import Job
from clarigrpc._bulk.input_report import UploadReport

P = ParamSpec("P")


def run(job: Job) -> UploadReport:
    """Run an upload; the calls are futures of gRPC, so that no thread is needed."""
    try:
        _Blocking(job).run()
    except BaseException as raised:
        job.end(raised)
        raise
    job.end(None)
    return job.report


class _Blocking:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._running: dict[Any, Batch] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        job = self._job
        if isinstance(job.source, AsyncIterable):
            raise TypeError("an asynchronous source needs an AsyncClient")
        values = iter(job.source)
        try:
            while True:
                while not self._ended.empty():
                    self._settle(self._ended.get())
                step = job.machine.step(time.monotonic())
                if isinstance(step, Send):
                    job.save()
                    self._send(step.batch)
                elif isinstance(step, Read):
                    # Takes values up to the one that completes a batch.
                    if not any(map(job.take, values)):
                        job.machine.exhausted()
                elif isinstance(step, Finish):
                    step.check()
                    return
                else:
                    self._wait(step.seconds)
        finally:
            for future in self._running:
                future.cancel()

    def _send(self, batch: Batch) -> None:
        multicallable, request, timeout = self._job.request(batch)
        try:
            future = multicallable.future(request, timeout=timeout)
        except errors.ApiError as error:  # no credentials, say
            self._job.machine.failed(batch, error, time.monotonic())
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
        self._job.settle(self._running.pop(future), future.result)
        self._job.save()
        self._job.tell()


async def arun(job: Job) -> UploadReport:
    """Run an upload on the event loop, one task a request."""
    try:
        await _Awaiting(job).run()
    except BaseException as raised:
        job.end(raised)
        raise
    job.end(None)
    return job.report


class _Awaiting:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._running: dict[asyncio.Task[Any], Batch] = {}

    async def run(self) -> None:
        job = self._job
        values = _aiter(job.source)
        try:
            while True:
                step = job.machine.step(time.monotonic())
                if isinstance(step, Send):
                    await asyncio.to_thread(job.save)
                    self._send(step.batch)
                elif isinstance(step, Read):
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
            if self._job.take(value):
                return
        self._job.machine.exhausted()

    def _send(self, batch: Batch) -> None:
        multicallable, request, timeout = self._job.request(batch)

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
            self._job.settle(self._running.pop(task), task.result)
        if ended:
            await asyncio.to_thread(self._job.save)
            self._job.tell()


async def _aiter(values: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield value
        return
    for value in values:  # a plain iterable does not wait, so it is asked on the loop itself
        yield value


def uploading(
    prepare: Callable[Concatenate[Any, P], Job],
) -> Callable[Concatenate[Any, P], UploadReport]:
    """The method that makes a job and runs it, and blocks meanwhile."""

    def upload(self: Any, *args: P.args, **kwargs: P.kwargs) -> UploadReport:
        return run(prepare(self, *args, **kwargs))

    return _documented(prepare, upload)  # type: ignore[no-any-return]


def auploading(
    prepare: Callable[Concatenate[Any, P], Job],
) -> Callable[Concatenate[Any, P], Awaitable[UploadReport]]:
    """The method that makes a job and runs it, and awaits meanwhile."""

    async def upload(self: Any, *args: P.args, **kwargs: P.kwargs) -> UploadReport:
        return await arun(prepare(self, *args, **kwargs))

    return _documented(prepare, upload)  # type: ignore[no-any-return]


def _documented(prepare: Callable[..., Any], upload: Any) -> Any:
    """``upload`` with the text and the signature of ``prepare``."""
    functools.update_wrapper(upload, prepare)
    upload.__name__ = "upload"
    upload.__qualname__ = f"{prepare.__qualname__.rpartition('.')[0]}.upload"
    signature = inspect.signature(prepare)
    upload.__signature__ = signature.replace(return_annotation="UploadReport")
    upload.__annotations__ = prepare.__annotations__ | {"return": "UploadReport"}
    return upload
