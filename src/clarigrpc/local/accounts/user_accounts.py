"""Who calls, what they may do, and which app a request means.

Users, apps, keys and collaborators are resources like others; this reads them from the store. The
id of a key is its secret, as in the service.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Mapping

from clarigrpc import v2
from clarigrpc._contract.method_scopes import auth_type
from clarigrpc.local.accounts.default_credentials import DefaultCredentials
from clarigrpc.local.accounts.oauth_applications import Applications
from clarigrpc.local.accounts.principal import Principal, Rights
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.local.store.resource_store import Store, StoredCollection
from clarigrpc.local.user_app import PUBLIC_APP, UserApp
from clarigrpc.v2 import StatusCode

API_KEY = "api_key"
PAT = "personal_access_token"

USER_COLLECTION = StoredCollection("user", "", "")


def apps_of(user_id: str) -> StoredCollection:
    """Where the apps of a user are kept."""
    return StoredCollection("app", user_id, "")


def keys_of(user_id: str) -> StoredCollection:
    """Where the keys of a user are kept."""
    return StoredCollection("key", user_id, "")


def collaborators_of(app: UserApp) -> StoredCollection:
    """Where the collaborators of an app are kept."""
    return StoredCollection.of_app("collaborator", app)


def new_secret() -> str:
    """The id of a new key."""
    return secrets.token_hex(16)


class Accounts:
    """The users of a server, their apps and keys.

    Args:
        store: Where they are kept; the public app is put in.
        credentials: The default user's.
        applications: Those whose access tokens are taken.
    """

    def __init__(
        self, store: Store, credentials: DefaultCredentials, applications: Applications
    ) -> None:
        self._store = store
        self._applications = applications
        self._credentials = credentials
        self._lock = threading.Lock()
        # Every call asks; the answers change only where ``forget`` is called.
        self._callers: dict[str, tuple[Principal, float]] = {}
        self._apps: dict[UserApp, v2.App | None] = {}
        self._forgotten = 0
        store.when_undone(self.forget)
        self.put_user(v2.User(id=PUBLIC_APP.user_id))
        public = v2.App(id=PUBLIC_APP.app_id, description="Models that every user may use")
        public.visibility.gettable = v2.Visibility.PUBLIC
        self.put_app(PUBLIC_APP.user_id, public)

    @property
    def fixed_apps(self) -> tuple[UserApp, UserApp]:
        """The apps that a server always has."""
        return (UserApp(self._credentials.user_id, self._credentials.app_id), PUBLIC_APP)

    def forget(self) -> None:
        """Reads keys, apps and collaborators anew: one of them has changed."""
        with self._lock:
            self._callers.clear()
            self._apps.clear()
            self._forgotten += 1

    # Who calls

    def caller(self, method: str, metadata: Mapping[str, str]) -> Principal:
        """Who calls ``method``; ServiceError when that is not proven or not enough."""
        kind = auth_type(method)
        if kind == v2.AuthType.NoAuth:
            return Principal(self._credentials.user_id)
        caller = self._proven(metadata)
        if caller.app_id and kind != v2.AuthType.KeyAuth:
            raise ServiceError(
                StatusCode.CONN_INSUFFICIENT_SCOPES,
                f"{method} needs a personal access token, not the key of an app",
            )
        if not caller.rights.allow(method):
            raise ServiceError(
                StatusCode.CONN_INSUFFICIENT_SCOPES,
                f"the key lacks scopes that {method} requires: "
                f"{', '.join(caller.rights.lacking(method))}",
            )
        return caller

    def known_caller(self, method: str, metadata: Mapping[str, str]) -> Principal:
        """As ``caller``, and refuses callers without a valid credential for every method."""
        self._proven(metadata)
        return self.caller(method, metadata)

    def _proven(self, metadata: Mapping[str, str]) -> Principal:
        token = metadata.get("x-clarifai-session-token", "")
        if token:
            if hmac.compare_digest(token.encode(), self._credentials.session_token.encode()):
                return Principal(self._credentials.user_id)
            raise ServiceError(StatusCode.CONN_KEY_INVALID, "the session token is not valid")
        scheme, _, secret = metadata.get("authorization", "").partition(" ")
        secret = secret.strip()
        if scheme.lower() not in ("key", "bearer") or not secret:
            raise ServiceError(
                StatusCode.CONN_KEY_INVALID,
                "send metadata 'authorization: Key <personal access token or API key>'",
            )
        with self._lock:
            known = self._callers.get(secret)
            forgotten = self._forgotten
        if known is None:
            known = self._look_up(secret)
            with self._lock:
                # What was read before a change must not be remembered after it.
                if forgotten == self._forgotten:
                    self._callers[secret] = known
        caller, expires = known
        if time.time() >= expires:
            with self._lock:
                self._callers.pop(secret, None)
            if caller.reads_public:
                raise ServiceError(StatusCode.CONN_TOKEN_INVALID, "the access token has expired")
            raise ServiceError(StatusCode.CONN_KEY_INVALID, "the key has expired")
        return caller

    def _look_up(self, secret: str) -> tuple[Principal, float]:
        for where in self._store.collections("key"):
            row = self._store.get(where, secret)
            if row is None:
                continue
            key = v2.Key.FromString(row.body)
            expires = key.expires_at.ToNanoseconds() / 1e9 if key.HasField("expires_at") else None
            caller = Principal(
                where.user_id,
                key.apps[0].id if key.type == API_KEY and key.apps else "",
                Rights.of(key.scopes, key.endpoints),
            )
            return caller, float("inf") if expires is None else expires
        token = self._applications.token(secret)
        if token is not None:
            app = token.application.app
            return Principal(app.user_id, app.app_id, reads_public=True), token.expires
        raise ServiceError(
            StatusCode.CONN_KEY_INVALID, "the API key or personal access token is unknown"
        )

    # What a request means

    def resolve(
        self,
        caller: Principal,
        method: str,
        ids: v2.UserAppIDSet,
        *,
        all_apps: bool = False,
        write: bool = False,
    ) -> UserApp:
        """The user and app that ``ids`` mean for ``caller``; what is empty comes from the caller.

        Args:
            caller: Who calls.
            method: What is called.
            ids: The request's ``user_app_id``.
            all_apps: A user without an app means all apps of that user that the caller may see.
            write: The method changes something.
        """
        user_id = ids.user_id if ids.user_id not in ("", "me") else caller.user_id
        own = user_id == caller.user_id
        app_id = ids.app_id
        if not app_id and own and not (all_apps and ids.user_id and not caller.app_id):
            app_id = caller.app_id or self.default_app(user_id)
        open_to_all = caller.reads_public and UserApp(user_id, app_id) == PUBLIC_APP and not write
        inside = not caller.app_id or (user_id, app_id) == (caller.user_id, caller.app_id)
        if not (inside or open_to_all):
            raise ServiceError(
                StatusCode.CONN_INSUFFICIENT_SCOPES,
                f"the API key belongs to {caller.user_id}/{caller.app_id}; "
                f"{user_id}/{app_id} needs a personal access token",
            )
        if all_apps and not app_id and (own or self.apps_of(caller, method, user_id)):
            return UserApp(user_id, "")
        app = UserApp(user_id, app_id)
        found = self._app(app)
        if found is None or not (
            self._is_open(caller, app, found) or self.shared(caller, app) is not None
        ):
            raise ServiceError(
                StatusCode.CONN_DOES_NOT_EXIST, f"app {user_id}/{app_id or '?'} does not exist"
            )
        if not own and (write or not self._is_open(caller, app, found)):
            shared = self.shared(caller, app)
            if shared is None:
                raise ServiceError(
                    StatusCode.CONN_INSUFFICIENT_SCOPES,
                    f"{caller.user_id} is not allowed to change {user_id}/{app_id}",
                )
            if not shared.allow(method):
                raise ServiceError(
                    StatusCode.CONN_INSUFFICIENT_SCOPES,
                    f"as a collaborator of {user_id}/{app_id}, {caller.user_id} lacks scopes that "
                    f"{method} requires: {', '.join(shared.lacking(method))}",
                )
        return app

    def user(self, caller: Principal, ids: v2.UserAppIDSet, *, write: bool = False) -> str:
        """The user that ``ids`` mean; what belongs to a user is that user's own business."""
        user_id = ids.user_id if ids.user_id not in ("", "me") else caller.user_id
        if user_id != caller.user_id:
            raise ServiceError(
                StatusCode.CONN_INSUFFICIENT_SCOPES,
                f"{caller.user_id} is not allowed to {'change' if write else 'see'} "
                f"resources of {user_id}",
            )
        return user_id

    def apps_of(self, caller: Principal, method: str, user_id: str) -> list[str]:
        """Ids of a user's apps in which the caller may read with this method."""
        rows = self._store.page(apps_of(user_id), 0, -1, newest_first=False)
        return [
            row.id
            for row in rows
            if self._is_open(caller, app := UserApp(user_id, row.id), v2.App.FromString(row.body))
            or not self.is_stranger(caller, method, app)
        ]

    def default_app(self, user_id: str) -> str:
        """The app that a user's requests mean when they name none; empty without apps."""
        if user_id == self._credentials.user_id:
            return self._credentials.app_id
        rows = self._store.page(apps_of(user_id), 0, 1, newest_first=False)
        return rows[0].id if rows else ""

    def _app(self, app: UserApp) -> v2.App | None:
        with self._lock:
            if app in self._apps:
                return self._apps[app]
            forgotten = self._forgotten
        row = self._store.get(apps_of(app.user_id), app.app_id)
        found = v2.App.FromString(row.body) if row else None
        if found is not None:
            with self._lock:
                if forgotten == self._forgotten:
                    self._apps[app] = found
        return found

    def _is_open(self, caller: Principal, app: UserApp, found: v2.App) -> bool:
        """Whether a caller needs no rights of a collaborator to read in an app."""
        if caller.app_id:
            own = (app.user_id, app.app_id) == (caller.user_id, caller.app_id)
            return own or (caller.reads_public and app == PUBLIC_APP)
        return app.user_id == caller.user_id or found.visibility.gettable == v2.Visibility.PUBLIC

    def is_stranger(self, caller: Principal, method: str, app: UserApp) -> bool:
        """Whether a caller is neither the owner of an app nor a collaborator with the method."""
        if app.user_id == caller.user_id:
            return False
        shared = self.shared(caller, app)
        return shared is None or not shared.allow(method)

    def shared(self, caller: Principal, app: UserApp) -> Rights | None:
        """What a collaborator may do in an app; None for anybody else."""
        if caller.app_id:
            return None  # the key of an app is none of its user's other apps
        for row in self._store.walk(collaborators_of(app)):
            collaborator = v2.Collaborator.FromString(row.body)
            if collaborator.user.id == caller.user_id:
                return Rights.of(collaborator.scopes, collaborator.endpoints)
        return None

    def may_give(self, caller: Principal, app: UserApp, rights: Rights) -> bool:
        """Whether a caller has in an app (or as a user) the rights that somebody is to get."""
        if not caller.rights.cover(rights):
            return False
        if app.user_id == caller.user_id:
            return True
        shared = self.shared(caller, app)
        return shared is not None and shared.cover(rights)

    # What is there from the start

    def put_defaults(self) -> None:
        """Keeps the default user, its app and its keys, where nobody has described them."""
        known = self._credentials
        self.put_user(v2.User(id=known.user_id))
        self.put_app(known.user_id, v2.App(id=known.app_id))
        # Secrets that were given for an earlier run are void.
        for where in self._store.collections("key"):
            for row in self._store.page(where, 0, -1, keys=("default",)):
                self._store.delete(where, row.id)
        self.put_key(known.user_id, v2.Key(id=known.pat, type=PAT), default=True)
        key = v2.Key(id=known.api_key, type=API_KEY)
        key.apps.add(id=known.app_id)
        self.put_key(known.user_id, key, default=True)
        app = UserApp(known.user_id, known.app_id)
        self._applications.put(app, known.client_id, known.client_secret, default=True)

    def put_user(self, user: v2.User) -> None:
        """Keeps a user, unless there is one of that id."""
        if self._store.get(USER_COLLECTION, user.id) is None:
            user.created_at.GetCurrentTime()
            self._store.insert(USER_COLLECTION, user.id, user.SerializeToString())

    def put_app(self, user_id: str, app: v2.App) -> None:
        """Keeps an app of a user, unless there is one of that id."""
        if self._store.get(apps_of(user_id), app.id) is None:
            app.user_id = user_id
            app.name = app.name or app.id
            if not app.visibility.gettable:
                app.visibility.gettable = v2.Visibility.PRIVATE
            app.created_at.GetCurrentTime()
            app.modified_at.CopyFrom(app.created_at)
            self._store.insert(apps_of(user_id), app.id, app.SerializeToString())

    def put_key(self, user_id: str, key: v2.Key, *, default: bool = False) -> None:
        """Keeps a key of a user, unless there is one of that id; without scopes it has all."""
        if self._store.get(keys_of(user_id), key.id) is None:
            if not key.scopes and not key.endpoints:
                key.scopes.append("All")
            key.created_at.GetCurrentTime()
            self._store.insert(
                keys_of(user_id),
                key.id,
                key.SerializeToString(),
                key="default" if default else None,
            )
