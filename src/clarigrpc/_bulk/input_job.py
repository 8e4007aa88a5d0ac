"""One upload: the state machine with its source, its journal and its requests.

Everything but the waiting, which the drivers do.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sized
from typing import Any

from clarigrpc import errors, v2
from clarigrpc._bulk.input_batches import Batch, encode_post, make_item, make_unsure_item
from clarigrpc._bulk.input_engine import Ingest, status_of
from clarigrpc._bulk.input_journal import Journal
from clarigrpc._bulk.input_progress import Progress, ReportCallback
from clarigrpc._bulk.input_report import FailedInput, UploadReport
from clarigrpc._bulk.input_sources import AsyncInputSource, open_source
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._rpc.client_interface import ClientInterface
from clarigrpc.media import as_input

# What reading one file or row can raise; anything else is a bug and ends the upload.
_UNREADABLE = (OSError, ValueError, errors.ClarigrpcError)


class Job:
    """An upload that a driver runs. The arguments are those of ``upload``."""

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
            raise errors.InvalidArgumentError(f"batch_size is 1 to {MAX_ITEMS}, not {batch_size}")
        if in_flight < 1 or batch_bytes < 1 or timeout <= 0:
            raise errors.InvalidArgumentError(
                "in_flight, batch_bytes and timeout of upload() have to be positive"
            )
        self.report = report if report is not None else UploadReport()
        self._constant = v2.PostInputsRequest(user_app_id=user_app_id).SerializeToString()
        self._user_app_id = user_app_id
        # The limit of the message, less the tag and the length of one input.
        self._most = settings.max_message_bytes - len(self._constant) - 16
        self.machine = Ingest(
            self.report,
            settings.retry,
            batch_items=batch_size,
            batch_bytes=min(batch_bytes, self._most),
            in_flight=in_flight,
            timeout=timeout,
            random=random.random,
        )
        self._post: Any = client.unary("PostInputs", encoded=True)
        self._list: Any = client.unary("ListInputs")
        self._attempt_timeout = settings.timeout
        self.source = open_source(source)
        self._since = time.time()
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
            self._progress = Progress(progress, total)
        except BaseException:
            self._close_journal()
            raise

    def take(self, value: Any) -> bool:
        """Put a value of the source into the upload; whether a batch is ready because of it.

        Raises:
            TypeError: The value is no input.
        """
        index = self.report.taken
        self.report.taken += 1
        failure = value if isinstance(value, FailedInput) else None
        given = value.input if failure else value
        if callable(given):
            try:
                message = as_input(given())
            except _UNREADABLE as error:
                self._refuse(index, "", status_of(error), given)
                return False
        else:
            message = as_input(given)
        if failure is not None and failure.maybe_added:
            item = make_unsure_item(index, message, failure.since)
        else:
            item = make_item(index, message, self._since)
        if len(item.encoded) > self._most:
            self._refuse(index, item.id, _too_large(len(item.encoded)), message)
            return False
        if self._journal is not None:
            if self._journal.is_added(item.id):
                self.report.resumed += 1
                return False
            item.unsure |= item.id in self._journal.unsure
        return self.machine.offer(item)

    def request(self, batch: Batch) -> tuple[Any, Any, float]:
        """The multicallable, the request and the timeout of the next try of a batch."""
        left = (batch.deadline or 0.0) - time.monotonic()
        timeout = max(0.001, min(self._attempt_timeout, left))
        if batch.checking:
            ids = list(dict.fromkeys(item.id for item in batch.items))
            request = v2.ListInputsRequest(
                user_app_id=self._user_app_id, ids=ids, page=1, per_page=len(ids)
            )
            return self._list, request, timeout
        return self._post, encode_post(self._constant, batch.items), timeout

    def settle(self, batch: Batch, result: Callable[[], Any]) -> None:
        """Tell the machine what came of a batch; ``result`` returns the response or raises."""
        try:
            response = result()
        except errors.PartialFailureError as error:
            response = error.response
        except errors.ApiError as error:
            self.machine.failed(batch, error, time.monotonic())
            return
        self.machine.answered(batch, response, time.monotonic())

    def save(self) -> None:
        """Bring the journal up to date: before a batch leaves, and after an answer."""
        records = self.machine.records()
        if self._journal is not None:
            self._journal.write(records)

    def tell(self) -> None:
        """Tell how far the upload is."""
        self._progress.tell(self.report)

    def end(self, error: BaseException | None) -> None:
        """Finish the report, the journal and the bar."""
        try:
            if error is not None:
                self.machine.abandon(status_of(error))
                error.add_note(f"upload of inputs: {self.report}")
            self.save()
        finally:
            self._progress.close()
            self._close_journal()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _refuse(self, index: int, input_id: str, status: v2.Status, given: Any) -> None:
        """Fail an input that is not even sent."""
        self.report.failed_inputs.append(FailedInput(index, input_id, status, given))


def _too_large(size: int) -> v2.Status:
    return v2.Status(
        code=v2.StatusCode.INPUT_OVER_LIMIT,
        description="Input over limit",
        details=f"{size} bytes are more than max_message_bytes of the client; give a URL instead",
    )
