"""How a call fails: with a V2 status in its response, or without a response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import grpc

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name
from clarigrpc._rpc import statuses
from clarigrpc.v2 import StatusCode

StatusCodeValue: TypeAlias = StatusCode.ValueType


class ServiceError(Exception):
    """A failure that becomes the V2 status of a response.

    Args:
        code: V2 status code.
        details: What is wrong with this request, for the person who sent it.
        description: Short text for the code; derived from the code's name by default.
    """

    def __init__(self, code: StatusCodeValue, details: str = "", description: str = "") -> None:
        super().__init__(details or description or code_name(code))
        self.code = code
        self.details = details
        self.description: str = description or describe(code)

    def status(self) -> v2.Status:
        """This failure as a status message."""
        return v2.Status(code=self.code, description=self.description, details=self.details)


class CallAborted(Exception):
    """The call ends without a response, as by a transport failure or an unknown method.

    Args:
        code: gRPC status that the call ends with.
        details: Text of that status.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


_DESCRIPTIONS: Mapping[int, str] = {
    StatusCode.SUCCESS: "Ok",
    StatusCode.MIXED_STATUS: "Mixed Success",
    StatusCode.FAILURE: "Failure",
    StatusCode.TRY_AGAIN: "Try the request again",
    StatusCode.CONN_TOKEN_INVALID: "Invalid authentication token",
    StatusCode.CONN_CREDENTIALS_INVALID: "Invalid credentials",
    StatusCode.CONN_THROTTLED: "Making too many requests",
    StatusCode.CONN_EXCEEDS_LIMITS: "Account limits exceeded",
    StatusCode.CONN_INSUFFICIENT_SCOPES: "API key has insufficient scopes",
    StatusCode.CONN_KEY_INVALID: "Invalid API key or Invalid API key/application pair",
    StatusCode.CONN_KEY_NOT_FOUND: "API key not found",
    StatusCode.CONN_BAD_REQUEST_FORMAT: "Bad request format",
    StatusCode.CONN_DOES_NOT_EXIST: "Resource does not exist",
    StatusCode.CONN_INVALID_REQUEST: "Invalid request",
    StatusCode.CONN_METHOD_NOT_ALLOWED: "Method not allowed",
    StatusCode.CONCEPTS_INVALID_REQUEST: "Invalid request",
}
"""The service's own texts, as https://docs.clarifai.com/resources/api-overview/status-codes/
and the tests of its gRPC client have them."""


def describe(code: StatusCodeValue) -> str:
    """Short text for a status code: the service's own, or else words made of the code's name."""
    known = _DESCRIPTIONS.get(code)
    return known or code_name(code).replace("_", " ").capitalize()


def make_status(code: StatusCodeValue, details: str = "") -> v2.Status:
    """A status message with the code's own description."""
    return v2.Status(code=code, description=describe(code), details=details)


def overall(items: Iterable[v2.Status]) -> v2.Status:
    """The status of a bulk call from those of its items: SUCCESS, MIXED_STATUS or FAILURE."""
    good = bad = 0
    for item in items:
        if item.code in statuses.PASSING:
            good += 1
        else:
            bad += 1
    if not bad:
        return make_status(StatusCode.SUCCESS)
    if good:
        return make_status(StatusCode.MIXED_STATUS, f"{bad} of {good + bad} items failed")
    return make_status(StatusCode.FAILURE, "all items failed; see the status of each")
