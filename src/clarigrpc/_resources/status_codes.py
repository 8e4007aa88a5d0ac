"""The status codes of the service, as it describes them itself."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc._resources.base import Lists
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._rpc.plan import Plan


class StatusCodeOperations(Lists[v2.Status]):
    """The status codes of the service."""

    message = v2.Status
    plural = "StatusCodes"
    noun = "status code"

    @operation
    def get(self, code: int, /, *, timeout: float | None = None) -> Plan[v2.Status]:
        """What the service says of a status code.

        Args:
            code: The code, ``v2.StatusCode.SUCCESS`` say.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such code.
        """
        response = yield from self._invoke("GetStatusCode", timeout, status_code_id=str(code))
        found: v2.Status = response.status
        return found


class StatusCodes(StatusCodeOperations, Sync): ...


class AsyncStatusCodes(StatusCodeOperations, Async): ...
