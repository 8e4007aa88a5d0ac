"""Apps, and copies of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

from clarigrpc import errors, v2
from clarigrpc._resources.base import Creates, Gets, Lists, Paging, Patches, as_ids
from clarigrpc._resources.long_running import Waits
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class AppFilters(Paging, total=False):
    """Which apps are listed, and in which order.

    Attributes:
        search: Only those with this in id, name, description or notes.
        featured_only: Only those that the service features.
        starred_only: Only those that the caller has starred.
        template_only: Only templates.
        visibility: Only those that are so visible.
        sort_ascending: Smallest or oldest first.
        sort_by_id: What the order is by; or one of ``sort_by_name``, ``sort_by_created_at``,
            ``sort_by_modified_at``, ``sort_by_star_count``, ``sort_by_relevance``.
        additional_fields: What the service leaves out by default, ``"stars"`` and the like.
    """

    search: str
    featured_only: bool
    starred_only: bool
    template_only: bool
    visibility: v2.Visibility
    sort_ascending: bool
    sort_by_id: bool
    sort_by_name: bool
    sort_by_created_at: bool
    sort_by_modified_at: bool
    sort_by_star_count: bool
    sort_by_relevance: bool
    additional_fields: Sequence[str]


_EVERYTHING = v2.AppDuplicationFilters(
    copy_inputs=True,
    copy_concepts=True,
    copy_annotations=True,
    copy_models=True,
    copy_workflows=True,
)


class DuplicationOperations(
    Creates[v2.AppDuplication],
    Gets[v2.AppDuplication],
    Lists[v2.AppDuplication],
    Waits[v2.AppDuplication],
):
    """The copies of apps that the user has asked for."""

    message = v2.AppDuplication
    of_user = True


class Duplications(DuplicationOperations, Sync): ...


class AsyncDuplications(DuplicationOperations, Async): ...


class AppOperations(Creates[v2.App], Patches[v2.App]):
    """The apps of a user."""

    message = v2.App
    of_user = True

    def _ids(self, app_id: str) -> v2.UserAppIDSet:
        ids = self._of_user()
        ids.app_id = app_id or self.app_id or self._client.settings.app_id
        if not ids.app_id:
            raise errors.InvalidArgumentError("it needs the id of an app")
        return ids

    @operation
    def get(self, app_id: str = "", /, *, timeout: float | None = None) -> Plan[v2.App]:
        """An app by its id.

        Args:
            app_id: Its id; empty: the client's.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such app.
        """
        response: v2.SingleAppResponse = yield from self._invoke(
            "GetApp", timeout, user_app_id=self._ids(app_id)
        )
        return response.app

    @operation
    def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete apps, one or many, with everything in them; there is no way back.

        Args:
            ids: An id, or several.
            timeout: Seconds for each; None: the client's.

        Raises:
            NotFoundError: There is no such app.
        """
        for one in as_ids(ids):
            if not one:
                raise errors.InvalidArgumentError("delete() needs the id of an app")
            yield from self._invoke("DeleteApp", timeout, user_app_id=self._ids(one))

    @operation
    def rename(self, app_id: str, new_id: str, *, timeout: float | None = None) -> Plan[v2.App]:
        """Give an app another id.

        Raises:
            AlreadyExistsError: The new id is taken.
            NotFoundError: There is no such app.
        """
        return (yield from self._rename("PatchAppsIds", app_id, new_id, timeout))

    @operation
    def duplicate(
        self,
        app_id: str,
        destination_id: str,
        *,
        filter: v2.AppDuplicationFilters | None = None,
        timeout: float | None = None,
    ) -> Plan[v2.AppDuplication]:
        """Copy an app; the service does it afterwards.

        Args:
            app_id: The app.
            destination_id: The app that the copy goes into; made if it is not there.
            filter: What is copied; None, or one that names nothing: everything.
            timeout: Seconds; None: the client's.

        Returns:
            The copy as far as it is; ``wait_duplicated`` waits for it.
        """
        wanted = v2.AppDuplication(
            destination_app=v2.App(id=destination_id, user_id=self._of_user().user_id),
            filter=_EVERYTHING if filter is None else filter,
        )
        response: v2.MultiAppDuplicationsResponse = yield from self._invoke(
            "PostAppDuplications",
            timeout,
            user_app_id=self._ids(app_id),
            app_duplications=[wanted],
        )
        return response.app_duplications[0]

    @operation
    def wait_duplicated(
        self, duplication: str | v2.AppDuplication, *, timeout: float = 300.0
    ) -> Plan[v2.AppDuplication]:
        """Wait for a copy; looks at it at growing intervals.

        Args:
            duplication: What ``duplicate`` returned, or its id.
            timeout: Seconds for all of it.

        Raises:
            ApiError: The copy failed.
            DeadlineExceededError: It is not done yet.
        """
        waiting = DuplicationOperations(self._client, self.user_id)
        plan = DuplicationOperations.wait.plan(
            waiting, duplication, timeout=timeout, raise_on_partial=True
        )
        (ended,) = yield from plan
        return ended

    @operation
    def counts(
        self, app_id: str = "", /, *, timeout: float | None = None
    ) -> Plan[v2.GetResourceCountsResponse]:
        """How many datasets, models, workflows, inputs and pipelines an app has."""
        response: v2.GetResourceCountsResponse = yield from self._invoke(
            "GetResourceCounts", timeout, user_app_id=self._ids(app_id)
        )
        return response

    @iteration
    def search(self, name: str, **options: Unpack[Paging]) -> ItemPlan[v2.App]:
        """Apps by their names.

        Args:
            name: What to look for; ``*`` stands for any letters.
            {paging}
        """
        fields = {"app_query": v2.AppQuery(name=name), **options}
        return self._pages("PostAppsSearches", "apps", fields)

    @iteration
    def list(self, **options: Unpack[AppFilters]) -> ItemPlan[v2.App]:
        """The apps of the user.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Apps(AppOperations, Sync): ...


class AsyncApps(AppOperations, Async): ...
