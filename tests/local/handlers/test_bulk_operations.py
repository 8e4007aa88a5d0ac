"""Bulk operations, and copies of apps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, message, ok
from tests.local.handlers.test_search_methods import concept
from tests.local.library import library as library
from tests.waiting import until

Code = v2.StatusCode


def duplicated(raw: Raw, source: v2.UserAppIDSet, name: str, **filter: bool) -> v2.AppDuplication:
    """The finished copy of an app."""
    request = v2.PostAppDuplicationsRequest()
    request.user_app_id.CopyFrom(source)
    request.app_duplications.add().destination_app.id = name
    json_format.ParseDict(filter, request.app_duplications[0].filter)
    job = ok(raw("PostAppDuplications", request)).app_duplications[0]
    assert job.status.code == Code.APP_DUPLICATION_PENDING
    get = v2.GetAppDuplicationRequest(app_duplication_id=job.id)

    def look() -> v2.AppDuplication | None:
        found: v2.AppDuplication = ok(raw("GetAppDuplication", get)).app_duplication
        return found if found.status.code == Code.APP_DUPLICATION_SUCCESS else None

    done: v2.AppDuplication = until(look)
    return done


def test_copies_of_apps(library: Raw) -> None:
    source = v2.UserAppIDSet(app_id=library.server.app_id)
    ok(library("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    join = v2.PostDatasetInputsRequest(dataset_id="d")
    join.dataset_inputs.add().input.id = "berlin"
    ok(library("PostDatasetInputs", join))
    ok(library("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")])))
    label = message(v2.Annotation, id="a", input_id="berlin", data={"concepts": [{"id": "x"}]})
    ok(library("PostAnnotations", v2.PostAnnotationsRequest(annotations=[label])))
    done = duplicated(library, source, "all")
    progress = {entry.field: entry.value for entry in done.progress}
    assert (progress["copy_inputs"], progress["copy_models"]) == (3, 1)
    there = v2.UserAppIDSet(user_id="me", app_id="all")
    item = ok(library("GetInput", v2.GetInputRequest(user_app_id=there, input_id="berlin"))).input
    assert {concept.app_id for concept in item.data.concepts} == {"all"}
    model = ok(library("GetModel", v2.GetModelRequest(user_app_id=there, model_id="m"))).model
    assert model.app_id == "all"
    members = v2.ListDatasetInputsRequest(user_app_id=there, dataset_id="d")
    found = ok(library("ListDatasetInputs", members)).dataset_inputs
    assert [entry.input.id for entry in found] == ["berlin"]
    # It is found by what it is labelled with and by its looks, as in the first app.
    for query in (
        {"filters": [concept("x", 0)]},
        {"ranks": [{"annotation": {"input_id": "paris"}}]},
    ):
        request = v2.PostInputsSearchesRequest()
        json_format.ParseDict(query, request.searches.add().query)
        here = ok(library("PostInputsSearches", request)).hits
        request.user_app_id.CopyFrom(there)
        copied = ok(library("PostInputsSearches", request)).hits
        assert [hit.input.id for hit in copied] == [hit.input.id for hit in here]
        assert copied
    # A change of the copy leaves the first one alone.
    ok(library("DeleteInput", v2.DeleteInputRequest(user_app_id=there, input_id="berlin")))
    ok(library("GetInput", v2.GetInputRequest(input_id="berlin")))


def test_copies_of_parts_of_apps(library: Raw) -> None:
    source = v2.UserAppIDSet(app_id=library.server.app_id)
    label = message(v2.Annotation, id="a", input_id="berlin", data={})
    ok(library("PostAnnotations", v2.PostAnnotationsRequest(annotations=[label])))
    done = duplicated(library, source, "labels", copy_annotations=True)
    assert [entry.field for entry in done.progress] == ["copy_annotations"]
    there = v2.UserAppIDSet(user_id="me", app_id="labels")
    # An annotation of an input that is not there would hang in the air.
    listing = v2.ListAnnotationsRequest(user_app_id=there)
    assert not ok(library("ListAnnotations", listing)).annotations
    assert not ok(library("ListInputs", v2.ListInputsRequest(user_app_id=there))).inputs
    duplicated(library, source, "labels", copy_inputs=True, copy_annotations=True)
    labels = ok(library("ListAnnotations", listing)).annotations
    assert [one.id for one in labels if not one.input_level] == ["a"]
    # What labels name comes along.
    (cat,) = next(
        one for one in labels if one.input_id == "berlin" and one.input_level
    ).data.concepts
    assert (cat.id, cat.app_id) == ("cat", "labels")
    concepts = ok(library("ListConcepts", v2.ListConceptsRequest(user_app_id=there))).concepts
    assert {one.id for one in concepts} == {"cat", "dog"}


@pytest.mark.parametrize(
    ("operation", "check"),
    [
        (
            {"add_concepts": {"concepts": [{"id": "new", "value": 1}]}},
            lambda item: item.data.concepts[-1].id == "new",
        ),
        (
            {"delete_concepts": {"concepts": [{"id": "cat"}]}},
            lambda item: "cat" not in {c.id for c in item.data.concepts},
        ),
        ({"add_metadata": {"metadata": {"x": 1}}}, lambda item: item.data.metadata["x"] == 1),
        ({"delete_geo": {}}, lambda item: not item.data.HasField("geo")),
        ({"add_to_dataset": {"dataset_id": "d"}}, lambda item: item.dataset_ids == ["d"]),
        (
            {
                "split_into_datasets": {
                    "dataset_splits": [{"dataset": {"id": "d"}, "percentage": 100}]
                }
            },
            lambda item: item.dataset_ids == ["d"],
        ),
    ],
)
def test_bulk_operations(library: Raw, operation: Any, check: Callable[[Any], bool]) -> None:
    ok(library("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    request = v2.PostBulkOperationsRequest()
    request.bulk_operations.append(
        message(v2.BulkOperation, search={"query": {}}, operation=operation)
    )
    job = ok(library("PostBulkOperations", request)).bulk_operation[0]
    get = v2.GetBulkOperationRequest(id=job.id)
    until(
        lambda: (
            library("GetBulkOperation", get).bulk_operation.status.code
            == Code.BULK_OPERATION_SUCCESS
        )
    )
    assert library("GetBulkOperation", get).bulk_operation.progress.processed == 3
    for name in ("berlin", "paris", "nowhere"):
        assert check(ok(library("GetInput", v2.GetInputRequest(input_id=name))).input)


def test_annotations_are_deleted_in_bulk(library: Raw) -> None:
    def labels() -> set[str]:
        listing = v2.ListAnnotationsRequest()
        found = ok(library("ListAnnotations", listing)).annotations
        assert sum(one.input_level for one in found) == 3  # they stay
        return {one.id for one in found if not one.input_level}

    def operate(**source: Any) -> v2.Status:
        request = v2.PostBulkOperationsRequest()
        operation: dict[str, Any] = {"delete_annotations": {}}
        request.bulk_operations.append(message(v2.BulkOperation, operation=operation, **source))
        response = library("PostBulkOperations", request)
        if response.status.code == Code.SUCCESS:
            get = v2.GetBulkOperationRequest(id=response.bulk_operation[0].id)
            until(
                lambda: (
                    library("GetBulkOperation", get).bulk_operation.status.code
                    == Code.BULK_OPERATION_SUCCESS
                )
            )
        return response.status  # type: ignore[no-any-return]

    request = v2.PostAnnotationsRequest()
    for name, input_id in (("a", "berlin"), ("b", "berlin"), ("c", "paris")):
        concept = "cow" if name == "a" else "hen"
        data = {"concepts": [{"id": concept, "value": 1}]}
        request.annotations.append(message(v2.Annotation, id=name, input_id=input_id, data=data))
    ok(library("PostAnnotations", request))
    cow = {"annotation": {"data": {"concepts": [{"id": "cow", "value": 1}]}}}
    operate(annotation_search={"query": {"filters": [cow]}})
    assert labels() == {"b", "c"}
    operate(input_ids={"input_ids": ["paris"]})
    assert labels() == {"b"}
    operate(annotation_search={"query": {}})
    assert labels() == set()
    two = {"annotation_search": {"query": {}}, "input_ids": {"input_ids": ["paris"]}}
    for wrong in ({}, two):
        assert operate(**wrong).code == Code.BULK_OPERATION_INVALID_REQUEST
