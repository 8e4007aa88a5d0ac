"""``Client`` and ``AsyncClient``."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from clarigrpc import config, v2
from clarigrpc.aio import AioChannel
from clarigrpc.auth import AuthCallable, ClientCredentials
from clarigrpc.channel import Channel
from clarigrpc.methods import lookup, names
from clarigrpc.policy import RetryPolicy

# Resources are imported when they are first asked for: a service that only predicts starts sooner.

if TYPE_CHECKING:
    from clarigrpc.predict.coalesce import CoalesceLimits
    from clarigrpc.resources.annotations import Annotations, AsyncAnnotations
    from clarigrpc.resources.artifacts import Artifacts, AsyncArtifacts
    from clarigrpc.resources.inputs import AsyncInputs, Inputs
    from clarigrpc.resources.logs import AsyncLogs, Logs
    from clarigrpc.resources.models import AsyncModel, AsyncModels, Model, Models
    from clarigrpc.resources.pipeline_steps import AsyncPipelineSteps, PipelineSteps
    from clarigrpc.resources.uploads import AsyncUploads, Uploads
    from clarigrpc.v2 import OutputConfig
    from clarigrpc.v2.service_pb2_grpc import V2AsyncStub, V2Stub

ChannelT = TypeVar("ChannelT", Channel, AioChannel)


class LazyStub:
    """The generated ``V2Stub``, except that a method's multicallable is made when first used."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        try:
            method = lookup(name)
        except KeyError:
            raise AttributeError(f"the V2 service has no method {name!r}") from None
        multicallable = method.factory(self._channel)(
            method.path,
            request_serializer=method.request_class().SerializeToString,
            response_deserializer=method.response_class().FromString,
        )
        self.__dict__[name] = multicallable
        return multicallable

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *names()]


class _BaseClient(Generic[ChannelT]):
    """Settings, channel and multicallables; the same for both kinds of client.

    Args:
        pat: Personal access token. Environment: CLARIFAI_PAT.
        api_key: API key of an app. Environment: CLARIFAI_API_KEY.
        session_token: Session token. Environment: CLARIFAI_SESSION_TOKEN.
        oauth: OAuth2 client credentials of the first API generation (extra ``oauth``).
        auth: A callable that returns the metadata of a call, for anything else.
        user_id: Whose resources are meant where a request does not say. Environment:
            CLARIFAI_USER_ID.
        app_id: Which app is meant where a request does not say. Environment: CLARIFAI_APP_ID.
        base: Address of the service. ``http://host:port`` is plaintext, ``https://`` or a bare
            host TLS. Environment: CLARIFAI_GRPC_BASE, CLARIFAI_API_BASE. Default:
            ``https://api.clarifai.com``. Calls are spread over the healthy ones of several
            addresses (IP addresses in a list, all with the certificate of the first), or of all
            that a name has (``dns:///name:port``, or a list of one).
        timeout: Seconds that a call may take in all, unless it says otherwise. Default 60.
        stream_timeout: The same for streams. Default 3600.
        transport: ``"grpc"``, or ``"rest"`` for the same calls over HTTP/JSON (extra ``rest``).
        allow_plaintext: Whether credentials may go unencrypted to another machine.
        max_message_bytes: Largest message in either direction. Default 256 MiB.
        root_certificates: PEM bytes, or the path of a PEM file, of the authorities to trust.
            Environment: CLARIFAI_ROOT_CERTIFICATES_PATH. Default: those of gRPC.
        client_key: PEM bytes or path of the private key of a client certificate.
        client_certificate: PEM bytes or path of the client certificate.
        retry: How failed calls are repeated, see ``RetryPolicy``.
        raise_on_partial: Whether MIXED_STATUS raises ``PartialFailureError`` (default), or the
            response is returned with a status at each item.
        connections: How many connections to use in turn. One carries some 100 calls at a time
            with many servers. Default 1.
        wait_for_ready: Whether calls wait, within their timeout, for a connection instead of
            failing when there is none.
        hedge: Send a single predict a second time when it takes longer than this share of the
            latest ones did (0.95, say), and take the first answer. The retry budget caps it.
            None: never.
        context: Name of a context in the CLI's config file. Default: its current context.
        config_file: Path of that file. Default: ``~/.config/clarifai/config``.

    An argument wins over the environment, the environment over the config file.

    Raises:
        ConfigurationError: Something is missing, malformed or contradictory.
    """

    _channel_class: type[ChannelT]

    def __init__(
        self,
        *,
        pat: str | None = None,
        api_key: str | None = None,
        session_token: str | None = None,
        oauth: ClientCredentials | None = None,
        auth: AuthCallable | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        base: str | Sequence[str] | None = None,
        timeout: float = config.DEFAULT_TIMEOUT,
        stream_timeout: float = config.DEFAULT_STREAM_TIMEOUT,
        transport: config.Transport = "grpc",
        allow_plaintext: bool = False,
        max_message_bytes: int = config.DEFAULT_MAX_MESSAGE_BYTES,
        root_certificates: str | os.PathLike[str] | bytes | None = None,
        client_key: str | os.PathLike[str] | bytes | None = None,
        client_certificate: str | os.PathLike[str] | bytes | None = None,
        retry: RetryPolicy | None = None,
        raise_on_partial: bool = True,
        connections: int = 1,
        wait_for_ready: bool = False,
        hedge: float | None = None,
        context: str | None = None,
        config_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.settings = config.resolve(
            pat=pat,
            api_key=api_key,
            session_token=session_token,
            oauth=oauth,
            auth=auth,
            user_id=user_id,
            app_id=app_id,
            base=base,
            timeout=timeout,
            stream_timeout=stream_timeout,
            transport=transport,
            allow_plaintext=allow_plaintext,
            max_message_bytes=max_message_bytes,
            root_certificates=root_certificates,
            client_key=client_key,
            client_certificate=client_certificate,
            retry=retry,
            raise_on_partial=raise_on_partial,
            connections=connections,
            wait_for_ready=wait_for_ready,
            hedge=hedge,
            context=context,
            config_file=config_file,
        )
        self.channel: ChannelT = self._channel_class(self.settings)
        self._stub = LazyStub(self.channel)
        self._encoded: dict[str, Callable[..., Any]] = {}
        self._parts: weakref.WeakSet[Any] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings!r})"

    @property
    def user_app_id(self) -> v2.UserAppIDSet:
        """The user and the app of the client's settings."""
        return v2.UserAppIDSet(user_id=self.settings.user_id, app_id=self.settings.app_id)

    def unary(self, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        """The multicallable of a method with one request and one response.

        Args:
            method: Its name.
            encoded: For requests that are serialized already.
        """
        if not encoded:
            return getattr(self._stub, method)  # type: ignore[no-any-return]
        multicallable = self._encoded.get(method)
        if multicallable is None:
            row = lookup(method)
            multicallable = self._encoded[method] = row.factory(self.channel)(
                row.path, response_deserializer=row.response_class().FromString
            )
        return multicallable

    def close_with(self, part: Any) -> None:
        """Have ``part.close()`` called when the client is closed."""
        self._parts.add(part)

    def raises_on_partial(self, wanted: bool | None) -> bool:
        """Whether a partial failure is raised, where a call says ``wanted``."""
        return self.settings.raise_on_partial if wanted is None else wanted


def _sharing(coalesce: bool, *limits: Any) -> CoalesceLimits | None:
    """The limits of ``client.model``'s shared requests; None: none are shared."""
    if not coalesce and all(limit is None for limit in limits):
        return None
    from clarigrpc.predict.coalesce import limits_of

    return limits_of(*limits)


class Client(_BaseClient[Channel]):
    __doc__ = f"A blocking client. Threads can share it.\n\n{_BaseClient.__doc__}"
    _channel_class = Channel

    if TYPE_CHECKING:
        v2: V2Stub
        """Every method of the service: ``client.v2.ListModels(v2.ListModelsRequest())``."""
    else:

        @property
        def v2(self) -> LazyStub:
            """Every method of the service: ``client.v2.ListModels(v2.ListModelsRequest())``."""
            return self._stub

    def model(
        self,
        model_id: str,
        *,
        user_id: str = "",
        app_id: str = "",
        version_id: str | None = None,
        output_config: OutputConfig | None = None,
        coalesce: bool = False,
        max_delay: float | None = None,
        max_batch: int | None = None,
        max_bytes: int | None = None,
    ) -> Model:
        """A model to predict with. Nothing is sent until it is used.

        Args:
            model_id: Id of the model.
            user_id: Its owner; empty: the client's.
            app_id: Its app; empty: the client's.
            version_id: A version; None: the latest.
            output_config: Settings of its outputs (``max_concepts``, ``min_value`` ...).
            coalesce: Whether concurrent single predicts on this handle share requests. A caller
                on an idle handle is sent at once; each gets its own output or its own error.
                Giving one of the limits below turns it on.
            max_delay: Seconds that a caller waits for others. Default 0.001.
            max_batch: Inputs a shared request. Default 128.
            max_bytes: Bytes of inputs a shared request. Default 16 MiB.
        """
        from clarigrpc.resources.models import Model

        return Model(
            self,
            model_id,
            user_id=user_id,
            app_id=app_id,
            version_id=version_id or "",
            output_config=output_config,
            coalesce=_sharing(coalesce, max_delay, max_batch, max_bytes),
        )

    @cached_property
    def inputs(self) -> Inputs:
        """The inputs of the client's app."""
        from clarigrpc.resources.inputs import Inputs

        return Inputs(self)

    @cached_property
    def annotations(self) -> Annotations:
        """The annotations of the client's app."""
        from clarigrpc.resources.annotations import Annotations

        return Annotations(self)

    @cached_property
    def logs(self) -> Logs:
        """The logs of models, runners and pipelines."""
        from clarigrpc.resources.logs import Logs

        return Logs(self)

    @cached_property
    def models(self) -> Models:
        """The models of the client's app."""
        from clarigrpc.resources.models import Models

        return Models(self)

    @cached_property
    def artifacts(self) -> Artifacts:
        """The artifacts of the client's app."""
        from clarigrpc.resources.artifacts import Artifacts

        return Artifacts(self)

    @cached_property
    def pipeline_steps(self) -> PipelineSteps:
        """The pipeline steps of the client's app."""
        from clarigrpc.resources.pipeline_steps import PipelineSteps

        return PipelineSteps(self)

    @cached_property
    def uploads(self) -> Uploads:
        """The uploads of the client's app, for files that belong to nothing else."""
        from clarigrpc.resources.uploads import Uploads

        return Uploads(self)

    def close(self) -> None:
        """Cancel what is running and close the connection."""
        for part in list(self._parts):
            part.close()
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncClient(_BaseClient[AioChannel]):
    __doc__ = (
        "An asyncio client, for one event loop.\n\n"
        "    Close it before the process forks: gRPC's asyncio side crashes or hangs in the child\n"
        "    of a process that has one open. A ``Client`` can be used in a child at any time.\n\n"
        f"{_BaseClient.__doc__}"
    )
    _channel_class = AioChannel

    if TYPE_CHECKING:
        v2: V2AsyncStub
        """Every method of the service: ``await client.v2.ListModels(v2.ListModelsRequest())``."""
    else:

        @property
        def v2(self) -> LazyStub:
            """Every method of the service: ``await client.v2.ListModels(...)``."""
            return self._stub

    def model(
        self,
        model_id: str,
        *,
        user_id: str = "",
        app_id: str = "",
        version_id: str | None = None,
        output_config: OutputConfig | None = None,
        coalesce: bool = False,
        max_delay: float | None = None,
        max_batch: int | None = None,
        max_bytes: int | None = None,
    ) -> AsyncModel:
        """A model to predict with, as ``Client.model``."""
        from clarigrpc.resources.models import AsyncModel

        return AsyncModel(
            self,
            model_id,
            user_id=user_id,
            app_id=app_id,
            version_id=version_id or "",
            output_config=output_config,
            coalesce=_sharing(coalesce, max_delay, max_batch, max_bytes),
        )

    @cached_property
    def inputs(self) -> AsyncInputs:
        """The inputs of the client's app."""
        from clarigrpc.resources.inputs import AsyncInputs

        return AsyncInputs(self)

    @cached_property
    def annotations(self) -> AsyncAnnotations:
        """The annotations of the client's app."""
        from clarigrpc.resources.annotations import AsyncAnnotations

        return AsyncAnnotations(self)

    @cached_property
    def logs(self) -> AsyncLogs:
        """The logs of models, runners and pipelines."""
        from clarigrpc.resources.logs import AsyncLogs

        return AsyncLogs(self)

    @cached_property
    def models(self) -> AsyncModels:
        """The models of the client's app."""
        from clarigrpc.resources.models import AsyncModels

        return AsyncModels(self)

    @cached_property
    def artifacts(self) -> AsyncArtifacts:
        """The artifacts of the client's app."""
        from clarigrpc.resources.artifacts import AsyncArtifacts

        return AsyncArtifacts(self)

    @cached_property
    def pipeline_steps(self) -> AsyncPipelineSteps:
        """The pipeline steps of the client's app."""
        from clarigrpc.resources.pipeline_steps import AsyncPipelineSteps

        return AsyncPipelineSteps(self)

    @cached_property
    def uploads(self) -> AsyncUploads:
        """The uploads of the client's app, for files that belong to nothing else."""
        from clarigrpc.resources.uploads import AsyncUploads

        return AsyncUploads(self)

    async def close(self) -> None:
        """Cancel what is running and close the connection."""
        for part in list(self._parts):
            await part.close()
        await self.channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
