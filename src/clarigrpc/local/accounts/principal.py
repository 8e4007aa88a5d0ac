"""Who calls, as the credentials of the call prove it."""

from __future__ import annotations

from dataclasses import dataclass

from clarigrpc.local.accounts.method_scopes import depending_scopes


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls.

    Attributes:
        user_id: The user.
        app_id: Set for an API key, which belongs to one app.
        scopes: What the key may do, with all that these scopes depend on; None for everything.
        endpoints: Full names of methods that it may call besides.
        reads_public: Whether one that belongs to an app may use the public models, too.
    """

    user_id: str
    app_id: str = ""
    scopes: frozenset[str] | None = None
    endpoints: frozenset[str] = frozenset()
    reads_public: bool = False

    def may(self, method: str) -> bool:
        """Whether scopes or endpoints allow the method."""
        return (
            self.scopes is None
            or f"/clarifai.api.V2/{method}" in self.endpoints
            or depending_scopes(method) <= self.scopes
        )
