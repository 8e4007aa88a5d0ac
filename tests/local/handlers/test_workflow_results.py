"""Workflows: graphs, versions, results."""

from __future__ import annotations

import io
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.models.image_crop import ImageCrop
from clarigrpc.local.models.model_runtime import PredictOptions
from tests.local.both_fronts import front as front
from tests.local.conftest import PUBLIC, Raw, ok, png
from tests.local.pictures import encoded, photograph

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


# Crops


def _halves(**margin: float) -> tuple[v2.PostModelVersionsRequest, v2.PostModelOutputsRequest]:
    """A model that crops, and a request with a picture whose left half is red, its right blue."""
    version = v2.PostModelVersionsRequest(model_id="crop")
    version.model_versions.add().output_info.params.update(margin)
    request = v2.PostModelOutputsRequest(model_id="crop")
    data = request.inputs.add().data
    data.image.base64 = png("red", "blue", size=100)
    region = data.regions.add(id="right")
    box = region.region_info.bounding_box
    box.left_col, box.top_row, box.right_col, box.bottom_row = 0.6, 0.25, 0.8, 0.75
    return version, request


def test_a_model_crops_images(raw: Raw) -> None:
    ok(
        raw(
            "PostModels",
            v2.PostModelsRequest(models=[v2.Model(id="crop", model_type_id="image-crop")]),
        )
    )
    for margin, size in ((1.0, (40, 50)), (2.0, (80, 100)), (100.0, (200, 100))):
        version, request = _halves(margin=margin)
        ok(raw("PostModelVersions", version))
        (region,) = ok(raw("PostModelOutputs", request)).outputs[0].data.regions
        assert region.id == "right"
        with PIL.Image.open(io.BytesIO(region.data.image.base64)) as crop:
            assert (crop.format, crop.size) == ("PNG", size)
            assert crop.getpixel((size[0] - 1, 0)) == (0, 0, 255)
        box = region.region_info.bounding_box
        assert box.right_col - box.left_col == pytest.approx(size[0] / 200)
    version, request = _halves()
    ok(raw("PostModelVersions", version))
    request.inputs[0].data.ClearField("regions")
    assert not ok(raw("PostModelOutputs", request)).outputs[0].data.regions
    request.inputs[0].data.regions.add().region_info.bounding_box.left_col = 0.5
    assert not ok(raw("PostModelOutputs", request)).outputs[0].data.regions
    for margin in (0.0, -1.0, 101.0):
        version, _ = _halves(margin=margin)
        assert raw("PostModelVersions", version).status.code == Code.MODEL_INVALID_ARGUMENT


def test_crops_have_bounds(raw: Raw) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="margin-110-image-crop")
    data = request.inputs.add().data
    data.image.base64 = png("red", size=1200)
    for _ in range(8):
        box = data.regions.add().region_info.bounding_box
        box.right_col = box.bottom_row = 1
    assert raw("PostModelOutputs", request).outputs[0].status.code == Code.INPUT_OVER_LIMIT
    del data.regions[:1]
    regions = ok(raw("PostModelOutputs", request)).outputs[0].data.regions
    assert len(regions) == 7
    with PIL.Image.open(io.BytesIO(regions[0].data.image.base64)) as crop:
        assert max(crop.size) == 512


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1, 2, width=32) | st.floats(width=32), min_size=4, max_size=4),
    st.floats(0.1, 50),
)
def test_any_region_has_a_crop_inside_the_image_or_none(sides: list[float], margin: float) -> None:
    data = v2.Data(image=v2.Image(base64=png("red", size=30)))
    box = data.regions.add().region_info.bounding_box
    box.left_col, box.top_row, box.right_col, box.bottom_row = sides
    options = PredictOptions(Fetcher(), v2.OutputConfig())
    for region in ImageCrop(margin).predict(data, options).regions:
        made = region.region_info.bounding_box
        assert 0 <= made.left_col < made.right_col <= 1
        with PIL.Image.open(io.BytesIO(region.data.image.base64)) as crop:
            assert max(crop.size) <= 30


def test_nodes_after_a_cropper_look_at_each_crop(raw: Raw) -> None:
    request = workflow(
        ("faces", "face-detection", []),
        ("crops", "margin-110-image-crop", ["faces"]),
        ("colours", "color-recognition", ["crops"]),
    )
    ok(raw("PostWorkflows", request))
    run = v2.PostWorkflowResultsRequest(workflow_id="w")
    run.inputs.add(id="person").data.image.base64 = encoded(photograph("astronaut"), "JPEG")
    run.inputs.add(id="nobody").data.image.base64 = png("red")
    person, nobody = ok(raw("PostWorkflowResults", run)).results
    faces, crops, colours = (output.data for output in person.outputs)
    (face,), (crop,), (looked,) = faces.regions, crops.regions, colours.regions
    assert face.id == crop.id == looked.id
    assert looked.region_info == crop.region_info
    assert looked.data.concepts
    assert not colours.concepts
    assert not any(output.data.ListFields() for output in nobody.outputs)


def test_clusters_need_embeddings(raw: Raw) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="general-clusterering")
    for vector in ([1.0, 0.0, 0.5], [2.0, 0.0, 1.0], [-1.0, 0.0, -0.5]):
        request.inputs.add().data.embeddings.add(vector=vector)
    first, longer, opposite = (
        output.data.clusters[0].id for output in ok(raw("PostModelOutputs", request)).outputs
    )
    assert first == longer != opposite
    request.inputs.add().data.image.base64 = png("red")
    assert raw("PostModelOutputs", request).outputs[3].status.code == Code.INPUT_INVALID_ARGUMENT
