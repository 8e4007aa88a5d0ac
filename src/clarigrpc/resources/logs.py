"""The logs of models, runners and pipelines."""

from __future__ import annotations

from collections.abc import Iterator

from clarigrpc import v2
from clarigrpc.resources.base import Operations
from clarigrpc.streams import AsyncStream, Session, Stream

STREAM = "StreamLogEntries"


class _LogSession(Session[v2.LogEntry]):
    """Lines as they are written. There is no cursor."""

    def __init__(self, request: v2.StreamLogEntriesRequest) -> None:
        self._request = request

    def request(self) -> v2.StreamLogEntriesRequest:
        return self._request

    def accept(self, response: v2.MultiLogEntryResponse) -> Iterator[v2.LogEntry]:
        yield from response.log_entries


class LogOperations(Operations):
    """The logs of models, runners and pipelines."""

    def _session(self, log_type: str, ids: dict[str, str]) -> _LogSession:
        fields = v2.StreamLogEntriesRequest.DESCRIPTOR.fields_by_name
        known = [name for name in fields if name.endswith("_id") and name != "user_app_id"]
        for name in ids:
            if name not in known:
                raise TypeError(f"stream() takes {', '.join(known)}; not {name}")
        request = v2.StreamLogEntriesRequest(user_app_id=self.user_app_id, log_type=log_type)
        for name, value in ids.items():
            setattr(request, name, value)
        return _LogSession(request)


class Logs(LogOperations):
    """The logs of models, runners and pipelines."""

    def stream(
        self, log_type: str, *, timeout: float | None = None, **ids: str
    ) -> Stream[v2.LogEntry]:
        """Follow a log.

        The service has no cursor for logs: a connection that breaks after the first lines raises,
        and a new stream begins where the service begins.

        Args:
            log_type: Which log of the component: of a runner, a build, a training ...
            timeout: Seconds for the whole stream; None: the client's ``stream_timeout``.
            ids: Of the component: ``model_id``, ``model_version_id``, ``runner_id`` and so on, by
                the names of ``v2.StreamLogEntriesRequest``.

        Returns:
            An iterator of log entries. Leave its ``with`` block, ``cancel`` it or drop it to end
            the call.
        """
        return Stream(self.unary(STREAM), self._session(log_type, ids), timeout)


class AsyncLogs(LogOperations):
    """The logs of models, runners and pipelines."""

    def stream(
        self, log_type: str, *, timeout: float | None = None, **ids: str
    ) -> AsyncStream[v2.LogEntry]:
        """As ``Logs.stream``."""
        return AsyncStream(self.unary(STREAM), self._session(log_type, ids), timeout)
