"""Who calls, as the credentials of the call prove it, and what that allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clarigrpc._contract.method_scopes import depending_scopes, expand
from clarigrpc._contract.methods import SERVICE
from clarigrpc.v2._index import METHODS

_FULL_NAME = f"/{SERVICE}/"


def is_endpoint(name: str) -> bool:
    """Whether this is the full name of a method."""
    return name.startswith(_FULL_NAME) and name.removeprefix(_FULL_NAME) in METHODS


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key, or a collaborator, may do.

    Attributes:
        scopes: Its scopes, with all that these depend on; None for everything.
        endpoints: Full names of methods that are allowed besides.
    """

    scopes: frozenset[str] | None = None
    endpoints: frozenset[str] = frozenset()

    @classmethod
    def of(cls, scopes: Iterable[str], endpoints: Iterable[str]) -> Rights:
        """The rights that resources have as lists."""
        return cls(expand(scopes), frozenset(endpoints))

    def allow(self, method: str) -> bool:
        """Whether scopes or endpoints allow the method."""
        return (
            self.scopes is None
            or f"{_FULL_NAME}{method}" in self.endpoints
            or depending_scopes(method) <= self.scopes
        )

    def lacking(self, method: str) -> list[str]:
        """The scopes that the method requires besides."""
        return sorted(depending_scopes(method) - (self.scopes or frozenset()))

    def cover(self, other: Rights) -> bool:
        """Whether the other ones allow nothing that these do not."""
        if self.scopes is None:
            return True
        return (
            other.scopes is not None
            and other.scopes <= self.scopes
            and all(
                self.allow(method)
                for method in (name.removeprefix(_FULL_NAME) for name in other.endpoints)
                if method in METHODS
            )
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls.

    Attributes:
        user_id: The user.
        app_id: Set for an API key, which belongs to one app.
        rights: What the key may do.
        reads_public: Whether one that belongs to an app may use the public models, too.
    """

    user_id: str
    app_id: str = ""
    rights: Rights = Rights()
    reads_public: bool = False
