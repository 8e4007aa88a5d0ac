"""The logs of models, runners and pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Domain, Paging
from clarigrpc._resources.sync_async import Async, Opening, Sync, iteration, streaming
from clarigrpc._rpc.plan import ItemPlan
from clarigrpc._streams.response_stream import StreamSession


@named_in("clarigrpc.types")
class LogIds(TypedDict, total=False):
    """The ids that name a component; the methods that take them describe them."""

    model_id: str
    model_version_id: str
    workflow_id: str
    compute_cluster_user_id: str
    compute_cluster_id: str
    nodepool_id: str
    runner_id: str
    pipeline_id: str
    pipeline_version_id: str
    pipeline_version_run_id: str
    pipeline_step_id: str
    pipeline_step_version_id: str


@named_in("clarigrpc.types")
class LogFilters(LogIds, Paging, total=False):
    """Options of ``client.logs.list``."""


class _LogSession(StreamSession[v2.LogEntry]):
    """Lines as they are written. There is no cursor."""

    def __init__(self, request: v2.StreamLogEntriesRequest) -> None:
        self._request = request

    def request(self) -> v2.StreamLogEntriesRequest:
        return self._request

    def accept(self, response: v2.MultiLogEntryResponse) -> Iterator[v2.LogEntry]:
        yield from response.log_entries


class LogOperations(Domain):
    """The logs of models, runners and pipelines."""

    @iteration
    def list(self, log_type: str, **options: Unpack[LogFilters]) -> ItemPlan[v2.LogEntry]:
        """List the entries that a log has now.

        Args:
            log_type: Which log of the component, e.g. ``"runner"`` or ``"builder"``.
            model_id: Id of the model whose log it is.
            model_version_id: Id of the model version.
            workflow_id: Id of the workflow whose log it is.
            compute_cluster_user_id: Owner of the compute cluster, if not the user.
            compute_cluster_id: Id of the compute cluster.
            nodepool_id: Id of the nodepool.
            runner_id: Id of the runner whose log it is.
            pipeline_id: Id of the pipeline whose log it is.
            pipeline_version_id: Id of the pipeline version.
            pipeline_version_run_id: Id of the run of the pipeline version.
            pipeline_step_id: Id of the pipeline step.
            pipeline_step_version_id: Id of the version of the pipeline step.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._pages("ListLogEntries", "log_entries", {"log_type": log_type, **options})

    @streaming
    def stream(
        self, log_type: str, *, timeout: float | None = None, **ids: Unpack[LogIds]
    ) -> Opening[v2.LogEntry]:
        """Follow a log: get its entries as they are written.

        The service has no cursor for logs: a connection that breaks after the first entries raises
        an error, and a new stream starts where the service starts.

        Args:
            log_type: Which log of the component, e.g. ``"runner"`` or ``"builder"``.
            timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.
            model_id: Id of the model whose log it is.
            model_version_id: Id of the model version.
            workflow_id: Id of the workflow whose log it is.
            compute_cluster_user_id: Owner of the compute cluster, if not the user.
            compute_cluster_id: Id of the compute cluster.
            nodepool_id: Id of the nodepool.
            runner_id: Id of the runner whose log it is.
            pipeline_id: Id of the pipeline whose log it is.
            pipeline_version_id: Id of the pipeline version.
            pipeline_version_run_id: Id of the run of the pipeline version.
            pipeline_step_id: Id of the pipeline step.
            pipeline_step_version_id: Id of the version of the pipeline step.

        Returns:
            An iterator of entries. To end the call, leave its ``with`` block, call its ``cancel``
            or drop it.
        """
        request = self._request("StreamLogEntries", {"log_type": log_type, **ids})
        return Opening("StreamLogEntries", _LogSession(request), timeout)


class Logs(LogOperations, Sync): ...


class AsyncLogs(LogOperations, Async): ...
