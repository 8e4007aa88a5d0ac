"""``Client`` and ``AsyncClient``."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from clarigrpc._config.client_options import ClientOptions, ViewOptions
from clarigrpc._config.keyword_options import takes
from clarigrpc._config.settings import Settings, resolve
from clarigrpc._resources.sync_async import Async, Lazy, Sync, driven
from clarigrpc._rpc.async_channel import AsyncChannel
from clarigrpc._rpc.client_context import ChannelT, ClientContext
from clarigrpc._rpc.sync_channel import SyncChannel

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


def _resource(module: str, name: str, text: str) -> Lazy[Any, Any]:
    """A resource, which is imported when it is first asked for."""
    return Lazy(f"clarigrpc._resources.{module}", name, text)


def _sharing(coalesce: bool, *limits: Any) -> CoalesceLimits | None:
    """The limits of ``client.model``'s shared requests; None: none are shared."""
    if not coalesce and all(limit is None for limit in limits):
        return None
    from clarigrpc._bulk.coalescing import limits_of

    return limits_of(*limits)


def _sync_model(client: _BaseClient[Any], options: dict[str, Any]) -> Model:
    from clarigrpc._resources.model_handle import Model

    return Model(client._context, **options)


def _async_model(client: _BaseClient[Any], options: dict[str, Any]) -> AsyncModel:
    from clarigrpc._resources.model_handle import AsyncModel

    return AsyncModel(client._context, **options)


class _BaseClient(Generic[ChannelT]):
    """What both kinds of client have."""

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

    @takes(ClientOptions)
    def __init__(self, options: ClientOptions) -> None:
        self._context: ClientContext[ChannelT] = ClientContext(
            self._channel_class(resolve(options))
        )

    def __repr__(self) -> str:
        context = self.__dict__.get("_context")  # none where making it failed
        return f"{type(self).__name__}({context.settings if context else ''!r})"

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name.startswith("__") or name[0] != "_"]

    @property
    def settings(self) -> Settings:
        """The options as they were resolved: ``settings.timeout``, ``settings.user_id`` ..."""
        return self._context.settings

    @property
    def channel(self) -> ChannelT:
        """The client as a channel, for any generated stub of the service."""
        return self._context.channel

    @takes(ViewOptions)
    def with_options(self, changes: ViewOptions) -> Self:
        """The client with other options on the same connection."""
        view = copy.copy(self)
        for name in vars(self):
            if isinstance(getattr(type(self), name, None), Lazy):
                del view.__dict__[name]  # a resource, which has the options of this client
        view._context = self._context.view(self.settings.changed(changes))
        return view

    def _child(self, made: type[T]) -> T:
        """A resource of this client."""
        return made(self._context)  # type: ignore[call-arg]

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


class Client(_BaseClient[SyncChannel], Sync):
    """A sync client. Any number of threads may share it.

    It connects at its first call. ``ClientOptions`` documents its arguments.
    """

    _channel_class = SyncChannel

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


class AsyncClient(_BaseClient[AsyncChannel], Async):
    """An asyncio client, for one event loop.

    It connects at its first call. ``ClientOptions`` documents its arguments. Close it before the
    process forks: gRPC's asyncio side crashes or hangs in the child of a process that has one
    open. A ``Client`` can be used in a child at any time.
    """

    _channel_class = AsyncChannel

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
