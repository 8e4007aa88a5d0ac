"""One upload of inputs: its engine, source, journal and requests. ``input_drivers`` run it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sized
from typing import Any

from clarigrpc import errors, v2
from clarigrpc._bulk.input_batches import InputBatch, encode_post, pending_input, unsure_input
from clarigrpc._bulk.input_engine import InputEngine, status_of
from clarigrpc._bulk.input_journal import Journal, Record
from clarigrpc._bulk.input_progress import InputProgress, ReportCallback
from clarigrpc._bulk.input_report import FailedInput, UploadReport
from clarigrpc._bulk.input_sources import AsyncInputSource, SourceInput, open_input_source
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._rpc.client_interface import ClientInterface
from clarigrpc.media import as_input

# What reading a file or row may raise. Any other exception is a bug and ends the upload.
_READ_ERRORS = (OSError, ValueError, errors.ClarigrpcError)


class InputUpload:
    """An upload that a driver runs. The arguments are those of ``client.inputs.upload``."""

    def __init__(
        self,
        client: ClientInterface,
        user_app_id: v2.UserAppIDSet,
        source: AsyncInputSource,
        *,
        batch_size: int,
        batch_bytes: int,
        in_flight: int,
        timeout: float,
        journal: str | os.PathLike[str] | None,
        progress: bool | ReportCallback,
        report: UploadReport | None,
    ) -> None:
        settings = client.settings
        if not 1 <= batch_size <= MAX_ITEMS:
            raise errors.InvalidArgumentError(
                f"batch_size must be 1 to {MAX_ITEMS}, not {batch_size}"
            )
        if in_flight < 1 or batch_bytes < 1 or timeout <= 0:
            raise errors.InvalidArgumentError(
                "in_flight, batch_bytes and timeout of upload() must be positive"
            )
        self.report = report if report is not None else UploadReport()
        self._constant = v2.PostInputsRequest(user_app_id=user_app_id).SerializeToString()
        self._user_app_id = user_app_id
        # The limit of a message, less the tag and length of an input.
        self._max_input_bytes = settings.max_message_bytes - len(self._constant) - 16
        self.engine = InputEngine(
            self.report,
            settings.retry,
            batch_size=batch_size,
            batch_bytes=min(batch_bytes, self._max_input_bytes),
            in_flight=in_flight,
            timeout=timeout,
            random=random.random,
        )
        self._post: Any = client.unary("PostInputs", encoded=True)
        self._list: Any = client.unary("ListInputs")
        self._attempt_timeout = settings.timeout
        self.source = open_input_source(source)
        self._since = time.time()
        self._saving = threading.Lock()
        self._unsaved: list[Record] = []
        self._journal: Journal | None = None
        if journal is not None:
            target = {
                "base": settings.target.url,
                "user_id": user_app_id.user_id,
                "app_id": user_app_id.app_id,
            }
            self._journal = Journal(journal, target, now=self._since)
            self._since = self._journal.since
        try:
            total = len(self.source) if isinstance(self.source, Sized) else None
            self._progress = InputProgress(progress, total)
        except BaseException:
            self._close_journal()
            raise

    def take(self, value: Any) -> bool:
        """Add a value of the source; returns whether it completes a batch.

        Raises:
            TypeError: The value is not an input.
        """
        index = self.report.taken
        self.report.taken += 1
        failure = value if isinstance(value, FailedInput) else None
        given = value.input if failure else value
        source = failure.source if failure else ""
        if callable(given):
            input_id = ""
            if isinstance(given, SourceInput):
                source, input_id = given.source, given.id
            try:
                message = as_input(given())
            except _READ_ERRORS as error:
                self._reject(index, input_id, status_of(error), given, source)
                return False
        else:
            message = as_input(given)
        if failure is not None and failure.maybe_added:
            pending = unsure_input(index, message, failure.since)
        else:
            pending = pending_input(index, message, self._since)
        pending.source = source
        if len(pending.encoded) > self._max_input_bytes:
            self._reject(index, pending.id, _too_large(len(pending.encoded)), message, source)
            return False
        if self._journal is not None:
            if self._journal.is_added(pending.id):
                self.report.resumed += 1
                return False
            pending.unsure |= self._journal.is_unsure(pending.id)
        return self.engine.offer(pending)

    def request(self, batch: InputBatch) -> tuple[Any, Any, float]:
        """The multicallable, the request and the timeout of the next attempt of a batch."""
        left = (batch.deadline or 0.0) - time.monotonic()
        timeout = max(0.001, min(self._attempt_timeout, left))
        if batch.checking:
            ids = list(dict.fromkeys(one.id for one in batch.inputs))
            request = v2.ListInputsRequest(
                user_app_id=self._user_app_id, ids=ids, page=1, per_page=len(ids)
            )
            return self._list, request, timeout
        return self._post, encode_post(self._constant, batch.inputs), timeout

    def settle(self, batch: InputBatch, result: Callable[[], Any]) -> None:
        """Pass the outcome of a batch to the engine; ``result`` returns the response or raises."""
        try:
            response = result()
        except errors.PartialFailureError as error:
            response = error.response
        except errors.ApiError as error:
            self.engine.failed(batch, error, time.monotonic())
            return
        self.engine.responded(batch, response, time.monotonic())

    def save(self) -> None:
        """Write the journal: before a batch is sent, and after a response."""
        with self._saving:
            self._save()

    def _save(self) -> None:
        self._unsaved += self.engine.records()
        if self._journal is not None:
            self._journal.write(self._unsaved)
        self._unsaved.clear()

    def show_progress(self) -> None:
        """Report the progress."""
        self._progress.update(self.report)

    def end(self, error: BaseException | None) -> None:
        """Complete the report, close the journal and the bar."""
        # The thread of an async upload that was cancelled may still be saving.
        with self._saving:
            try:
                if error is not None:
                    self.engine.abandon(status_of(error))
                    error.add_note(f"upload of inputs: {self.report}")
                self._save()
            finally:
                self._progress.close()
                self._close_journal()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _reject(
        self, index: int, input_id: str, status: v2.Status, given: Any, source: str
    ) -> None:
        """Fail an input without sending it."""
        self.report.failed_inputs.append(FailedInput(index, input_id, status, given, source=source))


def _too_large(size: int) -> v2.Status:
    return v2.Status(
        code=v2.StatusCode.INPUT_OVER_LIMIT,
        description="Input over limit",
        details=f"{size} bytes are more than the client's max_message_bytes; pass a URL instead",
    )
