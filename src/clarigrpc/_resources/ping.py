"""Whether the service can be reached, how fast, and as whom."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._rpc.client_interface import ClientInterface
from clarigrpc._rpc.plan import Plan, call
from clarigrpc._version import __version__


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class PingResult:
    """What ``client.ping`` found out.

    Attributes:
        base: Address of the service. The first one, if the client has several.
        transport: ``"grpc"`` or ``"rest"``.
        user_id: Id of the owner of the client's credentials.
        latency: Seconds from a request to its response, on an open connection.
        first_latency: The same for the request before it, which opened the connection unless it
            was open.
        request_id: The service's id of the request, for its support.
        versions: Versions of clarigrpc, gRPC, protobuf and Python in this process.
    """

    base: str
    transport: str
    user_id: str
    latency: float
    first_latency: float
    request_id: str
    versions: Mapping[str, str]


def ping(client: ClientInterface, timeout: float | None) -> Plan[PingResult]:
    """The plan of ``client.ping``."""
    method = "GetUser"
    request: Any = v2.GetUserRequest(user_app_id=v2.UserAppIDSet(user_id="me"))
    started = time.perf_counter()
    try:
        response = yield from call(method, request, timeout=timeout)
    except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
        # The key of an app may not ask for its user, but for what it may do in the app.
        method, request = "MyScopes", v2.MyScopesRequest(user_app_id=client.user_app_id)
        started = time.perf_counter()
        try:
            response = yield from call(method, request, timeout=timeout)
        except errors.ApiError:
            raise error from None
    first_latency = time.perf_counter() - started
    started = time.perf_counter()
    yield from call(method, request, timeout=timeout)
    latency = time.perf_counter() - started
    settings = client.settings
    return PingResult(
        base=settings.target.url,
        transport=settings.transport,
        user_id=response.user.id if method == "GetUser" else response.app.user_id,
        latency=latency,
        first_latency=first_latency,
        request_id=response.status.req_id,
        versions={
            "clarigrpc": __version__,
            "grpcio": version("grpcio"),
            "protobuf": version("protobuf"),
            "python": platform.python_version(),
        },
    )
