"""The types of models and the licences that the server knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.request_checks import page_bounds
from clarigrpc.local.models.model_types import LISTED_MODEL_TYPES
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.v2 import StatusCode

_LICENSES = (
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MPL-2.0",
    "LGPL-3.0",
    "GPL-3.0",
    "AGPL-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "Unlicense",
)


def list_model_types(
    context: Context, request: v2.ListModelTypesRequest
) -> v2.MultiModelTypeResponse:
    offset, limit = page_bounds(request.page, request.per_page)
    return v2.MultiModelTypeResponse(
        status=make_status(StatusCode.SUCCESS),
        model_types=LISTED_MODEL_TYPES[offset : offset + limit],
    )


def get_model_type(context: Context, request: v2.GetModelTypeRequest) -> v2.SingleModelTypeResponse:
    for kind in LISTED_MODEL_TYPES:
        if kind.id == request.model_type_id:
            return v2.SingleModelTypeResponse(
                status=make_status(StatusCode.SUCCESS), model_type=kind
            )
    raise ServiceError(
        StatusCode.MODEL_INVALID_ARGUMENT,
        f"unknown model type {request.model_type_id!r}; ListModelTypes lists the known ones",
    )


def list_licenses(
    context: Context, request: v2.ListOpenSourceLicensesRequest
) -> v2.ListOpenSourceLicensesResponse:
    return v2.ListOpenSourceLicensesResponse(
        status=make_status(StatusCode.SUCCESS), licenses=_LICENSES
    )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "ListModelTypes": list_model_types,
    "GetModelType": get_model_type,
    "ListOpenSourceLicenses": list_licenses,
}
