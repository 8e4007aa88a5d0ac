"""Annotations: added, listed, patched, deleted, counted by task."""

from __future__ import annotations

from typing import Any

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, add_image, gone, message, ok
from tests.local.library import library as library

Code = v2.StatusCode


def test_annotations(raw: Raw) -> None:
    add_image(raw, "i")
    request = v2.PostAnnotationsRequest()
    request.annotations.append(
        message(v2.Annotation, id="a", input_id="i", data={"concepts": [{"id": "cat", "value": 1}]})
    )
    request.annotations.add(id="b", input_id="none")
    response = raw("PostAnnotations", request)
    assert response.status.code == Code.MIXED_STATUS
    first, second = response.annotations
    assert (first.status.code, first.user_id) == (Code.ANNOTATION_SUCCESS, raw.server.user_id)
    assert (first.data.concepts[0].name, first.data.concepts[0].app_id) == ("cat", "local-app")
    assert second.status.code == Code.INPUT_DOES_NOT_EXIST
    listing = v2.ListAnnotationsRequest(input_ids=["i"])
    assert [a.id for a in ok(raw("ListAnnotations", listing)).annotations] == ["a"]
    patch = v2.PatchAnnotationsRequest(action="remove", delete_if_empty_data=True)
    patch.annotations.append(message(v2.Annotation, id="a", data={"concepts": [{"id": "cat"}]}))
    ok(raw("PatchAnnotations", patch))
    assert not ok(raw("ListAnnotations", listing)).annotations
    del request.annotations[1]
    ok(raw("PostAnnotations", request))
    wrong = v2.DeleteAnnotationRequest(input_id="other", annotation_id="a")
    assert raw("DeleteAnnotation", wrong).status.code == Code.CONN_DOES_NOT_EXIST
    ok(raw("DeleteInput", v2.DeleteInputRequest(input_id="i")))
    gone(raw, "i")
    assert not ok(raw("ListAnnotations", listing)).annotations


def test_tasks_count_their_annotations(library: Raw) -> None:
    ok(library("PostTasks", v2.PostTasksRequest(tasks=[v2.Task(id="t", name="label")])))
    request = v2.PostAnnotationsRequest()
    for name in ("one", "two"):
        wanted = request.annotations.add(id=name, input_id="berlin", task_id="t")
        wanted.status.code = Code.ANNOTATION_PENDING
    ok(library("PostAnnotations", request))
    count = v2.GetTaskCountRequest(task_id="t")
    assert ok(library("GetTaskAnnotationCount", count)).counts[0].pending == 2
    assert ok(library("GetTaskInputCount", count)).counts[0].pending == 1
    status = v2.PatchAnnotationsStatusRequest(task_id="t", status_code=Code.ANNOTATION_SUCCESS)
    assert ok(library("PatchAnnotationsStatus", status)).updated_count == 2
    assert ok(library("GetTaskAnnotationCount", count)).counts[0].success == 2


def test_a_merge_replaces_the_region(raw: Raw) -> None:
    def region(edge: float, **fields: Any) -> dict[str, Any]:
        box = {"top_row": edge, "left_col": edge, "bottom_row": 0.9, "right_col": 0.9}
        return {"region_info": {"bounding_box": box}, **fields}

    add_image(raw, "i")
    request = v2.PostAnnotationsRequest()
    data = {"regions": [region(0.25)]}
    request.annotations.append(message(v2.Annotation, id="a", input_id="i", data=data))
    ok(raw("PostAnnotations", request))

    def patched(*regions: dict[str, Any]) -> list[float]:
        change = v2.PatchAnnotationsRequest(action="merge")
        fields = {"id": "a", "input_id": "i", "data": {"regions": list(regions)}}
        change.annotations.append(message(v2.Annotation, **fields))
        (found,) = ok(raw("PatchAnnotations", change)).annotations
        return [one.region_info.bounding_box.left_col for one in found.data.regions]

    # As in the tests of the published gRPC client; one with an id is another region.
    assert patched(region(0.5)) == [0.5]
    assert patched(region(0.75, id="other")) == [0.5, 0.75]
