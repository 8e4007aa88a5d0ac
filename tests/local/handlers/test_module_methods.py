"""Modules, nodepools and log entries."""

from __future__ import annotations

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, message, ok


def test_states_of_nodepools(raw: Raw) -> None:
    clusters = v2.PostComputeClustersRequest(compute_clusters=[v2.ComputeCluster(id="c")])
    ok(raw("PostComputeClusters", clusters))
    pools = v2.PostNodepoolsRequest(compute_cluster_id="c", nodepools=[v2.Nodepool(id="n")])
    ok(raw("PostNodepools", pools))
    report = v2.PostNodepoolStatusRequest(
        compute_cluster_id="c", nodepool_id="n", status_description="all is well"
    )
    ok(raw("PostNodepoolStatus", report))
    get = v2.GetNodepoolRequest(compute_cluster_id="c", nodepool_id="n")
    found = ok(raw("GetNodepool", get)).nodepool
    assert (found.status_description, found.compute_cluster.id) == ("all is well", "c")


def test_modules_and_their_users(raw: Raw) -> None:
    module = message(v2.Module, id="m", module_version={"id": "1"})
    ok(raw("PostModules", v2.PostModulesRequest(modules=[module])))
    request = v2.PostInstalledModuleVersionsRequest()
    request.installed_module_versions.append(
        message(v2.InstalledModuleVersion, id="i", module_version={"id": "1", "module_id": "m"})
    )
    ok(raw("PostInstalledModuleVersions", request))
    count = v2.GetModuleVersionUsageCountRequest(module_id="m", module_version_id="1")
    assert ok(raw("GetModuleVersionUsageCount", count)).usage_count == 1
    wanted = v2.PostInstalledModuleVersionsKeyRequest(installed_module_version_id="i")
    keys = {ok(raw("PostInstalledModuleVersionsKey", wanted)).key.id for _ in range(2)}
    assert len(keys) == 1
    ok(raw.with_key(keys.pop())("ListInputs", v2.ListInputsRequest()))


def test_log_entries(raw: Raw) -> None:
    place = {"compute_cluster_id": "c", "nodepool_id": "n"}
    request = v2.PostLogEntriesRequest()
    for name in ("a", "b"):
        meta = {**place, "runner_id": name}
        request.log_entries.append(message(v2.LogEntry, message=name, log_type="runner", meta=meta))
    ok(raw("PostLogEntries", request))
    listing = message(v2.ListLogEntriesRequest, log_type="runner", runner_id="b", **place)
    assert [e.message for e in ok(raw("ListLogEntries", listing)).log_entries] == ["b"]
