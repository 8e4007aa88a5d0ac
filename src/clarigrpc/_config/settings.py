"""Settings of a client: argument > environment or context of the CLI's config file > default.

Address, user and credential that the arguments leave open all come from the environment, or all
from one context: a context that the caller names wins over the environment, which wins over the
current context.

The only module that reads the environment. The names are those that users of the service already
set: ``CLARIFAI_PAT``, ``CLARIFAI_API_KEY``, ``CLARIFAI_SESSION_TOKEN``, ``CLARIFAI_USER_ID``,
``CLARIFAI_APP_ID``, ``CLARIFAI_GRPC_BASE``, ``CLARIFAI_API_BASE`` and
``CLARIFAI_ROOT_CERTIFICATES_PATH``. The config file is the one that the service's CLI writes:
``~/.config/clarifai/config``, YAML, with named contexts of these variables.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from clarigrpc._config.addresses import Target, parse_bases, target_of
from clarigrpc._config.client_options import ClientOptions, ViewOptions
from clarigrpc._config.context_file import (
    CONFIG_PATH,
    FROM_ENVIRONMENT,
    ContextFile,
    expanded,
    hidden,
)
from clarigrpc._config.credentials import SECRET_OPTIONS, Credentials, Secret, check_metadata
from clarigrpc._config.retry_policy import RetryPolicy, as_policy
from clarigrpc._config.timeouts import check_timeout
from clarigrpc._public_names import named_in
from clarigrpc.errors import ConfigurationError, InvalidArgumentError

DEFAULT_BASE = "https://api.clarifai.com"

_ADDRESSES = ("CLARIFAI_GRPC_BASE", "CLARIFAI_API_BASE")
_USER_VARIABLE = "CLARIFAI_USER_ID"
_APP = "CLARIFAI_APP_ID"
_ROOTS = "CLARIFAI_ROOT_CERTIFICATES_PATH"
# Each of them means something only together with the others of its source.
_BELONG_TOGETHER = (*_ADDRESSES, _USER_VARIABLE, *SECRET_OPTIONS.values())
_VARIABLES = (*_BELONG_TOGETHER, _APP, _ROOTS)
# Those of the published runner, which the service sets where it starts one.
_RUNNER_VARIABLES = {
    "runner_id": "CLARIFAI_RUNNER_ID",
    "nodepool_id": "CLARIFAI_NODEPOOL_ID",
    "compute_cluster_id": "CLARIFAI_COMPUTE_CLUSTER_ID",
    "replica_id": "CLARIFAI_RUNNER_REPLICA_ID",
}
_PEM_BLOCK = rb"(?s)-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----"

_OPTION_OF = {variable: name for name, variable in SECRET_OPTIONS.items()}


@named_in("clarigrpc.types")
class Settings(ClientOptions):
    """The options of a client, looked up in environment and config file, and checked.

    The options that are secrets are None here.

    Attributes:
        target: The first address of the service.
        others: Its further addresses.
        balanced: Whether calls are balanced over the addresses.
        credentials: What identifies the caller, in place of the options for that.
    """

    target: Target
    others: tuple[Target, ...]
    balanced: bool
    credentials: Credentials
    user_id: str
    app_id: str
    root_certificates: bytes | None
    client_key: bytes | None
    client_certificate: bytes | None
    retry: RetryPolicy

    def __init__(self, values: Mapping[str, Any]) -> None:
        vars(self).update(values)

    def __repr__(self) -> str:
        return (
            f"base={self.target.url!r}, {self.credentials.describe()}, "
            f"user_id={self.user_id!r}, app_id={self.app_id!r}"
        )

    def changed(self, changes: ViewOptions) -> Settings:
        """The settings of a view.

        Raises:
            ConfigurationError: A value is malformed.
        """
        given: dict[str, Any] = {
            name: value for name, value in vars(changes).items() if value is not None
        }
        return Settings(vars(self) | _checked(given))


def fork_support_disabled() -> bool:
    """Whether gRPC was told not to survive a fork (``GRPC_ENABLE_FORK_SUPPORT=0``)."""
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower() in ("0", "false", "no")


def has_google_bearer_token() -> bool:
    """Whether the environment has a token that object stores of Google are read with
    (``GOOGLE_BEARER_TOKEN``, in any case of the letters)."""
    return any(name.lower() == "google_bearer_token" for name in os.environ)


def runner_of_environment() -> dict[str, str]:
    """The options of a runner that the environment sets, by name."""
    found = {name: os.environ.get(key, "") for name, key in _RUNNER_VARIABLES.items()}
    return {name: value for name, value in found.items() if value}


def resolve(options: ClientOptions) -> Settings:
    """Settle every option.

    Raises:
        ConfigurationError: Something is missing, malformed or contradictory. The text says what
            to set.
    """
    sources = _Sources(options.context, options.config_file)
    targets, balanced = parse_bases(
        options.base
        if options.base is not None and options.base != ""
        else next(filter(None, map(sources.variable, _ADDRESSES)), DEFAULT_BASE)
    )
    credentials = _credentials(options, sources)
    target = targets[0]
    destinations = list(targets)
    if options.oauth is not None:
        destinations.append(target_of(options.oauth.token_url))
    for destination in destinations:
        if not (destination.tls or destination.is_loopback or options.allow_plaintext):
            raise ConfigurationError(
                f"credentials would go unencrypted to {destination.url}; use https://, or say "
                "allow_plaintext=True if the network is trusted"
            )
    if options.transport == "rest" and (
        balanced or options.connections != 1 or options.wait_for_ready or options.hedge
    ):
        raise ConfigurationError(
            "several addresses, connections, wait_for_ready and hedge need transport='grpc'"
        )
    if options.transport == "rest" and target.is_unix:
        raise ConfigurationError("a Unix domain socket needs transport='grpc'")
    if not 1 <= options.connections <= 100:
        raise ConfigurationError("connections has to be between 1 and 100")
    if options.hedge is not None and not 0.5 <= options.hedge < 1:
        raise ConfigurationError("hedge is a quantile of the latencies, at least 0.5 and below 1")
    if not 0 < options.max_message_bytes < 2**31:
        raise ConfigurationError("max_message_bytes has to be between 1 and 2**31 - 1")
    if (options.client_key is None) != (options.client_certificate is None):
        raise ConfigurationError("client_key and client_certificate go together: give both")
    roots = options.root_certificates
    if roots is None and target.tls:
        # Whom this machine trusts does not depend on who calls.
        roots = sources.variable(_ROOTS) or os.environ.get(_ROOTS) or None
    return Settings(
        _checked(vars(options))
        | {
            **dict.fromkeys((*SECRET_OPTIONS, "oauth", "auth")),
            "target": target,
            "others": targets[1:],
            "balanced": balanced,
            "credentials": credentials,
            "user_id": options.user_id or sources.variable(_USER_VARIABLE),
            "app_id": options.app_id or sources.variable(_APP),
            "root_certificates": _pem(roots, "root_certificates"),
            "client_key": _pem(options.client_key, "client_key"),
            "client_certificate": _pem(options.client_certificate, "client_certificate"),
        }
    )


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options, with those settled that a view may change, too."""
    found = dict(given)
    for name in ("timeout", "stream_timeout"):
        if name in found:
            check_timeout(found[name], name)
            found[name] = float(found[name])
    if "retry" in found:
        found["retry"] = RetryPolicy() if found["retry"] is None else as_policy(found["retry"])
    if "metadata" in found:
        found["metadata"] = tuple(found["metadata"])
        try:
            check_metadata(found["metadata"])
        except InvalidArgumentError as error:
            raise ConfigurationError(str(error)) from None
    return found


def _credentials(options: ClientOptions, sources: _Sources) -> Credentials:
    arguments: dict[str, Any] = {
        name: value
        for name in (*SECRET_OPTIONS, "oauth", "auth")
        if (value := getattr(options, name)) is not None
    }
    found, origin = (arguments, "argument") if arguments else sources.secrets()
    if len(found) > 1:
        raise ConfigurationError(
            f"more than one credential ({origin}): {', '.join(found)}; set exactly one"
        )
    for name, value in found.items():
        return _credential(_OPTION_OF.get(name, name), value, f"{name} ({origin})")
    raise ConfigurationError(f"no credential: {sources.advice()}")


def _credential(name: str, value: Any, origin: str) -> Credentials:
    if name == "oauth":
        return Credentials.from_oauth(value)
    if name == "auth":
        return Credentials.from_callable(value)
    secret = Secret(value.strip())
    if not secret:
        raise ConfigurationError(f"{origin} is empty")
    # The value itself must not appear in the text.
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ConfigurationError(f"{origin} holds characters that no credential has")
    return Credentials.from_secret(name, secret)


class _Sources:
    """Where the address, the user and the credential come from: the environment or a context."""

    def __init__(self, context: str | None, config_file: str | os.PathLike[str] | None) -> None:
        self._context_name = context
        self._path = expanded(config_file)
        self._explicit = context is not None or config_file is not None
        # A context that was asked for has to be there, whether or not anything is taken from it.
        self._found = self._choose() if self._explicit else None

    def variable(self, name: str) -> str:
        """A variable of the source; "" where it has none."""
        return str(self._chosen[0].get(name, ""))

    def secrets(self) -> tuple[dict[str, Any], str]:
        """The secrets of the source, and what to call it."""
        variables, origin = self._chosen
        return _secrets(variables), origin

    def advice(self) -> str:
        """What to do where there is no credential."""
        variables, origin = self._chosen
        if origin != "environment":
            return (
                f"{origin} of {self._path} has no CLARIFAI_PAT (ENVVAR stands for the one of the "
                "environment); set it, or give pat= to the client"
            )
        told = f"(or in the current context of {CONFIG_PATH})"
        given = [name for name in (*_ADDRESSES, _USER_VARIABLE) if variables.get(name)]
        if given and os.path.isfile(self._path):
            told = (
                f"too: {given[0]} is set there, so that the current context of {self._path} is "
                "not used; context= names one to use"
            )
        return f"give pat= to the client, or set CLARIFAI_PAT in the environment {told}"

    @property
    def _chosen(self) -> tuple[Mapping[str, str], str]:
        if self._found is None:
            self._found = self._choose()
        return self._found

    def _choose(self) -> tuple[Mapping[str, str], str]:
        environment = hidden({name: os.environ.get(name, "") for name in _VARIABLES})
        if not self._explicit and (
            any(map(environment.get, _ADDRESSES))
            and environment.get(_USER_VARIABLE)
            and _secrets(environment)
        ):
            return environment, "environment"
        context = self._read()
        values = {
            name: environment.get(name, "") if value == FROM_ENVIRONMENT else value
            for name, value in context.items()
        }
        if not self._explicit:
            if not context or any(
                environment.get(name) and context.get(name) != FROM_ENVIRONMENT
                for name in _BELONG_TOGETHER
            ):
                return environment, "environment"
            values[_APP] = environment.get(_APP) or values.get(_APP, "")
        return values, f"context {self._context_name!r}"

    def _read(self) -> Mapping[str, str]:
        if not os.path.isfile(self._path):
            if self._explicit:
                raise ConfigurationError(f"there is no config file at {self._path}")
            return {}
        if not self._explicit and find_spec("yaml") is None:
            return {}
        file = ContextFile(self._path)
        self._context_name = self._context_name or file.current
        return file.variables(self._context_name)


def _secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """The secrets among variables."""
    return {name: variables[name] for name in SECRET_OPTIONS.values() if variables.get(name)}


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
    return _pem_blocks(pem, f"{name}: {origin}")


def _pem_blocks(text: bytes, origin: str) -> bytes:
    """The certificates or keys alone: a byte order mark or comments in any encoding may go along.

    Raises:
        ConfigurationError: There is none.
    """
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = text.decode("utf-16", "replace").encode()
    blocks = [found.group() for found in re.finditer(_PEM_BLOCK, text)]
    if not blocks:
        raise ConfigurationError(f"{origin} is not PEM (-----BEGIN ... -----END ...)")
    if not all(map(bytes.isascii, blocks)):
        raise ConfigurationError(f"{origin} has damaged PEM: other characters than ASCII")
    return b"\n".join(blocks) + b"\n"
