"""Who works on an app together, and on which apps of others somebody works."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from clarigrpc import errors, v2
from clarigrpc._resources.base import Creates, Domain, Paging, Patches, as_ids
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class CollaboratorFilters(Paging, total=False):
    """Which collaborators are listed.

    Attributes:
        list_all_collaborators: Those of all apps of the user.
    """

    list_all_collaborators: bool


class CollaboratorOperations(Creates[v2.Collaborator], Patches[v2.Collaborator]):
    """Other users who may work on an app, and what they may do there."""

    message = v2.Collaborator

    @operation
    def delete(
        self,
        ids: str | Iterable[str] = (),
        *,
        emails: str | Iterable[str] = (),
        timeout: float | None = None,
    ) -> Plan[None]:
        """End collaborations.

        Args:
            ids: Ids of collaborators, one or many.
            emails: Addresses of the users, instead or besides.
            timeout: Seconds; None: the client's.
        """
        fields = {"collaborator_ids": as_ids(ids), "user_emails": as_ids(emails)}
        if not any(fields.values()):
            raise errors.InvalidArgumentError("delete() needs an id or an email address")
        yield from self._invoke("DeleteCollaborators", timeout, **fields)

    @iteration
    def list(self, **options: Unpack[CollaboratorFilters]) -> ItemPlan[v2.Collaborator]:
        """The collaborators of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Collaborators(CollaboratorOperations, Sync): ...


class AsyncCollaborators(CollaboratorOperations, Async): ...


class CollaborationFilters(Paging, total=False):
    """Which collaborations are listed.

    Attributes:
        template_only: Only those of apps that are templates.
    """

    template_only: bool


class CollaborationOperations(Domain):
    """The apps of other users on which the user works."""

    of_user = True

    @iteration
    def list(self, **options: Unpack[CollaborationFilters]) -> ItemPlan[v2.Collaboration]:
        """The collaborations of the user.

        Args:
            {options}
            {paging}
        """
        return self._pages("ListCollaborations", "collaborations", options)


class Collaborations(CollaborationOperations, Sync): ...


class AsyncCollaborations(CollaborationOperations, Async): ...
