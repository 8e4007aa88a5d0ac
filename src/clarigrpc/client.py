"""``Client`` and ``AsyncClient``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Self, TypeVar

from clarigrpc import types
from clarigrpc._config.client_options import ClientOptions, ViewOptions
from clarigrpc._config.keyword_options import takes
from clarigrpc._config.settings import Settings, resolve
from clarigrpc._public_names import without_private
from clarigrpc._resources.sync_async import Async, Sync, driven, lazy, operation
from clarigrpc._rpc.client_context import ChannelT, ClientContext
from clarigrpc._rpc.sync_channel import SyncChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarigrpc._rpc.async_channel import AsyncChannel
    from clarigrpc._rpc.plan import Plan
    from clarigrpc.v2 import OutputConfig
    from clarigrpc.v2.client_stub import V2AsyncStub, V2Stub

__all__ = [
    "AsyncClient",
    "Client",
]

T = TypeVar("T")


def _sharing(coalesce: bool, *limits: Any) -> types.CoalesceLimits | None:
    """The limits of ``client.model``'s shared requests; None: none are shared."""
    if not coalesce and all(limit is None for limit in limits):
        return None
    from clarigrpc._bulk.coalescing import limits_of

    return limits_of(*limits)


def _sync_model(client: _BaseClient[Any], options: dict[str, Any]) -> types.Model:
    return types.Model(client._context, **options)


def _async_model(client: _BaseClient[Any], options: dict[str, Any]) -> types.AsyncModel:
    return types.AsyncModel(client._context, **options)


class _BaseClient(Generic[ChannelT]):
    """What both kinds of client have."""

    @staticmethod
    def _open(settings: Settings) -> ChannelT:
        """The channel of a client."""
        raise NotImplementedError

    @lazy
    def inputs(self) -> tuple[type[types.Inputs], type[types.AsyncInputs]]:
        """The inputs of the app."""
        return types.Inputs, types.AsyncInputs

    @lazy
    def annotations(self) -> tuple[type[types.Annotations], type[types.AsyncAnnotations]]:
        """The annotations of the app, its annotation filters and the tracks of videos."""
        return types.Annotations, types.AsyncAnnotations

    @lazy
    def concepts(self) -> tuple[type[types.Concepts], type[types.AsyncConcepts]]:
        """The concepts of the app."""
        return types.Concepts, types.AsyncConcepts

    @lazy
    def knowledge_graphs(
        self,
    ) -> tuple[type[types.KnowledgeGraphs], type[types.AsyncKnowledgeGraphs]]:
        """The knowledge graphs of the app."""
        return types.KnowledgeGraphs, types.AsyncKnowledgeGraphs

    @lazy
    def datasets(self) -> tuple[type[types.Datasets], type[types.AsyncDatasets]]:
        """The datasets of the app."""
        return types.Datasets, types.AsyncDatasets

    @lazy
    def search(self) -> tuple[type[types.Search], type[types.AsyncSearch]]:
        """Searches over the inputs and annotations of the app, and saved searches."""
        return types.Search, types.AsyncSearch

    @lazy
    def models(self) -> tuple[type[types.Models], type[types.AsyncModels]]:
        """The models of the app. To predict with one, use ``model``."""
        return types.Models, types.AsyncModels

    @lazy
    def evaluations(self) -> tuple[type[types.Evaluations], type[types.AsyncEvaluations]]:
        """The evaluations of the app: of model versions on datasets."""
        return types.Evaluations, types.AsyncEvaluations

    @lazy
    def workflows(self) -> tuple[type[types.Workflows], type[types.AsyncWorkflows]]:
        """The workflows of the app."""
        return types.Workflows, types.AsyncWorkflows

    @lazy
    def jobs(self) -> tuple[type[types.Jobs], type[types.AsyncJobs]]:
        """The jobs that add inputs to the app."""
        return types.Jobs, types.AsyncJobs

    @lazy
    def extraction_jobs(self) -> tuple[type[types.ExtractionJobs], type[types.AsyncExtractionJobs]]:
        """The jobs that unpack archives into inputs of the app."""
        return types.ExtractionJobs, types.AsyncExtractionJobs

    @lazy
    def bulk_operations(self) -> tuple[type[types.BulkOperations], type[types.AsyncBulkOperations]]:
        """The bulk operations of the app: changes of many inputs at once."""
        return types.BulkOperations, types.AsyncBulkOperations

    @lazy
    def tasks(self) -> tuple[type[types.Tasks], type[types.AsyncTasks]]:
        """The labelling tasks of the app."""
        return types.Tasks, types.AsyncTasks

    @lazy
    def label_orders(self) -> tuple[type[types.LabelOrders], type[types.AsyncLabelOrders]]:
        """The label orders of the app."""
        return types.LabelOrders, types.AsyncLabelOrders

    @lazy
    def collaborators(self) -> tuple[type[types.Collaborators], type[types.AsyncCollaborators]]:
        """The collaborators of the app: other users with access to it."""
        return types.Collaborators, types.AsyncCollaborators

    @lazy
    def collectors(self) -> tuple[type[types.Collectors], type[types.AsyncCollectors]]:
        """The collectors of the app."""
        return types.Collectors, types.AsyncCollectors

    @lazy
    def modules(self) -> tuple[type[types.Modules], type[types.AsyncModules]]:
        """The modules of the app."""
        return types.Modules, types.AsyncModules

    @lazy
    def installed_modules(
        self,
    ) -> tuple[type[types.InstalledModules], type[types.AsyncInstalledModules]]:
        """The module versions installed in the app."""
        return types.InstalledModules, types.AsyncInstalledModules

    @lazy
    def pipelines(self) -> tuple[type[types.Pipelines], type[types.AsyncPipelines]]:
        """The pipelines of the app."""
        return types.Pipelines, types.AsyncPipelines

    @lazy
    def pipeline_steps(self) -> tuple[type[types.PipelineSteps], type[types.AsyncPipelineSteps]]:
        """The pipeline steps of the app."""
        return types.PipelineSteps, types.AsyncPipelineSteps

    @lazy
    def artifacts(self) -> tuple[type[types.Artifacts], type[types.AsyncArtifacts]]:
        """The artifacts of the app."""
        return types.Artifacts, types.AsyncArtifacts

    @lazy
    def uploads(self) -> tuple[type[types.Uploads], type[types.AsyncUploads]]:
        """The uploads of the app: standalone files."""
        return types.Uploads, types.AsyncUploads

    @lazy
    def apps(self) -> tuple[type[types.Apps], type[types.AsyncApps]]:
        """The apps of the user."""
        return types.Apps, types.AsyncApps

    @lazy
    def app_duplications(self) -> tuple[type[types.Duplications], type[types.AsyncDuplications]]:
        """The app duplications that the user requested."""
        return types.Duplications, types.AsyncDuplications

    @lazy
    def users(self) -> tuple[type[types.Users], type[types.AsyncUsers]]:
        """The users of the service."""
        return types.Users, types.AsyncUsers

    @lazy
    def keys(self) -> tuple[type[types.Keys], type[types.AsyncKeys]]:
        """The API keys and personal access tokens of the user."""
        return types.Keys, types.AsyncKeys

    @lazy
    def scopes(self) -> tuple[type[types.Scopes], type[types.AsyncScopes]]:
        """The scopes of keys: what credentials are allowed to do."""
        return types.Scopes, types.AsyncScopes

    @lazy
    def collaborations(self) -> tuple[type[types.Collaborations], type[types.AsyncCollaborations]]:
        """The collaborations of the user on apps of other users."""
        return types.Collaborations, types.AsyncCollaborations

    @lazy
    def secrets(self) -> tuple[type[types.Secrets], type[types.AsyncSecrets]]:
        """The secrets of the user."""
        return types.Secrets, types.AsyncSecrets

    @lazy
    def compute_clusters(
        self,
    ) -> tuple[type[types.ComputeClusters], type[types.AsyncComputeClusters]]:
        """The compute clusters of the user and their nodepools."""
        return types.ComputeClusters, types.AsyncComputeClusters

    @lazy
    def deployments(self) -> tuple[type[types.Deployments], type[types.AsyncDeployments]]:
        """The deployments of the user."""
        return types.Deployments, types.AsyncDeployments

    @lazy
    def runners(self) -> tuple[type[types.Runners], type[types.AsyncRunners]]:
        """The runners of the user."""
        return types.Runners, types.AsyncRunners

    @lazy
    def logs(self) -> tuple[type[types.Logs], type[types.AsyncLogs]]:
        """The logs of models, runners and pipelines."""
        return types.Logs, types.AsyncLogs

    @lazy
    def status_codes(self) -> tuple[type[types.StatusCodes], type[types.AsyncStatusCodes]]:
        """The status codes of the service."""
        return types.StatusCodes, types.AsyncStatusCodes

    @takes(ClientOptions)
    def __init__(self, options: ClientOptions) -> None:
        self._context: ClientContext[ChannelT] = ClientContext(self._open(resolve(options)))

    def __repr__(self) -> str:
        context = self.__dict__.get("_context")  # none where making it failed
        return f"{type(self).__name__}({context.settings if context else ''!r})"

    def __dir__(self) -> list[str]:
        return without_private(super().__dir__())

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"a {name} has a connection, and cannot be pickled or copied; create a {name} in each "
            "process, or use with_options() for other options on the same connection"
        )

    @property
    def settings(self) -> Settings:
        """The resolved options, for example ``client.settings.timeout``."""
        return self._context.settings

    @property
    def channel(self) -> ChannelT:
        """The client as a channel, for any generated stub of the service."""
        return self._context.channel

    @staticmethod
    def _with_grpc_errors(channel: ChannelT) -> Any:
        """The channel, with failures as those of grpcio."""
        raise NotImplementedError

    def bind(
        self,
        stub_class: Callable[[Any], T],
        *,
        errors: Literal["clarigrpc", "grpc"] = "clarigrpc",
    ) -> T:
        """Make a generated stub over this client.

        Its calls have the client's credentials, deadlines, retries and connections. A call whose
        own metadata has a credential is sent with that one.

        Args:
            stub_class: A generated stub class of the service, of this or of another package.
            errors: ``"clarigrpc"`` raises ``ApiError`` for each failure. ``"grpc"`` is for
                programs written for grpcio: a failed call raises ``grpc.RpcError``
                (``grpc.aio.AioRpcError`` of an async client), and a response whose V2 status is a
                failure is returned, once it need not be retried any more.

        Returns:
            The stub.

        Raises:
            ConfigurationError: ``errors`` is neither of them.
        """
        if errors not in ("clarigrpc", "grpc"):
            from clarigrpc.errors import ConfigurationError

            raise ConfigurationError(f"errors must be 'clarigrpc' or 'grpc', not {errors!r}")
        from clarigrpc._rpc.stub_binding import make_stub

        channel = self.channel
        return make_stub(
            stub_class, self._with_grpc_errors(channel) if errors == "grpc" else channel
        )

    @takes(ViewOptions)
    def with_options(self, changes: ViewOptions) -> Self:
        """The client with other options on the same connection."""
        view = object.__new__(type(self))
        for name, value in vars(self).items():
            # Not the resources, which have the options of this client.
            if not isinstance(getattr(type(self), name, None), lazy):
                view.__dict__[name] = value
        view._context = self._context.view(self.settings.changed(changes))
        return view

    def _child(self, made: type[T]) -> T:
        """A resource of this client."""
        return made(self._context)  # type: ignore[call-arg]

    @operation
    def ping(self, *, timeout: float | None = None) -> Plan[types.PingResult]:
        """Check that the service can be reached and accepts the client's credentials.

        Two small requests are sent: the first may open the connection, the second measures.

        Args:
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            The address, the latency, the user and the versions.

        Raises:
            UnavailableError: The service cannot be reached.
            AuthenticationError: The service rejects the credentials.
        """
        from clarigrpc._resources.ping import ping

        return (yield from ping(self._context, timeout))

    def stats(self) -> types.ClientStats:
        """Count the calls since the client was made, those of its views included.

        Nothing is sent. Counting is always on.

        Returns:
            Calls, failures, retries and latencies by method.
        """
        shared = self._context.channel.shared
        return shared.calls.read(shared.budget)

    def _unary(self, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        """The multicallable of a method, for the drivers of plans."""
        return self._context.unary(method, encoded=encoded)

    def _pause(self, seconds: float) -> Any:
        """Wait between calls, for the drivers of plans."""
        return self._context.pause(seconds)

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


class Client(_BaseClient["SyncChannel"], Sync):
    """A sync client. Any number of threads may share it.

    It connects at its first call. ``ClientOptions`` documents its arguments.
    """

    @staticmethod
    def _open(settings: Settings) -> SyncChannel:
        return SyncChannel(settings)

    @staticmethod
    def _with_grpc_errors(channel: SyncChannel) -> Any:
        from clarigrpc._rpc.sync_grpc_errors import sync_grpc_errors

        return sync_grpc_errors(channel)

    @property
    def v2(self) -> V2Stub:
        """Every method of the service, as ``client.v2.ListModels(v2.ListModelsRequest())``."""
        return self._context.stub  # type: ignore[return-value]

    def close(self) -> None:
        """Cancel what is running and close the connection."""
        for part in list(self._context.parts):
            part.close()
        self._context.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncClient(_BaseClient["AsyncChannel"], Async):
    """An asyncio client, for one event loop.

    It connects at its first call. ``ClientOptions`` documents its arguments. Close it before the
    process forks: gRPC's asyncio side crashes or hangs in the child of a process that has one
    open. A ``Client`` can be used in a child at any time.
    """

    @staticmethod
    def _open(settings: Settings) -> AsyncChannel:
        from clarigrpc._rpc.async_channel import AsyncChannel

        return AsyncChannel(settings)

    @staticmethod
    def _with_grpc_errors(channel: AsyncChannel) -> Any:
        from clarigrpc._rpc.async_grpc_errors import async_grpc_errors

        return async_grpc_errors(channel)

    @property
    def v2(self) -> V2AsyncStub:
        """Every method of the service, as ``await client.v2.ListModels(...)``."""
        return self._context.stub  # type: ignore[return-value]

    async def close(self) -> None:
        """Cancel what is running and close the connection."""
        for part in list(self._context.parts):
            await part.close()
        await self._context.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
