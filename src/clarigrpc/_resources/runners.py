"""Runners, and the work items that they process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import (
    Creates,
    Deletes,
    Gets,
    Lists,
    Paging,
    Patches,
    as_list,
)
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class RunnerItemOperations(Lists[v2.RunnerItem]):
    """The work items that wait for a runner."""

    _message = v2.RunnerItem
    _of_user = True
    _list_rpc = "ListRunnerItems"

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
        """Return the outputs of a work item to the caller who waits for them.

        Args:
            item_id: Id of the work item.
            outputs: One output or many, each with the response to the request of the item.
            status: Status of the work. None means SUCCESS.
            runner_replica_id: Id of the replica of the runner that did the work.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The outputs as the service has them.

        Raises:
            CancelledError: The caller no longer waits.
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


@named_in("clarigrpc.types")
class RunnerFilters(Paging, total=False):
    """Options of ``client.runners.list``."""

    compute_cluster_id: str
    nodepool_id: str
    min_replicas: int
    model_version_ids: Sequence[str]


class RunnerOperations(Creates[v2.Runner], Gets[v2.Runner], Patches[v2.Runner], Deletes[v2.Runner]):
    """The runners of a user or of one nodepool."""

    _message = v2.Runner
    _of_user = True
    _create_rpc = "PostRunners"
    _get_rpc = "GetRunner"
    _list_rpc = "ListRunners"
    _patch_rpc = "PatchRunners"
    _delete_rpc = "DeleteRunners"

    @nested(RunnerItems, AsyncRunnerItems)
    def items(self, runner_id: str) -> Parents:
        """Access the work items of a runner.

        Args:
            runner_id: Id of the runner.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"runner_id": runner_id}

    @iteration
    def list(self, **options: Unpack[RunnerFilters]) -> ItemPlan[v2.Runner]:
        """List the runners.

        Args:
            compute_cluster_id: Filter by compute cluster.
            nodepool_id: Filter by nodepool.
            min_replicas: Filter by minimum number of replicas.
            model_version_ids: Filter by model versions.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Runners(RunnerOperations, Sync): ...


class AsyncRunners(RunnerOperations, Async): ...
