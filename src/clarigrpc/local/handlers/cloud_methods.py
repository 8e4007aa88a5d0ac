"""Clouds, regions and machines: one of each, which is what the server runs on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.v2 import StatusCode

_LOCAL = "local"
_MEBIBYTE = 1 << 20


def list_cloud_providers(
    context: Context, request: v2.ListCloudProvidersRequest
) -> v2.MultiCloudProviderResponse:
    return v2.MultiCloudProviderResponse(
        status=make_status(StatusCode.SUCCESS), cloud_providers=[_provider()]
    )


def list_cloud_regions(
    context: Context, request: v2.ListCloudRegionsRequest
) -> v2.MultiCloudRegionResponse:
    _check_provider(request)
    return v2.MultiCloudRegionResponse(
        status=make_status(StatusCode.SUCCESS), cloud_regions=[v2.CloudRegion(id=_LOCAL)]
    )


def list_instance_types(
    context: Context, request: v2.ListInstanceTypesRequest
) -> v2.MultiInstanceTypeResponse:
    _check_provider(request)
    if request.region not in ("", _LOCAL):
        raise ServiceError(
            StatusCode.CONN_DOES_NOT_EXIST, f"region {request.region!r} does not exist"
        )
    machine = v2.InstanceType(
        id=_LOCAL,
        description="The machine that the local server runs on",
        compute_info=_resources(os.cpu_count() or 1, "SC_PHYS_PAGES"),
        available_compute_info=_resources(_usable_cores(), "SC_AVPHYS_PAGES"),
        cloud_provider=_provider(),
        region=_LOCAL,
        architecture=platform.machine(),
    )
    return v2.MultiInstanceTypeResponse(
        status=make_status(StatusCode.SUCCESS), instance_types=[machine]
    )


def _provider() -> v2.CloudProvider:
    return v2.CloudProvider(id=_LOCAL, name="Local machine")


def _check_provider(request: Any) -> None:
    if request.cloud_provider.id not in ("", _LOCAL):
        raise ServiceError(
            StatusCode.CONN_DOES_NOT_EXIST,
            f"cloud provider {request.cloud_provider.id!r} does not exist",
        )


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on all systems
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _resources(cores: int, pages: str) -> v2.ComputeInfo:
    info = v2.ComputeInfo(cpu_limit=str(cores))
    if pages in os.sysconf_names:
        memory = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
        info.cpu_memory = f"{memory // _MEBIBYTE}Mi"
    return info


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "ListCloudProviders": list_cloud_providers,
    "ListCloudRegions": list_cloud_regions,
    "ListInstanceTypes": list_instance_types,
}
