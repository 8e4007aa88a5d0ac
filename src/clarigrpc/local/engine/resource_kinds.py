"""The kinds of resources that ``ResourceHandlers`` serves: one row a kind.

What a row leaves out follows from the contract. The methods of a kind are ``List<plural>``,
``Get<singular>``, ``Post<plural>``, ``Patch<plural>``, ``Delete<plural>`` and
``Delete<singular>``, as far as V2 has them; which fields of a request and of a response carry the
resources is seen from their message type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clarigrpc import v2
from clarigrpc.local.service_errors import StatusCodeValue
from clarigrpc.v2 import StatusCode

FilterTest = Callable[[Any, Any], bool]
"""Whether a resource passes a filter: (resource, value of the request's field)."""


@dataclass(frozen=True, kw_only=True)
class ResourceKind:
    """A kind of resource.

    Attributes:
        name: What the store calls it, the request's field of its id without ``_id``.
        singular, plural: Its name in the names of methods.
        message: Name of its message.
        of_user: It belongs to a user; otherwise to an app.
        parents: Kinds that it is nested in, inside the app or the user, outermost first.
        id_field: The request's field of its id, where it does not follow from the name.
        invalid, missing, duplicate: Status codes of its failures.
        status: Code of the status that a new one gets, None without.
        own_status: Callers set the status, too.
        author: ``user_id`` is who made it, not who owns the app.
        links: Request field -> path of the field in the message that says the same. A list is
            filtered by it, a new resource gets it.
        filters: Request field -> test, for what the general rules do not cover.
        without: Methods that have handlers elsewhere.
        newest: Field that shows the newest of its versions -> the kind of those.
    """

    name: str
    singular: str
    message: str = ""
    plural: str = ""
    of_user: bool = False
    parents: tuple[str, ...] = ()
    id_field: str = ""
    invalid: StatusCodeValue = StatusCode.CONN_INVALID_REQUEST
    missing: StatusCodeValue = StatusCode.CONN_DOES_NOT_EXIST
    duplicate: StatusCodeValue = StatusCode.DATABASE_DUPLICATE_KEY
    status: StatusCodeValue | None = None
    own_status: bool = False
    author: bool = False
    links: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, FilterTest] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    newest: tuple[str, str] | None = None


def _any_of(path: str) -> FilterTest:
    """Whether one of the request's values is among those of a list in the resource."""
    first, _, second = path.partition(".")

    def test(item: Any, wanted: Any) -> bool:
        have = getattr(getattr(item, first), second) if second else getattr(item, first)
        return not set(wanted).isdisjoint(have)

    return test


def _has_all(name: str) -> FilterTest:
    return lambda item, wanted: set(wanted) <= set(getattr(item, name))


def _worker_version(item: Any, wanted: Any) -> bool:
    return item.worker.model.model_version.id in set(wanted)


def _worker_workflow(item: Any, wanted: Any) -> bool:
    return item.worker.workflow.version.id in set(wanted)


def _not_expired(key: v2.Key, wanted: bool) -> bool:
    now = v2.Key().expires_at
    now.GetCurrentTime()
    expired = key.HasField("expires_at") and key.expires_at.ToNanoseconds() <= now.ToNanoseconds()
    return not expired


def nodepools_of(item: Any) -> Iterator[tuple[str, str]]:
    """Ids of the clusters and nodepools that something runs on."""
    for pool in (*item.nodepools, *getattr(item, "deployment_nodepools", ())):
        yield pool.compute_cluster.id, pool.id


def _in_nodepool(item: Any, wanted: str) -> bool:
    return wanted in {pool for _, pool in nodepools_of(item)}


def _in_cluster(item: Any, wanted: str) -> bool:
    return wanted in {cluster for cluster, _ in nodepools_of(item)}


RESOURCE_KINDS = (
    # Concepts
    ResourceKind(
        name="concept",
        singular="Concept",
        invalid=StatusCode.CONCEPTS_INVALID_REQUEST,
        duplicate=StatusCode.CONCEPTS_INVALID_REQUEST,
    ),
    ResourceKind(
        name="concept_language",
        singular="ConceptLanguage",
        parents=("concept",),
        id_field="language",
        invalid=StatusCode.CONCEPTS_INVALID_REQUEST,
    ),
    ResourceKind(
        name="concept_relation",
        singular="ConceptRelation",
        links={"concept_id": "subject_concept.id"},
        invalid=StatusCode.CONCEPTS_INVALID_REQUEST,
    ),
    ResourceKind(name="knowledge_graph", singular="KnowledgeGraph"),
    # Annotations
    ResourceKind(
        name="annotation",
        singular="Annotation",
        links={"input_id": "input_id"},
        invalid=StatusCode.ANNOTATION_INVALID_ARGUMENT,
        status=StatusCode.ANNOTATION_SUCCESS,
        own_status=True,
        author=True,
    ),
    ResourceKind(
        name="annotation_track",
        singular="AnnotationTrack",
        links={"input_id": "input_id"},
        invalid=StatusCode.ANNOTATION_INVALID_ARGUMENT,
        status=StatusCode.ANNOTATION_TRACK_IDLE,
        own_status=True,
    ),
    ResourceKind(name="annotation_filter", singular="AnnotationFilter"),
    ResourceKind(
        name="search",
        singular="Search",
        plural="Searches",
        id_field="id",
        invalid=StatusCode.SEARCH_INVALID_REQUEST,
    ),
    # Datasets
    ResourceKind(name="dataset", singular="Dataset", newest=("version", "dataset_version")),
    ResourceKind(
        name="dataset_version",
        singular="DatasetVersion",
        parents=("dataset",),
        status=StatusCode.DATASET_VERSION_PENDING,
        filters={"request_origins": lambda item, wanted: item.request_origin in set(wanted)},
    ),
    # Models and workflows
    ResourceKind(
        name="model",
        singular="Model",
        invalid=StatusCode.MODEL_INVALID_ARGUMENT,
        missing=StatusCode.MODEL_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="model_version",
        singular="ModelVersion",
        without=("PostModelVersions",),  # it trains
        parents=("model",),
        invalid=StatusCode.MODEL_INVALID_ARGUMENT,
        missing=StatusCode.MODEL_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="model_reference",
        singular="ModelReference",
        parents=("model",),
        invalid=StatusCode.MODEL_REFERENCE_INVALID_ARGUMENT,
    ),
    ResourceKind(
        name="model_version_input_example",
        singular="ModelVersionInputExample",
        parents=("model", "model_version"),
        id_field="example_id",
        invalid=StatusCode.MODEL_EXAMPLE_INPUT_INVALID_ARGUMENT,
    ),
    ResourceKind(
        name="workflow",
        singular="Workflow",
        invalid=StatusCode.WORKFLOW_INVALID_ARGUMENT,
        missing=StatusCode.WORKFLOW_DOES_NOT_EXIST,
        duplicate=StatusCode.WORKFLOW_DUPLICATE,
        newest=("version", "workflow_version"),
    ),
    ResourceKind(
        name="workflow_version",
        singular="WorkflowVersion",
        parents=("workflow",),
        invalid=StatusCode.WORKFLOW_INVALID_ARGUMENT,
        missing=StatusCode.WORKFLOW_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="workflow_version_evaluation",
        singular="WorkflowVersionEvaluation",
        parents=("workflow", "workflow_version"),
        invalid=StatusCode.EVALUATION_INVALID_ARGUMENT,
        status=StatusCode.EVALUATION_QUEUED,
        own_status=True,
    ),
    ResourceKind(
        name="workflow_version_evaluation_data",
        singular="WorkflowVersionEvaluationData",
        plural="WorkflowVersionEvaluationData",
        parents=("workflow", "workflow_version", "workflow_version_evaluation"),
        invalid=StatusCode.EVALUATION_INVALID_ARGUMENT,
    ),
    # Users, apps and who may do what
    ResourceKind(
        name="app",
        singular="App",
        of_user=True,
        filters={"template_only": lambda item, wanted: item.is_template.value},
    ),
    ResourceKind(
        name="key",
        singular="Key",
        of_user=True,
        filters={
            "not_expired": _not_expired,
            "scopes": _has_all("scopes"),
            "endpoints": _has_all("endpoints"),
        },
    ),
    ResourceKind(name="secret", singular="Secret", of_user=True, id_field="id"),
    ResourceKind(name="collaborator", singular="Collaborator"),
    ResourceKind(
        name="app_duplication",
        singular="AppDuplication",
        of_user=True,
        invalid=StatusCode.APP_DUPLICATION_INVALID_REQUEST,
        status=StatusCode.APP_DUPLICATION_PENDING,
    ),
    # Work of people
    ResourceKind(
        name="task",
        singular="Task",
        status=StatusCode.TASK_IN_PROGRESS,
        own_status=True,
        filters={
            "worker_user_ids": _any_of("worker.user_ids"),
            "review_user_ids": _any_of("review.user_ids"),
            "including_label_order_tasks": lambda item, wanted: True,
            "input_source_type": lambda item, wanted: item.input_source.type == wanted,
            "input_source_ids": lambda item, wanted: item.input_source.id in set(wanted),
        },
    ),
    ResourceKind(
        name="label_order",
        singular="LabelOrder",
        status=StatusCode.LABEL_ORDER_PENDING,
        own_status=True,
    ),
    ResourceKind(
        name="bulk_operation",
        singular="BulkOperation",
        id_field="id",
        invalid=StatusCode.BULK_OPERATION_INVALID_REQUEST,
        status=StatusCode.BULK_OPERATION_PENDING,
    ),
    ResourceKind(name="inputs_add_job", singular="InputsAddJob", id_field="id"),
    ResourceKind(name="inputs_extraction_job", singular="InputsExtractionJob"),
    # Compute
    ResourceKind(
        name="compute_cluster",
        singular="ComputeCluster",
        of_user=True,
        invalid=StatusCode.COMPUTE_CLUSTER_INVALID_ARGUMENT,
        missing=StatusCode.COMPUTE_CLUSTER_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="nodepool",
        singular="Nodepool",
        of_user=True,
        parents=("compute_cluster",),
        invalid=StatusCode.NODEPOOL_INVALID_ARGUMENT,
        missing=StatusCode.NODEPOOL_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="runner",
        singular="Runner",
        of_user=True,
        invalid=StatusCode.RUNNER_INVALID_ARGUMENT,
        missing=StatusCode.RUNNER_DOES_NOT_EXIST,
        links={"nodepool_id": "nodepool.id", "compute_cluster_id": "nodepool.compute_cluster.id"},
        filters={
            "min_replicas": lambda item, wanted: item.num_replicas >= wanted,
            "model_version_ids": _worker_version,
        },
    ),
    ResourceKind(
        name="deployment",
        singular="Deployment",
        of_user=True,
        invalid=StatusCode.DEPLOYMENT_INVALID_ARGUMENT,
        missing=StatusCode.DEPLOYMENT_DOES_NOT_EXIST,
        filters={
            "nodepool_id": _in_nodepool,
            "compute_cluster_id": _in_cluster,
            "model_version_ids": _worker_version,
            "workflow_version_ids": _worker_workflow,
        },
    ),
    # Pipelines and artifacts; those whose content is uploaded have handlers of their own. A missing
    # pipeline has the code by which the published SDK knows it (its client/pipeline.py).
    ResourceKind(
        name="pipeline",
        singular="Pipeline",
        invalid=StatusCode.PIPELINE_INVALID_ARGUMENT,
        missing=StatusCode.CONN_DOES_NOT_EXIST,
        newest=("pipeline_version", "pipeline_version"),
    ),
    ResourceKind(
        name="pipeline_version",
        singular="PipelineVersion",
        parents=("pipeline",),
        invalid=StatusCode.PIPELINE_INVALID_ARGUMENT,
        missing=StatusCode.CONN_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="pipeline_version_run",
        singular="PipelineVersionRun",
        parents=("pipeline", "pipeline_version"),
        invalid=StatusCode.PIPELINE_INVALID_ARGUMENT,
        missing=StatusCode.CONN_DOES_NOT_EXIST,
        filters={
            "status_codes": lambda item, wanted: (
                item.orchestration_status.status.code in set(wanted)
            ),
            "nodepool_id": _in_nodepool,
            "compute_cluster_id": _in_cluster,
        },
    ),
    ResourceKind(
        name="pipeline_version_run_status_log",
        singular="PipelineVersionRunStatusLog",
        parents=("pipeline", "pipeline_version", "pipeline_version_run"),
    ),
    ResourceKind(
        name="pipeline_step",
        singular="PipelineStep",
        invalid=StatusCode.PIPELINE_STEP_INVALID_ARGUMENT,
        missing=StatusCode.PIPELINE_STEP_DOES_NOT_EXIST,
        newest=("pipeline_step_version", "pipeline_step_version"),
    ),
    ResourceKind(
        name="pipeline_step_version",
        singular="PipelineStepVersion",
        parents=("pipeline_step",),
        invalid=StatusCode.PIPELINE_STEP_INVALID_ARGUMENT,
        missing=StatusCode.PIPELINE_STEP_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="artifact",
        singular="Artifact",
        invalid=StatusCode.ARTIFACT_INVALID_ARGUMENT,
        missing=StatusCode.ARTIFACT_DOES_NOT_EXIST,
        newest=("artifact_version", "artifact_version"),
    ),
    ResourceKind(
        name="artifact_version",
        singular="ArtifactVersion",
        parents=("artifact",),
        invalid=StatusCode.ARTIFACT_VERSION_INVALID_ARGUMENT,
        missing=StatusCode.ARTIFACT_VERSION_DOES_NOT_EXIST,
    ),
    # Retired from the contract; the reference pages still have them.
    ResourceKind(name="collector", singular="Collector"),
    ResourceKind(
        name="module",
        singular="Module",
        invalid=StatusCode.MODULE_INVALID_ARGUMENT,
        missing=StatusCode.MODULE_DOES_NOT_EXIST,
        newest=("module_version", "module_version"),
        filters={
            "filter_by_user_id": lambda item, wanted: True,
        },
    ),
    ResourceKind(
        name="module_version",
        singular="ModuleVersion",
        parents=("module",),
        invalid=StatusCode.MODULE_INVALID_ARGUMENT,
        missing=StatusCode.MODULE_DOES_NOT_EXIST,
    ),
    ResourceKind(
        name="installed_module_version",
        singular="InstalledModuleVersion",
        invalid=StatusCode.MODULE_INVALID_ARGUMENT,
        missing=StatusCode.MODULE_DOES_NOT_EXIST,
    ),
)
