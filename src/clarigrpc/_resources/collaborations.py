"""Collaborators of an app, and the user's collaborations on apps of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Domain, Paging, Patches, as_ids
from clarigrpc._resources.sync_async import Async, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


@named_in("clarigrpc.types")
class CollaboratorFilters(Paging, total=False):
    """Options of ``client.collaborators.list``."""

    list_all_collaborators: bool


class CollaboratorOperations(Creates[v2.Collaborator], Patches[v2.Collaborator]):
    """The collaborators of an app: other users with access to it, and their scopes."""

    _message = v2.Collaborator
    _create_rpc = "PostCollaborators"
    _list_rpc = "ListCollaborators"
    _patch_rpc = "PatchCollaborators"

    @operation
    def delete(
        self,
        ids: str | Iterable[str] = (),
        *,
        emails: str | Iterable[str] = (),
        timeout: float | None = None,
    ) -> Plan[None]:
        """Remove collaborators from the app.

        Args:
            ids: Ids of collaborators, one or many.
            emails: Email addresses of collaborators, one or many; instead of or in addition to
                ``ids``.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: None of the collaborators exists.
            InvalidArgumentError: Neither an id nor an address is given.
        """
        fields = {"collaborator_ids": as_ids(ids), "user_emails": as_ids(emails)}
        if not any(fields.values()):
            raise errors.InvalidArgumentError("delete() needs an id or an email address")
        yield from self._invoke("DeleteCollaborators", timeout, **fields)

    @iteration
    def list(self, **options: Unpack[CollaboratorFilters]) -> ItemPlan[v2.Collaborator]:
        """List the collaborators of the app.

        Args:
            list_all_collaborators: Whether to list the collaborators of all apps of the user.
                Default False.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Collaborators(CollaboratorOperations, Sync): ...


class AsyncCollaborators(CollaboratorOperations, Async): ...


@named_in("clarigrpc.types")
class CollaborationFilters(Paging, total=False):
    """Options of ``client.collaborations.list``."""

    template_only: bool


class CollaborationOperations(Domain):
    """The apps of other users on which the user collaborates."""

    _of_user = True

    @iteration
    def list(self, **options: Unpack[CollaborationFilters]) -> ItemPlan[v2.Collaboration]:
        """List the collaborations of the user.

        Args:
            template_only: Whether to list only collaborations on template apps. Default False.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._pages("ListCollaborations", "collaborations", options)


class Collaborations(CollaborationOperations, Sync): ...


class AsyncCollaborations(CollaborationOperations, Async): ...
