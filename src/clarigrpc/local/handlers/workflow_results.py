"""Workflows at work: every node's model runs on what the nodes before it gave."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc.local.byte_budget import BudgetFullError
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.input_embeddings import similarities
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime, combined
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status, overall
from clarigrpc.v2 import StatusCode

_logger = logging.getLogger(__name__)


class _ReadyNode(NamedTuple):
    """A node ready to run. ``sources`` are the nodes whose outputs it takes."""

    id: str
    sources: tuple[str, ...]
    suppressed: bool
    model: v2.Model
    runtime: Runtime
    options: PredictOptions


def _plan(context: Context, request: Any, config: v2.OutputConfig) -> tuple[Any, list[_ReadyNode]]:
    """The workflow that a request names, and its nodes in an order in which they can run."""
    place = Place(context.readable(request.user_app_id))
    workflow = RESOURCES["workflow"].find(context, place, request.workflow_id)
    if request.version_id:
        nested = Place(place.app, (workflow.id,))
        version = RESOURCES["workflow_version"].find(context, nested, request.version_id)
    else:
        version = workflow.version
        if not version.id:  # there are none that the caller may see
            raise RESOURCES["workflow_version"].no("")
    waiting = {node.id: node for node in version.nodes}
    ordered: list[_ReadyNode] = []
    while waiting:
        ready = [
            node
            for node in waiting.values()
            if not any(source.node_id in waiting for source in node.node_inputs)
        ]
        if not ready:
            raise ServiceError(StatusCode.WORKFLOW_INVALID_GRAPH, "the nodes form a cycle")
        for node in ready:
            ordered.append(_node(context, node, config))
            del waiting[node.id]
    named = v2.Workflow(
        id=workflow.id,
        user_id=workflow.user_id,
        app_id=workflow.app_id,
        version=v2.WorkflowVersion(id=version.id),
    )
    return named, ordered


def _node(context: Context, node: v2.WorkflowNode, config: v2.OutputConfig) -> _ReadyNode:
    app, entry = context.named_model(node.model, method="PostModelOutputs")
    version = entry.version(node.model.model_version.id)
    if version is None or version.status.code != StatusCode.MODEL_TRAINED:
        raise ServiceError(
            StatusCode.WORKFLOW_REQUIRE_TRAINED_MODEL, f"model {entry.model.id!r} is not ready"
        )
    runtime = context.state.catalog.runtime(entry, version)
    if runtime is None:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED,
            f"the local server does not run the uploaded model {entry.model.id!r}",
        )
    context.state.faults.deploying(version.id)
    # What the call asks for holds for every node.
    options = combined(
        version.output_info.output_config, node.output_info_override.output_config, config
    )
    model = v2.Model(
        id=entry.model.id,
        user_id=app.user_id,
        app_id=app.app_id,
        model_version=v2.ModelVersion(id=version.id),
    )
    return _ReadyNode(
        node.id,
        tuple(source.node_id for source in node.node_inputs),
        node.suppress_output,
        model,
        runtime,
        PredictOptions(context.state.fetcher, options, context.call.is_active),
    )


def _run(
    context: Context, nodes: Sequence[_ReadyNode], item: v2.Input, result: v2.WorkflowResult
) -> None:
    """Runs all nodes on one input; the first failure is the result's."""
    made: dict[str, v2.Data] = {}
    croppers = {node.id for node in nodes if node.runtime.crops_regions}
    for node in nodes:
        data = v2.Data()
        data.CopyFrom(item.data)
        for source in node.sources:
            data.MergeFrom(made[source])
        output = v2.Output(id=new_id(), model=node.model, status=make_status(StatusCode.SUCCESS))
        output.created_at.GetCurrentTime()
        try:
            context.state.faults.fail_input(item.id, StatusCode.MODEL_PREDICTION_FAILED)
            crops = [made[source] for source in node.sources if source in croppers]
            if crops:
                made[node.id] = _of_crops(node, crops)
            else:
                made[node.id] = node.runtime.predict(data, node.options)
            output.data.CopyFrom(made[node.id])
        except ServiceError as error:
            output.status.CopyFrom(error.status())
        except BudgetFullError:
            raise  # concerns the call
        except Exception as error:
            # A model may be anybody's function: what it raises is its input's failure.
            _logger.exception("model %s failed", node.model.id)
            details = f"{type(error).__name__}: {error}"
            output.status.CopyFrom(make_status(StatusCode.MODEL_PREDICTION_FAILED, details))
        if not node.suppressed or output.status.code != StatusCode.SUCCESS:
            result.outputs.append(output)
        if output.status.code != StatusCode.SUCCESS:
            result.status.CopyFrom(output.status)
            return
    result.suppress_output = bool(nodes) and all(node.suppressed for node in nodes)
    result.status.CopyFrom(make_status(StatusCode.SUCCESS))


def _of_crops(node: _ReadyNode, crops: Sequence[v2.Data]) -> v2.Data:
    """What a node says of each image that nodes before it cropped, in regions."""
    result = v2.Data()
    for region in (region for data in crops for region in data.regions):
        made = result.regions.add(id=region.id, value=region.value, region_info=region.region_info)
        made.data.CopyFrom(node.runtime.predict(region.data, node.options))
    return result


def _results(
    context: Context, nodes: Sequence[_ReadyNode], inputs: Sequence[v2.Input]
) -> list[v2.WorkflowResult]:
    results = []
    for item in inputs:
        item.id = item.id or new_id()
        result = v2.WorkflowResult(id=new_id())
        result.created_at.GetCurrentTime()
        result.input.id = item.id
        for kind in ("image", "video", "audio", "text"):
            url = getattr(item.data, kind).url
            if url:
                getattr(result.input.data, kind).url = url
        _run(context, nodes, item, result)
        results.append(result)
    return results


def _check_count(count: int, what: str) -> None:
    if count == 0:
        raise ServiceError(StatusCode.PREDICT_INVALID_REQUEST, f"the request has no {what}")
    if count > MAX_ITEMS:
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            f"the request has {count} {what}; the maximum is {MAX_ITEMS}",
        )


def post_workflow_results(
    context: Context, request: v2.PostWorkflowResultsRequest
) -> v2.PostWorkflowResultsResponse:
    if request.HasField("workflow_state"):
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED, "the local server does not support workflow_state"
        )
    workflow, nodes = _plan(context, request, request.output_config)
    _check_count(len(request.inputs), "inputs")
    results = _results(context, nodes, request.inputs)
    return v2.PostWorkflowResultsResponse(
        status=overall(result.status for result in results), workflow=workflow, results=results
    )


def post_similarity(
    context: Context, request: v2.PostWorkflowResultsSimilarityRequest
) -> v2.PostWorkflowResultsSimilarityResponse:
    """How much probes look like the inputs of a pool, by the workflow's embedding model."""
    _, nodes = _plan(context, request, v2.OutputConfig())
    _check_count(len(request.probe_inputs), "probe inputs")
    _check_count(len(request.pool_inputs), "pool inputs")
    probes, pool = (
        _vectors(context, nodes, inputs, request.model_version_id)
        for inputs in (request.probe_inputs, request.pool_inputs)
    )
    rows = np.stack(pool)
    response = v2.PostWorkflowResultsSimilarityResponse(status=make_status(StatusCode.SUCCESS))
    for probe, vector in zip(request.probe_inputs, probes, strict=True):
        entry = response.results.add()
        entry.probe_input.id = probe.id
        hits = [
            v2.Hit(score=score, input=v2.Input(id=item.id))
            for item, score in zip(
                request.pool_inputs, similarities(rows, vector).tolist(), strict=True
            )
        ]
        entry.pool_results.extend(sorted(hits, key=lambda hit: -hit.score))
    return response


def _vectors(
    context: Context, nodes: Sequence[_ReadyNode], inputs: Sequence[v2.Input], version_id: str
) -> list[Any]:
    vectors = []
    for result in _results(context, nodes, inputs):
        if result.status.code != StatusCode.SUCCESS:
            raise ServiceError(
                result.status.code, f"input {result.input.id!r}: {result.status.details}"
            )
        found = [
            output.data.embeddings[0].vector
            for output in result.outputs
            if output.data.embeddings and version_id in ("", output.model.model_version.id)
        ]
        if not found:
            raise ServiceError(
                StatusCode.WORKFLOW_INVALID_REQUEST, "the workflow has no such embedding model"
            )
        vectors.append(np.asarray(found[0], np.float32))
    return vectors


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostWorkflowResults": post_workflow_results,
    "PostWorkflowResultsSimilarity": post_similarity,
}
