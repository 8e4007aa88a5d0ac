"""Workflows: graphs, versions, results."""

from __future__ import annotations

from typing import Any

import pytest

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, ok, png

Code = v2.StatusCode


def workflow(*nodes: tuple[str, str, list[str]], **fields: Any) -> v2.PostWorkflowsRequest:
    request = v2.PostWorkflowsRequest()
    made = request.workflows.add(id="w", **fields)
    for name, model, sources in nodes:
        node = made.nodes.add(id=name)
        node.model.id, node.model.user_id, node.model.app_id = model, "clarifai", "main"
        for source in sources:
            node.node_inputs.add(node_id=source)
    return request


def test_workflows_run(raw: Raw) -> None:
    request = workflow(
        ("colours", "color-recognition", []), ("vector", "image-embedding", ["colours"])
    )
    made = ok(raw("PostWorkflows", request)).workflows[0]
    assert made.version.id
    run = v2.PostWorkflowResultsRequest(workflow_id="w")
    run.inputs.add(id="good").data.image.base64 = png("red")
    run.inputs.add(id="bad").data.image.base64 = b"no image"
    run.output_config.max_concepts = 1
    response = raw("PostWorkflowResults", run)
    assert response.status.code == Code.MIXED_STATUS
    assert response.workflow.version.id == made.version.id
    good, bad = response.results
    assert [output.model.id for output in good.outputs] == ["color-recognition", "image-embedding"]
    assert [c.name for c in good.outputs[0].data.concepts] == ["Red"]
    assert len(good.outputs[1].data.embeddings[0].vector) == 176
    assert bad.status.code == Code.INPUT_UNSUPPORTED_FORMAT
    similar = v2.PostWorkflowResultsSimilarityRequest(workflow_id="w")
    similar.probe_inputs.add(id="probe").data.image.base64 = png("red")
    for colour in ("blue", "red"):
        similar.pool_inputs.add(id=colour).data.image.base64 = png(colour)
    (result,) = ok(raw("PostWorkflowResultsSimilarity", similar)).results
    assert [hit.input.id for hit in result.pool_results] == ["red", "blue"]


def test_versions_of_workflows(raw: Raw) -> None:
    first = ok(raw("PostWorkflows", workflow(("a", "color-recognition", [])))).workflows[0]
    patch = v2.PatchWorkflowsRequest(action="overwrite")
    patch.workflows.append(workflow(("b", "image-embedding", [])).workflows[0])
    second = ok(raw("PatchWorkflows", patch)).workflows[0]
    assert [node.id for node in second.nodes] == ["b"]
    assert first.version.id != second.version.id
    described = v2.PatchWorkflowsRequest(action="overwrite")
    described.workflows.add(id="w", description="new")
    third = ok(raw("PatchWorkflows", described)).workflows[0]
    assert (third.version.id, third.description) == (second.version.id, "new")
    publish = v2.PostWorkflowVersionsPublishRequest(workflow_id="w")
    publish.publications.add(version_id=first.version.id)
    ok(raw("PostWorkflowVersionsPublish", publish))
    listing = v2.ListWorkflowVersionsRequest(workflow_id="w")
    versions = ok(raw("ListWorkflowVersions", listing)).workflow_versions
    assert [v.visibility.gettable for v in versions] == [
        v2.Visibility.PRIVATE,
        v2.Visibility.PUBLIC,
    ]
    ids = v2.PatchWorkflowIdsRequest(action="overwrite")
    ids.ids.add(id="w", new_id="x")
    assert ok(raw("PatchWorkflowIds", ids)).workflows[0].version.workflow_id == "x"
    run = v2.PostWorkflowResultsRequest(workflow_id="x", version_id=first.version.id)
    run.inputs.add().data.image.base64 = png("red")
    assert ok(raw("PostWorkflowResults", run)).results[0].outputs[0].data.colors


def test_a_node_without_a_version_shows_the_newest(raw: Raw) -> None:
    def add_version() -> str:
        request = v2.PostModelVersionsRequest(model_id="m")
        request.model_versions.add().pretrained_model_config.local_dev = True
        return str(ok(raw("PostModelVersions", request)).model.model_version.id)

    def shown() -> list[str]:
        found = ok(raw("GetWorkflow", v2.GetWorkflowRequest(workflow_id="w"))).workflow
        assert list(found.nodes) == list(found.version.nodes)
        return [node.model.model_version.id for node in found.nodes]

    ok(
        raw(
            "PostModels",
            v2.PostModelsRequest(models=[v2.Model(id="m", model_type_id="any-to-any")]),
        )
    )
    first = add_version()
    request = v2.PostWorkflowsRequest()
    graph = request.workflows.add(id="w")
    graph.nodes.add(id="named").model.CopyFrom(
        v2.Model(id="m", model_version=v2.ModelVersion(id=first))
    )
    graph.nodes.add(id="newest").model.id = "m"
    posted = ok(raw("PostWorkflows", request)).workflows[0]
    assert [node.model.model_version.id for node in posted.nodes] == [first, first]
    second = add_version()
    assert shown() == [first, second]
    merge = v2.PatchWorkflowsRequest(action="merge")
    merge.workflows.add(id="w").nodes.add(id="named").model.CopyFrom(graph.nodes[0].model)
    ok(raw("PatchWorkflows", merge))
    third = add_version()
    assert shown() == [first, third]  # the patch left the other node to the newest
    ok(raw("DeleteModel", v2.DeleteModelRequest(model_id="m")))
    assert shown() == [first, ""]


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [("a", "color-recognition", ["b"]), ("b", "color-recognition", ["a"])],
        [("a", "color-recognition", ["none"])],
        [("a", "color-recognition", []), ("a", "color-recognition", [])],
    ],
)
def test_graphs_that_cannot_be(raw: Raw, nodes: list[Any]) -> None:
    assert raw("PostWorkflows", workflow(*nodes)).status.code == Code.WORKFLOW_INVALID_GRAPH


def test_unknown_models_in_a_workflow(raw: Raw) -> None:
    request = workflow(("a", "none", []))
    assert raw("PostWorkflows", request).status.code == Code.MODEL_DOES_NOT_EXIST
