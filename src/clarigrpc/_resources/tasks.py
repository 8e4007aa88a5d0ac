"""Labelling tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Paging, Patches
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class TaskFilters(Paging, total=False):
    """Which tasks are listed.

    Attributes:
        ids: Only these.
        worker_user_ids: Only those with one of these users as labeller.
        review_user_ids: Only those with one of these users as reviewer.
        label_order_ids: Only those of these label orders.
        including_label_order_tasks: Those of label orders, too.
        input_source_type: Only those whose inputs come from this.
        input_source_ids: Only those whose inputs come from one of these.
        additional_fields: What the service leaves out by default, ``"metrics"`` and the like.
    """

    ids: Sequence[str]
    worker_user_ids: Sequence[str]
    review_user_ids: Sequence[str]
    label_order_ids: Sequence[str]
    including_label_order_tasks: bool
    input_source_type: v2.TaskInputSource.TaskInputSourceType.ValueType
    input_source_ids: Sequence[str]
    additional_fields: Sequence[str]


class CountFilters(TypedDict, total=False):
    """Of which workers the work is counted.

    Attributes:
        user_ids: Of these users.
        model_version_ids: Of these versions of models.
        workflow_version_ids: Of these versions of workflows.
    """

    user_ids: Sequence[str]
    model_version_ids: Sequence[str]
    workflow_version_ids: Sequence[str]


class TaskOperations(Creates[v2.Task], Gets[v2.Task], Patches[v2.Task], Deletes[v2.Task]):
    """The labelling tasks of an app."""

    message = v2.Task

    @operation
    def annotation_counts(
        self,
        task_id: str,
        /,
        *,
        timeout: float | None = None,
        **options: Unpack[CountFilters],
    ) -> Plan[Sequence[v2.TaskStatusCountPerUser]]:
        """How many annotations each worker of a task has made, by their status.

        Args:
            task_id: The task.
            timeout: Seconds; None: the client's.
            {options}
        """
        return (yield from self._count("GetTaskAnnotationCount", task_id, timeout, options))

    @operation
    def input_counts(
        self,
        task_id: str,
        /,
        *,
        timeout: float | None = None,
        **options: Unpack[CountFilters],
    ) -> Plan[Sequence[v2.TaskStatusCountPerUser]]:
        """How many inputs each worker of a task has, by the status of the work on them.

        Args:
            task_id: The task.
            timeout: Seconds; None: the client's.
            {options}
        """
        return (yield from self._count("GetTaskInputCount", task_id, timeout, options))

    def _count(
        self, method: str, task_id: str, timeout: float | None, options: CountFilters
    ) -> Plan[Sequence[v2.TaskStatusCountPerUser]]:
        response: v2.SingleTaskCountResponse = yield from self._invoke(
            method, timeout, task_id=task_id, **options
        )
        return tuple(response.counts)

    @operation
    def set_annotation_status(
        self,
        task_id: str,
        status_code: v2.StatusCode.ValueType,
        *,
        user_ids: Sequence[str] = (),
        only: Sequence[v2.StatusCode.ValueType] = (),
        timeout: float | None = None,
    ) -> Plan[int]:
        """Give annotations of a task another status.

        Args:
            task_id: The task.
            status_code: The new status, ``v2.StatusCode.ANNOTATION_SUCCESS`` say.
            user_ids: Only those of these users.
            only: Only those with one of these statuses.
            timeout: Seconds; None: the client's.

        Returns:
            How many were changed.
        """
        response: v2.PatchAnnotationsStatusResponse = yield from self._invoke(
            "PatchAnnotationsStatus",
            timeout,
            task_id=task_id,
            user_ids=user_ids,
            status_codes=only,
            status_code=status_code,
            action="overwrite",
        )
        return response.updated_count

    @iteration
    def list(self, **options: Unpack[TaskFilters]) -> ItemPlan[v2.Task]:
        """The tasks of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Tasks(TaskOperations, Sync): ...


class AsyncTasks(TaskOperations, Async): ...
