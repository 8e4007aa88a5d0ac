"""The status codes of the service, as described by the service itself."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc._resources.base import Lists
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._rpc.plan import Plan


class StatusCodeOperations(Lists[v2.Status]):
    """The status codes of the service."""

    _message = v2.Status
    _list_rpc = "ListStatusCodes"

    @operation
    def get(self, code: int, /, *, timeout: float | None = None) -> Plan[v2.Status]:
        """Fetch the description of a status code.

        Args:
            code: The code, e.g. ``v2.StatusCode.SUCCESS``.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The code does not exist.
        """
        response = yield from self._invoke("GetStatusCode", timeout, status_code_id=str(code))
        found: v2.Status = response.status
        return found


class StatusCodes(StatusCodeOperations, Sync): ...


class AsyncStatusCodes(StatusCodeOperations, Async): ...
