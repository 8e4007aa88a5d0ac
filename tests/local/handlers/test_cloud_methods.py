"""The one cloud of a local server: the machine that it runs on."""

from __future__ import annotations

import os

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, ok

Code = v2.StatusCode


def test_the_machine_is_the_cloud(raw: Raw) -> None:
    (provider,) = ok(raw("ListCloudProviders", v2.ListCloudProvidersRequest())).cloud_providers
    regions = v2.ListCloudRegionsRequest(cloud_provider=provider)
    (region,) = ok(raw("ListCloudRegions", regions)).cloud_regions
    types = v2.ListInstanceTypesRequest(cloud_provider=provider, region=region.id)
    (machine,) = ok(raw("ListInstanceTypes", types)).instance_types
    assert (machine.cloud_provider, machine.region) == (provider, region.id)
    assert machine.compute_info.cpu_limit == str(os.cpu_count())
    assert 1 <= int(machine.available_compute_info.cpu_limit) <= (os.cpu_count() or 1)
    assert machine.compute_info.cpu_memory.endswith("Mi")
    assert not machine.compute_info.num_accelerators  # nobody looked for any
    regions.cloud_provider.id = types.cloud_provider.id = "aws"
    assert raw("ListCloudRegions", regions).status.code == Code.CONN_DOES_NOT_EXIST
    assert raw("ListInstanceTypes", types).status.code == Code.CONN_DOES_NOT_EXIST
    elsewhere = v2.ListInstanceTypesRequest(cloud_provider=provider, region="us-east-1")
    assert raw("ListInstanceTypes", elsewhere).status.code == Code.CONN_DOES_NOT_EXIST
