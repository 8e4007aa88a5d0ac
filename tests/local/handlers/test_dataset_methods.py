"""Datasets: their inputs, versions and exports."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import httpx

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, add_image, message, ok
from tests.waiting import until

Code = v2.StatusCode
Format = v2.DatasetVersionExportFormat


def test_datasets_versions_and_exports(serve: Callable[..., Raw]) -> None:
    raw = serve(rest_port=0)
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    add_image(raw, "i", "red", "blue", concepts=[{"id": "cat", "value": 1}], metadata={"k": 1})
    add_image(raw, "j")
    join = v2.PostDatasetInputsRequest(dataset_id="d")
    for name in ("i", "j", "none"):
        join.dataset_inputs.add().input.id = name
    response = raw("PostDatasetInputs", join)
    assert response.status.code == Code.MIXED_STATUS
    assert ok(raw("GetInput", v2.GetInputRequest(input_id="i"))).input.dataset_ids == ["d"]
    box = {"bounding_box": {"top_row": 0, "left_col": 0.5, "bottom_row": 0.5, "right_col": 1}}
    region = {"region_info": box, "data": {"concepts": [{"id": "dog", "value": 1}]}}
    request = v2.PostAnnotationsRequest()
    request.annotations.append(message(v2.Annotation, input_id="i", data={"regions": [region]}))
    ok(raw("PostAnnotations", request))
    versions = v2.PostDatasetVersionsRequest(dataset_id="d")
    versions.dataset_versions.add(id="v")
    filtered = versions.dataset_versions.add(id="dogs")
    condition = filtered.annotation_filter_config.annotation_filter.search.query.filters.add()
    condition.annotation.data.concepts.add(id="dog", value=1)
    made = ok(raw("PostDatasetVersions", versions)).dataset_versions
    assert {version.status.code for version in made} == {Code.DATASET_VERSION_PENDING}
    asked_early = v2.ListDatasetVersionMetricsGroupsRequest(
        dataset_id="d", dataset_version_id="dogs"
    )
    ok(raw("ListDatasetVersionMetricsGroups", asked_early))

    def ready(name: str) -> Any:
        get = v2.GetDatasetVersionRequest(dataset_id="d", dataset_version_id=name)
        version = ok(raw("GetDatasetVersion", get)).dataset_version
        return version if version.status.code == Code.DATASET_VERSION_READY else None

    numbers = until(lambda: ready("v")).metrics["/"]
    assert (numbers.inputs_count.value, numbers.unlabeled_inputs_count.value) == (2, 1)
    assert (numbers.bounding_boxes_count.value, numbers.inputs_with_metadata_count.value) == (1, 1)
    assert until(lambda: ready("dogs")).metrics["/"].inputs_count.value == 1
    # What happens later does not concern a version.
    ok(raw("DeleteDatasetInputs", v2.DeleteDatasetInputsRequest(dataset_id="d", input_ids=["j"])))
    groups = v2.ListDatasetVersionMetricsGroupsRequest(
        dataset_id="d", dataset_version_id="v", types=[v2.DatasetVersionMetricsGroupType.CONCEPT_ID]
    )
    found = ok(raw("ListDatasetVersionMetricsGroups", groups)).dataset_version_metrics_groups
    assert [(g.value.string_value, g.metrics.inputs_count.value) for g in found] == [
        ("cat", 1),
        ("dog", 1),
    ]
    exports = v2.PutDatasetVersionExportsRequest(dataset_id="d", dataset_version_id="v")
    for form in (Format.COCO, Format.CLARIFAI_DATA_JSON, Format.CLARIFAI_DATA_PROTOBUF):
        exports.exports.add(format=form)
    ok(raw("PutDatasetVersionExports", exports))

    def exported() -> Any:
        info = ready("v").export_info
        every = (info.coco, info.clarifai_data_json, info.clarifai_data_protobuf)
        return every if all(one.url for one in every) else None

    urls = [one.url for one in until(exported)]
    coco, as_json, as_protobuf = (
        zipfile.ZipFile(io.BytesIO(httpx.get(url).raise_for_status().content)) for url in urls
    )
    layout = json.loads(coco.read("annotations.json"))
    assert layout["annotations"][0]["bbox"] == [40.0, 0.0, 40.0, 20.0]
    assert [c["name"] for c in layout["categories"]] == ["dog"]
    # The layout that DatasetExportReader of the published SDK reads.
    assert as_json.namelist() == as_protobuf.namelist() == ["mimetype", "all/000000_n2"]
    assert as_json.read("mimetype") == b"application/x.clarifai-data+json"
    assert as_protobuf.read("mimetype") == b"application/x.clarifai-data+protobuf"
    batch = json.loads(as_json.read("all/000000_n2"))
    assert {i["id"] for i in batch["inputs"]} == {"i", "j"}
    inputs = v2.InputBatch.FromString(as_protobuf.read("all/000000_n2")).inputs
    assert {item.id for item in inputs} == {"i", "j"}
    assert [r.data.concepts[0].id for item in inputs for r in item.data.regions] == ["dog"]
    # The published SDK repeats the request until it has the address.
    again = ok(raw("PutDatasetVersionExports", exports)).exports
    assert [one.url for one in again] == urls
    other = v2.DeleteDatasetVersionsRequest(dataset_id="d", dataset_version_ids=["dogs"])
    ok(raw("DeleteDatasetVersions", other))
    assert {httpx.get(url).status_code for url in urls} == {200}
    ok(raw("DeleteDatasets", v2.DeleteDatasetsRequest(dataset_ids=["d"])))
    assert {httpx.get(url).status_code for url in urls} == {404}
    assert not ok(raw("GetInput", v2.GetInputRequest(input_id="i"))).input.dataset_ids
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    listing = v2.ListDatasetInputsRequest(dataset_id="d")
    assert not ok(raw("ListDatasetInputs", listing)).dataset_inputs
    strange = httpx.get(f"{raw.server.rest_base}/downloads/../clarigrpc.sqlite")
    assert strange.status_code == 404


def test_a_large_dataset_goes_and_its_inputs_stay(raw: Raw) -> None:
    datasets = [v2.Dataset(id="d"), v2.Dataset(id="e")]
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=datasets)))
    request = v2.PostInputsRequest()
    for _ in range(128):
        request.inputs.add(dataset_ids=["d", "e"]).data.text.raw = "x"
    for _ in range(3):
        ok(raw("PostInputs", request))
    ok(raw("DeleteDatasets", v2.DeleteDatasetsRequest(dataset_ids=["d"])))
    listing = v2.StreamInputsRequest(per_page=1000)
    left = ok(raw("StreamInputs", listing)).inputs
    assert [list(item.dataset_ids) for item in left] == [["e"]] * 384


def test_inputs_name_datasets_that_exist(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(dataset_ids=["none"]).data.text.raw = "x"
    response = raw("PostInputs", request)
    assert response.inputs[0].status.code == Code.INPUT_INVALID_ARGUMENT


def test_the_groups_of_an_empty_version(raw: Raw) -> None:
    """The published SDK waits for them."""
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="empty")])))
    versions = v2.PostDatasetVersionsRequest(dataset_id="empty")
    versions.dataset_versions.add(id="v")
    ok(raw("PostDatasetVersions", versions))
    get = v2.GetDatasetVersionRequest(dataset_id="empty", dataset_version_id="v")
    until(
        lambda: (
            ok(raw("GetDatasetVersion", get)).dataset_version.status.code
            == Code.DATASET_VERSION_READY
        )
    )
    groups = v2.ListDatasetVersionMetricsGroupsRequest(dataset_id="empty", dataset_version_id="v")
    found = ok(raw("ListDatasetVersionMetricsGroups", groups)).dataset_version_metrics_groups
    assert {group.type for group in found} == {v2.DatasetVersionMetricsGroupType.INPUT_TYPE}
    counts = {group.value.string_value: group.metrics.inputs_count for group in found}
    assert counts.keys() == {"image", "video", "audio", "text", "total"}
    assert {group.metrics.HasField("inputs_count") for group in found} == {True}
    assert {count.value for count in counts.values()} == {0}
