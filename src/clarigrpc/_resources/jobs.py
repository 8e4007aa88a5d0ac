"""Background work on inputs: adding them from elsewhere, unpacking archives, changing many."""

from __future__ import annotations

import builtins
import dataclasses
from collections.abc import Iterable
from typing import Unpack

from clarigrpc import errors, v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, as_ids, sole
from clarigrpc._resources.file_uploads import UploadKeywords
from clarigrpc._resources.long_running import FollowsWork, Waits, WorkProgress, by_items
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._resources.uploads import UploadOperations, send
from clarigrpc._rpc.plan import Plan
from clarigrpc._uploads.upload_session import options_of
from clarigrpc._uploads.upload_sources import ContentSource, UploadSource


class JobOperations(
    Gets[v2.InputsAddJob],
    Lists[v2.InputsAddJob],
    Waits[v2.InputsAddJob],
    FollowsWork[v2.InputsAddJob],
):
    """The jobs that add inputs to an app."""

    _message = v2.InputsAddJob
    _get_rpc = "GetInputsAddJob"
    _list_rpc = "ListInputsAddJobs"
    _work_name = "job"
    _work_unit = "items"

    def _progress_of(self, item: v2.InputsAddJob) -> WorkProgress:
        counts = item.progress
        done = counts.success_count + counts.failed_count
        total = done + counts.pending_count + counts.in_progress_count
        return by_items(item.status, done, total or None)

    def _cancel_work(self, resource_id: str, timeout: float | None) -> Plan[v2.Status]:
        job = yield from JobOperations.cancel.plan(self, resource_id, timeout=timeout)
        return job.status

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
        """Start a job that adds inputs from addresses: files, archives or whole buckets.

        Args:
            urls: Addresses that the service can read, one or many (``https://``, ``s3://`` ...). A
                local server also reads ``file:`` addresses below its input folders.
            job_id: Id of the job. Empty: the service generates one.
            template: Concepts, metadata and datasets to give to every input.
            credentials: Credentials for addresses that need them.
            conflicts: What to do with an input whose id is taken, a value of
                ``v2.InputIDConflictResolution`` (``SKIP`` or ``SUFFIX``).
            call_back_url: URL that the service calls when the job has ended.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The job in progress; wait for it with ``wait``.

        Raises:
            InvalidArgumentError: No address is given.
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
        return sole(response.inputs_add_jobs, "PostInputsDataSources", response)

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
        """Start a job that adds the contents of archives which are uploaded afterwards.

        Args:
            uploads: Name (``content_name``) and size in bytes (``content_length``) of each archive.
            job_id: Id of the job. Empty: the service generates one.
            template: Concepts, metadata and datasets to give to every input.
            conflicts: What to do with an input whose id is taken, a value of
                ``v2.InputIDConflictResolution`` (``SKIP`` or ``SUFFIX``).
            timeout: Seconds. None uses the client's setting.

        Returns:
            The job, with the ``uploads`` whose ids the parts of the archives are to be sent to.

        Raises:
            InvalidArgumentError: No upload is given.
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
        return sole(response.inputs_add_jobs, "PostInputsUploads", response)

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
        """Upload an archive and start a job that adds its contents.

        The upload is not resumed after this process ends.

        Args:
            archive: Path of a zip or tar file, a folder (sent as a tar archive), bytes, or a binary
                file.
            name: Name of the archive; its suffix tells the format. Empty uses the name of the file.
            job_id: Id of the job. Empty: the service generates one.
            template: Concepts, metadata and datasets to give to every input.
            conflicts: What to do with an input whose id is taken, a value of
                ``v2.InputIDConflictResolution`` (``SKIP`` or ``SUFFIX``).
            size: Bytes to take from a stream that cannot seek. None reads it to its end, into a
                temporary file, before anything is sent.
            part_size: Bytes per part, 128 KiB to 14 MiB. Default 1 MiB.
            stream_bytes: Not used: every part is a call of its own.
            state_dir: Folder for temporary files. None uses the system's.
            resume: Not used: the upload is not resumed.
            verify: Whether to compare the SHA-256 of the content with that of the service. None
                compares if the service reports one; True fails if it reports none.
            progress: A function called with an ``UploadProgress``, or True for a progress bar if
                stderr is a terminal. Default False.
            timeout: Seconds for the whole upload. None uses the client's ``stream_timeout``.

        Returns:
            The job in progress; wait for it with ``wait``.

        Raises:
            FileNotFoundError: The archive is a path that does not exist.
            InvalidArgumentError: The archive is empty, or changed during the upload; or an option
                is out of range.
            ApiError: The upload failed; the subclass says how (see ``errors``).
        """
        job = v2.InputsAddJob()

        def begin(source: ContentSource, name: str) -> Plan[v2.Upload]:
            wanted = v2.Upload(content_name=name, content_length=source.size)
            made = yield from JobOperations.create_for_uploads.plan(
                self, [wanted], job_id=job_id, template=template, conflicts=conflicts
            )
            job.CopyFrom(made)
            if not made.uploads:
                raise errors.InternalError(
                    "the service made a job without an upload", method="PostInputsUploads"
                )
            return made.uploads[0]

        uploads = UploadOperations(self._client, self.user_id, self.app_id)
        # The next process would find the upload, and not know its job.
        chosen = dataclasses.replace(options_of(options), resume=False)
        yield from send(uploads, archive, name, chosen, begin)
        return job

    @operation
    def cancel(self, job_id: str, /, *, timeout: float | None = None) -> Plan[v2.InputsAddJob]:
        """Cancel a job. Inputs that it added stay.

        Args:
            job_id: Id of the job.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The job after the request.

        Raises:
            NotFoundError: The job does not exist.
        """
        response: v2.SingleInputsAddJobResponse = yield from self._invoke(
            "CancelInputsAddJob", timeout, id=job_id
        )
        return response.inputs_add_job


class Jobs(JobOperations, Sync): ...


class AsyncJobs(JobOperations, Async): ...


class ExtractionJobOperations(
    Gets[v2.InputsExtractionJob],
    Lists[v2.InputsExtractionJob],
    Waits[v2.InputsExtractionJob],
    FollowsWork[v2.InputsExtractionJob],
):
    """The jobs that unpack archives into inputs. Jobs that add inputs start them."""

    _message = v2.InputsExtractionJob
    _get_rpc = "GetInputsExtractionJob"
    _list_rpc = "ListInputsExtractionJobs"
    _work_name = "extraction job"

    def _cancel_work(self, resource_id: str, timeout: float | None) -> Plan[v2.Status]:
        cancelled = yield from ExtractionJobOperations.cancel.plan(
            self, resource_id, timeout=timeout
        )
        return sole(cancelled, "CancelInputsExtractionJobs", cancelled).status

    @operation
    def cancel(
        self, ids: str | Iterable[str], *, timeout: float | None = None
    ) -> Plan[builtins.list[v2.InputsExtractionJob]]:
        """Cancel extraction jobs. Inputs that they added stay.

        Args:
            ids: Ids of jobs, one or many.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The jobs after the request.

        Raises:
            NotFoundError: A job does not exist.
        """
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
    FollowsWork[v2.BulkOperation],
):
    """Changes of many inputs at once: those of a search, of a dataset or of a list of ids."""

    _message = v2.BulkOperation
    _create_rpc = "PostBulkOperations"
    _get_rpc = "GetBulkOperation"
    _list_rpc = "ListBulkOperations"
    _delete_rpc = "DeleteBulkOperations"
    _work_name = "bulk operation"
    _work_unit = "items"

    def _progress_of(self, item: v2.BulkOperation) -> WorkProgress:
        total = len(item.input_ids.input_ids)  # those of a search are not counted
        return by_items(item.status, item.progress.processed, total or None)

    def _cancel_work(self, resource_id: str, timeout: float | None) -> Plan[v2.Status]:
        cancelled = yield from BulkOperationOperations.cancel.plan(
            self, resource_id, timeout=timeout
        )
        return sole(cancelled, "CancelBulkOperations", cancelled).status

    @operation
    def cancel(
        self, ids: str | Iterable[str], *, timeout: float | None = None
    ) -> Plan[builtins.list[v2.BulkOperation]]:
        """Cancel bulk operations. Changes already made stay.

        Args:
            ids: Ids of operations, one or many.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The operations after the request.

        Raises:
            NotFoundError: An operation does not exist.
        """
        response: v2.MultiBulkOperationsResponse = yield from self._invoke(
            "CancelBulkOperations", timeout, ids=as_ids(ids)
        )
        return builtins.list(response.bulk_operation)


class BulkOperations(BulkOperationOperations, Sync): ...


class AsyncBulkOperations(BulkOperationOperations, Async): ...
