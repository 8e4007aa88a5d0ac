"""Concepts: languages, relations, searches and counts."""

from __future__ import annotations

from typing import Any

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, add_image, message, ok

Code = v2.StatusCode


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
        concepts = list(ok(raw("PostConceptsSearches", search)).concepts)
        own = [concept for concept in concepts if concept.app_id != "main"]
        assert concepts[: len(own)] == own  # those of the public app come after them
        return [concept.name for concept in own]

    assert found(name="cat") == ["wild cat", "cat"]
    assert found(name="wild") == ["wild cat"]
    assert found(name="*og") == ["dog"]
    assert found(name="katz", language="de") == ["Katze"]
    add_image(raw, "i", concepts=[{"id": "cat", "value": 1}, {"id": "dog", "value": 0}])
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


def test_codes_of_concepts_that_exist_or_do_not(raw: Raw) -> None:
    # Codes and texts as in the tests of the published gRPC client.
    request = v2.PostConceptsRequest(concepts=[v2.Concept(id="k")])
    ok(raw("PostConcepts", request))
    twice = raw("PostConcepts", request).status
    assert (twice.code, twice.description) == (Code.CONCEPTS_INVALID_REQUEST, "Invalid request")
    assert "duplicate" in twice.details
    patch = v2.PatchConceptsRequest(action="overwrite", concepts=[v2.Concept(id="none", name="x")])
    missing = raw("PatchConcepts", patch).status
    assert (missing.code, missing.description) == (
        Code.CONN_DOES_NOT_EXIST,
        "Resource does not exist",
    )


def test_concepts_of_labels_become_concepts_of_the_app(raw: Raw) -> None:
    known = v2.PostConceptsRequest(concepts=[v2.Concept(id="cat", name="Katze")])
    ok(raw("PostConcepts", known))
    region = {"data": {"concepts": [{"id": "ear", "name": "Ear", "value": 1}]}}
    labels = [{"id": "cat", "value": 1}, {"name": "by name", "value": 1}]
    add_image(raw, "i", concepts=labels, regions=[region])
    add_image(raw, "j", concepts=[{"id": "cat", "value": 0}, {"id": "ear", "value": 1}])

    def concepts() -> dict[str, str]:
        listed = ok(raw("ListConcepts", v2.ListConceptsRequest())).concepts
        assert {(one.language, one.app_id) for one in listed} == {("en", raw.server.app_id)}
        assert all(one.HasField("created_at") for one in listed)
        return {one.id: one.name for one in listed}

    assert concepts() == {"cat": "Katze", "ear": "Ear", "by name": "by name"}
    # A label by id alone has the name that the concept has.
    item = ok(raw("GetInput", v2.GetInputRequest(input_id="j"))).input
    assert [(one.id, one.name) for one in item.data.concepts] == [("cat", "Katze"), ("ear", "Ear")]
    change = v2.PatchInputsRequest(action="merge")
    change.inputs.append(message(v2.Input, id="j", data={"concepts": [{"id": "new"}]}))
    ok(raw("PatchInputs", change))
    request = v2.PostAnnotationsRequest()
    data = {"concepts": [{"id": "dog", "value": 1}]}
    request.annotations.append(message(v2.Annotation, id="a", input_id="i", data=data))
    # Nothing comes of an annotation that is refused.
    lost = {"concepts": [{"id": "lost", "value": 1}]}
    request.annotations.append(message(v2.Annotation, input_id="none", data=lost))
    raw("PostAnnotations", request)
    assert {*concepts()} == {"cat", "ear", "by name", "new", "dog"}
    patch = v2.PatchConceptsRequest(action="overwrite", concepts=[v2.Concept(id="dog", name="Dog")])
    ok(raw("PatchConcepts", patch))
    nameless = v2.PostInputsRequest()
    unnamed: dict[str, Any] = {"text": {"raw": "x"}, "concepts": [{"value": 1}]}
    nameless.inputs.append(message(v2.Input, data=unnamed))
    assert raw("PostInputs", nameless).inputs[0].status.code == Code.INPUT_INVALID_ARGUMENT


def test_concepts_of_the_models_of_a_workflow_by_their_use(raw: Raw) -> None:
    request = v2.PostWorkflowsRequest()
    made = request.workflows.add(id="looks")
    for name in ("face-detection", "color-recognition", "image-embedding"):
        made.nodes.add(id=name).model.id = name
    ok(raw("PostWorkflows", request))
    uses = v2.WorkflowModelUseCase

    def found(*use_cases: v2.WorkflowModelUseCase.ValueType) -> set[str]:
        query = v2.ConceptQuery(name="*", use_cases=use_cases, ignore_app_concepts=True)
        query.workflow.id = "looks"
        search = v2.PostConceptsSearchesRequest(concept_query=query)
        search.pagination.per_page = 1000
        return {one.id for one in ok(raw("PostConceptsSearches", search)).concepts}

    assert found(uses.DETECTION) == {"face"}
    assert found(uses.CLASSIFICATION) == found() - {"face"} != set()
    assert found(uses.CLASSIFICATION, uses.DETECTION) == found()
    lost = v2.PostConceptsSearchesRequest()
    lost.concept_query.use_cases.append(uses.DETECTION)
    assert raw("PostConceptsSearches", lost).status.code == Code.CONCEPTS_INVALID_REQUEST
