"""API keys of apps and personal access tokens of users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Deletes, Gets, Paging, Patches, filled
from clarigrpc._resources.sync_async import Async, Sync, iteration
from clarigrpc._rpc.plan import ItemPlan


@named_in("clarigrpc.types")
class KeyFilters(Paging, total=False):
    """Options of ``client.keys.list``."""

    type: str
    not_expired: bool
    scopes: Sequence[str]
    endpoints: Sequence[str]


class KeyOperations(Creates[v2.Key], Gets[v2.Key], Patches[v2.Key], Deletes[v2.Key]):
    """The keys of a user. The id of a key is the credential itself.

    A key of type ``"personal_access_token"`` acts as the user; a key of type ``"api_key"`` is
    limited to the one app in its ``apps``. Both are limited to their ``scopes`` and ``endpoints``.
    """

    _message = v2.Key
    _of_user = True
    _create_rpc = "PostKeys"
    _get_rpc = "GetKey"
    _list_rpc = "ListKeys"
    _patch_rpc = "PatchKeys"
    _delete_one_rpc = "DeleteKey"

    @iteration
    def list_of_app(self, app_id: str = "", **options: Unpack[Paging]) -> ItemPlan[v2.Key]:
        """List the keys of an app.

        Args:
            app_id: Id of the app. Empty uses the client's app.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        ids = filled(
            "ListAppKeys",
            v2.UserAppIDSet,
            user_id=self._user().user_id,
            app_id=app_id or self.app_id or self._client.settings.app_id,
        )
        return self._pages("ListAppKeys", "keys", {"user_app_id": ids, **options})

    @iteration
    def list(self, **options: Unpack[KeyFilters]) -> ItemPlan[v2.Key]:
        """List the keys of the user.

        Args:
            type: Filter by type: ``"api_key"`` or ``"personal_access_token"``. Default: both.
            not_expired: Whether to leave out expired keys. Default False.
            scopes: Filter by scopes; a key must have all of them.
            endpoints: Filter by endpoints; a key must have all of them.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Keys(KeyOperations, Sync): ...


class AsyncKeys(KeyOperations, Async): ...
