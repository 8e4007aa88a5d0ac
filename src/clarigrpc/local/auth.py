"""Credentials of the local server, who a caller is, and which app a request means."""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import message_factory

from clarigrpc import v2
from clarigrpc.descriptor_pool import POOL
from clarigrpc.local.core import Scope, ServiceError
from clarigrpc.v2 import auth_options_pb2, service_pb2

PUBLIC = Scope("clarifai", "main")
"""The app with the models that everybody may use."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``app_id`` is set for an API key, which belongs to one app."""

    user_id: str
    app_id: str = ""


class Credentials:
    """The user of a local server, its app, and the secrets that prove to be that user.

    Args:
        user_id: The one user.
        app_id: The app that requests mean when they name none.
        pat: Personal access token; by default the stored one, else a random one.
        api_key: Key of the app; likewise.
        session_token: Session token of the user; likewise.
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
        if path is not None:
            _write(
                path,
                {"pat": self.pat, "api_key": self.api_key, "session_token": self.session_token},
            )

    def caller(self, method: str, metadata: Mapping[str, str]) -> Caller:
        """Who calls ``method``; ServiceError 11008 or 11009 when that is not proven."""
        kind = auth_type(method)
        if kind == v2.AuthType.NoAuth:
            return Caller(self.user_id)
        token = metadata.get("x-clarifai-session-token", "")
        if token:
            if hmac.compare_digest(token.encode(), self.session_token.encode()):
                return Caller(self.user_id)
            raise ServiceError(v2.StatusCode.CONN_KEY_INVALID, "the session token is not valid")
        scheme, _, secret = metadata.get("authorization", "").partition(" ")
        secret = secret.strip()
        if scheme.lower() not in ("key", "bearer") or not secret:
            raise ServiceError(
                v2.StatusCode.CONN_KEY_INVALID,
                "send metadata 'authorization: Key <personal access token or API key>'",
            )
        if hmac.compare_digest(secret.encode(), self.pat.encode()):
            return Caller(self.user_id)
        if hmac.compare_digest(secret.encode(), self.api_key.encode()):
            if kind != v2.AuthType.KeyAuth:
                raise ServiceError(
                    v2.StatusCode.CONN_INSUFFICIENT_SCOPES,
                    f"{method} needs a personal access token, not the key of an app",
                )
            return Caller(self.user_id, self.app_id)
        raise ServiceError(
            v2.StatusCode.CONN_KEY_NOT_FOUND, "no such API key or personal access token"
        )

    def apps_of(self, user_id: str) -> list[str]:
        """Ids of the apps that a user has here."""
        return [scope.app_id for scope in self._scopes() if scope.user_id == user_id]

    def _scopes(self) -> tuple[Scope, Scope]:
        return (Scope(self.user_id, self.app_id), PUBLIC)

    def scope(self, caller: Caller, ids: v2.UserAppIDSet, *, all_apps: bool = False) -> Scope:
        """The user and app that ``ids`` means for ``caller``."""
        user_id = ids.user_id if ids.user_id not in ("", "me") else caller.user_id
        own = user_id == caller.user_id
        app_id = ids.app_id
        if not app_id and own and not (all_apps and ids.user_id and not caller.app_id):
            app_id = caller.app_id or self.app_id
        if caller.app_id and (user_id, app_id) != (caller.user_id, caller.app_id):
            raise ServiceError(
                v2.StatusCode.CONN_INSUFFICIENT_SCOPES,
                f"the API key belongs to {caller.user_id}/{caller.app_id}; "
                f"{user_id}/{app_id} needs a personal access token",
            )
        if all_apps and not app_id and self.apps_of(user_id):
            return Scope(user_id, "")
        scope = Scope(user_id, app_id)
        if scope not in self._scopes():
            raise ServiceError(
                v2.StatusCode.CONN_DOES_NOT_EXIST, f"there is no app {user_id}/{app_id or '?'}"
            )
        return scope


def _auth_types() -> dict[str, v2.AuthType.ValueType]:
    # The options class of the default pool does not know the extensions of our pool.
    options_class = message_factory.GetMessageClass(
        POOL.FindMessageTypeByName("google.protobuf.MethodOptions")
    )
    types = {}
    for method in service_pb2.DESCRIPTOR.services_by_name["V2"].methods:
        options: Any = options_class.FromString(method.GetOptions().SerializeToString())
        types[method.name] = options.Extensions[auth_options_pb2.cl_auth_type]
    return types


_AUTH_TYPES = _auth_types()


def auth_type(method: str) -> v2.AuthType.ValueType:
    """The kind of credential that a method asks for."""
    return _AUTH_TYPES[method]


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
