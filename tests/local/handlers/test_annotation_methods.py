"""Annotations: added, listed, patched, deleted, counted by task."""

from __future__ import annotations

from typing import Any

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, add_image, gone, message, ok, settled
from tests.local.library import library as library

Code = v2.StatusCode
OWN = "input-level-i"
"""The id of the annotation that the input of these tests has of itself."""


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
    assert [a.id for a in ok(raw("ListAnnotations", listing)).annotations] == ["a", OWN]
    patch = v2.PatchAnnotationsRequest(action="remove", delete_if_empty_data=True)
    patch.annotations.append(message(v2.Annotation, id="a", data={"concepts": [{"id": "cat"}]}))
    ok(raw("PatchAnnotations", patch))
    assert [a.id for a in ok(raw("ListAnnotations", listing)).annotations] == [OWN]
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


def test_every_input_has_an_annotation_of_its_own(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    for input_id in ("i", "j"):
        data = {"text": {"raw": f"about {input_id}"}, "concepts": [{"id": "cat", "value": 1}]}
        request.inputs.append(message(v2.Input, id=input_id, data=data))
    added = ok(raw("PostInputs", request)).inputs[0]
    settled(raw, "i")  # which changes it
    listing = v2.ListAnnotationsRequest(input_ids=["i"])
    (own,) = ok(raw("ListAnnotations", listing)).annotations
    assert (own.input_id, own.input_level, own.user_id) == ("i", True, raw.server.user_id)
    assert (own.status.code, own.created_at) == (Code.ANNOTATION_SUCCESS, added.created_at)
    assert [(c.id, c.name, c.value) for c in own.data.concepts] == [("cat", "cat", 1)]
    one = v2.GetAnnotationRequest(input_id="i", annotation_id=own.id)
    assert ok(raw("GetAnnotation", one)).annotation == own
    by_id = v2.ListAnnotationsRequest(ids=[own.id])
    assert list(ok(raw("ListAnnotations", by_id)).annotations) == [own]
    # With those that were added it makes one list, the newest first.
    labels = v2.PostAnnotationsRequest(annotations=[v2.Annotation(id="a", input_id="i")])
    ok(raw("PostAnnotations", labels))
    pages = [
        ok(raw("ListAnnotations", v2.ListAnnotationsRequest(page=page, per_page=2))).annotations
        for page in (1, 2)
    ]
    assert [[found.id for found in page] for page in pages] == [["a", "input-level-j"], [own.id]]
    # Nothing of it was made by a model, or in a task.
    for narrow in ({"task_id": "t"}, {"model_version_ids": ["v"]}, {"user_ids": ["somebody"]}):
        narrowed = message(v2.ListAnnotationsRequest, **narrow)
        assert not ok(raw("ListAnnotations", narrowed)).annotations


def test_what_is_changed_in_an_input_s_own_annotation_is_changed_in_the_input(raw: Raw) -> None:
    add_image(raw, "i", concepts=[{"id": "cat", "value": 1}])
    info = ok(raw("GetInput", v2.GetInputRequest(input_id="i"))).input.data.image

    def patch(action: str, **fields: Any) -> Any:
        request = v2.PatchAnnotationsRequest(action=action)
        request.annotations.append(message(v2.Annotation, id=OWN, input_id="i", **fields))
        return raw("PatchAnnotations", request)

    def has() -> list[str]:
        item = ok(raw("GetInput", v2.GetInputRequest(input_id="i"))).input
        assert item.data.image == info
        return sorted(concept.id for concept in item.data.concepts)

    ok(patch("merge", data={"concepts": [{"id": "dog", "value": 1}], "metadata": {"k": 1}}))
    assert has() == ["cat", "dog"]
    ok(patch("remove", data={"concepts": [{"id": "cat"}]}))
    assert has() == ["dog"]
    change = v2.PatchInputsRequest(action="overwrite")
    concepts = [{"id": "cow", "value": 1}]
    change.inputs.append(message(v2.Input, id="i", data={"concepts": concepts}))
    ok(raw("PatchInputs", change))
    own = ok(
        raw("GetAnnotation", v2.GetAnnotationRequest(input_id="i", annotation_id=OWN))
    ).annotation
    assert [concept.id for concept in own.data.concepts] == has() == ["cow"]
    # It is neither reviewed nor deleted apart from its input, and no other one takes its id.
    refused = [
        patch("overwrite", status={"code": Code.ANNOTATION_PENDING}),
        patch("overwrite", data={"text": {"raw": "x"}}),
        raw("DeleteAnnotation", v2.DeleteAnnotationRequest(input_id="i", annotation_id=OWN)),
        raw(
            "PostAnnotations",
            v2.PostAnnotationsRequest(annotations=[v2.Annotation(id=OWN, input_id="i")]),
        ),
    ]
    assert {answer.status.code for answer in refused} == {Code.ANNOTATION_INVALID_ARGUMENT}
    ok(raw("DeleteAnnotations", v2.DeleteAnnotationsRequest(input_ids=["i"])))
    assert has() == ["cow"]
    ok(raw("DeleteInput", v2.DeleteInputRequest(input_id="i")))
    gone(raw, "i")
    code = raw(
        "GetAnnotation", v2.GetAnnotationRequest(input_id="i", annotation_id=OWN)
    ).status.code
    assert code == Code.CONN_DOES_NOT_EXIST


def test_searches_find_the_own_annotations_of_inputs(library: Raw) -> None:
    label = v2.PostAnnotationsRequest()
    cat = {"concepts": [{"id": "cat", "value": 1}]}
    label.annotations.append(message(v2.Annotation, id="a", input_id="nowhere", data=cat))
    ok(library("PostAnnotations", label))

    def found(**query: Any) -> list[tuple[str, str, float]]:
        request = v2.PostAnnotationsSearchesRequest()
        request.searches.append(message(v2.Search, query=query))
        hits = ok(library("PostAnnotationsSearches", request)).hits
        return [(hit.annotation.id, hit.input.id, round(hit.score, 3)) for hit in hits]

    of_cat = {"annotation": {"data": cat}}
    a, berlin = ("a", "nowhere", 1), ("input-level-berlin", "berlin", 1)
    assert found(filters=[of_cat]) == [a, berlin]
    assert found(filters=[{"annotation": {"id": berlin[0]}}]) == [berlin]
    owner = {"annotation": {"user_id": library.server.user_id}}
    assert found(filters=[of_cat, owner]) == [a, berlin]
    assert len(found()) == 4
    ranked = found(ranks=[of_cat])
    assert ranked[:2] == [a, berlin]
    assert {score for _, _, score in ranked[2:]} == {0}
