"""Concepts, their names in other languages, how they relate, and knowledge graphs."""

from __future__ import annotations

from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches
from clarigrpc._resources.sync_async import Async, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class ConceptLanguageOperations(
    Creates[v2.ConceptLanguage],
    Gets[v2.ConceptLanguage],
    Lists[v2.ConceptLanguage],
    Patches[v2.ConceptLanguage],
):
    """Name and definition of a concept in other languages; their ids are the languages' codes."""

    message = v2.ConceptLanguage


class ConceptLanguages(ConceptLanguageOperations, Sync): ...


class AsyncConceptLanguages(ConceptLanguageOperations, Async): ...


class RelationFilters(Paging, total=False):
    """Which relations are listed.

    Attributes:
        predicate: Only of this kind.
        knowledge_graph_id: Only of this graph.
    """

    predicate: str
    knowledge_graph_id: str


class ConceptRelationOperations(Creates[v2.ConceptRelation], Deletes[v2.ConceptRelation]):
    """What a concept has to do with others: ``hypernym``, ``hyponym`` or ``synonym``."""

    message = v2.ConceptRelation

    @operation
    def add(
        self,
        predicate: str,
        object_id: str,
        *,
        knowledge_graph_id: str = "",
        timeout: float | None = None,
    ) -> Plan[v2.ConceptRelation]:
        """Relate the concept to another.

        Args:
            predicate: ``"hypernym"`` (the concept is a kind of the other), ``"hyponym"`` (the
                other is a kind of it) or ``"synonym"``.
            object_id: Id of the other concept.
            knowledge_graph_id: The graph that the relation belongs to; empty: none.
            timeout: Seconds; None: the client's.
        """
        relation = v2.ConceptRelation(
            object_concept=v2.Concept(id=object_id),
            predicate=predicate,
            knowledge_graph_id=knowledge_graph_id,
        )
        return (yield from ConceptRelationOperations.create.plan(self, relation, timeout=timeout))

    @iteration
    def list(self, **options: Unpack[RelationFilters]) -> ItemPlan[v2.ConceptRelation]:
        """The relations of the concept.

        Args:
            {options}
            {paging}
        """
        return self._list(options)


class ConceptRelations(ConceptRelationOperations, Sync): ...


class AsyncConceptRelations(ConceptRelationOperations, Async): ...


class ConceptOperations(Creates[v2.Concept], Gets[v2.Concept], Patches[v2.Concept]):
    """The concepts of an app."""

    message = v2.Concept

    languages = nested(
        "concept_id",
        ConceptLanguages,
        AsyncConceptLanguages,
        "Names and definitions of a concept in other languages.",
    )
    relations = nested(
        "concept_id", ConceptRelations, AsyncConceptRelations, "The relations of a concept."
    )

    @iteration
    def search(
        self,
        name: str,
        *,
        language: str = "",
        ignore_app_concepts: bool = False,
        **options: Unpack[Paging],
    ) -> ItemPlan[v2.Concept]:
        """Concepts by their names.

        Args:
            name: What to look for; ``*`` stands for any letters.
            language: Code of the language that the name is in. Default: the app's.
            ignore_app_concepts: Leave out those of the app itself.
            {paging}
        """
        query = v2.ConceptQuery(
            name=name, language=language, ignore_app_concepts=ignore_app_concepts
        )
        fields = {"concept_query": query, **options}
        return self._pages("PostConceptsSearches", "concepts", fields)

    @iteration
    def counts(self, **options: Unpack[Paging]) -> ItemPlan[v2.ConceptCount]:
        """How many inputs carry each concept, as positive and as negative examples.

        Args:
            {paging}
        """
        return self._pages("GetConceptCounts", "concept_counts", options)

    @iteration
    def list(self, *, id: str = "", **options: Unpack[Paging]) -> ItemPlan[v2.Concept]:
        """The concepts of the app.

        Args:
            id: Only those whose ids have this in them.
            {paging}
        """
        return self._list({"id": id, **options})


class Concepts(ConceptOperations, Sync): ...


class AsyncConcepts(ConceptOperations, Async): ...


class KnowledgeGraphOperations(Creates[v2.KnowledgeGraph], Lists[v2.KnowledgeGraph]):
    """The knowledge graphs that concept relations can belong to."""

    message = v2.KnowledgeGraph


class KnowledgeGraphs(KnowledgeGraphOperations, Sync): ...


class AsyncKnowledgeGraphs(KnowledgeGraphOperations, Async): ...
