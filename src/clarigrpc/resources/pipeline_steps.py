"""The steps that pipelines are made of, and their versions."""

from __future__ import annotations

from typing import Unpack

from clarigrpc import v2
from clarigrpc.plan import ItemPlan, Plan, aiterating, awaiting, blocking, call, iterating
from clarigrpc.resources.base import Operations, pages
from clarigrpc.upload import targets
from clarigrpc.upload.operations import UploadKeywords, aupload, upload
from clarigrpc.upload.session import UploadResult
from clarigrpc.upload.sources import Uploadable
from clarigrpc.upload.targets import Target


class PipelineStepOperations(Operations):
    """The pipeline steps of an app."""

    def _create(
        self, step_id: str = "", *, description: str = "", timeout: float | None = None
    ) -> Plan[v2.PipelineStep]:
        """Make a pipeline step, without content yet.

        Args:
            step_id: Its id; the service makes one up when it is empty.
            description: What it does.
            timeout: Seconds; None: the client's.

        Raises:
            AlreadyExistsError: There is one of this id.
        """
        request = v2.PostPipelineStepsRequest(
            user_app_id=self.user_app_id,
            pipeline_steps=[v2.PipelineStep(id=step_id, description=description)],
        )
        response: v2.MultiPipelineStepResponse = yield from call(
            "PostPipelineSteps", request, timeout=timeout
        )
        return response.pipeline_steps[0]

    def _get(self, step_id: str, *, timeout: float | None = None) -> Plan[v2.PipelineStep]:
        """A pipeline step by its id, with its newest version.

        Raises:
            NotFoundError: There is no such step.
        """
        request = v2.GetPipelineStepRequest(user_app_id=self.user_app_id, pipeline_step_id=step_id)
        response: v2.SinglePipelineStepResponse = yield from call(
            "GetPipelineStep", request, timeout=timeout
        )
        return response.pipeline_step

    def _list(
        self,
        *,
        page: int | None = None,
        per_page: int | None = None,
        timeout: float | None = None,
    ) -> ItemPlan[v2.PipelineStep]:
        """The pipeline steps of the app, fetched page by page; with ``page`` that one only."""
        request = v2.ListPipelineStepsRequest(user_app_id=self.user_app_id)
        yield from pages(
            "ListPipelineSteps",
            request,
            "pipeline_steps",
            page=page,
            per_page=per_page,
            timeout=timeout,
        )

    def _versions(
        self,
        step_id: str,
        *,
        page: int | None = None,
        per_page: int | None = None,
        timeout: float | None = None,
    ) -> ItemPlan[v2.PipelineStepVersion]:
        """The versions of a pipeline step, fetched page by page; with ``page`` that one only."""
        request = v2.ListPipelineStepVersionsRequest(
            user_app_id=self.user_app_id, pipeline_step_id=step_id
        )
        yield from pages(
            "ListPipelineStepVersions",
            request,
            "pipeline_step_versions",
            page=page,
            per_page=per_page,
            timeout=timeout,
        )

    def _get_version(
        self, step_id: str, version_id: str, *, timeout: float | None = None
    ) -> Plan[v2.PipelineStepVersion]:
        """A version of a pipeline step; its ``status`` tells whether it is built.

        Raises:
            NotFoundError: There is no such version.
        """
        request = v2.GetPipelineStepVersionRequest(
            user_app_id=self.user_app_id,
            pipeline_step_id=step_id,
            pipeline_step_version_id=version_id,
        )
        response: v2.SinglePipelineStepVersionResponse = yield from call(
            "GetPipelineStepVersion", request, timeout=timeout
        )
        return response.pipeline_step_version

    def _target(
        self, step_id: str, version: v2.PipelineStepVersion | None, storage_request_size: int
    ) -> Target:
        return targets.pipeline_step_version(
            v2.PostPipelineStepVersionsUploadConfig(
                user_app_id=self.user_app_id or self._client.user_app_id,
                pipeline_step_id=step_id,
                pipeline_step_version=version,
                storage_request_size=storage_request_size,
            )
        )


class PipelineSteps(PipelineStepOperations):
    """The pipeline steps of an app."""

    create = blocking(PipelineStepOperations._create)
    get = blocking(PipelineStepOperations._get)
    list = iterating(PipelineStepOperations._list)
    versions = iterating(PipelineStepOperations._versions)
    get_version = blocking(PipelineStepOperations._get_version)

    def upload(
        self,
        source: Uploadable,
        step_id: str,
        *,
        version: v2.PipelineStepVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload an archive as a new version of a pipeline step. As ``Model.upload_version``."""
        target = self._target(step_id, version, storage_request_size)
        return upload(self._client, target, source, options)


class AsyncPipelineSteps(PipelineStepOperations):
    """The pipeline steps of an app."""

    create = awaiting(PipelineStepOperations._create)
    get = awaiting(PipelineStepOperations._get)
    list = aiterating(PipelineStepOperations._list)
    versions = aiterating(PipelineStepOperations._versions)
    get_version = awaiting(PipelineStepOperations._get_version)

    async def upload(
        self,
        source: Uploadable,
        step_id: str,
        *,
        version: v2.PipelineStepVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload an archive as a new version of a pipeline step. As ``Model.upload_version``."""
        target = self._target(step_id, version, storage_request_size)
        return await aupload(self._client, target, source, options)
