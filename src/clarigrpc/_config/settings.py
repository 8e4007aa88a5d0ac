"""Settings of a client: argument > environment > CLI config file > default.

The only module that reads the environment. The names are those that users of the service already
set: ``CLARIFAI_PAT``, ``CLARIFAI_API_KEY``, ``CLARIFAI_SESSION_TOKEN``, ``CLARIFAI_USER_ID``,
``CLARIFAI_APP_ID``, ``CLARIFAI_GRPC_BASE``, ``CLARIFAI_API_BASE`` and
``CLARIFAI_ROOT_CERTIFICATES_PATH``. The config file is the one that the service's CLI writes:
``~/.config/clarifai/config``, YAML, with named contexts of these variables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from clarigrpc._config.addresses import Target, parse_base, parse_bases
from clarigrpc._config.credentials import AuthCallable, ClientCredentials, Credentials
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._public_names import named_in
from clarigrpc.errors import ConfigurationError

DEFAULT_BASE = "https://api.clarifai.com"
DEFAULT_TIMEOUT = 60.0
DEFAULT_STREAM_TIMEOUT = 3600.0
DEFAULT_MAX_MESSAGE_BYTES = 256 * 1024 * 1024
CONFIG_PATH = "~/.config/clarifai/config"

Transport = Literal["grpc", "rest"]

_SECRETS = {
    "pat": "CLARIFAI_PAT",
    "api_key": "CLARIFAI_API_KEY",
    "session_token": "CLARIFAI_SESSION_TOKEN",
}
_SECRET_OPTIONS = {variable: name for name, variable in _SECRETS.items()}


def mask(secret: str) -> str:
    """A credential as it may be shown: its last four characters at most."""
    return f"…{secret[-4:]}" if len(secret) >= 12 else "…"


@named_in("clarigrpc.types")
class Settings(NamedTuple):
    """Everything that a client was told, resolved and checked. Times in seconds, sizes in bytes."""

    target: Target
    credentials: Credentials
    user_id: str
    app_id: str
    timeout: float
    stream_timeout: float
    transport: Transport
    max_message_bytes: int
    root_certificates: bytes | None
    client_key: bytes | None
    client_certificate: bytes | None
    retry: RetryPolicy
    raise_on_partial: bool
    others: tuple[Target, ...] = ()
    balanced: bool = False
    connections: int = 1
    wait_for_ready: bool = False
    hedge: float | None = None

    def __repr__(self) -> str:
        return (
            f"base={self.target.url!r}, {self.credentials.describe()}, "
            f"user_id={self.user_id!r}, app_id={self.app_id!r}"
        )


def fork_support_disabled() -> bool:
    """Whether gRPC was told not to survive a fork (``GRPC_ENABLE_FORK_SUPPORT=0``)."""
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower() in ("0", "false", "no")


def resolve(
    *,
    pat: str | None,
    api_key: str | None,
    session_token: str | None,
    oauth: ClientCredentials | None,
    auth: AuthCallable | None,
    user_id: str | None,
    app_id: str | None,
    base: str | Sequence[str] | None,
    timeout: float,
    stream_timeout: float,
    transport: Transport,
    allow_plaintext: bool,
    max_message_bytes: int,
    root_certificates: str | os.PathLike[str] | bytes | None,
    client_key: str | os.PathLike[str] | bytes | None,
    client_certificate: str | os.PathLike[str] | bytes | None,
    retry: RetryPolicy | None,
    raise_on_partial: bool,
    connections: int,
    wait_for_ready: bool,
    hedge: float | None,
    context: str | None,
    config_file: str | os.PathLike[str] | None,
) -> Settings:
    """Settle every setting; the arguments are those of ``Client``.

    Raises:
        ConfigurationError: Something is missing, malformed or contradictory. The text says what
            to set.
    """
    sources = _Sources(context, config_file)
    targets, balanced = parse_bases(
        base
        if base is not None and base != ""
        else sources.variable("CLARIFAI_GRPC_BASE")
        or sources.variable("CLARIFAI_API_BASE")
        or DEFAULT_BASE
    )
    credentials = _credentials(
        {"pat": pat, "api_key": api_key, "session_token": session_token}, oauth, auth, sources
    )
    target = targets[0]
    destinations = list(targets)
    if oauth is not None:
        parts = urlsplit(oauth.token_url)
        destinations.append(parse_base(f"{parts.scheme}://{parts.netloc}"))
    for destination in destinations:
        if not (destination.tls or destination.is_loopback or allow_plaintext):
            raise ConfigurationError(
                f"credentials would go unencrypted to {destination.url}; use https://, or say "
                "allow_plaintext=True if the network is trusted"
            )
    if transport not in ("grpc", "rest"):
        raise ConfigurationError(f"transport is 'grpc' or 'rest', not {transport!r}")
    if transport == "rest" and (balanced or connections != 1 or wait_for_ready or hedge):
        raise ConfigurationError(
            "several addresses, connections, wait_for_ready and hedge need transport='grpc'"
        )
    if not 1 <= connections <= 100:
        raise ConfigurationError("connections has to be between 1 and 100")
    if hedge is not None and not 0.5 <= hedge < 1:
        raise ConfigurationError("hedge is a share of the calls, at least 0.5 and below 1")
    for name, seconds in (("timeout", timeout), ("stream_timeout", stream_timeout)):
        if not 0 < seconds < float("inf"):
            raise ConfigurationError(f"{name} has to be a positive, finite number of seconds")
    if not 0 < max_message_bytes < 2**31:
        raise ConfigurationError("max_message_bytes has to be between 1 and 2**31 - 1")
    if (client_key is None) != (client_certificate is None):
        raise ConfigurationError("client_key and client_certificate go together: give both")
    roots = root_certificates
    if roots is None and target.tls:
        roots = sources.variable("CLARIFAI_ROOT_CERTIFICATES_PATH")
    return Settings(
        target=target,
        credentials=credentials,
        user_id=user_id or sources.variable("CLARIFAI_USER_ID") or "",
        app_id=app_id or sources.variable("CLARIFAI_APP_ID") or "",
        timeout=timeout,
        stream_timeout=stream_timeout,
        transport=transport,
        max_message_bytes=max_message_bytes,
        root_certificates=_pem(roots, "root_certificates"),
        client_key=_pem(client_key, "client_key"),
        client_certificate=_pem(client_certificate, "client_certificate"),
        retry=retry or RetryPolicy(),
        raise_on_partial=raise_on_partial,
        others=targets[1:],
        balanced=balanced,
        connections=connections,
        wait_for_ready=wait_for_ready,
        hedge=hedge,
    )


def _credentials(
    given: Mapping[str, str | None],
    oauth: ClientCredentials | None,
    auth: AuthCallable | None,
    sources: _Sources,
) -> Credentials:
    arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if oauth is not None:
        arguments["oauth"] = oauth
    if auth is not None:
        arguments["auth"] = auth
    levels: tuple[tuple[str, Callable[[], Mapping[str, Any]]], ...] = (
        ("argument", lambda: arguments),
        ("environment", sources.environment_secrets),
        ("config file", sources.file_secrets),
    )
    for origin, secrets in levels:
        found = secrets()
        if len(found) > 1:
            raise ConfigurationError(
                f"more than one credential ({origin}): {', '.join(found)}; set exactly one"
            )
        for name, value in found.items():
            return _credential(_SECRET_OPTIONS.get(name, name), value, f"{name} ({origin})")
    raise ConfigurationError(
        "no credential: give pat= to the client, or set CLARIFAI_PAT in the environment "
        f"(or in the current context of {CONFIG_PATH})"
    )


def _credential(name: str, value: Any, origin: str) -> Credentials:
    if name == "oauth":
        return Credentials.from_oauth(value)
    if name == "auth":
        return Credentials.from_callable(value)
    if not isinstance(value, str):
        raise ConfigurationError(f"{origin} has to be a string, not {type(value).__name__}")
    secret = value.strip()
    if not secret:
        raise ConfigurationError(f"{origin} is empty")
    # The value itself must not appear in the text.
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ConfigurationError(f"{origin} holds characters that no credential has")
    return Credentials.from_secret(name, secret, f"{name}={mask(secret)}")


class _Sources:
    """The environment, and the current context of the CLI's config file, read when needed."""

    def __init__(self, context: str | None, config_file: str | os.PathLike[str] | None) -> None:
        self._context_name = context
        self._path = os.path.expanduser(os.fspath(config_file or CONFIG_PATH))
        self._explicit = context is not None or config_file is not None
        self._context: Mapping[str, str] | None = None

    def variable(self, name: str) -> str | None:
        return os.environ.get(name) or self._from_file().get(name)

    def environment_secrets(self) -> dict[str, str]:
        return {name: os.environ[name] for name in _SECRETS.values() if os.environ.get(name)}

    def file_secrets(self) -> dict[str, str]:
        values = self._from_file()
        return {name: values[name] for name in _SECRETS.values() if values.get(name)}

    def _from_file(self) -> Mapping[str, str]:
        if self._context is None:
            self._context = self._read()
        return self._context

    def _read(self) -> Mapping[str, str]:
        if not os.path.isfile(self._path):
            if self._explicit:
                raise ConfigurationError(f"there is no config file at {self._path}")
            return {}
        try:
            import yaml
        except ImportError:
            if self._explicit:
                raise ConfigurationError(
                    f"reading {self._path} needs PyYAML: pip install 'clarigrpc[cli]'"
                ) from None
            return {}
        try:
            with open(self._path, encoding="utf-8") as file:
                content = yaml.safe_load(file)
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            # The parser quotes the file, which holds credentials.
            raise ConfigurationError(
                f"the config file {self._path} cannot be read ({type(error).__name__})"
            ) from None
        return self._context_of(content)

    def _context_of(self, content: Any) -> Mapping[str, str]:
        contexts = content.get("contexts") if isinstance(content, dict) else None
        if not isinstance(contexts, dict):
            raise ConfigurationError(f"the config file {self._path} has no contexts")
        name = self._context_name or content.get("current_context")
        chosen = contexts.get(name)
        if not isinstance(chosen, dict):
            known = ", ".join(map(str, contexts)) or "none"
            raise ConfigurationError(
                f"the config file {self._path} has no context {name!r}; it has: {known}"
            )
        values = chosen["env"] if isinstance(chosen.get("env"), dict) else chosen
        return {
            _variable_name(str(key)): str(value)
            for key, value in values.items()
            if value not in (None, "ENVVAR")
        }


def _variable_name(key: str) -> str:
    return key if key.startswith("CLARIFAI_") else f"CLARIFAI_{key.upper()}"


def _pem(source: str | os.PathLike[str] | bytes | None, name: str) -> bytes | None:
    if source is None:
        return None
    if isinstance(source, bytes):
        pem, origin = source, "what was given"
    else:
        origin = os.fspath(source)
        try:
            with open(os.path.expanduser(source), "rb") as file:
                pem = file.read()
        except OSError as error:
            raise ConfigurationError(
                f"{name}: {origin} cannot be read ({error.strerror})"
            ) from error
    if b"-----BEGIN " not in pem:
        raise ConfigurationError(f"{name}: {origin} is not PEM (-----BEGIN ...)")
    return pem
