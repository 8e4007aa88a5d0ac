"""Every verb of every resource, as a caller writes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from clarigrpc import AsyncClient, Client
from clarigrpc._resources.model_handle import AsyncModel, Model
from clarigrpc._resources.sync_async import Lazy, Nested, SyncOrAsync
from clarigrpc.client import _BaseClient
from tests.both import ClientKind


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


def resources(client_kind: ClientKind = "sync") -> dict[str, type[Any]]:
    """The resources of a client by their names."""
    return {
        name: _class_of(value, client_kind)
        for name, value in vars(_BaseClient).items()
        if isinstance(value, Lazy)
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
        if isinstance(value, Lazy):
            yield from _verbs_of(_class_of(value, client_kind), *below, client_kind)
        elif isinstance(value, SyncOrAsync) or inspect.isfunction(value):
            sends = name != "within" and not isinstance(value, Nested)
            yield Verb(*below, owner, getattr(owner, name), sends)
        if isinstance(value, Nested):
            nested = value.classes[client_kind == "async"]
            yield from _verbs_of(nested, below[0], f"{below[1]}('x')", client_kind)


def _declared(owner: type[Any], name: str) -> Any:
    """An attribute as the class body has it; a class that was used has functions instead."""
    for base in owner.__mro__:
        value = vars(base).get(name)
        if isinstance(value, (Lazy, SyncOrAsync)):
            return value
    return inspect.getattr_static(owner, name)


def _class_of(lazy: Lazy[Any, Any], client_kind: ClientKind) -> type[Any]:
    module = __import__(lazy._module, fromlist=[lazy._class_name])
    prefix = "Async" if client_kind == "async" else ""
    made: type[Any] = getattr(module, prefix + lazy._class_name)
    return made
