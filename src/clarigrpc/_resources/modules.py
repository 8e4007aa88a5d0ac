"""Modules: applications beside an app. The service has retired them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class ModuleVersionOperations(
    Creates[v2.ModuleVersion],
    Gets[v2.ModuleVersion],
    Lists[v2.ModuleVersion],
    Patches[v2.ModuleVersion],
    Deletes[v2.ModuleVersion],
):
    """The versions of a module."""

    message = v2.ModuleVersion

    @operation
    def usage_count(self, version_id: str, /, *, timeout: float | None = None) -> Plan[int]:
        """In how many apps a version is installed.

        Raises:
            NotFoundError: There is no such version.
        """
        response: v2.SingleModuleVersionUsageCountResponse = yield from self._invoke(
            "GetModuleVersionUsageCount", timeout, module_version_id=version_id
        )
        return response.usage_count


class ModuleVersions(ModuleVersionOperations, Sync): ...


class AsyncModuleVersions(ModuleVersionOperations, Async): ...


class ModuleFilters(Paging, total=False):
    """Which modules are listed, and in which order.

    Attributes:
        all_apps: Those of all apps of the user.
        search: Only those with this in id or description.
        starred_only: Only those that the caller has starred.
        bookmark: Those of other users that the app has bookmarked.
        sort_ascending: Smallest or oldest first.
        sort_by_id, sort_by_created_at, sort_by_modified_at, sort_by_star_count: What the order is
            by; one at most.
        additional_fields: What the service leaves out by default, ``"stars"`` and the like.
    """

    all_apps: bool
    search: str
    starred_only: bool
    bookmark: bool
    sort_ascending: bool
    sort_by_id: bool
    sort_by_created_at: bool
    sort_by_modified_at: bool
    sort_by_star_count: bool
    additional_fields: Sequence[str]


class ModuleOperations(Creates[v2.Module], Gets[v2.Module], Patches[v2.Module], Deletes[v2.Module]):
    """The modules of an app."""

    message = v2.Module

    versions = nested("module_id", ModuleVersions, AsyncModuleVersions, "The versions of a module.")

    @iteration
    def list(self, **options: Unpack[ModuleFilters]) -> ItemPlan[v2.Module]:
        """The modules of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Modules(ModuleOperations, Sync): ...


class AsyncModules(ModuleOperations, Async): ...


class InstalledModuleOperations(
    Creates[v2.InstalledModuleVersion],
    Gets[v2.InstalledModuleVersion],
    Lists[v2.InstalledModuleVersion],
    Deletes[v2.InstalledModuleVersion],
):
    """The module versions that are installed in an app."""

    message = v2.InstalledModuleVersion

    @operation
    def create_key(self, installed_id: str, /, *, timeout: float | None = None) -> Plan[v2.Key]:
        """Make the API key that an installed module works with.

        Raises:
            NotFoundError: Nothing is installed by this id.
        """
        response: v2.SingleKeyResponse = yield from self._invoke(
            "PostInstalledModuleVersionsKey", timeout, installed_module_version_id=installed_id
        )
        return response.key


class InstalledModules(InstalledModuleOperations, Sync): ...


class AsyncInstalledModules(InstalledModuleOperations, Async): ...
