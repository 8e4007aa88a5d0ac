"""What the domains do beside storing: keys, annotations, datasets, searches, workflows, bulk."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from google.protobuf import json_format

from clarigrpc import v2
from tests.local.conftest import PUBLIC, Raw, gone, png, settled

Code = v2.StatusCode


@pytest.fixture(params=["grpc", "rest"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test runs over both fronts."""
    return str(request.param)


Format = v2.DatasetVersionExportFormat


def until(check: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true result."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = check()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def message(cls: Any, **fields: Any) -> Any:
    return json_format.ParseDict(fields, cls())


def ok(response: Any) -> Any:
    assert response.status.code == Code.SUCCESS, response.status
    return response


def add(raw: Raw, input_id: str, *colours: str, **data: Any) -> None:
    request = v2.PostInputsRequest()
    item = request.inputs.add(id=input_id, data=message(v2.Data, **data))
    item.data.image.base64 = png(*colours or ("red",))
    ok(raw("PostInputs", request))
    settled(raw, input_id)


# Keys, collaborators, apps


def key(raw: Raw, **fields: Any) -> v2.Key:
    request = v2.PostKeysRequest(keys=[message(v2.Key, **fields)])
    made: v2.Key = ok(raw("PostKeys", request)).keys[0]
    return made


def test_keys_do_what_their_scopes_say(raw: Raw) -> None:
    app = {"id": raw.server.app_id}
    scopes = ["Inputs:Get", "Annotations_Get", "Concepts_Get", "Apps_Get"]
    made = key(raw, scopes=scopes, apps=[app])
    assert made.scopes[0] == "Inputs_Get"
    reader = raw.with_key(made.id)
    ok(reader("ListInputs", v2.ListInputsRequest()))
    request = v2.PostInputsRequest()
    request.inputs.add().data.text.raw = "x"
    assert reader("PostInputs", request).status.code == Code.CONN_INSUFFICIENT_SCOPES
    mine = ok(reader("MyScopes", v2.MyScopesRequest()))
    assert sorted(mine.scopes) == sorted(made.scopes)
    assert mine.app.id == raw.server.app_id
    change = v2.PatchKeysRequest(keys=[v2.Key(id=made.id, scopes=["All"])], action="merge")
    ok(raw("PatchKeys", change))
    ok(reader("PostInputs", request))
    ok(raw("DeleteKey", v2.DeleteKeyRequest(key_id=made.id)))
    assert reader("ListInputs", v2.ListInputsRequest()).status.code == Code.CONN_KEY_NOT_FOUND


def test_endpoints_and_expiry_of_keys(raw: Raw) -> None:
    app = {"id": raw.server.app_id}
    one = key(raw, endpoints=["/clarifai.api.V2/GetInputCount"], apps=[app])
    caller = raw.with_key(one.id)
    ok(caller("GetInputCount", v2.GetInputCountRequest()))
    refused = caller("ListInputs", v2.ListInputsRequest())
    assert refused.status.code == Code.CONN_INSUFFICIENT_SCOPES
    past = key(raw, scopes=["All"], apps=[app], expires_at="2020-01-01T00:00:00Z")
    expired = raw.with_key(past.id)
    assert expired("ListInputs", v2.ListInputsRequest()).status.code == Code.CONN_KEY_INVALID
    listed = ok(raw("ListKeys", v2.ListKeysRequest(not_expired=True))).keys
    assert past.id not in {found.id for found in listed}
    assert {raw.server.pat, raw.server.api_key} <= {found.id for found in listed}


@pytest.mark.parametrize(
    "fields",
    [
        {"scopes": ["Nonsense"], "apps": [{"id": "local-app"}]},
        {"scopes": ["Inputs_Add"], "apps": [{"id": "local-app"}]},
        {"scopes": ["All"]},
        {"scopes": ["All"], "type": "other"},
        {"apps": [{"id": "local-app"}]},
    ],
)
def test_keys_that_cannot_be(raw: Raw, fields: dict[str, Any]) -> None:
    request = v2.PostKeysRequest(keys=[message(v2.Key, **fields)])
    assert raw("PostKeys", request).status.code == Code.CONN_INVALID_REQUEST


def test_collaborators(serve: Callable[..., Raw]) -> None:
    users = [
        {"id": "a", "apps": [{"id": "shared"}]},
        {"id": "b", "primary_email": "b@c", "pat": "b-pat"},
    ]
    raw = serve(config={"users": users})
    other = raw.with_key("b-pat")
    there = v2.UserAppIDSet(user_id="a", app_id="shared")
    listing = v2.ListDatasetsRequest(user_app_id=there)
    assert other("ListDatasets", listing).status.code == Code.CONN_DOES_NOT_EXIST
    request = v2.PostCollaboratorsRequest()
    entry = request.collaborators.add(scopes=["Apps_Get", "Datasets_Get"])
    entry.user.primary_email = "b@c"
    made = ok(raw("PostCollaborators", request)).collaborators[0]
    assert (made.user.id, made.app.id) == ("b", "shared")
    ok(other("ListDatasets", listing))
    shared = ok(other("ListCollaborations", v2.ListCollaborationsRequest())).collaborations
    assert [(c.app.id, c.app_owner.id) for c in shared] == [("shared", "a")]
    write = v2.PostDatasetsRequest(user_app_id=there, datasets=[v2.Dataset(id="d")])
    assert other("PostDatasets", write).status.code == Code.CONN_INSUFFICIENT_SCOPES
    ok(raw("DeleteCollaborators", v2.DeleteCollaboratorsRequest(user_emails=["b@c"])))
    assert other("ListDatasets", listing).status.code == Code.CONN_DOES_NOT_EXIST


def test_apps_rename_and_delete(raw: Raw) -> None:
    ok(raw("PostApps", v2.PostAppsRequest(apps=[v2.App(id="one")])))
    one, two = (v2.UserAppIDSet(user_id="me", app_id=name) for name in ("one", "two"))
    ok(raw("PostDatasets", v2.PostDatasetsRequest(user_app_id=one, datasets=[v2.Dataset(id="d")])))
    request = v2.PostInputsRequest(user_app_id=one)
    request.inputs.add(id="i", dataset_ids=["d"]).data.text.raw = "x"
    ok(raw("PostInputs", request))
    ids = v2.PatchAppsIdsRequest(action="overwrite")
    ids.ids.add(id="one", new_id="two")
    assert ok(raw("PatchAppsIds", ids)).apps[0].id == "two"
    dataset = ok(raw("GetDataset", v2.GetDatasetRequest(user_app_id=two, dataset_id="d"))).dataset
    assert dataset.app_id == "two"
    missing = raw("GetDataset", v2.GetDatasetRequest(user_app_id=one, dataset_id="d"))
    assert missing.status.code == Code.CONN_DOES_NOT_EXIST
    ok(raw("DeleteApp", v2.DeleteAppRequest(user_app_id=two)))
    ok(raw("PostApps", v2.PostAppsRequest(apps=[v2.App(id="two")])))
    assert not ok(raw("ListInputs", v2.ListInputsRequest(user_app_id=two))).inputs


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
    assert [a.id for a in ok(library("ListAnnotations", listing)).annotations] == ["a"]


# Annotations and concepts


def test_annotations(raw: Raw) -> None:
    add(raw, "i")
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


def test_concepts(raw: Raw) -> None:
    request = v2.PostConceptsRequest()
    for name in ("cat", "wild cat", "dog"):
        request.concepts.add(id=name.replace(" ", "-"), name=name)
    ok(raw("PostConcepts", request))
    language = v2.PostConceptLanguagesRequest(concept_id="cat")
    language.concept_languages.add(id="de", name="Katze")
    ok(raw("PostConceptLanguages", language))

    def found(**query: Any) -> list[str]:
        search = v2.PostConceptsSearchesRequest(concept_query=v2.ConceptQuery(**query))
        return [concept.name for concept in ok(raw("PostConceptsSearches", search)).concepts]

    assert found(name="cat") == ["wild cat", "cat"]
    assert found(name="wild") == ["wild cat"]
    assert found(name="*og") == ["dog"]
    assert found(name="katz", language="de") == ["Katze"]
    add(raw, "i", concepts=[{"id": "cat", "value": 1}, {"id": "dog", "value": 0}])
    counts = ok(raw("GetConceptCounts", v2.GetConceptCountsRequest())).concept_counts
    by_id = {entry.id: entry.concept_type_count for entry in counts}
    assert (by_id["cat"].positive, by_id["dog"].negative, by_id["dog"].positive) == (1, 1, 0)
    relation = v2.PostConceptRelationsRequest(concept_id="cat")
    relation.concept_relations.add(predicate="hyponym").object_concept.id = "wild-cat"
    made = ok(raw("PostConceptRelations", relation)).concept_relations[0]
    assert made.subject_concept.id == "cat"
    assert raw("PostConceptRelations", relation).status.code == Code.DATABASE_DUPLICATE_KEY
    for concept_id, count in (("cat", 1), ("dog", 0)):
        listing = v2.ListConceptRelationsRequest(concept_id=concept_id)
        assert len(ok(raw("ListConceptRelations", listing)).concept_relations) == count


# Datasets


def test_datasets_versions_and_exports(serve: Callable[..., Raw]) -> None:
    raw = serve(rest_port=0)
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    add(raw, "i", "red", "blue", concepts=[{"id": "cat", "value": 1}], metadata={"k": 1})
    add(raw, "j")
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
    assert {i["id"] for i in json.loads(as_json.read("inputs.json"))["inputs"]} == {"i", "j"}
    inputs = v2.MultiInputResponse.FromString(as_protobuf.read("inputs.pb"))
    assert {item.id for item in inputs.inputs} == {"i", "j"}
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


def test_inputs_name_datasets_that_exist(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(dataset_ids=["none"]).data.text.raw = "x"
    response = raw("PostInputs", request)
    assert response.inputs[0].status.code == Code.INPUT_INVALID_ARGUMENT


# Searches


@pytest.fixture
def library(raw: Raw) -> Raw:
    add(
        raw,
        "berlin",
        "red",
        concepts=[{"id": "cat", "value": 1}],
        metadata={"a": {"b": [1, 2]}, "k": "v"},
        geo={"geo_point": {"longitude": 13.4, "latitude": 52.5}},
    )
    add(
        raw,
        "paris",
        "red",
        "blue",
        concepts=[{"id": "cat", "value": 0}, {"id": "dog", "value": 1}],
        geo={"geo_point": {"longitude": 2.35, "latitude": 48.86}},
    )
    add(raw, "nowhere", "blue")
    return raw


def hits(raw: Raw, query: dict[str, Any], **search: Any) -> list[str]:
    request = v2.PostInputsSearchesRequest()
    request.searches.append(message(v2.Search, query=query, **search))
    return [hit.input.id for hit in ok(raw("PostInputsSearches", request)).hits]


def concept(name: str, value: float = 1.0) -> dict[str, Any]:
    return {"annotation": {"data": {"concepts": [{"id": name, "value": value}]}}}


def geo(**fields: Any) -> dict[str, Any]:
    return {"filters": [{"annotation": {"data": {"geo": fields}}}]}


BERLIN = {"longitude": 13.4, "latitude": 52.5}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"filters": [concept("cat")]}, {"berlin"}),
        ({"filters": [concept("cat", 0)]}, {"paris"}),
        ({"filters": [concept("cat") | {"negate": True}]}, {"paris", "nowhere"}),
        ({"filters": [concept("cat", 0), concept("dog")]}, {"paris"}),
        ({"filters": [concept("cat"), concept("dog")]}, set()),
        ({"filters": [{"input": {"id": "paris"}}]}, {"paris"}),
        ({"filters": [{"annotation": {"data": {"metadata": {"k": "v"}}}}]}, {"berlin"}),
        ({"filters": [{"input": {"data": {"metadata": {"a": {"b": [2]}}}}}]}, {"berlin"}),
        ({"filters": [{"input": {"data": {"metadata": {"a": {"b": [3]}}}}}]}, set()),
        (
            geo(geo_point=BERLIN, geo_limit={"type": "withinKilometers", "value": 1000}),
            {"berlin", "paris"},
        ),
        (geo(geo_point=BERLIN, geo_limit={"type": "withinMiles", "value": 100}), {"berlin"}),
        (
            geo(
                geo_box=[
                    {"geo_point": {"longitude": 0, "latitude": 50}},
                    {"geo_point": {"longitude": 5, "latitude": 40}},
                ]
            ),
            {"paris"},
        ),
        ({"ands": [{"input": {"data": {"concepts": [{"id": "dog", "value": 1}]}}}]}, {"paris"}),
    ],
)
def test_filters(library: Raw, query: dict[str, Any], expected: set[str]) -> None:
    assert set(hits(library, query)) == expected


def test_ranks(library: Raw) -> None:
    assert hits(library, {"ranks": [concept("dog")]})[0] == "paris"
    assert hits(library, {"ranks": [concept("dog") | {"negate": True}]})[-1] == "paris"
    like = v2.PostInputsSearchesRequest()
    search = like.searches.add()
    search.query.ranks.add().annotation.data.image.base64 = png("blue")
    found = ok(library("PostInputsSearches", like)).hits
    assert [hit.input.id for hit in found] == ["nowhere", "paris", "berlin"]
    assert found[0].score == pytest.approx(1.0, abs=1e-6)
    by_id = {"ranks": [{"annotation": {"input_id": "nowhere"}}]}
    assert hits(library, by_id) == ["nowhere", "paris", "berlin"]
    assert hits(library, by_id, min_value=0.999) == ["nowhere"]
    both = {"ranks": by_id["ranks"], "filters": [concept("dog")]}
    assert hits(library, both) == ["paris"]


def test_counts_pages_and_saved_searches(library: Raw) -> None:
    request = v2.PostInputsSearchesRequest(only_count=True)
    request.searches.add()
    assert ok(library("PostInputsSearches", request)).hit_counts[0].estimated_total == 3
    request.only_count = False
    request.pagination.CopyFrom(v2.Pagination(page=2, per_page=2))
    assert len(ok(library("PostInputsSearches", request)).hits) == 1
    saved = v2.PostInputsSearchesRequest()
    saved.searches.append(
        message(v2.Search, id="cats", save=True, query={"filters": [concept("cat")]})
    )
    assert ok(library("PostInputsSearches", saved)).id == "cats"
    assert ok(library("GetSearch", v2.GetSearchRequest(id="cats"))).search.save
    again = ok(library("PostSearchesByID", v2.PostSearchesByIDRequest(id="cats")))
    assert [hit.input.id for hit in again.hits] == ["berlin"]
    patch = v2.PatchInputsSearchesRequest(action="overwrite")
    patch.searches.append(message(v2.Search, id="cats", query={"filters": [concept("dog")]}))
    ok(library("PatchInputsSearches", patch))
    again = ok(library("PostSearchesByID", v2.PostSearchesByIDRequest(id="cats")))
    assert [hit.input.id for hit in again.hits] == ["paris"]
    ok(library("DeleteSearch", v2.DeleteSearchRequest(id="cats")))
    assert not ok(library("ListSearches", v2.ListSearchesRequest())).searches


def test_annotation_searches(library: Raw) -> None:
    request = v2.PostAnnotationsRequest()
    for name in ("cat", "cow"):
        data = {"concepts": [{"id": name, "value": 1}]}
        request.annotations.append(message(v2.Annotation, id=name, input_id="paris", data=data))
    ok(library("PostAnnotations", request))
    search = v2.PostAnnotationsSearchesRequest()
    search.searches.append(message(v2.Search, query={"filters": [concept("cow")]}))
    (hit,) = ok(library("PostAnnotationsSearches", search)).hits
    assert (hit.annotation.id, hit.input.id) == ("cow", "paris")
    assert set(hits(library, {"filters": [concept("cow")]})) == {"paris"}


def test_what_a_search_cannot_do_is_refused(library: Raw) -> None:
    request = v2.PostInputsSearchesRequest()
    request.searches.add().as_of.GetCurrentTime()
    assert library("PostInputsSearches", request).status.code == Code.NOT_IMPLEMENTED
    empty = v2.PostInputsSearchesRequest()
    assert library("PostInputsSearches", empty).status.code == Code.SEARCH_INVALID_REQUEST


# Workflows


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


# Models


def test_models_are_patched_at_their_own_level(raw: Raw) -> None:
    ok(raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m", model_type_id="t")])))
    patch = v2.PatchModelsRequest(action="overwrite", models=[v2.Model(id="m", notes="n")])
    assert ok(raw("PatchModels", patch)).models[0].notes == "n"
    patch.models[0].model_version.description = "x"
    assert raw("PatchModels", patch).status.code == Code.MODEL_INVALID_ARGUMENT
    tags = v2.PatchModelLanguagesRequest(model_id="m", languages=["en", "de"], action="merge")
    assert ok(raw("PatchModelLanguages", tags)).languages == ["en", "de"]
    tags.action = "remove"
    del tags.languages[1]
    assert ok(raw("PatchModelLanguages", tags)).languages == ["de"]
    search = v2.PostModelsSearchesRequest(model_query=v2.ModelQuery(model_type_id="t"))
    assert [m.id for m in ok(raw("PostModelsSearches", search)).models] == ["m"]
    ok(raw("DeleteModel", v2.DeleteModelRequest(model_id="m")))
    assert (
        raw("GetModel", v2.GetModelRequest(model_id="m")).status.code == Code.MODEL_DOES_NOT_EXIST
    )
    concepts = v2.ListModelConceptsRequest(
        user_app_id=PUBLIC, model_id="color-recognition", search="dark"
    )
    assert all("Dark" in c.name for c in ok(raw("ListModelConcepts", concepts)).concepts)


# Bulk operations


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


def test_passwords(raw: Raw) -> None:
    request = v2.PostValidatePasswordRequest()
    request.password.plaintext = "short"
    response = raw("PostValidatePassword", request)
    assert response.status.code == Code.PASSWORD_VALIDATION_FAILED
    assert response.password_violations.minimum_length
    request.password.plaintext = "Long-enough-4-all"
    assert not ok(raw("PostValidatePassword", request)).HasField("password_violations")


# Small ones


def test_states_of_nodepools(raw: Raw) -> None:
    clusters = v2.PostComputeClustersRequest(compute_clusters=[v2.ComputeCluster(id="c")])
    ok(raw("PostComputeClusters", clusters))
    pools = v2.PostNodepoolsRequest(compute_cluster_id="c", nodepools=[v2.Nodepool(id="n")])
    ok(raw("PostNodepools", pools))
    report = v2.PostNodepoolStatusRequest(
        compute_cluster_id="c", nodepool_id="n", status_description="all is well"
    )
    ok(raw("PostNodepoolStatus", report))
    get = v2.GetNodepoolRequest(compute_cluster_id="c", nodepool_id="n")
    found = ok(raw("GetNodepool", get)).nodepool
    assert (found.status_description, found.compute_cluster.id) == ("all is well", "c")


def test_modules_and_their_users(raw: Raw) -> None:
    module = message(v2.Module, id="m", module_version={"id": "1"})
    ok(raw("PostModules", v2.PostModulesRequest(modules=[module])))
    request = v2.PostInstalledModuleVersionsRequest()
    request.installed_module_versions.append(
        message(v2.InstalledModuleVersion, id="i", module_version={"id": "1", "module_id": "m"})
    )
    ok(raw("PostInstalledModuleVersions", request))
    count = v2.GetModuleVersionUsageCountRequest(module_id="m", module_version_id="1")
    assert ok(raw("GetModuleVersionUsageCount", count)).usage_count == 1
    wanted = v2.PostInstalledModuleVersionsKeyRequest(installed_module_version_id="i")
    keys = {ok(raw("PostInstalledModuleVersionsKey", wanted)).key.id for _ in range(2)}
    assert len(keys) == 1
    ok(raw.with_key(keys.pop())("ListInputs", v2.ListInputsRequest()))


def test_log_entries(raw: Raw) -> None:
    place = {"compute_cluster_id": "c", "nodepool_id": "n"}
    request = v2.PostLogEntriesRequest()
    for name in ("a", "b"):
        meta = {**place, "runner_id": name}
        request.log_entries.append(message(v2.LogEntry, message=name, log_type="runner", meta=meta))
    ok(raw("PostLogEntries", request))
    listing = message(v2.ListLogEntriesRequest, log_type="runner", runner_id="b", **place)
    assert [e.message for e in ok(raw("ListLogEntries", listing)).log_entries] == ["b"]


def test_counts_of_an_app(library: Raw) -> None:
    counts = ok(library("GetResourceCounts", v2.GetResourceCountsRequest()))
    assert (counts.inputs, counts.datasets, counts.workflows) == (3, 0, 0)


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
