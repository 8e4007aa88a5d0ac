"""Concepts, languages, relations, knowledge graphs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clarigrpc import errors, v2
from tests.both import Both
from tests.conftest import Connect
from tests.resources.conftest import add_inputs
from tests.scripted import ScriptedServer, reply


async def test_concepts(both: Both) -> None:
    c = both.client
    made = await both.run(c.concepts.create, v2.Concept(id="dog", name="Dog"))
    assert (made.id, made.name, made.app_id) == ("dog", "Dog", c.settings.app_id)
    many = await both.run(c.concepts.create_many, ["cat", {"id": "bird", "name": "Bird"}])
    assert [one.id for one in many] == ["cat", "bird"]
    assert (await both.run(c.concepts.get, "bird")).name == "Bird"
    changed = await both.run(
        c.concepts.patch, v2.Concept(id="dog", name="Hound"), action="overwrite"
    )
    assert changed.name == "Hound"
    (again,) = await both.run(
        c.concepts.patch_many, [{"id": "dog", "name": "Dog"}], action="overwrite"
    )
    assert again.name == "Dog"
    assert {one.id for one in await both.collect(c.concepts.list())} == {"dog", "cat", "bird"}
    assert len(await both.collect(c.concepts.list(page=2, per_page=2))) == 1
    # Those of the app come before public ones.
    found = await both.collect(c.concepts.search("do*"))
    assert [one.id for one in found if one.app_id == c.settings.app_id] == ["dog"]
    assert found[0].id == "dog"
    # The tests of the published gRPC client have this code for a concept that exists.
    with pytest.raises(errors.AlreadyExistsError, match="duplicate") as caught:
        await both.run(c.concepts.create, "dog")
    assert caught.value.code == v2.StatusCode.CONCEPTS_INVALID_REQUEST
    with pytest.raises(errors.NotFoundError):
        await both.run(c.concepts.get, "no-such-concept")


async def test_pages_are_fetched_when_they_are_asked_for(
    scripted: ScriptedServer, connect: Connect
) -> None:
    def page(requests: Iterator[v2.ListConceptsRequest], context: object) -> Iterator[object]:
        (request,) = requests
        start = (request.page - 1) * request.per_page
        ids = range(start, min(start + request.per_page, 130))
        yield reply("ListConcepts", concepts=[v2.Concept(id=f"c{one}") for one in ids])

    scripted.always("ListConcepts", page)

    def asked() -> list[int]:
        return [call.request.page for call in scripted.calls("ListConcepts")]

    both = connect(scripted.base, pat="p", user_id="u", app_id="a")
    c = both.client
    seen = []
    async for one in both.items(c.concepts.list(per_page=50)):
        seen.append(one.id)
        if len(seen) == 50:
            break
    assert asked() == [1]
    assert len(set(seen)) == 50
    assert len({one.id for one in await both.collect(c.concepts.list(per_page=65))}) == 130
    assert asked() == [1, 1, 2, 3]


async def test_counts(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j")
    await both.run(c.inputs.merge_concepts, "i", {"dog": 1, "cat": 0})
    await both.run(c.inputs.merge_concepts, "j", {"dog": 1})
    counts = {one.id: one.detail_concept_count for one in await both.collect(c.concepts.counts())}
    assert counts["dog"].processed.positive == 2
    assert counts["cat"].processed.negative == 1


async def test_languages(both: Both) -> None:
    c = both.client
    await both.run(c.concepts.create, v2.Concept(id="dog", name="dog"))

    made = await both.run(
        c.concepts.languages("dog").create, v2.ConceptLanguage(id="de", name="Hund")
    )
    assert (made.id, made.name) == ("de", "Hund")
    await both.run(
        c.concepts.languages("dog").create_many, [v2.ConceptLanguage(id="fr", name="chien")]
    )
    assert (await both.run(c.concepts.languages("dog").get, "de")).name == "Hund"
    assert {"de", "fr"} <= {
        one.id for one in await both.collect(c.concepts.languages("dog").list())
    }
    changed = await both.run(
        c.concepts.languages("dog").patch,
        v2.ConceptLanguage(id="de", definition="Tier"),
        action="overwrite",
    )
    assert changed.definition == "Tier"
    (again,) = await both.run(
        c.concepts.languages("dog").patch_many,
        [v2.ConceptLanguage(id="fr", definition="animal")],
        action="overwrite",
    )
    assert again.definition == "animal"


async def test_relations_and_knowledge_graphs(both: Both) -> None:
    c = both.client
    await both.run(c.concepts.create_many, ["dog", "hound", "animal"])
    graph = await both.run(c.knowledge_graphs.create, v2.KnowledgeGraph(id="g", name="mine"))
    assert graph.id == "g"
    await both.run(c.knowledge_graphs.create_many, ["h"])
    assert {one.id for one in await both.collect(c.knowledge_graphs.list())} >= {"g", "h"}

    made = await both.run(
        c.concepts.relations("dog").add, "hypernym", "animal", knowledge_graph_id="g"
    )
    assert (made.subject_concept.id, made.predicate) == ("dog", "hypernym")
    relation = v2.ConceptRelation(object_concept=v2.Concept(id="hound"), predicate="synonym")
    await both.run(c.concepts.relations("dog").create, relation)
    assert len(await both.collect(c.concepts.relations("dog").list())) == 2
    found = await both.collect(
        c.concepts.relations("dog").list(predicate="hypernym", knowledge_graph_id="g")
    )
    assert [one.object_concept.id for one in found] == ["animal"]
    await both.run(c.concepts.relations("dog").delete, found[0].id)
    assert [one.predicate for one in await both.collect(c.concepts.relations("dog").list())] == [
        "synonym"
    ]
    (other,) = await both.run(c.concepts.relations("dog").create_many, [relation_to("animal")])
    assert other.object_concept.id == "animal"


def relation_to(concept_id: str) -> v2.ConceptRelation:
    return v2.ConceptRelation(object_concept=v2.Concept(id=concept_id), predicate="hyponym")
