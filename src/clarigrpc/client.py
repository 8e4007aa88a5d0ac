"""``Client`` and ``AsyncClient``."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from clarigrpc._config.client_options import ClientOptions, ViewOptions
from clarigrpc._config.keyword_options import takes
from clarigrpc._config.settings import Settings, resolve
from clarigrpc._resources.sync_async import Async, Sync, driven, lazy
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

    @lazy
    def inputs(self) -> tuple[type[Inputs], type[AsyncInputs]]:
        """The inputs of the app."""
        from clarigrpc._resources.inputs import AsyncInputs, Inputs

        return Inputs, AsyncInputs

    @lazy
    def annotations(self) -> tuple[type[Annotations], type[AsyncAnnotations]]:
        """The annotations of the app, its annotation filters and the tracks of videos."""
        from clarigrpc._resources.annotations import Annotations, AsyncAnnotations

        return Annotations, AsyncAnnotations

    @lazy
    def concepts(self) -> tuple[type[Concepts], type[AsyncConcepts]]:
        """The concepts of the app."""
        from clarigrpc._resources.concepts import AsyncConcepts, Concepts

        return Concepts, AsyncConcepts

    @lazy
    def knowledge_graphs(self) -> tuple[type[KnowledgeGraphs], type[AsyncKnowledgeGraphs]]:
        """The knowledge graphs of the app."""
        from clarigrpc._resources.concepts import AsyncKnowledgeGraphs, KnowledgeGraphs

        return KnowledgeGraphs, AsyncKnowledgeGraphs

    @lazy
    def datasets(self) -> tuple[type[Datasets], type[AsyncDatasets]]:
        """The datasets of the app."""
        from clarigrpc._resources.datasets import AsyncDatasets, Datasets

        return Datasets, AsyncDatasets

    @lazy
    def search(self) -> tuple[type[Search], type[AsyncSearch]]:
        """Searches over the inputs and annotations of the app, and saved searches."""
        from clarigrpc._resources.search import AsyncSearch, Search

        return Search, AsyncSearch

    @lazy
    def models(self) -> tuple[type[Models], type[AsyncModels]]:
        """The models of the app. To predict with one, use ``model``."""
        from clarigrpc._resources.model_collection import AsyncModels, Models

        return Models, AsyncModels

    @lazy
    def evaluations(self) -> tuple[type[Evaluations], type[AsyncEvaluations]]:
        """The evaluations of the app: of model versions on datasets."""
        from clarigrpc._resources.evaluations import AsyncEvaluations, Evaluations

        return Evaluations, AsyncEvaluations

    @lazy
    def workflows(self) -> tuple[type[Workflows], type[AsyncWorkflows]]:
        """The workflows of the app."""
        from clarigrpc._resources.workflows import AsyncWorkflows, Workflows

        return Workflows, AsyncWorkflows

    @lazy
    def jobs(self) -> tuple[type[Jobs], type[AsyncJobs]]:
        """The jobs that add inputs to the app."""
        from clarigrpc._resources.jobs import AsyncJobs, Jobs

        return Jobs, AsyncJobs

    @lazy
    def extraction_jobs(self) -> tuple[type[ExtractionJobs], type[AsyncExtractionJobs]]:
        """The jobs that unpack archives into inputs of the app."""
        from clarigrpc._resources.jobs import AsyncExtractionJobs, ExtractionJobs

        return ExtractionJobs, AsyncExtractionJobs

    @lazy
    def bulk_operations(self) -> tuple[type[BulkOperations], type[AsyncBulkOperations]]:
        """The bulk operations of the app: changes of many inputs at once."""
        from clarigrpc._resources.jobs import AsyncBulkOperations, BulkOperations

        return BulkOperations, AsyncBulkOperations

    @lazy
    def tasks(self) -> tuple[type[Tasks], type[AsyncTasks]]:
        """The labelling tasks of the app."""
        from clarigrpc._resources.tasks import AsyncTasks, Tasks

        return Tasks, AsyncTasks

    @lazy
    def label_orders(self) -> tuple[type[LabelOrders], type[AsyncLabelOrders]]:
        """The label orders of the app."""
        from clarigrpc._resources.label_orders import AsyncLabelOrders, LabelOrders

        return LabelOrders, AsyncLabelOrders

    @lazy
    def collaborators(self) -> tuple[type[Collaborators], type[AsyncCollaborators]]:
        """The collaborators of the app: other users with access to it."""
        from clarigrpc._resources.collaborations import AsyncCollaborators, Collaborators

        return Collaborators, AsyncCollaborators

    @lazy
    def collectors(self) -> tuple[type[Collectors], type[AsyncCollectors]]:
        """The collectors of the app."""
        from clarigrpc._resources.collectors import AsyncCollectors, Collectors

        return Collectors, AsyncCollectors

    @lazy
    def modules(self) -> tuple[type[Modules], type[AsyncModules]]:
        """The modules of the app."""
        from clarigrpc._resources.modules import AsyncModules, Modules

        return Modules, AsyncModules

    @lazy
    def installed_modules(self) -> tuple[type[InstalledModules], type[AsyncInstalledModules]]:
        """The module versions installed in the app."""
        from clarigrpc._resources.modules import AsyncInstalledModules, InstalledModules

        return InstalledModules, AsyncInstalledModules

    @lazy
    def pipelines(self) -> tuple[type[Pipelines], type[AsyncPipelines]]:
        """The pipelines of the app."""
        from clarigrpc._resources.pipelines import AsyncPipelines, Pipelines

        return Pipelines, AsyncPipelines

    @lazy
    def pipeline_steps(self) -> tuple[type[PipelineSteps], type[AsyncPipelineSteps]]:
        """The pipeline steps of the app."""
        from clarigrpc._resources.pipeline_steps import AsyncPipelineSteps, PipelineSteps

        return PipelineSteps, AsyncPipelineSteps

    @lazy
    def artifacts(self) -> tuple[type[Artifacts], type[AsyncArtifacts]]:
        """The artifacts of the app."""
        from clarigrpc._resources.artifacts import Artifacts, AsyncArtifacts

        return Artifacts, AsyncArtifacts

    @lazy
    def uploads(self) -> tuple[type[Uploads], type[AsyncUploads]]:
        """The uploads of the app: standalone files."""
        from clarigrpc._resources.uploads import AsyncUploads, Uploads

        return Uploads, AsyncUploads

    @lazy
    def apps(self) -> tuple[type[Apps], type[AsyncApps]]:
        """The apps of the user."""
        from clarigrpc._resources.apps import Apps, AsyncApps

        return Apps, AsyncApps

    @lazy
    def app_duplications(self) -> tuple[type[Duplications], type[AsyncDuplications]]:
        """The app duplications that the user requested."""
        from clarigrpc._resources.apps import AsyncDuplications, Duplications

        return Duplications, AsyncDuplications

    @lazy
    def users(self) -> tuple[type[Users], type[AsyncUsers]]:
        """The users of the service."""
        from clarigrpc._resources.users import AsyncUsers, Users

        return Users, AsyncUsers

    @lazy
    def keys(self) -> tuple[type[Keys], type[AsyncKeys]]:
        """The API keys and personal access tokens of the user."""
        from clarigrpc._resources.keys import AsyncKeys, Keys

        return Keys, AsyncKeys

    @lazy
    def scopes(self) -> tuple[type[Scopes], type[AsyncScopes]]:
        """The scopes of keys: what credentials are allowed to do."""
        from clarigrpc._resources.scopes import AsyncScopes, Scopes

        return Scopes, AsyncScopes

    @lazy
    def collaborations(self) -> tuple[type[Collaborations], type[AsyncCollaborations]]:
        """The collaborations of the user on apps of other users."""
        from clarigrpc._resources.collaborations import AsyncCollaborations, Collaborations

        return Collaborations, AsyncCollaborations

    @lazy
    def secrets(self) -> tuple[type[Secrets], type[AsyncSecrets]]:
        """The secrets of the user."""
        from clarigrpc._resources.secrets import AsyncSecrets, Secrets

        return Secrets, AsyncSecrets

    @lazy
    def compute_clusters(self) -> tuple[type[ComputeClusters], type[AsyncComputeClusters]]:
        """The compute clusters of the user and their nodepools."""
        from clarigrpc._resources.compute import AsyncComputeClusters, ComputeClusters

        return ComputeClusters, AsyncComputeClusters

    @lazy
    def deployments(self) -> tuple[type[Deployments], type[AsyncDeployments]]:
        """The deployments of the user."""
        from clarigrpc._resources.compute import AsyncDeployments, Deployments

        return Deployments, AsyncDeployments

    @lazy
    def runners(self) -> tuple[type[Runners], type[AsyncRunners]]:
        """The runners of the user."""
        from clarigrpc._resources.runners import AsyncRunners, Runners

        return Runners, AsyncRunners

    @lazy
    def logs(self) -> tuple[type[Logs], type[AsyncLogs]]:
        """The logs of models, runners and pipelines."""
        from clarigrpc._resources.logs import AsyncLogs, Logs

        return Logs, AsyncLogs

    @lazy
    def status_codes(self) -> tuple[type[StatusCodes], type[AsyncStatusCodes]]:
        """The status codes of the service."""
        from clarigrpc._resources.status_codes import AsyncStatusCodes, StatusCodes

        return StatusCodes, AsyncStatusCodes

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
        """The resolved options, for example ``client.settings.timeout``."""
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
            if isinstance(getattr(type(self), name, None), lazy):
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
