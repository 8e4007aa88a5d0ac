"""One upload of inputs: its engine, source, journal and requests."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sized
from typing import Any

from clarigrpc import v2
from clarigrpc._bulk.drivers import BulkRun
from clarigrpc._bulk.engine import BulkBatch
from clarigrpc._bulk.input_encoding import encode_post
from clarigrpc._bulk.input_engine import InputEngine, status_of
from clarigrpc._bulk.input_journal import Journal, Record
from clarigrpc._bulk.input_progress import InputProgress, ReportCallback
from clarigrpc._bulk.input_report import UploadReport
from clarigrpc._bulk.input_sources import AsyncInputSource, open_input_source
from clarigrpc._rpc.client_interface import ClientInterface


class InputUpload(BulkRun[Any]):
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
        self.report = report if report is not None else UploadReport()
        self._constant = v2.PostInputsRequest(user_app_id=user_app_id).SerializeToString()
        self._user_app_id = user_app_id
        self._post: Any = client.unary("PostInputs", encoded=True)
        self._list: Any = client.unary("ListInputs")
        self._attempt_timeout = settings.timeout
        self._saving = threading.Lock()
        self._unsaved: list[Record] = []
        self._journal: Journal | None = None
        values = open_input_source(source)
        since = time.time()
        if journal is not None:
            target = {
                "base": settings.target.url,
                "user_id": user_app_id.user_id,
                "app_id": user_app_id.app_id,
            }
            self._journal = Journal(journal, target, now=since)
            since = self._journal.since
        try:
            self._engine = InputEngine(
                self.report,
                settings.retry,
                batch_size=batch_size,
                batch_bytes=batch_bytes,
                in_flight=in_flight,
                timeout=timeout,
                random=random.random,
                # The limit of a message, less the tag and length of an input.
                max_input_bytes=settings.max_message_bytes - len(self._constant) - 16,
                since=since,
                known=self._journal,
                recording=self._journal is not None,
            )
            super().__init__(self._engine, values)
            total = len(values) if isinstance(values, Sized) else None
            self._progress = InputProgress(progress, total)
        except BaseException:
            self._close_journal()
            raise

    @property
    def called(self) -> str:
        return "inputs.upload"

    def request(self, batch: BulkBatch) -> tuple[Any, Any, float]:
        left = (batch.deadline or 0.0) - time.monotonic()
        timeout = max(0.001, min(self._attempt_timeout, left))
        if batch.checking:
            ids = list(dict.fromkeys(batch.ids))
            request = v2.ListInputsRequest(
                user_app_id=self._user_app_id, ids=ids, page=1, per_page=len(ids)
            )
            return self._list, request, timeout
        return self._post, encode_post(self._constant, batch.items), timeout

    def source_failed(self, error: BaseException) -> None:
        # The report says what was added; the rest can be uploaded again.
        raise error

    @property
    def unsaved(self) -> bool:
        return self._engine.recorded

    def save(self) -> None:
        with self._saving:
            self._save()

    def _save(self) -> None:
        self._unsaved += self._engine.records()
        if self._journal is not None:
            self._journal.write(self._unsaved)
        self._unsaved.clear()

    def show_progress(self) -> None:
        self._progress.update(self.report)

    def end(self, error: BaseException | None) -> None:
        # The thread of an async upload that was cancelled may still be saving.
        with self._saving:
            try:
                self.report.complete = error is None
                if error is not None:
                    self._engine.abandon(status_of(error))
                    error.add_note(f"upload of inputs: {self.report}")
                try:
                    self._save()
                finally:
                    self._close_journal()
            except OSError as failure:
                if error is None:
                    raise
                # What ended the upload is raised by whoever calls this.
                error.add_note(f"the journal could not be written to its end: {failure}")
            finally:
                self._progress.close()
                self._close_journal()

    def _close_journal(self) -> None:
        if self._journal is not None:
            journal, self._journal = self._journal, None
            journal.close()
