"""Scopes: what credentials are allowed to do."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc._resources.base import Domain
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._rpc.plan import Plan


class ScopeOperations(Domain):
    """The scopes of the service and of the client's credentials."""

    _of_user = True

    @operation
    def list(
        self, *, key_type: str = "", timeout: float | None = None
    ) -> Plan[v2.MultiScopeDepsResponse]:
        """List every scope and endpoint that a key can have, with those that it depends on.

        Args:
            key_type: Filter by type of key: ``"api_key"`` or ``"personal_access_token"``.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The response, with ``scope_deps`` and ``endpoint_deps``.
        """
        response: v2.MultiScopeDepsResponse = yield from self._invoke(
            "ListScopes", timeout, key_type=key_type
        )
        return response

    @operation
    def mine(self, *, timeout: float | None = None) -> Plan[v2.MultiScopeResponse]:
        """Fetch what the client's credentials are allowed to do in its app.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            The response, with ``scopes``, ``endpoints`` and ``app``.
        """
        ids = self._client.user_app_id
        response: v2.MultiScopeResponse = yield from self._invoke(
            "MyScopes", timeout, user_app_id=ids
        )
        return response

    @operation
    def mine_as_user(self, *, timeout: float | None = None) -> Plan[v2.MultiScopeUserResponse]:
        """Fetch what the client's credentials are allowed to do with resources of the user.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            The response, with ``scopes`` and ``endpoints``.
        """
        response: v2.MultiScopeUserResponse = yield from self._invoke("MyScopesUser", timeout)
        return response

    @operation
    def mine_as_root(self, *, timeout: float | None = None) -> Plan[v2.MultiScopeRootResponse]:
        """Fetch what the client's credentials are allowed to do with resources without an owner.

        Args:
            timeout: Seconds. None uses the client's setting.

        Returns:
            The response, with ``scopes`` and ``endpoints``.
        """
        response: v2.MultiScopeRootResponse = yield from self._invoke("MyScopesRoot", timeout)
        return response


class Scopes(ScopeOperations, Sync): ...


class AsyncScopes(ScopeOperations, Async): ...
