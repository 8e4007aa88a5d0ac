"""Every verb of every resource, as a caller writes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from clarigrpc import AsyncClient, Client
from clarigrpc._resources.model_handle import AsyncModel, Model
from clarigrpc._resources.sync_async import Nested, SyncOrAsync, lazy
from clarigrpc.client import _BaseClient
from tests.both import ClientKind

KINDS: tuple[ClientKind, ...] = ("sync", "async")


class Verb(NamedTuple):
    """A method of a resource.

    Attributes:
        path: ``datasets.versions.export``.
        expression: ``datasets.versions('x').export``, as it follows a client.
        owner: The class that it is called on.
        function: The method.
        sends: Whether it sends something.
    """

    path: str
    expression: str
    owner: type[Any]
    function: Any
    sends: bool


class Part(NamedTuple):
    """An attribute of a client or of a resource that has verbs.

    Attributes:
        expression: ``search.saved``, as it follows a client.
        owner: The class of the attribute.
        text: What the attribute says of itself.
    """

    expression: str
    owner: type[Any]
    text: str


def parts(client_kind: ClientKind) -> Iterator[Part]:
    """The resources of a client, and their parts."""
    for name, value in vars(_BaseClient).items():
        if isinstance(value, lazy):
            yield from _parts_of(value, name, client_kind)


def _parts_of(value: lazy[Any, Any], expression: str, client_kind: ClientKind) -> Iterator[Part]:
    owner = _class_of(value, client_kind)
    yield Part(expression, owner, value.__doc__ or "")
    for name in dir(owner):
        if isinstance(part := _declared(owner, name), lazy):
            yield from _parts_of(part, f"{expression}.{name}", client_kind)


def resources(client_kind: ClientKind = "sync") -> dict[str, type[Any]]:
    """The resources of a client by their names."""
    return {
        name: _class_of(value, client_kind)
        for name, value in vars(_BaseClient).items()
        if isinstance(value, lazy)
    }


def verbs(client_kind: ClientKind = "sync") -> Iterator[Verb]:
    """The verbs of all resources, with those that give access to nested resources."""
    for name, owner in resources(client_kind).items():
        yield from _verbs_of(owner, name, name, client_kind)


def model_verbs(client_kind: ClientKind = "sync") -> Iterator[Verb]:
    """The verbs of ``client.model(...)``, and that one."""
    client, model = (Client, Model) if client_kind == "sync" else (AsyncClient, AsyncModel)
    yield Verb("model", "model", client, client.model, sends=False)
    yield from _verbs_of(model, "model", "model('x')", client_kind)


def _verbs_of(
    owner: type[Any], path: str, expression: str, client_kind: ClientKind
) -> Iterator[Verb]:
    for name in dir(owner):
        if name.startswith("_"):
            continue
        value = _declared(owner, name)
        below = f"{path}.{name}", f"{expression}.{name}"
        if isinstance(value, lazy):
            yield from _verbs_of(_class_of(value, client_kind), *below, client_kind)
        elif isinstance(value, SyncOrAsync) or inspect.isfunction(value):
            sends = name != "within" and not isinstance(value, Nested)
            yield Verb(*below, owner, getattr(owner, name), sends)
        if isinstance(value, Nested):
            nested = _class_of(value, client_kind)
            yield from _verbs_of(nested, below[0], f"{below[1]}('x')", client_kind)


def _declared(owner: type[Any], name: str) -> Any:
    """An attribute as the class body has it; a class that was used has functions instead."""
    for base in owner.__mro__:
        value = vars(base).get(name)
        if isinstance(value, (lazy, SyncOrAsync)):
            return value
    return inspect.getattr_static(owner, name)


def _class_of(part: lazy[Any, Any] | Nested[Any, Any, Any], client_kind: ClientKind) -> type[Any]:
    made: type[Any] = part.classes[client_kind == "async"]
    return made
