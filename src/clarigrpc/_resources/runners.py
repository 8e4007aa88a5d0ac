"""Runners and the work that they are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import (
    Creates,
    Deletes,
    Gets,
    Lists,
    Paging,
    Patches,
    as_list,
)
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class RunnerItemOperations(Lists[v2.RunnerItem]):
    """The work that waits for a runner."""

    message = v2.RunnerItem
    of_user = True

    @operation
    def answer(
        self,
        item_id: str,
        outputs: v2.RunnerItemOutput | Iterable[v2.RunnerItemOutput],
        *,
        status: v2.Status | None = None,
        runner_replica_id: str = "",
        timeout: float | None = None,
    ) -> Plan[list[v2.RunnerItemOutput]]:
        """Give the outputs of an item to whoever waits for them.

        Args:
            item_id: The item.
            outputs: One or many, each with the response to the item's request.
            status: How the work went; None: SUCCESS.
            runner_replica_id: Which replica of the runner did it.
            timeout: Seconds; None: the client's.

        Raises:
            CancelledError: Nobody waits for them any more.
        """
        response: v2.MultiRunnerItemOutputResponse = yield from self._invoke(
            "PostRunnerItemOutputs",
            timeout,
            runner_item_id=item_id,
            runner_item_outputs=as_list(outputs, v2.RunnerItemOutput),
            status=status or v2.Status(code=v2.StatusCode.SUCCESS),
            runner_replica_id=runner_replica_id,
        )
        return [*response.runner_item_outputs]


class RunnerItems(RunnerItemOperations, Sync): ...


class AsyncRunnerItems(RunnerItemOperations, Async): ...


class RunnerFilters(Paging, total=False):
    """Which runners are listed.

    Attributes:
        compute_cluster_id: Only those of this cluster.
        nodepool_id: Only those of this nodepool.
        min_replicas: Only those with at least so many replicas.
        model_version_ids: Only those that run one of these versions.
    """

    compute_cluster_id: str
    nodepool_id: str
    min_replicas: int
    model_version_ids: Sequence[str]


class RunnerOperations(Creates[v2.Runner], Gets[v2.Runner], Patches[v2.Runner], Deletes[v2.Runner]):
    """The runners of a user, or of one nodepool."""

    message = v2.Runner
    of_user = True

    items = nested("runner_id", RunnerItems, AsyncRunnerItems, "The work that waits for a runner.")

    @iteration
    def list(self, **options: Unpack[RunnerFilters]) -> ItemPlan[v2.Runner]:
        """The runners.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Runners(RunnerOperations, Sync): ...


class AsyncRunners(RunnerOperations, Async): ...
