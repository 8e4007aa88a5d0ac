"""The default user's credentials, and what the contract says about scopes and credentials."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import message_factory

from clarigrpc import v2
from clarigrpc._descriptor_pool import POOL
from clarigrpc.local.engine.context import Scope
from clarigrpc.v2 import auth_options_pb2, auth_scopes_pb2, service_pb2

PUBLIC = Scope("clarifai", "main")
"""The app with the models that everybody may use."""


@dataclass(frozen=True, slots=True)
class Caller:
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


class Credentials:
    """The user of a local server, its app, and the secrets that prove to be that user.

    Args:
        user_id: The one user.
        app_id: The app that requests mean when they name none.
        pat: Personal access token; by default the stored one, else a random one.
        api_key: Key of the app; likewise.
        session_token: Session token of the user; likewise.
        client_id: Id of the app's application of the first API generation; likewise.
        client_secret: Its secret; likewise.
        path: File that keeps the secrets over a restart, readable by its owner only.
    """

    def __init__(
        self,
        user_id: str,
        app_id: str,
        *,
        pat: str | None = None,
        api_key: str | None = None,
        session_token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        path: Path | None = None,
    ) -> None:
        stored = _read(path)
        self.user_id = user_id
        self.app_id = app_id
        self.pat = pat or stored.get("pat") or secrets.token_hex(16)
        self.api_key = api_key or stored.get("api_key") or secrets.token_hex(16)
        self.session_token = (
            session_token or stored.get("session_token") or secrets.token_urlsafe(24)
        )
        self.client_id = client_id or stored.get("client_id") or secrets.token_urlsafe(16)
        self.client_secret = (
            client_secret or stored.get("client_secret") or secrets.token_urlsafe(24)
        )
        if path is not None:
            names = ("pat", "api_key", "session_token", "client_id", "client_secret")
            _write(path, {name: getattr(self, name) for name in names})


def _options(name: str, raw: bytes) -> Any:
    # The options classes of the default pool do not know the extensions of our pool.
    descriptor = POOL.FindMessageTypeByName(f"google.protobuf.{name}")
    return message_factory.GetMessageClass(descriptor).FromString(raw)


_S = auth_scopes_pb2.DESCRIPTOR.enum_types_by_name["S"]


def _scope_table() -> dict[str, frozenset[str]]:
    table = {}
    for value in _S.values:
        options = _options("EnumValueOptions", value.GetOptions().SerializeToString())
        if options.Extensions[auth_scopes_pb2.clarfai_exposed]:
            table[value.name] = frozenset(
                _S.values_by_number[number].name
                for number in options.Extensions[auth_scopes_pb2.clarifai_depending_scopes]
            )
    return table


_METHODS = {
    method.name: _options("MethodOptions", method.GetOptions().SerializeToString()).Extensions
    for method in service_pb2.DESCRIPTOR.services_by_name["V2"].methods
}
_AUTH_TYPES = {name: found[auth_options_pb2.cl_auth_type] for name, found in _METHODS.items()}
_METHOD_SCOPES = {
    name: frozenset(
        _S.values_by_number[number].name for number in found[auth_options_pb2.cl_depending_scopes]
    )
    for name, found in _METHODS.items()
}

SCOPES: Mapping[str, frozenset[str]] = _scope_table()
"""Every scope that a key can have, with the scopes that it cannot work without."""


def auth_type(method: str) -> v2.AuthType.ValueType:
    """The kind of credential that a method asks for."""
    return _AUTH_TYPES[method]  # type: ignore[no-any-return]


def depending_scopes(method: str) -> frozenset[str]:
    """Names of the scopes that a key needs for a method."""
    return _METHOD_SCOPES[method]


def expand(names: Iterable[str]) -> frozenset[str] | None:
    """Scopes with all that they depend on; None where they allow everything."""
    found: set[str] = set()
    todo = [name.replace(":", "_") for name in names]
    if "All" in todo:
        return None
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += SCOPES.get(name, ())
    return frozenset(found)


def _read(path: Path | None) -> dict[str, str]:
    if path is None or not path.exists():
        return {}
    return dict(json.loads(path.read_text()))


def _write(path: Path, values: dict[str, str]) -> None:
    # Written beside and renamed, so that a kill in between leaves the old file whole.
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(values, file)
    draft.replace(path)
