"""Pipelines, their versions, and the runs of versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches
from clarigrpc._resources.long_running import FollowsWork, WorkProgress, by_percent
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, nested
from clarigrpc._rpc.plan import ItemPlan, Plan


@named_in("clarigrpc.types")
class RunFilters(Paging, total=False):
    """Options of ``list`` of the runs of a pipeline version."""

    status_codes: Sequence[v2.StatusCode.ValueType]
    compute_cluster_id: str
    nodepool_id: str


@named_in("clarigrpc.types")
class StatusLogFilters(Paging, total=False):
    """Options of ``status_logs`` of the runs of a pipeline version."""

    status_codes: Sequence[v2.StatusCode.ValueType]


class PipelineVersionRunOperations(
    Creates[v2.PipelineVersionRun],
    Gets[v2.PipelineVersionRun],
    Patches[v2.PipelineVersionRun],
    FollowsWork[v2.PipelineVersionRun],
):
    """The runs of a pipeline version."""

    _message = v2.PipelineVersionRun
    _create_rpc = "PostPipelineVersionRuns"
    _get_rpc = "GetPipelineVersionRun"
    _list_rpc = "ListPipelineVersionRuns"
    _patch_rpc = "PatchPipelineVersionRuns"
    _work_name = "pipeline run"

    def _progress_of(self, item: v2.PipelineVersionRun) -> WorkProgress:
        return by_percent(item.orchestration_status.status)

    def _cancel_work(self, resource_id: str, timeout: float | None) -> Plan[v2.Status]:
        wanted = v2.PipelineVersionRun(id=resource_id)
        wanted.orchestration_status.status.code = v2.StatusCode.JOB_CANCELLED
        (run,) = yield from self._patch([wanted], timeout, True, action="overwrite")
        return run.orchestration_status.status

    @iteration
    def status_logs(
        self, run_id: str, /, **options: Unpack[StatusLogFilters]
    ) -> ItemPlan[v2.PipelineVersionRunStatusLog]:
        """List the status changes of a run, step by step.

        Args:
            run_id: Id of the run.
            status_codes: Filter by status, values of ``v2.StatusCode``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._pages(
            "ListPipelineVersionRunStatusLogs",
            "pipeline_version_run_status_logs",
            {"pipeline_version_run_id": run_id, **options},
        )

    @iteration
    def list(self, **options: Unpack[RunFilters]) -> ItemPlan[v2.PipelineVersionRun]:
        """List the runs of the pipeline version.

        Args:
            status_codes: Filter by status, values of ``v2.StatusCode``.
            compute_cluster_id: Filter by compute cluster.
            nodepool_id: Filter by nodepool.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class PipelineVersionRuns(PipelineVersionRunOperations, Sync): ...


class AsyncPipelineVersionRuns(PipelineVersionRunOperations, Async): ...


class PipelineVersionOperations(
    Gets[v2.PipelineVersion],
    Lists[v2.PipelineVersion],
    Patches[v2.PipelineVersion],
    Deletes[v2.PipelineVersion],
):
    """The versions of a pipeline. Creating or patching the pipeline makes them."""

    _message = v2.PipelineVersion
    _get_rpc = "GetPipelineVersion"
    _list_rpc = "ListPipelineVersions"
    _patch_rpc = "PatchPipelineVersions"
    _delete_rpc = "DeletePipelineVersions"

    @nested(PipelineVersionRuns, AsyncPipelineVersionRuns)
    def runs(self, pipeline_version_id: str) -> Parents:
        """Access the runs of a pipeline version.

        Args:
            pipeline_version_id: Id of the pipeline version.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"pipeline_version_id": pipeline_version_id}


class PipelineVersions(PipelineVersionOperations, Sync): ...


class AsyncPipelineVersions(PipelineVersionOperations, Async): ...


class PipelineOperations(
    Creates[v2.Pipeline],
    Gets[v2.Pipeline],
    Lists[v2.Pipeline],
    Patches[v2.Pipeline],
    Deletes[v2.Pipeline],
):
    """The pipelines of an app."""

    _message = v2.Pipeline
    _create_rpc = "PostPipelines"
    _get_rpc = "GetPipeline"
    _list_rpc = "ListPipelines"
    _patch_rpc = "PatchPipelines"
    _delete_rpc = "DeletePipelines"

    @nested(PipelineVersions, AsyncPipelineVersions)
    def versions(self, pipeline_id: str) -> Parents:
        """Access the versions of a pipeline.

        Args:
            pipeline_id: Id of the pipeline.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"pipeline_id": pipeline_id}


class Pipelines(PipelineOperations, Sync): ...


class AsyncPipelines(PipelineOperations, Async): ...
