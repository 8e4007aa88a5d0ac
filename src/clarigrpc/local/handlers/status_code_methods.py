"""ListStatusCodes and GetStatusCode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.v2 import StatusCode


def list_status_codes(
    context: Context, request: v2.ListStatusCodesRequest
) -> v2.MultiStatusCodeResponse:
    response = v2.MultiStatusCodeResponse(status=make_status(StatusCode.SUCCESS))
    for number in sorted(set(StatusCode.values())):
        if number:
            response.statuses.append(make_status(number))
    return response


def get_status_code(
    context: Context, request: v2.GetStatusCodeRequest
) -> v2.SingleStatusCodeResponse:
    # Compared as text: an integer of thousands of digits is not even read.
    for number in StatusCode.values():
        if number and str(number) == request.status_code_id:
            return v2.SingleStatusCodeResponse(status=make_status(number))
    raise ServiceError(
        StatusCode.CONN_DOES_NOT_EXIST,
        f"status code {request.status_code_id[:40]!r} does not exist",
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "ListStatusCodes": list_status_codes,
    "GetStatusCode": get_status_code,
}
