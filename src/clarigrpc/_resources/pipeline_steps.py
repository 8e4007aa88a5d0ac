"""The steps that pipelines are made of, and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging
from clarigrpc._resources.file_uploads import UploadKeywords, aupload, upload
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested
from clarigrpc._rpc.plan import ItemPlan
from clarigrpc._uploads import upload_methods
from clarigrpc._uploads.upload_methods import UploadMethod
from clarigrpc._uploads.upload_session import UploadResult
from clarigrpc._uploads.upload_sources import UploadSource


class StepVersionFilters(Paging, total=False):
    """Which versions are listed.

    Attributes:
        status_codes: Only those with one of these statuses.
    """

    status_codes: Sequence[v2.StatusCode.ValueType]


class PipelineStepVersionOperations(Gets[v2.PipelineStepVersion], Deletes[v2.PipelineStepVersion]):
    """The versions of a pipeline step; ``status`` of each tells whether it is built."""

    message = v2.PipelineStepVersion

    @iteration
    def list(self, **options: Unpack[StepVersionFilters]) -> ItemPlan[v2.PipelineStepVersion]:
        """The versions of the step.

        Args:
            {options}
            {paging}
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
    """The pipeline steps of an app. A new one has no content until something is uploaded."""

    message = v2.PipelineStep

    versions = nested(
        "pipeline_step_id",
        PipelineStepVersions,
        AsyncPipelineStepVersions,
        "The versions of a pipeline step.",
    )

    def _target(
        self, step_id: str, version: v2.PipelineStepVersion | None, storage_request_size: int
    ) -> UploadMethod:
        return upload_methods.pipeline_step_version(
            v2.PostPipelineStepVersionsUploadConfig(
                user_app_id=self.user_app_id or self._client.user_app_id,
                pipeline_step_id=step_id,
                pipeline_step_version=version,
                storage_request_size=storage_request_size,
            )
        )


class PipelineSteps(PipelineStepOperations, Sync):
    """The pipeline steps of an app."""

    def upload(
        self,
        source: UploadSource,
        step_id: str,
        *,
        version: v2.PipelineStepVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload an archive as a new version of a pipeline step. As ``Model.upload_version``."""
        target = self._target(step_id, version, storage_request_size)
        return upload(self._client, target, source, options)


class AsyncPipelineSteps(PipelineStepOperations, Async):
    """The pipeline steps of an app."""

    async def upload(
        self,
        source: UploadSource,
        step_id: str,
        *,
        version: v2.PipelineStepVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload an archive as a new version of a pipeline step. As ``Model.upload_version``."""
        target = self._target(step_id, version, storage_request_size)
        return await aupload(self._client, target, source, options)
