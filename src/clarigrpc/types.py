"""The types that annotations name: models, resources, results, and what methods take.

from clarigrpc.types import Model, PredictResult

They are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarigrpc._bulk.coalescing import CoalesceLimits as CoalesceLimits
    from clarigrpc._bulk.input_progress import ReportCallback as ReportCallback
    from clarigrpc._bulk.input_report import FailedInput as FailedInput
    from clarigrpc._bulk.input_report import UploadReport as UploadReport
    from clarigrpc._bulk.input_sources import AsyncInputSource as AsyncInputSource
    from clarigrpc._bulk.input_sources import DeferredInput as DeferredInput
    from clarigrpc._bulk.input_sources import InputSource as InputSource
    from clarigrpc._bulk.input_sources import InputValue as InputValue
    from clarigrpc._bulk.predict_engine import PredictBatch as PredictBatch
    from clarigrpc._bulk.predict_engine import PredictFailure as PredictFailure
    from clarigrpc._bulk.predict_engine import PredictResult as PredictResult
    from clarigrpc._bulk.predict_engine import PredictSuccess as PredictSuccess
    from clarigrpc._bulk.predict_engine import WorkflowBatch as WorkflowBatch
    from clarigrpc._bulk.predict_engine import WorkflowPredictResult as WorkflowPredictResult
    from clarigrpc._bulk.predict_engine import WorkflowSuccess as WorkflowSuccess
    from clarigrpc._config.client_options import ClientOptions as ClientOptions
    from clarigrpc._config.client_options import Interceptor as Interceptor
    from clarigrpc._config.client_options import Transport as Transport
    from clarigrpc._config.client_options import ViewOptions as ViewOptions
    from clarigrpc._config.credentials import AuthCallable as AuthCallable
    from clarigrpc._config.credentials import ClientCredentials as ClientCredentials
    from clarigrpc._config.retry_policy import RetryPolicy as RetryPolicy
    from clarigrpc._config.settings import Settings as Settings
    from clarigrpc._resources.annotations import AnnotationFilters as AnnotationFilters
    from clarigrpc._resources.annotations import AnnotationListFilters as AnnotationListFilters
    from clarigrpc._resources.annotations import Annotations as Annotations
    from clarigrpc._resources.annotations import AnnotationTracks as AnnotationTracks
    from clarigrpc._resources.annotations import AsyncAnnotationFilters as AsyncAnnotationFilters
    from clarigrpc._resources.annotations import AsyncAnnotations as AsyncAnnotations
    from clarigrpc._resources.annotations import AsyncAnnotationTracks as AsyncAnnotationTracks
    from clarigrpc._resources.annotations import FrameOptions as FrameOptions
    from clarigrpc._resources.annotations import TrackFilters as TrackFilters
    from clarigrpc._resources.apps import AppFilters as AppFilters
    from clarigrpc._resources.apps import Apps as Apps
    from clarigrpc._resources.apps import AsyncApps as AsyncApps
    from clarigrpc._resources.apps import AsyncDuplications as AsyncDuplications
    from clarigrpc._resources.apps import Duplications as Duplications
    from clarigrpc._resources.artifacts import Artifacts as Artifacts
    from clarigrpc._resources.artifacts import ArtifactVersions as ArtifactVersions
    from clarigrpc._resources.artifacts import AsyncArtifacts as AsyncArtifacts
    from clarigrpc._resources.artifacts import AsyncArtifactVersions as AsyncArtifactVersions
    from clarigrpc._resources.base import Paging as Paging
    from clarigrpc._resources.base import PatchAction as PatchAction
    from clarigrpc._resources.collaborations import AsyncCollaborations as AsyncCollaborations
    from clarigrpc._resources.collaborations import AsyncCollaborators as AsyncCollaborators
    from clarigrpc._resources.collaborations import CollaborationFilters as CollaborationFilters
    from clarigrpc._resources.collaborations import Collaborations as Collaborations
    from clarigrpc._resources.collaborations import CollaboratorFilters as CollaboratorFilters
    from clarigrpc._resources.collaborations import Collaborators as Collaborators
    from clarigrpc._resources.collectors import AsyncCollectors as AsyncCollectors
    from clarigrpc._resources.collectors import Collectors as Collectors
    from clarigrpc._resources.compute import AsyncComputeClusters as AsyncComputeClusters
    from clarigrpc._resources.compute import AsyncDeployments as AsyncDeployments
    from clarigrpc._resources.compute import AsyncNodepools as AsyncNodepools
    from clarigrpc._resources.compute import ComputeClusters as ComputeClusters
    from clarigrpc._resources.compute import DeploymentFilters as DeploymentFilters
    from clarigrpc._resources.compute import Deployments as Deployments
    from clarigrpc._resources.compute import Nodepools as Nodepools
    from clarigrpc._resources.concepts import AsyncConceptLanguages as AsyncConceptLanguages
    from clarigrpc._resources.concepts import AsyncConceptRelations as AsyncConceptRelations
    from clarigrpc._resources.concepts import AsyncConcepts as AsyncConcepts
    from clarigrpc._resources.concepts import AsyncKnowledgeGraphs as AsyncKnowledgeGraphs
    from clarigrpc._resources.concepts import ConceptLanguages as ConceptLanguages
    from clarigrpc._resources.concepts import ConceptRelations as ConceptRelations
    from clarigrpc._resources.concepts import Concepts as Concepts
    from clarigrpc._resources.concepts import KnowledgeGraphs as KnowledgeGraphs
    from clarigrpc._resources.concepts import RelationFilters as RelationFilters
    from clarigrpc._resources.datasets import AsyncDatasetInputs as AsyncDatasetInputs
    from clarigrpc._resources.datasets import AsyncDatasets as AsyncDatasets
    from clarigrpc._resources.datasets import AsyncDatasetVersions as AsyncDatasetVersions
    from clarigrpc._resources.datasets import DatasetFilters as DatasetFilters
    from clarigrpc._resources.datasets import DatasetInputs as DatasetInputs
    from clarigrpc._resources.datasets import Datasets as Datasets
    from clarigrpc._resources.datasets import DatasetVersionFilters as DatasetVersionFilters
    from clarigrpc._resources.datasets import DatasetVersions as DatasetVersions
    from clarigrpc._resources.datasets import MetricsFilters as MetricsFilters
    from clarigrpc._resources.evaluations import AsyncEvaluations as AsyncEvaluations
    from clarigrpc._resources.evaluations import (
        AsyncModelVersionEvaluations as AsyncModelVersionEvaluations,
    )
    from clarigrpc._resources.evaluations import EvaluationFilters as EvaluationFilters
    from clarigrpc._resources.evaluations import Evaluations as Evaluations
    from clarigrpc._resources.evaluations import ModelVersionEvaluations as ModelVersionEvaluations
    from clarigrpc._resources.file_uploads import UploadKeywords as UploadKeywords
    from clarigrpc._resources.inputs import AsyncInputs as AsyncInputs
    from clarigrpc._resources.inputs import InputFilters as InputFilters
    from clarigrpc._resources.inputs import Inputs as Inputs
    from clarigrpc._resources.jobs import AsyncBulkOperations as AsyncBulkOperations
    from clarigrpc._resources.jobs import AsyncExtractionJobs as AsyncExtractionJobs
    from clarigrpc._resources.jobs import AsyncJobs as AsyncJobs
    from clarigrpc._resources.jobs import BulkOperations as BulkOperations
    from clarigrpc._resources.jobs import ExtractionJobs as ExtractionJobs
    from clarigrpc._resources.jobs import Jobs as Jobs
    from clarigrpc._resources.keys import AsyncKeys as AsyncKeys
    from clarigrpc._resources.keys import KeyFilters as KeyFilters
    from clarigrpc._resources.keys import Keys as Keys
    from clarigrpc._resources.label_orders import AsyncLabelOrders as AsyncLabelOrders
    from clarigrpc._resources.label_orders import LabelOrders as LabelOrders
    from clarigrpc._resources.logs import AsyncLogs as AsyncLogs
    from clarigrpc._resources.logs import LogFilters as LogFilters
    from clarigrpc._resources.logs import LogIds as LogIds
    from clarigrpc._resources.logs import Logs as Logs
    from clarigrpc._resources.long_running import AsyncLongRunningWork as AsyncLongRunningWork
    from clarigrpc._resources.long_running import LongRunningWork as LongRunningWork
    from clarigrpc._resources.long_running import WorkCallback as WorkCallback
    from clarigrpc._resources.long_running import WorkProgress as WorkProgress
    from clarigrpc._resources.model_collection import AsyncInputExamples as AsyncInputExamples
    from clarigrpc._resources.model_collection import AsyncModels as AsyncModels
    from clarigrpc._resources.model_collection import AsyncModelTypes as AsyncModelTypes
    from clarigrpc._resources.model_collection import AsyncModelVersions as AsyncModelVersions
    from clarigrpc._resources.model_collection import InputExamples as InputExamples
    from clarigrpc._resources.model_collection import ModelFilters as ModelFilters
    from clarigrpc._resources.model_collection import Models as Models
    from clarigrpc._resources.model_collection import ModelTypes as ModelTypes
    from clarigrpc._resources.model_collection import ModelVersionFilters as ModelVersionFilters
    from clarigrpc._resources.model_collection import ModelVersions as ModelVersions
    from clarigrpc._resources.model_handle import AsyncModel as AsyncModel
    from clarigrpc._resources.model_handle import Model as Model
    from clarigrpc._resources.model_streams import AsyncMethodCall as AsyncMethodCall
    from clarigrpc._resources.modules import AsyncInstalledModules as AsyncInstalledModules
    from clarigrpc._resources.modules import AsyncModules as AsyncModules
    from clarigrpc._resources.modules import AsyncModuleVersions as AsyncModuleVersions
    from clarigrpc._resources.modules import InstalledModules as InstalledModules
    from clarigrpc._resources.modules import ModuleFilters as ModuleFilters
    from clarigrpc._resources.modules import Modules as Modules
    from clarigrpc._resources.modules import ModuleVersions as ModuleVersions
    from clarigrpc._resources.ping import PingResult as PingResult
    from clarigrpc._resources.pipeline_steps import AsyncPipelineSteps as AsyncPipelineSteps
    from clarigrpc._resources.pipeline_steps import (
        AsyncPipelineStepVersions as AsyncPipelineStepVersions,
    )
    from clarigrpc._resources.pipeline_steps import PipelineSteps as PipelineSteps
    from clarigrpc._resources.pipeline_steps import PipelineStepVersions as PipelineStepVersions
    from clarigrpc._resources.pipeline_steps import StepVersionFilters as StepVersionFilters
    from clarigrpc._resources.pipelines import AsyncPipelines as AsyncPipelines
    from clarigrpc._resources.pipelines import AsyncPipelineVersionRuns as AsyncPipelineVersionRuns
    from clarigrpc._resources.pipelines import AsyncPipelineVersions as AsyncPipelineVersions
    from clarigrpc._resources.pipelines import Pipelines as Pipelines
    from clarigrpc._resources.pipelines import PipelineVersionRuns as PipelineVersionRuns
    from clarigrpc._resources.pipelines import PipelineVersions as PipelineVersions
    from clarigrpc._resources.pipelines import RunFilters as RunFilters
    from clarigrpc._resources.pipelines import StatusLogFilters as StatusLogFilters
    from clarigrpc._resources.runners import AsyncRunnerItems as AsyncRunnerItems
    from clarigrpc._resources.runners import AsyncRunners as AsyncRunners
    from clarigrpc._resources.runners import RunnerFilters as RunnerFilters
    from clarigrpc._resources.runners import RunnerItems as RunnerItems
    from clarigrpc._resources.runners import Runners as Runners
    from clarigrpc._resources.scopes import AsyncScopes as AsyncScopes
    from clarigrpc._resources.scopes import Scopes as Scopes
    from clarigrpc._resources.search import AsyncSavedSearches as AsyncSavedSearches
    from clarigrpc._resources.search import AsyncSearch as AsyncSearch
    from clarigrpc._resources.search import SavedSearches as SavedSearches
    from clarigrpc._resources.search import Search as Search
    from clarigrpc._resources.search import SearchOptions as SearchOptions
    from clarigrpc._resources.secrets import AsyncSecrets as AsyncSecrets
    from clarigrpc._resources.secrets import Secrets as Secrets
    from clarigrpc._resources.status_codes import AsyncStatusCodes as AsyncStatusCodes
    from clarigrpc._resources.status_codes import StatusCodes as StatusCodes
    from clarigrpc._resources.tasks import AsyncTasks as AsyncTasks
    from clarigrpc._resources.tasks import CountFilters as CountFilters
    from clarigrpc._resources.tasks import TaskFilters as TaskFilters
    from clarigrpc._resources.tasks import Tasks as Tasks
    from clarigrpc._resources.uploads import AsyncUploads as AsyncUploads
    from clarigrpc._resources.uploads import Uploads as Uploads
    from clarigrpc._resources.users import AsyncUsers as AsyncUsers
    from clarigrpc._resources.users import Users as Users
    from clarigrpc._resources.workflows import AsyncEvaluationData as AsyncEvaluationData
    from clarigrpc._resources.workflows import AsyncWorkflowEvaluations as AsyncWorkflowEvaluations
    from clarigrpc._resources.workflows import AsyncWorkflows as AsyncWorkflows
    from clarigrpc._resources.workflows import AsyncWorkflowVersions as AsyncWorkflowVersions
    from clarigrpc._resources.workflows import EvaluationData as EvaluationData
    from clarigrpc._resources.workflows import WorkflowEvaluations as WorkflowEvaluations
    from clarigrpc._resources.workflows import WorkflowFilters as WorkflowFilters
    from clarigrpc._resources.workflows import Workflows as Workflows
    from clarigrpc._resources.workflows import WorkflowVersions as WorkflowVersions
    from clarigrpc._rpc.call_stats import ClientStats as ClientStats
    from clarigrpc._rpc.call_stats import MethodStats as MethodStats
    from clarigrpc._rpc.plan import AsyncListing as AsyncListing
    from clarigrpc._rpc.plan import Listing as Listing
    from clarigrpc._rpc.plan import PageInfo as PageInfo
    from clarigrpc._streams.response_stream import AsyncStream as AsyncStream
    from clarigrpc._streams.response_stream import Stream as Stream
    from clarigrpc._uploads.upload_progress import ProgressCallback as ProgressCallback
    from clarigrpc._uploads.upload_progress import UploadProgress as UploadProgress
    from clarigrpc._uploads.upload_session import UploadResult as UploadResult
    from clarigrpc._uploads.upload_sources import Readable as Readable
    from clarigrpc._uploads.upload_sources import UploadSource as UploadSource
    from clarigrpc.media import BinaryFile as BinaryFile
    from clarigrpc.media import ConceptLabels as ConceptLabels
    from clarigrpc.media import ImageArray as ImageArray
    from clarigrpc.media import ImageSource as ImageSource
    from clarigrpc.media import InputMetadata as InputMetadata
    from clarigrpc.media import MediaSource as MediaSource
    from clarigrpc.media import PilImage as PilImage
    from clarigrpc.media import PredictInput as PredictInput
else:
    from clarigrpc._lazy_names import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "clarigrpc._bulk.coalescing": ("CoalesceLimits",),
            "clarigrpc._bulk.input_progress": ("ReportCallback",),
            "clarigrpc._bulk.input_report": (
                "FailedInput",
                "UploadReport",
            ),
            "clarigrpc._bulk.input_sources": (
                "AsyncInputSource",
                "DeferredInput",
                "InputSource",
                "InputValue",
            ),
            "clarigrpc._bulk.predict_engine": (
                "PredictBatch",
                "PredictFailure",
                "PredictResult",
                "PredictSuccess",
                "WorkflowBatch",
                "WorkflowPredictResult",
                "WorkflowSuccess",
            ),
            "clarigrpc._config.client_options": (
                "ClientOptions",
                "Interceptor",
                "Transport",
                "ViewOptions",
            ),
            "clarigrpc._config.credentials": (
                "AuthCallable",
                "ClientCredentials",
            ),
            "clarigrpc._config.retry_policy": ("RetryPolicy",),
            "clarigrpc._config.settings": ("Settings",),
            "clarigrpc._resources.annotations": (
                "AnnotationFilters",
                "AnnotationListFilters",
                "AnnotationTracks",
                "Annotations",
                "AsyncAnnotationFilters",
                "AsyncAnnotationTracks",
                "AsyncAnnotations",
                "FrameOptions",
                "TrackFilters",
            ),
            "clarigrpc._resources.apps": (
                "AppFilters",
                "Apps",
                "AsyncApps",
                "AsyncDuplications",
                "Duplications",
            ),
            "clarigrpc._resources.artifacts": (
                "ArtifactVersions",
                "Artifacts",
                "AsyncArtifactVersions",
                "AsyncArtifacts",
            ),
            "clarigrpc._resources.base": (
                "Paging",
                "PatchAction",
            ),
            "clarigrpc._resources.collaborations": (
                "AsyncCollaborations",
                "AsyncCollaborators",
                "CollaborationFilters",
                "Collaborations",
                "CollaboratorFilters",
                "Collaborators",
            ),
            "clarigrpc._resources.collectors": (
                "AsyncCollectors",
                "Collectors",
            ),
            "clarigrpc._resources.compute": (
                "AsyncComputeClusters",
                "AsyncDeployments",
                "AsyncNodepools",
                "ComputeClusters",
                "DeploymentFilters",
                "Deployments",
                "Nodepools",
            ),
            "clarigrpc._resources.concepts": (
                "AsyncConceptLanguages",
                "AsyncConceptRelations",
                "AsyncConcepts",
                "AsyncKnowledgeGraphs",
                "ConceptLanguages",
                "ConceptRelations",
                "Concepts",
                "KnowledgeGraphs",
                "RelationFilters",
            ),
            "clarigrpc._resources.datasets": (
                "AsyncDatasetInputs",
                "AsyncDatasetVersions",
                "AsyncDatasets",
                "DatasetFilters",
                "DatasetInputs",
                "DatasetVersionFilters",
                "DatasetVersions",
                "Datasets",
                "MetricsFilters",
            ),
            "clarigrpc._resources.evaluations": (
                "AsyncEvaluations",
                "AsyncModelVersionEvaluations",
                "EvaluationFilters",
                "Evaluations",
                "ModelVersionEvaluations",
            ),
            "clarigrpc._resources.file_uploads": ("UploadKeywords",),
            "clarigrpc._resources.inputs": (
                "AsyncInputs",
                "InputFilters",
                "Inputs",
            ),
            "clarigrpc._resources.jobs": (
                "AsyncBulkOperations",
                "AsyncExtractionJobs",
                "AsyncJobs",
                "BulkOperations",
                "ExtractionJobs",
                "Jobs",
            ),
            "clarigrpc._resources.keys": (
                "AsyncKeys",
                "KeyFilters",
                "Keys",
            ),
            "clarigrpc._resources.label_orders": (
                "AsyncLabelOrders",
                "LabelOrders",
            ),
            "clarigrpc._resources.logs": (
                "AsyncLogs",
                "LogFilters",
                "LogIds",
                "Logs",
            ),
            "clarigrpc._resources.model_collection": (
                "AsyncInputExamples",
                "AsyncModelTypes",
                "AsyncModelVersions",
                "AsyncModels",
                "InputExamples",
                "ModelFilters",
                "ModelTypes",
                "ModelVersionFilters",
                "ModelVersions",
                "Models",
            ),
            "clarigrpc._resources.model_handle": (
                "AsyncModel",
                "Model",
            ),
            "clarigrpc._resources.model_streams": ("AsyncMethodCall",),
            "clarigrpc._resources.modules": (
                "AsyncInstalledModules",
                "AsyncModuleVersions",
                "AsyncModules",
                "InstalledModules",
                "ModuleFilters",
                "ModuleVersions",
                "Modules",
            ),
            "clarigrpc._resources.ping": ("PingResult",),
            "clarigrpc._resources.pipeline_steps": (
                "AsyncPipelineStepVersions",
                "AsyncPipelineSteps",
                "PipelineStepVersions",
                "PipelineSteps",
                "StepVersionFilters",
            ),
            "clarigrpc._resources.pipelines": (
                "AsyncPipelineVersionRuns",
                "AsyncPipelineVersions",
                "AsyncPipelines",
                "PipelineVersionRuns",
                "PipelineVersions",
                "Pipelines",
                "RunFilters",
                "StatusLogFilters",
            ),
            "clarigrpc._resources.runners": (
                "AsyncRunnerItems",
                "AsyncRunners",
                "RunnerFilters",
                "RunnerItems",
                "Runners",
            ),
            "clarigrpc._resources.scopes": (
                "AsyncScopes",
                "Scopes",
            ),
            "clarigrpc._resources.search": (
                "AsyncSavedSearches",
                "AsyncSearch",
                "SavedSearches",
                "Search",
                "SearchOptions",
            ),
            "clarigrpc._resources.secrets": (
                "AsyncSecrets",
                "Secrets",
            ),
            "clarigrpc._resources.status_codes": (
                "AsyncStatusCodes",
                "StatusCodes",
            ),
            "clarigrpc._resources.tasks": (
                "AsyncTasks",
                "CountFilters",
                "TaskFilters",
                "Tasks",
            ),
            "clarigrpc._resources.uploads": (
                "AsyncUploads",
                "Uploads",
            ),
            "clarigrpc._resources.users": (
                "AsyncUsers",
                "Users",
            ),
            "clarigrpc._resources.workflows": (
                "AsyncEvaluationData",
                "AsyncWorkflowEvaluations",
                "AsyncWorkflowVersions",
                "AsyncWorkflows",
                "EvaluationData",
                "WorkflowEvaluations",
                "WorkflowFilters",
                "WorkflowVersions",
                "Workflows",
            ),
            "clarigrpc._rpc.call_stats": (
                "ClientStats",
                "MethodStats",
            ),
            "clarigrpc._streams.response_stream": (
                "AsyncStream",
                "Stream",
            ),
            "clarigrpc._uploads.upload_progress": (
                "ProgressCallback",
                "UploadProgress",
            ),
            "clarigrpc._uploads.upload_session": ("UploadResult",),
            "clarigrpc._uploads.upload_sources": (
                "Readable",
                "UploadSource",
            ),
            "clarigrpc._resources.long_running": (
                "AsyncLongRunningWork",
                "LongRunningWork",
                "WorkCallback",
                "WorkProgress",
            ),
            "clarigrpc._rpc.plan": (
                "AsyncListing",
                "Listing",
                "PageInfo",
            ),
            "clarigrpc.media": (
                "BinaryFile",
                "ConceptLabels",
                "InputMetadata",
                "ImageArray",
                "ImageSource",
                "MediaSource",
                "PilImage",
                "PredictInput",
            ),
        },
    )
