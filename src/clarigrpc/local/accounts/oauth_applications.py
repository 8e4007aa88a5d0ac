"""Applications of the first API generation, and the access tokens they exchange their secrets for.

An application belongs to an app of a user; its tokens act in that app, and may read the public
models, which is all that the first generation had. OAuth2 itself (RFC 6749, client credentials) is
done by oauthlib.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from oauthlib.oauth2 import BackendApplicationServer, RequestValidator

from clarigrpc.local.store.resource_store import Store, StoredCollection
from clarigrpc.local.user_app import UserApp

OAUTH_SCOPE = "api_access"
TOKEN_SECONDS = 36_000
"""How long an access token is valid by default."""

# So long is a token known to have expired, rather than unknown.
_REMEMBERED_SECONDS = 7 * 86_400

_APPLICATION_KIND = "application"
_TOKEN_KIND = "access_token"  # noqa: S105 (a kind of resource)


@dataclass(frozen=True, slots=True)
class Application:
    """What a client id stands for.

    Attributes:
        client_id: Its id.
        app: The user and the app that it belongs to.
        model: Id of the model that its requests mean when they name none; empty: the server's.
    """

    client_id: str
    app: UserApp
    model: str = ""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that was issued.

    Attributes:
        application: To whom.
        expires: When it ends, in seconds since the epoch.
    """

    application: Application
    expires: float

    @property
    def expired(self) -> bool:
        """Whether it has ended."""
        return time.time() >= self.expires


class Applications:
    """The applications of a server and their tokens.

    Args:
        store: Where they are kept.
        token_seconds: How long a token is valid.
    """

    def __init__(self, store: Store, token_seconds: int = TOKEN_SECONDS) -> None:
        self._store = store
        self._oauth = BackendApplicationServer(
            _Validator(self),
            token_generator=lambda request: secrets.token_urlsafe(24),
            token_expires_in=token_seconds,
        )

    def put(
        self, app: UserApp, client_id: str, secret: str, model: str = "", *, default: bool = False
    ) -> None:
        """Keeps an application, unless there is one of that id.

        ``default`` replaces what was the default one before, whatever its secret.
        """
        where = StoredCollection.of_app(_APPLICATION_KIND, app)
        with self._store.transaction():
            if default:
                for other in self._store.collections(_APPLICATION_KIND):
                    for row in self._store.page(other, 0, -1, keys=("default",)):
                        self._store.delete(other, row.id)
            if self._found(client_id) is None:
                body = json.dumps({"secret": secret, "model": model}).encode()
                self._store.insert(where, client_id, body, key="default" if default else None)

    def proven(self, client_id: str, secret: str) -> Application | None:
        """The application whose id and secret these are."""
        found = self._found(client_id)
        if found is None:
            return None
        application, known = found
        return application if hmac.compare_digest(known.encode(), secret.encode()) else None

    def token(self, text: str) -> AccessToken | None:
        """The token, expired or not; None where none like it was issued, or it is long gone."""
        for where in self._store.collections(_TOKEN_KIND):
            row = self._store.get(where, text)
            found = row and self._found(where.parent)
            if row and found:
                return AccessToken(found[0], json.loads(row.body)["expires"])
        return None

    def issue(self, query: str, headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        """Answers a request for a token: HTTP status, headers, and the JSON of the body.

        Args:
            query: The request's parameters, as in a form.
            headers: Its headers; ``Authorization`` may hold id and secret.
        """
        sent, body, status = self._oauth.create_token_response(
            "/v1/token/", "POST", query, {**headers, "Content-Type": ""}
        )
        return status, dict(sent), json.loads(body)

    def keep_token(self, application: Application, text: str, seconds: int) -> None:
        """Keeps a token that was issued, and forgets those that ended long ago."""
        app, now = application.app, time.time()
        where = StoredCollection.of_app(_TOKEN_KIND, app, application.client_id)
        with self._store.transaction():
            for row in self._store.walk(where, newest_first=False):
                if json.loads(row.body)["expires"] + _REMEMBERED_SECONDS > now:
                    break  # they end in the order of their issue
                self._store.delete(where, row.id)
            self._store.insert(where, text, json.dumps({"expires": now + seconds}).encode())

    def _found(self, client_id: str) -> tuple[Application, str] | None:
        """The application of an id, and its secret."""
        for where in self._store.collections(_APPLICATION_KIND):
            row = self._store.get(where, client_id)
            if row is not None:
                known = json.loads(row.body)
                app = where.app
                return Application(client_id, app, known["model"]), known["secret"]
        return None


class _Validator(RequestValidator):
    """What oauthlib asks about a request for a token."""

    def __init__(self, applications: Applications) -> None:
        super().__init__()
        self._applications = applications

    def authenticate_client(self, request: Any, *args: Any, **kwargs: Any) -> bool:
        client_id, secret = _basic(request.headers.get("Authorization", "")) or (
            request.client_id or "",
            request.client_secret or "",
        )
        request.client = self._applications.proven(client_id, secret)
        return request.client is not None

    def validate_grant_type(self, client_id: str, grant_type: str, *args: Any, **kw: Any) -> bool:
        return grant_type == "client_credentials"

    def get_default_scopes(self, client_id: str, request: Any, *args: Any, **kw: Any) -> list[str]:
        return [OAUTH_SCOPE]

    def validate_scopes(self, client_id: str, scopes: list[str], *args: Any, **kw: Any) -> bool:
        return set(scopes) <= {OAUTH_SCOPE}

    def save_bearer_token(self, token: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        self._applications.keep_token(request.client, token["access_token"], token["expires_in"])


def _basic(header: str) -> tuple[str, str] | None:
    """Id and secret of an ``Authorization: Basic`` header."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = (
            base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        )
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return client_id, secret
