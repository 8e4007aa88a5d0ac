"""API keys of apps and personal access tokens of users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Paging, Patches
from clarigrpc._resources.sync_async import Async, Sync, iteration
from clarigrpc._rpc.plan import ItemPlan


class KeyFilters(Paging, total=False):
    """Which keys are listed.

    Attributes:
        type: ``"api_key"`` or ``"personal_access_token"``; the service's default is both.
        not_expired: Leave out those that are over.
        scopes: Only those that have all these scopes.
        endpoints: Only those that have all these endpoints.
    """

    type: str
    not_expired: bool
    scopes: Sequence[str]
    endpoints: Sequence[str]


class KeyOperations(Creates[v2.Key], Gets[v2.Key], Patches[v2.Key], Deletes[v2.Key]):
    """The keys of a user. The id of a key is the credential itself.

    A key of type ``"personal_access_token"`` speaks for the user; any other (``"api_key"``) for
    the one app in its ``apps``. Neither can do more than its ``scopes`` and ``endpoints``.
    """

    message = v2.Key
    of_user = True

    @iteration
    def list_of_app(self, app_id: str = "", **options: Unpack[Paging]) -> ItemPlan[v2.Key]:
        """The keys of an app.

        Args:
            app_id: Its id; empty: the client's.
            {paging}
        """
        ids = self._of_user()
        ids.app_id = app_id or self.app_id or self._client.settings.app_id
        return self._pages("ListAppKeys", "keys", {"user_app_id": ids, **options})

    @iteration
    def list(self, **options: Unpack[KeyFilters]) -> ItemPlan[v2.Key]:
        """The keys of the user.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Keys(KeyOperations, Sync): ...


class AsyncKeys(KeyOperations, Async): ...
