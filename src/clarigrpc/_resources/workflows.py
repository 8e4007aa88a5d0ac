"""Workflows: graphs of models that predict one after the other."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from clarigrpc import v2, wellknown
from clarigrpc._progress_bar import bar_name
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import (
    Creates,
    Deletes,
    Gets,
    Lists,
    Paging,
    Patches,
    as_ids,
    check_count,
    filled,
    sole,
)
from clarigrpc._resources.long_running import FollowsWork, Waits
from clarigrpc._resources.sync_async import (
    Async,
    Parents,
    Sync,
    iteration,
    nested,
    operation,
    predicting,
)
from clarigrpc._rpc import statuses
from clarigrpc._rpc.encoding import PredictEncoder
from clarigrpc._rpc.plan import ItemPlan, Plan, call
from clarigrpc.media import PredictInput, as_input, refuse_single

if TYPE_CHECKING:
    from clarigrpc._bulk.input_sources import DeferredInput
    from clarigrpc._bulk.predict_engine import WorkflowBatch, WorkflowPredictResult
    from clarigrpc._bulk.predict_run import PredictRun


class EvaluationDataOperations(
    Creates[v2.WorkflowVersionEvaluationData], Lists[v2.WorkflowVersionEvaluationData]
):
    """The results of a workflow evaluation, one per input."""

    _message = v2.WorkflowVersionEvaluationData
    _create_rpc = "PostWorkflowVersionEvaluationData"
    _list_rpc = "ListWorkflowVersionEvaluationData"


class EvaluationData(EvaluationDataOperations, Sync): ...


class AsyncEvaluationData(EvaluationDataOperations, Async): ...


class WorkflowEvaluationOperations(
    Creates[v2.WorkflowVersionEvaluation],
    Gets[v2.WorkflowVersionEvaluation],
    Lists[v2.WorkflowVersionEvaluation],
    Patches[v2.WorkflowVersionEvaluation],
    Waits[v2.WorkflowVersionEvaluation],
    FollowsWork[v2.WorkflowVersionEvaluation],
):
    """The evaluations of a workflow version."""

    _message = v2.WorkflowVersionEvaluation
    _create_rpc = "PostWorkflowVersionEvaluations"
    _get_rpc = "GetWorkflowVersionEvaluation"
    _list_rpc = "ListWorkflowVersionEvaluations"
    _patch_rpc = "PatchWorkflowVersionEvaluations"
    _work_name = "workflow evaluation"

    @nested(EvaluationData, AsyncEvaluationData)
    def data(self, workflow_version_evaluation_id: str) -> Parents:
        """Access the results of a workflow evaluation, one per input.

        Args:
            workflow_version_evaluation_id: Id of the evaluation.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"workflow_version_evaluation_id": workflow_version_evaluation_id}


class WorkflowEvaluations(WorkflowEvaluationOperations, Sync): ...


class AsyncWorkflowEvaluations(WorkflowEvaluationOperations, Async): ...


class WorkflowVersionOperations(
    Gets[v2.WorkflowVersion],
    Lists[v2.WorkflowVersion],
    Patches[v2.WorkflowVersion],
    Deletes[v2.WorkflowVersion],
):
    """The versions of a workflow. Creating or patching the workflow makes them."""

    _message = v2.WorkflowVersion
    _get_rpc = "GetWorkflowVersion"
    _list_rpc = "ListWorkflowVersions"
    _patch_rpc = "PatchWorkflowVersions"
    _delete_rpc = "DeleteWorkflowVersions"

    @nested(WorkflowEvaluations, AsyncWorkflowEvaluations)
    def evaluations(self, workflow_version_id: str) -> Parents:
        """Access the evaluations of a workflow version.

        Args:
            workflow_version_id: Id of the workflow version.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"workflow_version_id": workflow_version_id}

    @operation
    def publish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Publish versions: make them visible to everybody.

        Args:
            ids: Ids of versions, one or many.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: A version does not exist.
        """
        publications = [v2.WorkflowVersionPublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostWorkflowVersionsPublish", timeout, publications=publications)

    @operation
    def unpublish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Unpublish versions.

        Args:
            ids: Ids of versions, one or many.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: A version does not exist.
        """
        publications = [v2.WorkflowVersionUnPublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostWorkflowVersionsUnPublish", timeout, publications=publications)


class WorkflowVersions(WorkflowVersionOperations, Sync): ...


class AsyncWorkflowVersions(WorkflowVersionOperations, Async): ...


@named_in("clarigrpc.types")
class WorkflowFilters(Paging, total=False):
    """Options of ``client.workflows.list``."""

    all_apps: bool
    search: str
    featured_only: bool
    starred_only: bool
    bookmark: bool
    visibility: v2.Visibility
    sort_ascending: bool
    sort_by_id: bool
    sort_by_created_at: bool
    sort_by_modified_at: bool
    sort_by_star_count: bool
    sort_by_relevance: bool
    additional_fields: Sequence[str]


class WorkflowOperations(
    Creates[v2.Workflow], Gets[v2.Workflow], Patches[v2.Workflow], Deletes[v2.Workflow]
):
    """The workflows of an app.

    ``create`` also takes a mapping, e.g. the content of a YAML file::

        model = {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"}
        client.workflows.create({"id": "colours", "nodes": [{"id": "n", "model": model}]})
    """

    _message = v2.Workflow
    _create_rpc = "PostWorkflows"
    _get_rpc = "GetWorkflow"
    _list_rpc = "ListWorkflows"
    _patch_rpc = "PatchWorkflows"
    _delete_rpc = "DeleteWorkflows"
    _delete_one_rpc = "DeleteWorkflow"

    @nested(WorkflowVersions, AsyncWorkflowVersions)
    def versions(self, workflow_id: str) -> Parents:
        """Access the versions of a workflow.

        Args:
            workflow_id: Id of the workflow.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"workflow_id": workflow_id}

    @operation
    def predict(
        self,
        workflow_id: str,
        value: PredictInput,
        *,
        version_id: str = "",
        output_config: v2.OutputConfig | None = None,
        timeout: float | None = None,
    ) -> Plan[v2.WorkflowResult]:
        """Run a workflow on one input.

        Args:
            workflow_id: Id of the workflow.
            value: An input (``image(...)``, ``text(...)``, a ``v2.Input``), or the bytes of an
                image.
            version_id: Id of the version. Empty uses the latest.
            output_config: Settings of the outputs (``max_concepts``, ``min_value`` ...). None uses
                the workflow's.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The result, with one output per node.

        Raises:
            NotFoundError: The workflow or the version does not exist or is not visible to you.
            ApiError: The input failed; the subclass says how (see ``errors``).
        """
        method = "PostWorkflowResults"
        response: v2.PostWorkflowResultsResponse = yield from call(
            method,
            self._encoder(workflow_id, version_id, output_config).encode((value,)),
            timeout=timeout,
            raise_on_partial=False,
        )
        check_count(response.results, (value,), method, response)
        results: list[v2.WorkflowResult] = self._outcome(method, response, "results", True)
        result = sole(results, method, response)
        # A service may say SUCCESS, and leave it to the result to say that it failed.
        failure = statuses.from_item(
            result.status, method=method, request_id=response.status.req_id
        )
        if failure is not None:
            raise failure
        return result

    @predicting
    def predict_many(
        self,
        workflow_id: str,
        values: Iterable[PredictInput | DeferredInput]
        | AsyncIterable[PredictInput | DeferredInput],
        *,
        version_id: str = "",
        output_config: v2.OutputConfig | None = None,
        batch_size: int | None = None,
        in_flight: int | None = None,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool = False,
    ) -> PredictRun[WorkflowPredictResult]:
        """Run a workflow on any number of inputs, in batches, with several requests in flight.

        Like ``predict_many`` of a model: a failed input does not fail the others, an outage
        and throttling are waited for, and memory is bounded, however long the source. Leave the
        loop to stop.

        Args:
            workflow_id: Id of the workflow.
            values: What ``predict`` takes, or functions that make it, from any iterable; an
                ``AsyncClient`` also takes an asynchronous one. An error that it raises comes after
                the results of the inputs before it.
            version_id: Id of the version. Empty uses the latest.
            output_config: Settings of the outputs (``max_concepts``, ``min_value`` ...). None uses
                the workflow's.
            batch_size: Maximum inputs per request, 1 to 128; a request also holds at most 16 MiB of
                inputs, or one larger input. None adapts to the server.
            in_flight: Maximum concurrent requests. None adapts to the server, up to 100.
            ordered: Whether results come in the order of the inputs (default) or as they are ready.
            timeout: Seconds for each request, and for waiting while the service answers nothing.
                None uses the client's setting.
            progress: Whether to show a progress bar if stderr is a terminal (extra ``cli``).
                Default False.

        Returns:
            An iterator of results, each with ``index`` and either ``output`` (with one output per
            node) or ``error``.

        Raises:
            InvalidArgumentError: ``batch_size`` or ``in_flight`` is out of range.
        """
        encoder = self._encoder(workflow_id, version_id, output_config)
        return self._run(
            encoder,
            values,
            batches=False,
            batch_size=batch_size,
            in_flight=in_flight,
            ordered=ordered,
            timeout=timeout,
            name=bar_name(progress, workflow_id),
        )

    @predicting
    def predict_batches(
        self,
        workflow_id: str,
        values: Iterable[PredictInput | DeferredInput]
        | AsyncIterable[PredictInput | DeferredInput],
        *,
        version_id: str = "",
        output_config: v2.OutputConfig | None = None,
        batch_size: int | None = None,
        in_flight: int | None = None,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool = False,
    ) -> PredictRun[WorkflowBatch]:
        """Run a workflow on any number of inputs, and return the results by the batch.

        Args:
            workflow_id: Id of the workflow.
            values: What ``predict`` takes, or functions that make it, from any iterable; an
                ``AsyncClient`` also takes an asynchronous one.
            version_id: Id of the version. Empty uses the latest.
            output_config: Settings of the outputs (``max_concepts``, ``min_value`` ...). None uses
                the workflow's.
            batch_size: Maximum inputs per request, 1 to 128; a request also holds at most 16 MiB of
                inputs, or one larger input. None adapts to the server.
            in_flight: Maximum concurrent requests. None adapts to the server, up to 100.
            ordered: Whether batches come in the order of the inputs (default) or as they are ready.
            timeout: Seconds for each request, and for waiting while the service answers nothing.
                None uses the client's setting.
            progress: Whether to show a progress bar if stderr is a terminal (extra ``cli``).
                Default False.

        Returns:
            An iterator of batches, each with the ``outputs`` of some inputs, their ``indexes``, and
            the ``errors`` of those that failed.

        Raises:
            InvalidArgumentError: ``batch_size`` or ``in_flight`` is out of range.
        """
        encoder = self._encoder(workflow_id, version_id, output_config)
        return self._run(
            encoder,
            values,
            batches=True,
            batch_size=batch_size,
            in_flight=in_flight,
            ordered=ordered,
            timeout=timeout,
            name=bar_name(progress, workflow_id),
        )

    def _encoder(
        self, workflow_id: str, version_id: str, output_config: v2.OutputConfig | None
    ) -> PredictEncoder:
        """The encoder of the requests of a workflow."""
        return PredictEncoder(
            filled(
                "PostWorkflowResults",
                v2.PostWorkflowResultsRequest,
                user_app_id=self._user_app_id or self._client.user_app_id,
                workflow_id=workflow_id,
                version_id=version_id,
                output_config=None if output_config is None else wellknown.convert(output_config),
            )
        )

    def _run(self, encoder: PredictEncoder, values: Any, **options: Any) -> PredictRun[Any]:
        from clarigrpc._bulk.predict_engine import PREDICT_WORKFLOW
        from clarigrpc._bulk.predict_run import PredictRun

        return PredictRun(self._client, encoder, values, kind=PREDICT_WORKFLOW, **options)

    @operation
    def similarity(
        self,
        workflow_id: str,
        probes: Iterable[PredictInput],
        pool: Iterable[PredictInput],
        *,
        version_id: str = "",
        model_version_id: str = "",
        timeout: float | None = None,
    ) -> Plan[builtins.list[v2.WorkflowResultsSimilarity]]:
        """Compare inputs by the embeddings that a workflow makes of them.

        Args:
            workflow_id: Id of the workflow.
            probes: Inputs to compare, as taken by ``predict``.
            pool: Inputs that each probe is compared with.
            version_id: Id of the workflow version. Empty uses the latest.
            model_version_id: Id of the model version whose embeddings to use, if several nodes make
                some.
            timeout: Seconds. None uses the client's setting.

        Returns:
            One entry per probe; its ``pool_results`` hold ``score`` (0 to 1), the most similar
            first.

        Raises:
            NotFoundError: The workflow or the version does not exist or is not visible to you.
        """
        for values in (probes, pool):
            refuse_single(values, "similarity", "put a single one in a list")
        response: v2.PostWorkflowResultsSimilarityResponse = yield from self._invoke(
            "PostWorkflowResultsSimilarity",
            timeout,
            workflow_id=workflow_id,
            version_id=version_id,
            model_version_id=model_version_id,
            probe_inputs=[as_input(one) for one in probes],
            pool_inputs=[as_input(one) for one in pool],
        )
        return [*response.results]

    @operation
    def rename(
        self, workflow_id: str, new_id: str, *, timeout: float | None = None
    ) -> Plan[v2.Workflow]:
        """Change the id of a workflow.

        Args:
            workflow_id: Current id of the workflow.
            new_id: New id.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The workflow with its new id.

        Raises:
            AlreadyExistsError: The new id is taken.
            NotFoundError: The workflow does not exist.
        """
        return (yield from self._rename("PatchWorkflowIds", workflow_id, new_id, timeout))

    @iteration
    def list(self, **options: Unpack[WorkflowFilters]) -> ItemPlan[v2.Workflow]:
        """List the workflows of the app.

        Args:
            all_apps: Whether to list the workflows of all apps of the user. Default False.
            search: Filter by text in the id, description or notes.
            featured_only: Whether to list only workflows featured by the service. Default False.
            starred_only: Whether to list only workflows that you starred. Default False.
            bookmark: Whether to list only workflows bookmarked from other users. Default False.
            visibility: Filter by visibility.
            sort_ascending: Whether to sort in ascending order. Default False.
            sort_by_id: Whether to sort by id. Set at most one ``sort_by_`` option.
            sort_by_created_at: Whether to sort by time of creation.
            sort_by_modified_at: Whether to sort by time of the last change.
            sort_by_star_count: Whether to sort by number of stars.
            sort_by_relevance: Whether to sort by relevance to ``search``.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"stars"``.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class Workflows(WorkflowOperations, Sync): ...


class AsyncWorkflows(WorkflowOperations, Async): ...
