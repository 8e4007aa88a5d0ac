"""Apps, and copies of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Gets, Lists, Paging, Patches, as_ids, filled, sole
from clarigrpc._resources.long_running import FollowsWork, Waits
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


@named_in("clarigrpc.types")
class AppFilters(Paging, total=False):
    """Options of ``client.apps.list``."""

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
    FollowsWork[v2.AppDuplication],
):
    """The app duplications that the user requested."""

    _message = v2.AppDuplication
    _of_user = True
    _create_rpc = "PostAppDuplications"
    _get_rpc = "GetAppDuplication"
    _list_rpc = "ListAppDuplications"
    _work_name = "app duplication"


class Duplications(DuplicationOperations, Sync): ...


class AsyncDuplications(DuplicationOperations, Async): ...


class AppOperations(Creates[v2.App], Patches[v2.App]):
    """The apps of a user."""

    _message = v2.App
    _of_user = True
    _create_rpc = "PostApps"
    _list_rpc = "ListApps"
    _patch_rpc = "PatchApps"

    def _ids(self, app_id: str) -> v2.UserAppIDSet:
        ids = filled(
            "the app",
            v2.UserAppIDSet,
            user_id=self._user().user_id,
            app_id=app_id or self.app_id or self._client.settings.app_id,
        )
        if not ids.app_id:
            raise errors.InvalidArgumentError(
                "no app is named: give its id, or set the client's app_id"
            )
        return ids

    @operation
    def get(self, app_id: str = "", /, *, timeout: float | None = None) -> Plan[v2.App]:
        """Fetch one app.

        Args:
            app_id: Id of the app. Empty uses the client's app.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The app does not exist or is not visible to you.
            InvalidArgumentError: No id is given and the client has no app.
        """
        response: v2.SingleAppResponse = yield from self._invoke(
            "GetApp", timeout, user_app_id=self._ids(app_id)
        )
        return response.app

    @operation
    def delete(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Delete apps with everything in them. This cannot be undone.

        Args:
            ids: One id, or many (one request each).
            timeout: Seconds for each request. None uses the client's setting.

        Raises:
            NotFoundError: An app does not exist; the apps before it are deleted.
            InvalidArgumentError: An id is empty.
        """
        for one in as_ids(ids):
            if not one:
                raise errors.InvalidArgumentError("the id of an app is empty")
            yield from self._invoke("DeleteApp", timeout, user_app_id=self._ids(one))

    @operation
    def rename(self, app_id: str, new_id: str, *, timeout: float | None = None) -> Plan[v2.App]:
        """Change the id of an app.

        Args:
            app_id: Current id of the app.
            new_id: New id.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The app with its new id.

        Raises:
            AlreadyExistsError: The new id is taken.
            NotFoundError: The app does not exist.
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
        """Start copying an app into another one.

        Args:
            app_id: Id of the app to copy.
            destination_id: Id of the app to copy into; created if it does not exist.
            filter: What to copy. None, or a filter that names nothing, copies everything.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The duplication in progress; wait for it with ``wait_duplicated``, or follow it with
            ``client.app_duplications.follow``.

        Raises:
            NotFoundError: The app does not exist.
            InvalidArgumentError: ``app_id`` is empty.
        """
        method = "PostAppDuplications"
        if not app_id:  # of a variable that is not set, not the client's app
            raise errors.InvalidArgumentError("app_id is empty", method=method)
        wanted = v2.AppDuplication(
            destination_app=filled(method, v2.App, id=destination_id, user_id=self._user().user_id),
            filter=_EVERYTHING if filter is None else filter,
        )
        response: v2.MultiAppDuplicationsResponse = yield from self._invoke(
            method,
            timeout,
            user_app_id=self._ids(app_id),
            app_duplications=[wanted],
        )
        return sole(response.app_duplications, method, response)

    @operation
    def wait_duplicated(
        self, duplication: str | v2.AppDuplication, *, timeout: float = 300.0
    ) -> Plan[v2.AppDuplication]:
        """Wait until the copy of an app is complete.

        Polls its status at growing intervals (0.05 to 5 seconds).

        Args:
            duplication: What ``duplicate`` returned, or its id.
            timeout: Seconds for the whole wait. Default 300.

        Returns:
            The completed duplication.

        Raises:
            ApiError: The copy failed; the subclass and ``details`` say why.
            DeadlineExceededError: The copy is not complete yet.
        """
        if not isinstance(duplication, str | v2.AppDuplication):
            raise TypeError(f"expected one duplication or its id, not {type(duplication).__name__}")
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
        """Count the datasets, models, workflows, inputs and pipelines of an app.

        Args:
            app_id: Id of the app. Empty uses the client's app.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The response, with a field for each count.

        Raises:
            NotFoundError: The app does not exist.
        """
        response: v2.GetResourceCountsResponse = yield from self._invoke(
            "GetResourceCounts", timeout, user_app_id=self._ids(app_id)
        )
        return response

    @iteration
    def search(self, name: str, **options: Unpack[Paging]) -> ItemPlan[v2.App]:
        """Search for apps by name.

        Args:
            name: Name to look for; ``*`` matches any characters.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        fields = {"app_query": filled("PostAppsSearches", v2.AppQuery, name=name), **options}
        return self._pages("PostAppsSearches", "apps", fields)

    @iteration
    def list(self, **options: Unpack[AppFilters]) -> ItemPlan[v2.App]:
        """List the apps of the user.

        Args:
            search: Filter by text in the id, name, description or notes.
            featured_only: Whether to list only apps featured by the service. Default False.
            starred_only: Whether to list only apps that you starred. Default False.
            template_only: Whether to list only templates. Default False.
            visibility: Filter by visibility.
            sort_ascending: Whether to sort in ascending order. Default False.
            sort_by_id: Whether to sort by id. Set at most one ``sort_by_`` option.
            sort_by_name: Whether to sort by name.
            sort_by_created_at: Whether to sort by time of creation.
            sort_by_modified_at: Whether to sort by time of the last change.
            sort_by_star_count: Whether to sort by number of stars.
            sort_by_relevance: Whether to sort by relevance to ``search``.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"stars"``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Apps(AppOperations, Sync): ...


class AsyncApps(AppOperations, Async): ...
