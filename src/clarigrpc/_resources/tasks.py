"""Labelling tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Deletes, Gets, Paging, Patches
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


@named_in("clarigrpc.types")
class TaskFilters(Paging, total=False):
    """Options of ``client.tasks.list``."""

    ids: Sequence[str]
    worker_user_ids: Sequence[str]
    review_user_ids: Sequence[str]
    label_order_ids: Sequence[str]
    including_label_order_tasks: bool
    input_source_type: v2.TaskInputSource.TaskInputSourceType.ValueType
    input_source_ids: Sequence[str]
    additional_fields: Sequence[str]


@named_in("clarigrpc.types")
class CountFilters(TypedDict, total=False):
    """Options of ``client.tasks.annotation_counts`` and ``client.tasks.input_counts``."""

    user_ids: Sequence[str]
    model_version_ids: Sequence[str]
    workflow_version_ids: Sequence[str]


class TaskOperations(Creates[v2.Task], Gets[v2.Task], Patches[v2.Task], Deletes[v2.Task]):
    """The labelling tasks of an app."""

    _message = v2.Task
    _create_rpc = "PostTasks"
    _get_rpc = "GetTask"
    _list_rpc = "ListTasks"
    _patch_rpc = "PatchTasks"
    _delete_rpc = "DeleteTasks"

    @operation
    def annotation_counts(
        self,
        task_id: str,
        /,
        *,
        timeout: float | None = None,
        **options: Unpack[CountFilters],
    ) -> Plan[Sequence[v2.TaskStatusCountPerUser]]:
        """Count the annotations of a task by worker and status.

        Args:
            task_id: Id of the task.
            timeout: Seconds. None uses the client's setting.
            user_ids: Filter by users.
            model_version_ids: Filter by model versions.
            workflow_version_ids: Filter by workflow versions.

        Returns:
            One entry per worker, with a count for each status.

        Raises:
            NotFoundError: The task does not exist.
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
        """Count the inputs of a task by worker and status of the work on them.

        Args:
            task_id: Id of the task.
            timeout: Seconds. None uses the client's setting.
            user_ids: Filter by users.
            model_version_ids: Filter by model versions.
            workflow_version_ids: Filter by workflow versions.

        Returns:
            One entry per worker, with a count for each status.

        Raises:
            NotFoundError: The task does not exist.
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
        """Change the status of annotations of a task.

        Args:
            task_id: Id of the task.
            status_code: New status, e.g. ``v2.StatusCode.ANNOTATION_SUCCESS``.
            user_ids: Filter by users. Empty changes the annotations of all users.
            only: Filter by current status, values of ``v2.StatusCode``. Empty changes all.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The number of changed annotations.
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
        """List the tasks of the app.

        Args:
            ids: Filter by ids of tasks.
            worker_user_ids: Filter by labellers.
            review_user_ids: Filter by reviewers.
            label_order_ids: Filter by label orders.
            including_label_order_tasks: Whether to include tasks of label orders. Default False.
            input_source_type: Filter by type of input source, a value of
                ``v2.TaskInputSource.TaskInputSourceType``.
            input_source_ids: Filter by ids of input sources.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"metrics"``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Tasks(TaskOperations, Sync): ...


class AsyncTasks(TaskOperations, Async): ...
