"""Modules: web applications that run beside an app.

The service has retired them: it answers with UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class ModuleVersionOperations(
    Creates[v2.ModuleVersion],
    Gets[v2.ModuleVersion],
    Lists[v2.ModuleVersion],
    Patches[v2.ModuleVersion],
    Deletes[v2.ModuleVersion],
):
    """The versions of a module."""

    _message = v2.ModuleVersion
    _create_rpc = "PostModuleVersions"
    _get_rpc = "GetModuleVersion"
    _list_rpc = "ListModuleVersions"
    _patch_rpc = "PatchModuleVersions"
    _delete_rpc = "DeleteModuleVersions"

    @operation
    def usage_count(self, version_id: str, /, *, timeout: float | None = None) -> Plan[int]:
        """Count the apps in which a version is installed.

        Args:
            version_id: Id of the version.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The number of apps.

        Raises:
            NotFoundError: The version does not exist.
        """
        response: v2.SingleModuleVersionUsageCountResponse = yield from self._invoke(
            "GetModuleVersionUsageCount", timeout, module_version_id=version_id
        )
        return response.usage_count


class ModuleVersions(ModuleVersionOperations, Sync): ...


class AsyncModuleVersions(ModuleVersionOperations, Async): ...


@named_in("clarigrpc.types")
class ModuleFilters(Paging, total=False):
    """Options of ``client.modules.list``."""

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

    _message = v2.Module
    _create_rpc = "PostModules"
    _get_rpc = "GetModule"
    _list_rpc = "ListModules"
    _patch_rpc = "PatchModules"
    _delete_rpc = "DeleteModules"

    @nested(ModuleVersions, AsyncModuleVersions)
    def versions(self, module_id: str) -> Parents:
        """Access the versions of a module.

        Args:
            module_id: Id of the module.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"module_id": module_id}

    @iteration
    def list(self, **options: Unpack[ModuleFilters]) -> ItemPlan[v2.Module]:
        """List the modules of the app.

        Args:
            all_apps: Whether to list the modules of all apps of the user. Default False.
            search: Filter by text in the id or description.
            starred_only: Whether to list only modules that you starred. Default False.
            bookmark: Whether to list only modules bookmarked from other users. Default False.
            sort_ascending: Whether to sort in ascending order. Default False.
            sort_by_id: Whether to sort by id. Set at most one ``sort_by_`` option.
            sort_by_created_at: Whether to sort by time of creation.
            sort_by_modified_at: Whether to sort by time of the last change.
            sort_by_star_count: Whether to sort by number of stars.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"stars"``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
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
    """The module versions installed in an app."""

    _message = v2.InstalledModuleVersion
    _create_rpc = "PostInstalledModuleVersions"
    _get_rpc = "GetInstalledModuleVersion"
    _list_rpc = "ListInstalledModuleVersions"
    _delete_rpc = "DeleteInstalledModuleVersions"

    @operation
    def create_key(self, installed_id: str, /, *, timeout: float | None = None) -> Plan[v2.Key]:
        """Create the API key that an installed module uses.

        Args:
            installed_id: Id of the installed module version.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The key.

        Raises:
            NotFoundError: The installed module version does not exist.
        """
        response: v2.SingleKeyResponse = yield from self._invoke(
            "PostInstalledModuleVersionsKey", timeout, installed_module_version_id=installed_id
        )
        return response.key


class InstalledModules(InstalledModuleOperations, Sync): ...


class AsyncInstalledModules(InstalledModuleOperations, Async): ...
