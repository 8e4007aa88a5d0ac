"""Workflows: models that predict one after the other."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from clarigrpc import errors, v2
from clarigrpc._resources.base import (
    Creates,
    Deletes,
    Gets,
    Lists,
    Paging,
    Patches,
    as_ids,
    chunks,
)
from clarigrpc._resources.long_running import Waits
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan, call
from clarigrpc.media import as_input


class EvaluationDataOperations(
    Creates[v2.WorkflowVersionEvaluationData], Lists[v2.WorkflowVersionEvaluationData]
):
    """What an evaluation of a workflow version found for each input."""

    message = v2.WorkflowVersionEvaluationData
    plural = "WorkflowVersionEvaluationData"
    noun = "result of the evaluation"
    nouns = "results of the evaluation"


class EvaluationData(EvaluationDataOperations, Sync): ...


class AsyncEvaluationData(EvaluationDataOperations, Async): ...


class WorkflowEvaluationOperations(
    Creates[v2.WorkflowVersionEvaluation],
    Gets[v2.WorkflowVersionEvaluation],
    Lists[v2.WorkflowVersionEvaluation],
    Patches[v2.WorkflowVersionEvaluation],
    Waits[v2.WorkflowVersionEvaluation],
):
    """The evaluations of a workflow version."""

    message = v2.WorkflowVersionEvaluation
    noun = "evaluation"

    data = nested(
        "workflow_version_evaluation_id",
        EvaluationData,
        AsyncEvaluationData,
        "What an evaluation found for each input.",
    )


class WorkflowEvaluations(WorkflowEvaluationOperations, Sync): ...


class AsyncWorkflowEvaluations(WorkflowEvaluationOperations, Async): ...


class WorkflowVersionOperations(
    Gets[v2.WorkflowVersion],
    Lists[v2.WorkflowVersion],
    Patches[v2.WorkflowVersion],
    Deletes[v2.WorkflowVersion],
):
    """The versions of a workflow. Creating or patching the workflow makes them."""

    message = v2.WorkflowVersion

    evaluations = nested(
        "workflow_version_id",
        WorkflowEvaluations,
        AsyncWorkflowEvaluations,
        "The evaluations of a workflow version.",
    )

    @operation
    def publish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Let everybody see versions, one or many."""
        publications = [v2.WorkflowVersionPublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostWorkflowVersionsPublish", timeout, publications=publications)

    @operation
    def unpublish(self, ids: str | Iterable[str], *, timeout: float | None = None) -> Plan[None]:
        """Take the publication of versions back, of one or many."""
        publications = [v2.WorkflowVersionUnPublishRequest(version_id=one) for one in as_ids(ids)]
        yield from self._invoke("PostWorkflowVersionsUnPublish", timeout, publications=publications)


class WorkflowVersions(WorkflowVersionOperations, Sync): ...


class AsyncWorkflowVersions(WorkflowVersionOperations, Async): ...


class WorkflowFilters(Paging, total=False):
    """Which workflows are listed, and in which order.

    Attributes:
        all_apps: Those of all apps of the user.
        search: Only those with this in id, description or notes.
        featured_only: Only those that the service features.
        starred_only: Only those that the caller has starred.
        bookmark: Those of other users that the app has bookmarked.
        visibility: Only those that are so visible.
        sort_ascending: Smallest or oldest first.
        sort_by_id: What the order is by; or one of ``sort_by_created_at``,
            ``sort_by_modified_at``, ``sort_by_star_count``, ``sort_by_relevance``.
        additional_fields: What the service leaves out by default, ``"stars"`` and the like.
    """

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

    ``create`` takes a mapping, too, such as a YAML file holds::

        model = {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"}
        client.workflows.create({"id": "colours", "nodes": [{"id": "n", "model": model}]})
    """

    message = v2.Workflow

    versions = nested(
        "workflow_id", WorkflowVersions, AsyncWorkflowVersions, "The versions of a workflow."
    )

    @operation
    def predict(
        self,
        workflow_id: str,
        value: Any,
        *,
        version_id: str = "",
        output_config: v2.OutputConfig | None = None,
        timeout: float | None = None,
    ) -> Plan[v2.WorkflowResult]:
        """Run a workflow on one input.

        Args:
            workflow_id: The workflow.
            value: An input (``image(...)``, ``text(...)``, a ``v2.Input``) or bytes of an image.
            version_id: Which version; empty: the latest.
            output_config: Settings of the outputs (``max_concepts``, ``min_value`` ...).
            timeout: Seconds; None: the client's.

        Returns:
            The result, with an output of each node.

        Raises:
            NotFoundError: There is no such workflow.
            ApiError: The class of it that fits what went wrong with the input.
        """
        (result,) = yield from self._results(
            workflow_id, [value], version_id, output_config, timeout, True
        )
        return result

    @operation
    def predict_many(
        self,
        workflow_id: str,
        values: Iterable[Any],
        *,
        version_id: str = "",
        output_config: v2.OutputConfig | None = None,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.WorkflowResult]]:
        """Run a workflow on inputs, in requests of 128.

        Args:
            workflow_id: The workflow.
            values: What ``predict`` takes, at least one.
            version_id, output_config: As in ``predict``.
            timeout: Seconds for each request; None: the client's.
            raise_on_partial: Whether inputs that failed are an error, or stay among the results,
                each with its status. None: as the client was told.

        Returns:
            The results, in the order given.

        Raises:
            PartialFailureError: Some failed; the results of the others are in it.
        """
        results = yield from self._results(
            workflow_id, values, version_id, output_config, timeout, raise_on_partial
        )
        return results

    def _results(
        self,
        workflow_id: str,
        values: Iterable[Any],
        version_id: str,
        output_config: v2.OutputConfig | None,
        timeout: float | None,
        raise_on_partial: bool | None,
    ) -> Plan[builtins.list[v2.WorkflowResult]]:
        method = "PostWorkflowResults"
        inputs = [as_input(one) for one in values]
        if not inputs:
            raise errors.InvalidArgumentError("predict_many() needs at least one input")
        merged = v2.PostWorkflowResultsResponse()
        codes = set()
        for chunk in chunks(inputs):
            fields = {
                "workflow_id": workflow_id,
                "version_id": version_id,
                "inputs": chunk,
                "output_config": output_config,
            }
            response: v2.PostWorkflowResultsResponse = yield from call(
                method, self._request(method, fields), timeout=timeout, raise_on_partial=False
            )
            merged.results.MergeFrom(response.results)
            merged.status.CopyFrom(response.status)
            codes.add(response.status.code)
        if len(codes) > 1:
            merged.status.code = v2.StatusCode.MIXED_STATUS
        found: builtins.list[v2.WorkflowResult] = self._outcome(
            method, merged, "results", raise_on_partial
        )
        return found

    @operation
    def similarity(
        self,
        workflow_id: str,
        probes: Iterable[Any],
        pool: Iterable[Any],
        *,
        version_id: str = "",
        model_version_id: str = "",
        timeout: float | None = None,
    ) -> Plan[builtins.list[v2.WorkflowResultsSimilarity]]:
        """How similar inputs are, by the embeddings that a workflow makes of them.

        Args:
            workflow_id: The workflow.
            probes: Inputs, as ``predict`` takes them.
            pool: The inputs that each of them is compared with.
            version_id: Which version of the workflow; empty: the latest.
            model_version_id: Whose embeddings, where several nodes of it make some.
            timeout: Seconds; None: the client's.

        Returns:
            For each probe ``pool_results``, the most similar first, with ``score`` from 0 to 1.
        """
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
        """Give a workflow another id.

        Raises:
            AlreadyExistsError: The new id is taken.
            NotFoundError: There is no such workflow.
        """
        return (yield from self._rename("PatchWorkflowIds", workflow_id, new_id, timeout))

    @iteration
    def list(self, **options: Unpack[WorkflowFilters]) -> ItemPlan[v2.Workflow]:
        """The workflows of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class Workflows(WorkflowOperations, Sync): ...


class AsyncWorkflows(WorkflowOperations, Async): ...
