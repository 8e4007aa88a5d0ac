"""Compute clusters, their nodepools, and the deployments of models to these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches
from clarigrpc._resources.runners import AsyncRunners, Runners
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class NodepoolOperations(
    Creates[v2.Nodepool],
    Gets[v2.Nodepool],
    Lists[v2.Nodepool],
    Patches[v2.Nodepool],
    Deletes[v2.Nodepool],
):
    """The nodepools of a compute cluster."""

    _message = v2.Nodepool
    _of_user = True
    _create_rpc = "PostNodepools"
    _get_rpc = "GetNodepool"
    _list_rpc = "ListNodepools"
    _patch_rpc = "PatchNodepools"
    _delete_rpc = "DeleteNodepools"

    @nested(Runners, AsyncRunners)
    def runners(self, nodepool_id: str) -> Parents:
        """Access the runners of a nodepool.

        Args:
            nodepool_id: Id of the nodepool.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"nodepool_id": nodepool_id}

    @operation
    def set_status(
        self,
        nodepool_id: str,
        status: v2.Nodepool.NodepoolStatus.ValueType,
        *,
        description: str = "",
        timeout: float | None = None,
    ) -> Plan[None]:
        """Report the status of a nodepool. For the agents that operate it.

        Args:
            nodepool_id: Id of the nodepool.
            status: Status to report, a value of ``v2.Nodepool.NodepoolStatus``.
            description: Explanation for people.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The nodepool does not exist.
        """
        yield from self._invoke(
            "PostNodepoolStatus",
            timeout,
            nodepool_id=nodepool_id,
            status=status,
            status_description=description,
        )


class Nodepools(NodepoolOperations, Sync): ...


class AsyncNodepools(NodepoolOperations, Async): ...


class ComputeClusterOperations(
    Creates[v2.ComputeCluster],
    Gets[v2.ComputeCluster],
    Lists[v2.ComputeCluster],
    Patches[v2.ComputeCluster],
    Deletes[v2.ComputeCluster],
):
    """The compute clusters of a user."""

    _message = v2.ComputeCluster
    _of_user = True
    _create_rpc = "PostComputeClusters"
    _get_rpc = "GetComputeCluster"
    _list_rpc = "ListComputeClusters"
    _patch_rpc = "PatchComputeClusters"
    _delete_rpc = "DeleteComputeClusters"

    @nested(Nodepools, AsyncNodepools)
    def nodepools(self, compute_cluster_id: str) -> Parents:
        """Access the nodepools of a compute cluster.

        Args:
            compute_cluster_id: Id of the compute cluster.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"compute_cluster_id": compute_cluster_id}


class ComputeClusters(ComputeClusterOperations, Sync): ...


class AsyncComputeClusters(ComputeClusterOperations, Async): ...


@named_in("clarigrpc.types")
class DeploymentFilters(Paging, total=False):
    """Options of ``client.deployments.list``."""

    compute_cluster_id: str
    nodepool_id: str
    model_version_ids: Sequence[str]
    workflow_version_ids: Sequence[str]


class DeploymentOperations(
    Creates[v2.Deployment],
    Gets[v2.Deployment],
    Patches[v2.Deployment],
    Deletes[v2.Deployment],
):
    """The deployments of a user."""

    _message = v2.Deployment
    _of_user = True
    _create_rpc = "PostDeployments"
    _get_rpc = "GetDeployment"
    _list_rpc = "ListDeployments"
    _patch_rpc = "PatchDeployments"
    _delete_rpc = "DeleteDeployments"

    @iteration
    def list(self, **options: Unpack[DeploymentFilters]) -> ItemPlan[v2.Deployment]:
        """List the deployments of the user.

        Args:
            compute_cluster_id: Filter by compute cluster.
            nodepool_id: Filter by nodepool.
            model_version_ids: Filter by model versions.
            workflow_version_ids: Filter by workflow versions.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Deployments(DeploymentOperations, Sync): ...


class AsyncDeployments(DeploymentOperations, Async): ...
