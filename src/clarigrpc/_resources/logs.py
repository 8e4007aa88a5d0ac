"""The logs of models, runners and pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Domain, Paging
from clarigrpc._resources.sync_async import Async, Sync, iteration
from clarigrpc._rpc.plan import ItemPlan
from clarigrpc._streams.response_stream import AsyncStream, Stream, StreamSession


@named_in("clarigrpc.types")
class LogIds(TypedDict, total=False):
    """The ids of the component whose log is meant, from the outermost in."""

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


class LogFilters(LogIds, Paging, total=False):
    """Which log is listed.

    Attributes:
        model_id, runner_id and so on: The ids of the component whose log is meant.
    """


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

    def _session(self, log_type: str, ids: LogIds) -> _LogSession:
        return _LogSession(self._request("StreamLogEntries", {"log_type": log_type, **ids}))

    @iteration
    def list(self, log_type: str, **options: Unpack[LogFilters]) -> ItemPlan[v2.LogEntry]:
        """The entries of a log that are there now.

        Args:
            log_type: Which log of the component: of a runner, a build, a training ...
            {options}
            {paging}
        """
        return self._pages("ListLogEntries", "log_entries", {"log_type": log_type, **options})


class Logs(LogOperations, Sync):
    """The logs of models, runners and pipelines."""

    def stream(
        self, log_type: str, *, timeout: float | None = None, **ids: Unpack[LogIds]
    ) -> Stream[v2.LogEntry]:
        """Follow a log.

        The service has no cursor for logs: a connection that breaks after the first lines raises,
        and a new stream begins where the service begins.

        Args:
            log_type: Which log of the component: of a runner, a build, a training ...
            timeout: Seconds for the whole stream; None: the client's ``stream_timeout``.
            ids: Of the component, see ``LogIds``.

        Returns:
            An iterator of log entries. Leave its ``with`` block, ``cancel`` it or drop it to end
            the call.
        """
        return Stream(self.unary("StreamLogEntries"), self._session(log_type, ids), timeout)


class AsyncLogs(LogOperations, Async):
    """The logs of models, runners and pipelines."""

    def stream(
        self, log_type: str, *, timeout: float | None = None, **ids: Unpack[LogIds]
    ) -> AsyncStream[v2.LogEntry]:
        """As ``Logs.stream``."""
        return AsyncStream(self.unary("StreamLogEntries"), self._session(log_type, ids), timeout)
