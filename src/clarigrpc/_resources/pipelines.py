"""Pipelines, their versions, and the runs of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested
from clarigrpc._rpc.plan import ItemPlan


class RunFilters(Paging, total=False):
    """Which runs are listed.

    Attributes:
        status_codes: Only those with one of these statuses.
        compute_cluster_id: Only those in this cluster.
        nodepool_id: Only those in this nodepool.
    """

    status_codes: Sequence[v2.StatusCode.ValueType]
    compute_cluster_id: str
    nodepool_id: str


class StatusLogFilters(Paging, total=False):
    """Which entries of a run's log are listed.

    Attributes:
        status_codes: Only those with one of these statuses.
    """

    status_codes: Sequence[v2.StatusCode.ValueType]


class PipelineVersionRunOperations(
    Creates[v2.PipelineVersionRun], Gets[v2.PipelineVersionRun], Patches[v2.PipelineVersionRun]
):
    """The runs of a pipeline version."""

    message = v2.PipelineVersionRun
    noun = "run"

    @iteration
    def status_logs(
        self, run_id: str, /, **options: Unpack[StatusLogFilters]
    ) -> ItemPlan[v2.PipelineVersionRunStatusLog]:
        """What became of a run, step by step.

        Args:
            run_id: The run.
            {options}
            {paging}
        """
        return self._pages(
            "ListPipelineVersionRunStatusLogs",
            "pipeline_version_run_status_logs",
            {"pipeline_version_run_id": run_id, **options},
        )

    @iteration
    def list(self, **options: Unpack[RunFilters]) -> ItemPlan[v2.PipelineVersionRun]:
        """The runs of the version.

        Args:
            {options}
            {paging}
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

    message = v2.PipelineVersion

    runs = nested(
        "pipeline_version_id",
        PipelineVersionRuns,
        AsyncPipelineVersionRuns,
        "The runs of a pipeline version.",
    )


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

    message = v2.Pipeline

    versions = nested(
        "pipeline_id", PipelineVersions, AsyncPipelineVersions, "The versions of a pipeline."
    )


class Pipelines(PipelineOperations, Sync): ...


class AsyncPipelines(PipelineOperations, Async): ...
