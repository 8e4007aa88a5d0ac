"""``Client`` and ``AsyncClient``."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from clarigrpc import v2
from clarigrpc._config import settings
from clarigrpc._config.credentials import AuthCallable, ClientCredentials
from clarigrpc._config.retry_policy import RetryPolicy
from clarigrpc._contract.methods import lookup, names
from clarigrpc._resources.sync_async import Async, Lazy, Sync, driven
from clarigrpc._rpc.async_channel import AioChannel
from clarigrpc._rpc.sync_channel import Channel

# Resources are imported when they are first asked for: a service that only predicts starts sooner.

if TYPE_CHECKING:
    from clarigrpc._bulk.coalescing import CoalesceLimits
    from clarigrpc._resources.annotations import Annotations, AsyncAnnotations
    from clarigrpc._resources.apps import Apps, AsyncApps, AsyncDuplications, Duplications
    from clarigrpc._resources.artifacts import Artifacts, AsyncArtifacts
    from clarigrpc._resources.collaborations import (
        AsyncCollaborations,
        AsyncCollaborators,
        Collaborations,
        Collaborators,
    )
    from clarigrpc._resources.collectors import AsyncCollectors, Collectors
    from clarigrpc._resources.compute import (
        AsyncComputeClusters,
        AsyncDeployments,
        ComputeClusters,
        Deployments,
    )
    from clarigrpc._resources.concepts import (
        AsyncConcepts,
        AsyncKnowledgeGraphs,
        Concepts,
        KnowledgeGraphs,
    )
    from clarigrpc._resources.datasets import AsyncDatasets, Datasets
    from clarigrpc._resources.evaluations import AsyncEvaluations, Evaluations
    from clarigrpc._resources.inputs import AsyncInputs, Inputs
    from clarigrpc._resources.jobs import (
        AsyncBulkOperations,
        AsyncExtractionJobs,
        AsyncJobs,
        BulkOperations,
        ExtractionJobs,
        Jobs,
    )
    from clarigrpc._resources.keys import AsyncKeys, Keys
    from clarigrpc._resources.label_orders import AsyncLabelOrders, LabelOrders
    from clarigrpc._resources.logs import AsyncLogs, Logs
    from clarigrpc._resources.model_collection import AsyncModels, Models
    from clarigrpc._resources.model_handle import AsyncModel, Model
    from clarigrpc._resources.modules import (
        AsyncInstalledModules,
        AsyncModules,
        InstalledModules,
        Modules,
    )
    from clarigrpc._resources.pipeline_steps import AsyncPipelineSteps, PipelineSteps
    from clarigrpc._resources.pipelines import AsyncPipelines, Pipelines
    from clarigrpc._resources.runners import AsyncRunners, Runners
    from clarigrpc._resources.scopes import AsyncScopes, Scopes
    from clarigrpc._resources.search import AsyncSearch, Search
    from clarigrpc._resources.secrets import AsyncSecrets, Secrets
    from clarigrpc._resources.status_codes import AsyncStatusCodes, StatusCodes
    from clarigrpc._resources.tasks import AsyncTasks, Tasks
    from clarigrpc._resources.uploads import AsyncUploads, Uploads
    from clarigrpc._resources.users import AsyncUsers, Users
    from clarigrpc._resources.workflows import AsyncWorkflows, Workflows
    from clarigrpc.v2 import OutputConfig
    from clarigrpc.v2.service_pb2_grpc import V2AsyncStub, V2Stub

__all__ = [
    "AsyncClient",
    "Client",
]

T = TypeVar("T")
ChannelT = TypeVar("ChannelT", Channel, AioChannel)


def _resource(module: str, name: str, text: str) -> Lazy[Any, Any]:
    """A resource, which is imported when it is first asked for."""
    return Lazy(f"clarigrpc._resources.{module}", name, text)


def _sharing(coalesce: bool, *limits: Any) -> CoalesceLimits | None:
    """The limits of ``client.model``'s shared requests; None: none are shared."""
    if not coalesce and all(limit is None for limit in limits):
        return None
    from clarigrpc._bulk.coalescing import limits_of

    return limits_of(*limits)


def _sync_model(client: Any, options: dict[str, Any]) -> Model:
    from clarigrpc._resources.model_handle import Model

    return Model(client, **options)


def _async_model(client: Any, options: dict[str, Any]) -> AsyncModel:
    from clarigrpc._resources.model_handle import AsyncModel

    return AsyncModel(client, **options)


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

    inputs: Lazy[Inputs, AsyncInputs] = _resource("inputs", "Inputs", "The inputs of the app.")
    annotations: Lazy[Annotations, AsyncAnnotations] = _resource(
        "annotations",
        "Annotations",
        "The annotations of the app, with its filters and the tracks of videos.",
    )
    concepts: Lazy[Concepts, AsyncConcepts] = _resource(
        "concepts", "Concepts", "The concepts of the app."
    )
    knowledge_graphs: Lazy[KnowledgeGraphs, AsyncKnowledgeGraphs] = _resource(
        "concepts", "KnowledgeGraphs", "The knowledge graphs of the app."
    )
    datasets: Lazy[Datasets, AsyncDatasets] = _resource(
        "datasets", "Datasets", "The datasets of the app."
    )
    search: Lazy[Search, AsyncSearch] = _resource("search", "Search", "Searches over the app.")
    models: Lazy[Models, AsyncModels] = _resource(
        "model_collection", "Models", "The models of the app; ``model(...)`` predicts with one."
    )
    evaluations: Lazy[Evaluations, AsyncEvaluations] = _resource(
        "evaluations", "Evaluations", "The evaluations of the app's models."
    )
    workflows: Lazy[Workflows, AsyncWorkflows] = _resource(
        "workflows", "Workflows", "The workflows of the app."
    )
    jobs: Lazy[Jobs, AsyncJobs] = _resource("jobs", "Jobs", "Jobs that add inputs to the app.")
    extraction_jobs: Lazy[ExtractionJobs, AsyncExtractionJobs] = _resource(
        "jobs", "ExtractionJobs", "Jobs that unpack archives into inputs of the app."
    )
    bulk_operations: Lazy[BulkOperations, AsyncBulkOperations] = _resource(
        "jobs", "BulkOperations", "Changes to many inputs of the app at once."
    )
    tasks: Lazy[Tasks, AsyncTasks] = _resource("tasks", "Tasks", "The labelling tasks of the app.")
    label_orders: Lazy[LabelOrders, AsyncLabelOrders] = _resource(
        "label_orders", "LabelOrders", "The label orders of the app."
    )
    collaborators: Lazy[Collaborators, AsyncCollaborators] = _resource(
        "collaborations", "Collaborators", "Who else may work on the app."
    )
    collectors: Lazy[Collectors, AsyncCollectors] = _resource(
        "collectors", "Collectors", "The collectors of the app."
    )
    modules: Lazy[Modules, AsyncModules] = _resource(
        "modules", "Modules", "The modules of the app."
    )
    installed_modules: Lazy[InstalledModules, AsyncInstalledModules] = _resource(
        "modules", "InstalledModules", "The module versions installed in the app."
    )
    pipelines: Lazy[Pipelines, AsyncPipelines] = _resource(
        "pipelines", "Pipelines", "The pipelines of the app."
    )
    pipeline_steps: Lazy[PipelineSteps, AsyncPipelineSteps] = _resource(
        "pipeline_steps", "PipelineSteps", "The pipeline steps of the app."
    )
    artifacts: Lazy[Artifacts, AsyncArtifacts] = _resource(
        "artifacts", "Artifacts", "The artifacts of the app."
    )
    uploads: Lazy[Uploads, AsyncUploads] = _resource(
        "uploads", "Uploads", "The uploads of the app, for files that belong to nothing else."
    )
    apps: Lazy[Apps, AsyncApps] = _resource("apps", "Apps", "The apps of the user.")
    app_duplications: Lazy[Duplications, AsyncDuplications] = _resource(
        "apps", "Duplications", "The copies of apps that the user has asked for."
    )
    users: Lazy[Users, AsyncUsers] = _resource("users", "Users", "Users of the service.")
    keys: Lazy[Keys, AsyncKeys] = _resource(
        "keys", "Keys", "The API keys and personal access tokens of the user."
    )
    scopes: Lazy[Scopes, AsyncScopes] = _resource("scopes", "Scopes", "What credentials may do.")
    collaborations: Lazy[Collaborations, AsyncCollaborations] = _resource(
        "collaborations", "Collaborations", "The apps of others on which the user works."
    )
    secrets: Lazy[Secrets, AsyncSecrets] = _resource(
        "secrets", "Secrets", "The secrets of the user."
    )
    compute_clusters: Lazy[ComputeClusters, AsyncComputeClusters] = _resource(
        "compute", "ComputeClusters", "The compute clusters of the user, with their nodepools."
    )
    deployments: Lazy[Deployments, AsyncDeployments] = _resource(
        "compute", "Deployments", "The deployments of the user."
    )
    runners: Lazy[Runners, AsyncRunners] = _resource(
        "runners", "Runners", "The runners of the user."
    )
    logs: Lazy[Logs, AsyncLogs] = _resource(
        "logs", "Logs", "The logs of models, runners and pipelines."
    )
    status_codes: Lazy[StatusCodes, AsyncStatusCodes] = _resource(
        "status_codes", "StatusCodes", "The status codes of the service."
    )

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
        timeout: float = settings.DEFAULT_TIMEOUT,
        stream_timeout: float = settings.DEFAULT_STREAM_TIMEOUT,
        transport: settings.Transport = "grpc",
        allow_plaintext: bool = False,
        max_message_bytes: int = settings.DEFAULT_MAX_MESSAGE_BYTES,
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
        self.settings: settings.Settings = settings.resolve(
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

    def _child(self, made: type[T]) -> T:
        """A resource of this client."""
        return made(self)  # type: ignore[call-arg]

    @driven(_sync_model, _async_model)
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
    ) -> dict[str, Any]:
        """Make a handle on a model, to predict with it. Nothing is sent until it is used.

        Args:
            model_id: Id of the model.
            user_id: Id of its owner. Empty uses the client's user.
            app_id: Id of its app. Empty uses the client's app.
            version_id: Id of the version. None uses the latest.
            output_config: Settings of the outputs (``max_concepts``, ``min_value`` ...). None uses
                the model's.
            coalesce: Whether concurrent single predicts on this handle share requests. The first
                one on an idle handle is sent at once; each gets its own output or its own error.
                Also enabled by setting ``max_delay``, ``max_batch`` or ``max_bytes``.
            max_delay: Seconds that a predict waits for others to share its request. None uses
                0.001.
            max_batch: Maximum inputs per shared request. None uses 128.
            max_bytes: Maximum bytes of inputs per shared request. None uses 16 MiB.

        Returns:
            The handle.

        Raises:
            InvalidArgumentError: ``model_id`` is empty or contains ``/``.
            ConfigurationError: ``max_delay``, ``max_batch`` or ``max_bytes`` is out of range.
        """
        return {
            "model_id": model_id,
            "user_id": user_id,
            "app_id": app_id,
            "version_id": version_id or "",
            "output_config": output_config,
            "coalesce": _sharing(coalesce, max_delay, max_batch, max_bytes),
        }

    def close_with(self, part: Any) -> None:
        """Have ``part.close()`` called when the client is closed."""
        self._parts.add(part)

    def raises_on_partial(self, wanted: bool | None) -> bool:
        """Whether a partial failure is raised, where a call says ``wanted``."""
        return self.settings.raise_on_partial if wanted is None else wanted


_ARGUMENTS = (_BaseClient.__doc__ or "").partition("\n\n")[2]


class Client(_BaseClient[Channel], Sync):
    __doc__ = f"A blocking client. Threads can share it.\n\n{_ARGUMENTS}"
    _channel_class = Channel

    if TYPE_CHECKING:
        v2: V2Stub
        """Every method of the service, ``client.v2.ListModels(v2.ListModelsRequest())`` say."""
    else:

        @property
        def v2(self) -> V2Stub:
            """Every method of the service, ``client.v2.ListModels(v2.ListModelsRequest())`` say."""
            return self._stub

    def close(self) -> None:
        """Cancel what is running and close the connection."""
        for part in list(self._parts):
            part.close()
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncClient(_BaseClient[AioChannel], Async):
    __doc__ = (
        "An asyncio client, for one event loop.\n\n"
        "    Close it before the process forks: gRPC's asyncio side crashes or hangs in the child\n"
        "    of a process that has one open. A ``Client`` can be used in a child at any time.\n\n"
        f"{_ARGUMENTS}"
    )
    _channel_class = AioChannel

    if TYPE_CHECKING:
        v2: V2AsyncStub
        """Every method of the service, ``await client.v2.ListModels(...)`` say."""
    else:

        @property
        def v2(self) -> V2AsyncStub:
            """Every method of the service, ``await client.v2.ListModels(...)`` say."""
            return self._stub

    async def close(self) -> None:
        """Cancel what is running and close the connection."""
        for part in list(self._parts):
            await part.close()
        await self.channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
