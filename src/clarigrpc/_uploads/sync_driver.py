"""The sync driver of a file upload."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from clarigrpc import errors
from clarigrpc._uploads.part_state import AwaitResponse, EndStream
from clarigrpc._uploads.upload_session import (
    GATHER_SECONDS,
    RESPONSE_SECONDS,
    UploadResult,
    UploadSession,
)
from clarigrpc._uploads.upload_sources import StoppedError


def run(session: UploadSession, channel: Any) -> UploadResult:
    """Upload, over as many streams as needed.

    Args:
        session: The upload.
        channel: A ``clarigrpc._rpc.sync_channel.SyncChannel``.
    """
    try:
        session.prepare()
        open_stream = channel.stream_stream(session.path, None, session.response_class.FromString)
        with session.reporting():
            while not session.machine.finished:
                try:
                    _stream(session, open_stream)
                except errors.ApiError as error:
                    channel.pause(session.failed(error))
        return session.finish()
    except BaseException:
        session.interrupted()
        raise
    finally:
        session.source.stop()
        session.close()


def _stream(session: UploadSession, open_stream: Any) -> None:
    session.open()
    requests = _UploadMessages(session)
    responses = None
    try:
        responses = open_stream(requests, timeout=session.remaining)
        asked = time.monotonic()
        for response in responses:
            gathers = session.gathers(asked)
            with requests.lock:
                save = session.responded(response)
                requests.responses.notify()
            if save:
                session.save()
            if session.machine.finished:
                return
            if gathers:
                requests.wait_ended(GATHER_SECONDS)
            asked = time.monotonic()
    finally:
        requests.stop()
        if responses is not None:
            responses.cancel()
        requests.join()
    session.ended()


class _UploadMessages(Iterator[bytes]):
    """The messages of a stream. gRPC reads them on a thread of its own."""

    def __init__(self, session: UploadSession) -> None:
        # Entered by itself, as an interrupt in the Python code of a condition leaves it locked.
        self.lock = threading.RLock()
        self.responses = threading.Condition(self.lock)
        # No event, for the same reason.
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._session = session
        # Of its own: the thread of the stream before may still read into a buffer.
        self._encoder = session.encoder()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def __next__(self) -> bytes:
        try:
            return self._next()
        except BaseException:
            self._ended.put(None)
            raise

    def _next(self) -> bytes:
        self._thread = threading.current_thread()
        machine = self._session.machine
        with self.lock:
            # Once stopped, the machine is that of the next stream, whose steps are not taken here.
            step = EndStream() if self._stopped else machine.next()
            if isinstance(step, AwaitResponse):
                self.responses.wait_for(
                    lambda: self._stopped or machine.responses, RESPONSE_SECONDS
                )
                if self._stopped:
                    raise StopIteration
                machine.response_missing()
                step = machine.next()
            if isinstance(step, (AwaitResponse, EndStream)):
                raise StopIteration
        try:
            return self._session.message(step, self._encoder)
        except StoppedError:
            raise StopIteration from None

    def wait_ended(self, seconds: float) -> None:
        """Wait until the last message was taken, or so long."""
        with contextlib.suppress(queue.Empty):
            self._ended.put(self._ended.get(timeout=seconds))

    def stop(self) -> None:
        """Send nothing more."""
        with self.lock:
            self._stopped = True
            self.responses.notify()
        self._session.source.stop()

    def join(self) -> None:
        """Wait for gRPC's thread, which ends with the call."""
        if self._thread is not None:
            self._thread.join(1.0)
