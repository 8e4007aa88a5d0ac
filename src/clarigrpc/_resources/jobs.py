"""What the service does in bulk: add inputs from elsewhere, unpack archives, change many inputs."""

from __future__ import annotations

import builtins
import dataclasses
from collections.abc import Iterable
from typing import Unpack

from clarigrpc import errors, v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, as_ids
from clarigrpc._resources.file_uploads import UploadKeywords
from clarigrpc._resources.long_running import Waits
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._resources.uploads import UploadOperations, send
from clarigrpc._rpc.plan import Plan
from clarigrpc._uploads.upload_session import UploadOptions
from clarigrpc._uploads.upload_sources import ContentSource, UploadSource


class JobOperations(Gets[v2.InputsAddJob], Lists[v2.InputsAddJob], Waits[v2.InputsAddJob]):
    """Jobs that add inputs to an app."""

    message = v2.InputsAddJob
    noun = "job"

    @operation
    def create_from_urls(
        self,
        urls: str | Iterable[str],
        *,
        job_id: str = "",
        template: v2.Input | None = None,
        credentials: v2.DataSourceCredentials | None = None,
        conflicts: v2.InputIDConflictResolution.ValueType = (
            v2.InputIDConflictResolution.INPUT_ID_CONFLICT_RESOLUTION_NOT_SET
        ),
        call_back_url: str = "",
        timeout: float | None = None,
    ) -> Plan[v2.InputsAddJob]:
        """Have the service add what lies at addresses: files, archives, whole buckets.

        Args:
            urls: Addresses that the service can read (``https://``, ``s3://`` ...; a local server
                also reads ``file:`` addresses under the folders that it was given).
            job_id: Id of the job; the service makes one up when it is empty.
            template: Concepts, metadata and datasets that every input is given.
            credentials: For addresses that need some.
            conflicts: What becomes of an input whose id is taken: ``SKIP`` or ``SUFFIX``.
            call_back_url: Called when the job has ended.
            timeout: Seconds; None: the client's.

        Returns:
            The job; ``wait`` for it.
        """
        sources = [
            v2.InputsDataSource(
                inputs_add_job_id=job_id,
                url=v2.DataSourceURL(url=url, credentials=credentials),
                input_id_conflict_resolution=conflicts,
                input_template=template,
            )
            for url in as_ids(urls)
        ]
        if not sources:
            raise errors.InvalidArgumentError("create_from_urls() needs at least one address")
        response: v2.MultiInputsAddJobResponse = yield from self._invoke(
            "PostInputsDataSources", timeout, data_sources=sources, call_back_url=call_back_url
        )
        return response.inputs_add_jobs[0]

    @operation
    def create_for_uploads(
        self,
        uploads: Iterable[v2.Upload],
        *,
        job_id: str = "",
        template: v2.Input | None = None,
        conflicts: v2.InputIDConflictResolution.ValueType = (
            v2.InputIDConflictResolution.INPUT_ID_CONFLICT_RESOLUTION_NOT_SET
        ),
        timeout: float | None = None,
    ) -> Plan[v2.InputsAddJob]:
        """Have the service add the contents of archives that are going to be uploaded.

        Args:
            uploads: Name (``content_name``) and size in bytes (``content_length``) of each
                archive. Those of the job that is returned have ids: send the parts to them.
            job_id, template, conflicts, timeout: As in ``create_from_urls``.
        """
        wanted = [
            v2.InputsUpload(
                inputs_add_job_id=job_id,
                upload=one,
                input_id_conflict_resolution=conflicts,
                input_template=template,
            )
            for one in uploads
        ]
        if not wanted:
            raise errors.InvalidArgumentError("create_for_uploads() needs at least one upload")
        response: v2.MultiInputsAddJobResponse = yield from self._invoke(
            "PostInputsUploads", timeout, inputs_uploads=wanted
        )
        return response.inputs_add_jobs[0]

    @operation
    def upload(
        self,
        archive: UploadSource,
        *,
        name: str = "",
        job_id: str = "",
        template: v2.Input | None = None,
        conflicts: v2.InputIDConflictResolution.ValueType = (
            v2.InputIDConflictResolution.INPUT_ID_CONFLICT_RESOLUTION_NOT_SET
        ),
        **options: Unpack[UploadKeywords],
    ) -> Plan[v2.InputsAddJob]:
        """Upload an archive and have the service add what is in it.

        Args:
            archive: The path of a zip or tar file, a folder (becomes a tar archive as it is
                sent), bytes, or a binary file.
            name: Name of the archive, whose ending says what it is; empty: that of the file.
            job_id, template, conflicts: As in ``create_from_urls``.
            options: ``size``, ``part_size``, ``verify``, ``progress`` and ``timeout`` (seconds in
                all), see ``UploadOptions``. It is not resumed when the process ends.

        Returns:
            The job; ``wait`` for it.

        Raises:
            FileNotFoundError: There is no file of this name.
            InvalidArgumentError: The archive is empty, or changed while it was being sent.
            ApiError: The class of it that fits, see ``errors``.
        """
        job = v2.InputsAddJob()

        def begin(source: ContentSource, name: str) -> Plan[v2.Upload]:
            wanted = v2.Upload(content_name=name, content_length=source.size)
            made = yield from JobOperations.create_for_uploads.plan(
                self, [wanted], job_id=job_id, template=template, conflicts=conflicts
            )
            job.CopyFrom(made)
            return made.uploads[0]

        uploads = UploadOperations(self._client, self.user_id, self.app_id)
        # The next process would find the upload, and not know its job.
        chosen = dataclasses.replace(UploadOptions(**options), resume=False)
        yield from send(uploads, archive, name, chosen, begin)
        return job

    @operation
    def cancel(self, job_id: str, /, *, timeout: float | None = None) -> Plan[v2.InputsAddJob]:
        """Stop a job. Inputs that it has added stay."""
        response: v2.SingleInputsAddJobResponse = yield from self._invoke(
            "CancelInputsAddJob", timeout, id=job_id
        )
        return response.inputs_add_job


class Jobs(JobOperations, Sync): ...


class AsyncJobs(JobOperations, Async): ...


class ExtractionJobOperations(
    Gets[v2.InputsExtractionJob], Lists[v2.InputsExtractionJob], Waits[v2.InputsExtractionJob]
):
    """Jobs that unpack archives into inputs; jobs that add inputs start them."""

    message = v2.InputsExtractionJob
    noun = "extraction job"

    @operation
    def cancel(
        self, ids: str | Iterable[str], *, timeout: float | None = None
    ) -> Plan[builtins.list[v2.InputsExtractionJob]]:
        """Stop jobs, one or many. Inputs that they have added stay."""
        response: v2.MultiInputsExtractionJobResponse = yield from self._invoke(
            "CancelInputsExtractionJobs", timeout, ids=as_ids(ids)
        )
        return builtins.list(response.inputs_extraction_jobs)


class ExtractionJobs(ExtractionJobOperations, Sync): ...


class AsyncExtractionJobs(ExtractionJobOperations, Async): ...


class BulkOperationOperations(
    Creates[v2.BulkOperation],
    Gets[v2.BulkOperation],
    Lists[v2.BulkOperation],
    Deletes[v2.BulkOperation],
    Waits[v2.BulkOperation],
):
    """Changes to many inputs at once: to those of a search, of a dataset or of a list of ids."""

    message = v2.BulkOperation

    @operation
    def cancel(
        self, ids: str | Iterable[str], *, timeout: float | None = None
    ) -> Plan[builtins.list[v2.BulkOperation]]:
        """Stop operations, one or many. What they have changed stays."""
        response: v2.MultiBulkOperationsResponse = yield from self._invoke(
            "CancelBulkOperations", timeout, ids=as_ids(ids)
        )
        return builtins.list(response.bulk_operation)


class BulkOperations(BulkOperationOperations, Sync): ...


class AsyncBulkOperations(BulkOperationOperations, Async): ...
