"""The options of a client: their names, types, defaults and documentation, each written once.

``Client``, ``AsyncClient`` and ``settings.resolve`` take them from here. Editors and type checkers
read the signature and the text of ``Client(...)`` from the dataclass as it stands in this source,
which is why nothing in it is filled in at run time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import grpc

from clarigrpc._config.credentials import AuthCallable, ClientCredentials
from clarigrpc._config.option_types import check_types
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._public_names import named_in

Transport: TypeAlias = Literal["grpc", "rest"]
SyncInterceptor: TypeAlias = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamUnaryClientInterceptor
    | grpc.StreamStreamClientInterceptor
)
AsyncInterceptor: TypeAlias = grpc.aio.ClientInterceptor
Interceptor: TypeAlias = SyncInterceptor | AsyncInterceptor
"""An interceptor of gRPC: of ``grpc`` for a ``Client``, of ``grpc.aio`` for an ``AsyncClient``."""


@named_in("clarigrpc.types")
@dataclass(frozen=True, kw_only=True, repr=False, eq=False, match_args=False)
class ClientOptions:
    """Options of a client, all by name. An argument wins over the environment, the environment
    over the config file of the service's CLI.

    Args:
        pat: Personal access token. Environment: CLARIFAI_PAT.
        api_key: API key of an app. Environment: CLARIFAI_API_KEY.
        session_token: Session token. Environment: CLARIFAI_SESSION_TOKEN.
        oauth: OAuth2 client credentials of the first API generation (extra ``oauth``).
        auth: Callable that returns the metadata which authenticates a call, as (key, value) pairs.
            It is called for every call, from any thread.
        user_id: Default user for requests that name none. Environment: CLARIFAI_USER_ID.
        app_id: Default app for requests that name none. Environment: CLARIFAI_APP_ID.
        base: Address of the service. ``http://host:port`` is plaintext; ``https://host:port`` and
            a bare host name use TLS. Calls are balanced round-robin over the healthy addresses of
            a list (IP addresses that share a certificate), or of a name written as
            ``dns:///name:port``. Environment: CLARIFAI_GRPC_BASE, CLARIFAI_API_BASE. Default:
            ``https://api.clarifai.com``.
        timeout: Deadline of a call in seconds, retries included; at most 31,536,000 (a year).
            Default 60.
        stream_timeout: Deadline of a stream in seconds; at most a year. Default 3600.
        transport: ``"grpc"``, or ``"rest"`` for the same calls as HTTP/JSON (extra ``rest``).
        allow_plaintext: Whether credentials may be sent unencrypted to another machine.
        max_message_bytes: Size limit of a message in bytes, in both directions. Default 256 MiB.
        root_certificates: Certificate authorities to trust, as PEM bytes or the path of a PEM
            file; text around the certificates is ignored. Environment:
            CLARIFAI_ROOT_CERTIFICATES_PATH. Default: those of gRPC.
        client_key: Private key of a client certificate, as PEM bytes or the path of a PEM file.
        client_certificate: Client certificate, as PEM bytes or the path of a PEM file.
        retry: When failed calls are sent again. False turns retries off. Default:
            ``RetryPolicy()``.
        raise_on_partial: Whether a response in which some items failed (MIXED_STATUS) raises
            ``PartialFailureError``. False returns the response, with a status for each item.
        connections: Number of connections, used round-robin. Many servers limit a connection to
            about 100 concurrent calls. Default 1, at most 100.
        wait_for_ready: Whether a call waits, within its timeout, until there is a connection,
            instead of failing at once.
        hedge: Latency quantile (0.5-1) after which predict() is sent a second time; the first
            response wins. Second requests draw on the retry budget. None turns hedging off.
        metadata: Metadata that is sent with every call, as (key, value) pairs.
        interceptors: Interceptors of gRPC, the outermost first: those of ``grpc`` for ``Client``
            (``grpc.UnaryUnaryClientInterceptor`` ...), those of ``grpc.aio`` for ``AsyncClient``.
            They see messages, and a call with all its retries as one call.
        context: Context of the CLI's config file to use, in place of the environment. Default:
            the environment where it sets an address, a user or a credential, else the current
            context of the file.
        config_file: Path of the CLI's config file, to use in place of the environment. Default:
            ``~/.config/clarifai/config``.

    Raises:
        ConfigurationError: An option is missing, malformed, of a wrong type, or contradicts
            another one. The text says what to set.
    """

    pat: str | None = None
    api_key: str | None = None
    session_token: str | None = None
    oauth: ClientCredentials | None = None
    auth: AuthCallable | None = None
    user_id: str | None = None
    app_id: str | None = None
    base: str | Sequence[str] | None = None
    timeout: float = 60.0
    stream_timeout: float = 3600.0
    transport: Transport = "grpc"
    allow_plaintext: bool = False
    max_message_bytes: int = 256 * 2**20
    root_certificates: str | os.PathLike[str] | bytes | None = None
    client_key: str | os.PathLike[str] | bytes | None = None
    client_certificate: str | os.PathLike[str] | bytes | None = None
    retry: RetryPolicy | Literal[False] | None = None
    raise_on_partial: bool = True
    connections: int = 1
    wait_for_ready: bool = False
    hedge: float | None = None
    metadata: Sequence[tuple[str, str | bytes]] = ()
    interceptors: Sequence[Interceptor] = ()
    context: str | None = None
    config_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_types(self)


@named_in("clarigrpc.types")
@dataclass(frozen=True, kw_only=True, repr=False, eq=False, match_args=False)
class ViewOptions:
    """A client with other options on the same connection.

    Making one is cheap. Closing or dropping it leaves the connection open; closing the client
    that it came from ends both. It shares that client's credential and retry budget.

    Args:
        timeout: Deadline of a call in seconds, retries included. None uses the client's setting.
        stream_timeout: Deadline of a stream in seconds. None uses the client's setting.
        retry: When failed calls are sent again. False turns retries off. None uses the client's
            setting.
        raise_on_partial: Whether a response in which some items failed raises
            ``PartialFailureError``. None uses the client's setting.
        user_id: Default user for requests that name none. None uses the client's setting.
        app_id: Default app for requests that name none. None uses the client's setting.
        metadata: Metadata that is sent with every call, as (key, value) pairs, in place of the
            client's. None uses the client's setting.

    Raises:
        TypeError: The option belongs to the connection (``base``, ``transport``, ...), or there
            is no such option.
        ConfigurationError: A value is malformed or of a wrong type.
    """

    timeout: float | None = None
    stream_timeout: float | None = None
    retry: RetryPolicy | Literal[False] | None = None
    raise_on_partial: bool | None = None
    user_id: str | None = None
    app_id: str | None = None
    metadata: Sequence[tuple[str, str | bytes]] | None = None

    def __post_init__(self) -> None:
        check_types(self)
