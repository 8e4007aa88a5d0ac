"""Pipeline steps and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, filled
from clarigrpc._resources.file_uploads import UploadKeywords, upload_session, uploading
from clarigrpc._resources.long_running import FollowsWork
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, nested
from clarigrpc._rpc.plan import ItemPlan
from clarigrpc._uploads.upload_method import UploadMethod
from clarigrpc._uploads.upload_session import UploadSession
from clarigrpc._uploads.upload_sources import UploadSource


@named_in("clarigrpc.types")
class StepVersionFilters(Paging, total=False):
    """Options of ``client.pipeline_steps.versions(pipeline_step_id).list``."""

    status_codes: Sequence[v2.StatusCode.ValueType]


class PipelineStepVersionOperations(
    Gets[v2.PipelineStepVersion],
    Deletes[v2.PipelineStepVersion],
    FollowsWork[v2.PipelineStepVersion],
):
    """The versions of a pipeline step. ``status`` of each tells whether it is built."""

    _message = v2.PipelineStepVersion
    _get_rpc = "GetPipelineStepVersion"
    _list_rpc = "ListPipelineStepVersions"
    _delete_rpc = "DeletePipelineStepVersions"
    _work_name = "build of pipeline step version"
    _instead_of_cancel = "delete the version"

    @iteration
    def list(self, **options: Unpack[StepVersionFilters]) -> ItemPlan[v2.PipelineStepVersion]:
        """List the versions of the pipeline step.

        Args:
            status_codes: Filter by status, values of ``v2.StatusCode``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class PipelineStepVersions(PipelineStepVersionOperations, Sync): ...


class AsyncPipelineStepVersions(PipelineStepVersionOperations, Async): ...


class PipelineStepOperations(
    Creates[v2.PipelineStep],
    Gets[v2.PipelineStep],
    Lists[v2.PipelineStep],
    Deletes[v2.PipelineStep],
):
    """The pipeline steps of an app. A new one has no content until an archive is uploaded."""

    _message = v2.PipelineStep
    _create_rpc = "PostPipelineSteps"
    _get_rpc = "GetPipelineStep"
    _list_rpc = "ListPipelineSteps"
    _delete_rpc = "DeletePipelineSteps"

    @nested(PipelineStepVersions, AsyncPipelineStepVersions)
    def versions(self, pipeline_step_id: str) -> Parents:
        """Access the versions of a pipeline step.

        Args:
            pipeline_step_id: Id of the pipeline step.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"pipeline_step_id": pipeline_step_id}

    @uploading
    def upload(
        self,
        source: UploadSource,
        step_id: str,
        *,
        version: v2.PipelineStepVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadSession:
        """Upload an archive as a new version of a pipeline step.

        The upload survives a broken connection and a restart of the service. If this process ends
        before the upload is done, the next call with the same source continues it, from a state
        file kept beside the source. Ctrl-C, cancellation and the timeout end it.

        Args:
            source: A path, a folder (sent as a tar archive), bytes, a binary file (from its current
                position), or any object with ``read``.
            step_id: Id of the pipeline step.
            version: Settings of the new version.
            storage_request_size: Bytes of storage to request. 0 leaves it to the service.
            size: Bytes to take from a stream that cannot seek. None reads it to its end, into a
                temporary file, before anything is sent.
            part_size: Bytes per part, 128 KiB to 14 MiB. Default 1 MiB.
            stream_bytes: Maximum bytes of content per stream; the rest continues on a new stream.
                None sets no limit. Default 90 MB.
            state_dir: Folder for the state of an unfinished upload and for temporary files. None
                uses the folder of the source; a source that is neither a file nor a folder then
                cannot be resumed by another process.
            resume: Whether to continue an unfinished upload of the same content. Default True.
            verify: Whether to compare the SHA-256 of the content with that of the service. None
                compares if the service reports one; True fails if it reports none.
            progress: A function called with an ``UploadProgress``, or True for a progress bar if
                stderr is a terminal. Default False.
            timeout: Seconds for the whole upload. None uses the client's ``stream_timeout``.

        Returns:
            The result, with the id of the version, which the service may still be building.

        Raises:
            FileNotFoundError: The source is a path that does not exist.
            InvalidArgumentError: The source is empty, has another size than ``size``, or changed
                during the upload; or an option is out of range.
            InternalError: The service stored other content than the source.
            ApiError: The upload failed; the subclass says how (see ``errors``). It can be resumed.
        """
        config = filled(
            "PostPipelineStepVersionsUpload",
            v2.PostPipelineStepVersionsUploadConfig,
            user_app_id=self._user_app_id or self._client.user_app_id,
            pipeline_step_id=step_id,
            pipeline_step_version=version,
            storage_request_size=storage_request_size,
        )
        method = UploadMethod(
            "PostPipelineStepVersionsUpload",
            config,
            parent_field="pipeline_step_id",
            version_field="pipeline_step_version",
            id_field="pipeline_step_version_id",
            done={
                v2.StatusCode.PIPELINE_STEP_BUILDING,
                v2.StatusCode.PIPELINE_STEP_READY,
                v2.StatusCode.UPLOAD_DONE,
            },
        )
        return upload_session(self._client, method, source, options)


class PipelineSteps(PipelineStepOperations, Sync): ...


class AsyncPipelineSteps(PipelineStepOperations, Async): ...
