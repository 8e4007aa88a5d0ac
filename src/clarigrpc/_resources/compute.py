"""Where models run: compute clusters, their nodepools, and deployments to these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches
from clarigrpc._resources.runners import AsyncRunners, Runners
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class NodepoolOperations(
    Creates[v2.Nodepool],
    Gets[v2.Nodepool],
    Lists[v2.Nodepool],
    Patches[v2.Nodepool],
    Deletes[v2.Nodepool],
):
    """The nodepools of a compute cluster."""

    message = v2.Nodepool
    of_user = True

    runners = nested("nodepool_id", Runners, AsyncRunners, "The runners of a nodepool.")

    @operation
    def set_status(
        self,
        nodepool_id: str,
        status: v2.Nodepool.NodepoolStatus.ValueType,
        *,
        description: str = "",
        timeout: float | None = None,
    ) -> Plan[None]:
        """Say how a nodepool is, for the agents that run it.

        Args:
            nodepool_id: The nodepool.
            status: A value of ``v2.Nodepool.NodepoolStatus``.
            description: More about it, for people.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such nodepool.
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

    message = v2.ComputeCluster
    of_user = True

    nodepools = nested(
        "compute_cluster_id", Nodepools, AsyncNodepools, "The nodepools of a compute cluster."
    )


class ComputeClusters(ComputeClusterOperations, Sync): ...


class AsyncComputeClusters(ComputeClusterOperations, Async): ...


class DeploymentFilters(Paging, total=False):
    """Which deployments are listed.

    Attributes:
        compute_cluster_id: Only those to this cluster.
        nodepool_id: Only those to this nodepool.
        model_version_ids: Only those of these versions of models.
        workflow_version_ids: Only those of these versions of workflows.
    """

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

    message = v2.Deployment
    of_user = True

    @iteration
    def list(self, **options: Unpack[DeploymentFilters]) -> ItemPlan[v2.Deployment]:
        """The deployments of the user.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Deployments(DeploymentOperations, Sync): ...


class AsyncDeployments(DeploymentOperations, Async): ...
