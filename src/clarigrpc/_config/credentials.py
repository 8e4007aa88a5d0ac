"""Credentials, and the call metadata they become.

* A personal access token or an API key: ``authorization: Key <secret>``.
* A session token: ``x-clarifai-session-token: <secret>``.
* OAuth2 client credentials of the first API generation: ``authorization: Bearer <token>``, with
  a token that is fetched when needed and renewed before it expires (extra ``oauth``).
* Anything else: a callable that returns the metadata.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol

from clarigrpc._config.option_types import check_types
from clarigrpc._extras import NeedsExtra
from clarigrpc._fork_lock import ForkLock
from clarigrpc._public_names import named_in
from clarigrpc.errors import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    InvalidArgumentError,
)

if TYPE_CHECKING:
    import httpx

Pairs = tuple[tuple[str, str], ...]
AuthCallable = Callable[[], Sequence[tuple[str, str]]]
"""Called for every call, from any thread: returns metadata such as ``[("authorization", ...)]``."""

SECRET_OPTIONS = {
    "pat": "CLARIFAI_PAT",
    "api_key": "CLARIFAI_API_KEY",
    "session_token": "CLARIFAI_SESSION_TOKEN",
}
"""Options of a client that are a secret, with the variable that each is also read from."""

_SESSION_KEY = "x-clarifai-session-token"
CREDENTIAL_KEYS = frozenset(("authorization", _SESSION_KEY))
"""Keys of the metadata that say who calls."""
_METADATA_KEY = re.compile("[0-9a-z_.-]+")


def pairs_of(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """The pairs of metadata that a caller gave.

    Raises:
        TypeError: It is no iterable.
    """
    try:
        return tuple(metadata)
    except TypeError:
        raise TypeError(
            f"metadata takes pairs of a key and a value, not {type(metadata).__name__}"
        ) from None


def check_metadata(pairs: Sequence[tuple[str, str | bytes]]) -> None:
    """Refuse what gRPC would: its own error shows all metadata of the call, credentials too.

    Raises:
        InvalidArgumentError: A key or a value holds characters that metadata cannot carry.
        TypeError: These are no pairs of strings.
    """
    for pair in pairs:
        if (
            not isinstance(pair, (tuple, list))
            or len(pair) != 2
            or not isinstance(pair[0], str)
            or not isinstance(pair[1], (str, bytes))
        ):
            raise TypeError("metadata takes pairs of a key and a value, both strings")
        key, value = pair
        if not _METADATA_KEY.fullmatch(key):
            raise InvalidArgumentError(
                f"metadata key {key!r}: lower-case letters, digits, '_', '-' and '.' only"
            )
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise TypeError(f"metadata {key!r} takes bytes, as every key that ends in -bin")
        elif not (value.isascii() and _text(value).isprintable()):
            raise InvalidArgumentError(
                f"metadata {key!r}: printable ASCII only; a key that ends in -bin takes any bytes"
            )


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


def _drop_frames(error: BaseException | None) -> None:
    """Take the frames, with their variables, from an exception and those that led to it."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class Secret(str):
    """Text whose repr does not show it, for tracebacks that print local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"


@named_in("clarigrpc")
@dataclass(frozen=True, slots=True, init=False)
class ClientCredentials:
    """OAuth2 client credentials of an application of the first API generation.

    Attributes:
        client_id: Id of the application.
        client_secret: Its secret.
        token_url: Endpoint that exchanges them for an access token.
        leeway: Seconds before its expiry at which a token is renewed.
        timeout: Seconds that fetching a token may take.
    """

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str = "https://api.clarifai.com/v1/token/"  # noqa: S105 - an address
    leeway: float = 60.0
    timeout: float = 30.0

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        token_url: str = token_url,
        leeway: float = leeway,
        timeout: float = timeout,
    ) -> None:
        if isinstance(client_secret, str):
            client_secret = Secret(client_secret)  # tracebacks may show the variables of this frame
        values = (client_id, client_secret, token_url, leeway, timeout)
        for option, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, option.name, value)
        check_types(self, "ClientCredentials")


class _Source(Protocol):
    def cached(self) -> Pairs | None:
        """The metadata, or None when getting it would block."""

    def fetch(self, timeout: float) -> Pairs:
        """The metadata; may block, for ``timeout`` seconds."""

    def rejected(self) -> None:
        """The service did not take it; the next call may need another one."""


class Credentials:
    """What identifies the caller, ready to be put on a call. Its repr never shows a secret."""

    def __init__(self, description: str, source: _Source) -> None:
        self._description = description
        self._source = source
        self.cached: Callable[[], Pairs | None] = source.cached
        self.fetch: Callable[[float], Pairs] = source.fetch
        self.rejected: Callable[[], None] = source.rejected

    def describe(self) -> str:
        """What kind of credential this is, without any part of it."""
        return self._description

    def __repr__(self) -> str:
        return f"Credentials({self._description})"

    @property
    def static(self) -> Pairs | None:
        """The metadata where it never changes, else None."""
        return self._source.pairs if isinstance(self._source, _Static) else None

    @classmethod
    def from_secret(cls, kind: str, secret: str) -> Credentials:
        """A PAT, an API key or a session token (``kind`` is the client's option)."""
        description = f"{kind}=<secret>"
        if kind == "session_token":
            return cls(description, _Static(((_SESSION_KEY, Secret(secret)),)))
        return cls(description, _Static((("authorization", Secret(f"Key {secret}")),)))

    @classmethod
    def from_callable(cls, call: AuthCallable) -> Credentials:
        """Metadata from the user's own function."""
        return cls("auth=<callable>", _Called(call))

    @classmethod
    def from_oauth(cls, application: ClientCredentials) -> Credentials:
        """Access tokens for an application of the first API generation."""
        return cls(f"oauth client_id={application.client_id!r}", _OAuth(application))


class _Static:
    __slots__ = ("pairs",)

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def cached(self) -> Pairs:
        return self.pairs

    def fetch(self, timeout: float) -> Pairs:
        return self.pairs

    def rejected(self) -> None:
        """There is no other one."""


class _Called:
    """The callable decides about caching; nobody knows whether it blocks."""

    def __init__(self, call: AuthCallable) -> None:
        self._call = call

    def cached(self) -> Pairs | None:
        return None

    def fetch(self, timeout: float) -> Pairs:
        returned = self._call()
        try:
            given = [(key, value) for key, value in returned]
        except (TypeError, ValueError):  # whose text may have a part of a secret
            raise ConfigurationError(
                "auth has to return a list of (key, value), for example "
                f"[('authorization', 'Key ...')], not {type(returned).__name__}"
            ) from None
        for key, value in given:
            if not (isinstance(key, str) and isinstance(value, str)):
                raise ConfigurationError(f"auth returned no string for {key!r}")
        pairs = tuple((key.lower(), Secret(value)) for key, value in given)
        check_metadata(pairs)
        return pairs

    def rejected(self) -> None:
        """It is asked for every call anyway."""


class _OAuth:
    """One access token for all threads, fetched by one of them at a time."""

    def __init__(self, application: ClientCredentials) -> None:
        self._application = application
        # The metadata, and when by the monotonic clock to fetch anew.
        self._token: tuple[Pairs, float] = ((), -math.inf)
        self._lock = ForkLock()

    def cached(self) -> Pairs | None:
        pairs, renew_at = self._token
        return pairs if time.monotonic() < renew_at else None

    def rejected(self) -> None:
        self._token = ((), -math.inf)

    def fetch(self, timeout: float) -> Pairs:
        began = time.monotonic()
        lock = self._lock.get()
        if not lock.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX)):
            raise self._late()
        try:
            while (pairs := self.cached()) is None:
                remaining = timeout - (time.monotonic() - began)
                if remaining <= 0:
                    raise self._late()
                self._request_token(min(remaining, self._application.timeout))
        finally:
            lock.release()
        return pairs

    def _late(self) -> DeadlineExceededError:
        return DeadlineExceededError(f"no access token from {self._application.token_url} in time")

    def _request_token(self, timeout: float) -> None:
        asked = time.monotonic()
        # Failures are raised here, and not where they are found: the frames there, which a
        # traceback may show with their variables, hold secrets.
        response = self._response(timeout)
        found = response if isinstance(response, Exception) else self._pairs(response)
        if isinstance(found, Exception):
            raise found
        pairs, lifetime = found
        check_metadata(pairs)
        self._token = (pairs, asked + lifetime - self._application.leeway)

    def _response(self, timeout: float) -> httpx.Response | Exception:
        with NeedsExtra("oauth", "OAuth2 credentials"):
            import httpx
            from oauthlib.oauth2 import BackendApplicationClient

            from clarigrpc._config.http_deadlines import DeadlineHttpTransport, HttpDeadline
        application = self._application
        oauth = BackendApplicationClient(application.client_id)
        try:
            transport = DeadlineHttpTransport(application.token_url, True, httpx.Limits())
            with httpx.Client(transport=transport) as client:
                return client.send(
                    client.build_request(
                        "POST",
                        application.token_url,
                        content=oauth.prepare_request_body(
                            include_client_id=True, client_secret=application.client_secret
                        ),
                        headers={
                            "accept": "application/json",
                            "content-type": "application/x-www-form-urlencoded",
                        },
                        extensions={"timeout": HttpDeadline(timeout)},
                    )
                )
        except httpx.TimeoutException:
            return self._late()
        except httpx.HTTPError as error:
            return self._no_token(f"{type(error).__name__}: {error}", retryable=True)
        except (httpx.InvalidURL, ValueError, ImportError) as error:
            from clarigrpc._config.environment_proxies import unusable_proxy

            return unusable_proxy(error)
        except BaseException as error:  # Ctrl-C, say
            _drop_frames(error)
            raise

    def _pairs(self, response: httpx.Response) -> tuple[Pairs, float] | Exception:
        """The metadata and how many seconds they are valid, or what is wrong with the response."""
        from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error

        url, leeway = self._application.token_url, self._application.leeway
        oauth = BackendApplicationClient(self._application.client_id)
        try:
            answer = oauth.parse_request_body_response(response.text)
            lifetime = float(answer["expires_in"])
            secret = Secret("Bearer " + answer["access_token"])
        except OAuth2Error as error:
            if response.is_client_error:
                return AuthenticationError(
                    f"{url} refused the client credentials", details=self._told(str(error))
                )
            return self._no_token(
                f"HTTP {response.status_code} without a token", retryable=response.is_server_error
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            # Not in the form of OAuth2 at all; a gateway that is down says this, too.
            return self._no_token(
                f"HTTP {response.status_code} without a token", retryable=response.is_server_error
            )
        if not lifetime > leeway:
            # A token that lives shorter than the leeway would be fetched for ever.
            return AuthenticationError(
                f"the token of {url} expires within the leeway of {leeway:g} s; use a smaller "
                "leeway"
            )
        return (("authorization", secret),), lifetime

    def _no_token(self, details: str, *, retryable: bool = False) -> AuthenticationError:
        return AuthenticationError(
            f"no access token from {self._application.token_url}",
            details=self._told(details),
            retryable=retryable,
        )

    def _told(self, details: str) -> str:
        """What an endpoint said, which may have repeated the secret."""
        return details.replace(self._application.client_secret, "<secret>")
