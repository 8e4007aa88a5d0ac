"""Concepts, their names in other languages, their relations, and knowledge graphs."""

from __future__ import annotations

from typing import Unpack

from clarigrpc import v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, Paging, Patches, filled
from clarigrpc._resources.sync_async import Async, Parents, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class ConceptLanguageOperations(
    Creates[v2.ConceptLanguage],
    Gets[v2.ConceptLanguage],
    Lists[v2.ConceptLanguage],
    Patches[v2.ConceptLanguage],
):
    """The names and definitions of a concept in other languages. Their ids are language codes."""

    _message = v2.ConceptLanguage
    _create_rpc = "PostConceptLanguages"
    _get_rpc = "GetConceptLanguage"
    _list_rpc = "ListConceptLanguages"
    _patch_rpc = "PatchConceptLanguages"


class ConceptLanguages(ConceptLanguageOperations, Sync): ...


class AsyncConceptLanguages(ConceptLanguageOperations, Async): ...


@named_in("clarigrpc.types")
class RelationFilters(Paging, total=False):
    """Options of ``client.concepts.relations(concept_id).list``."""

    predicate: str
    knowledge_graph_id: str


class ConceptRelationOperations(Creates[v2.ConceptRelation], Deletes[v2.ConceptRelation]):
    """The relations of a concept to others: ``hypernym``, ``hyponym`` or ``synonym``."""

    _message = v2.ConceptRelation
    _create_rpc = "PostConceptRelations"
    _list_rpc = "ListConceptRelations"
    _delete_rpc = "DeleteConceptRelations"

    @operation
    def add(
        self,
        predicate: str,
        object_id: str,
        *,
        knowledge_graph_id: str = "",
        timeout: float | None = None,
    ) -> Plan[v2.ConceptRelation]:
        """Relate the concept to another one.

        Args:
            predicate: ``"hypernym"`` (the concept is a kind of the other one), ``"hyponym"`` (the
                other one is a kind of it) or ``"synonym"``.
            object_id: Id of the other concept.
            knowledge_graph_id: Id of the knowledge graph that the relation belongs to. Empty: none.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The relation as the service stored it.

        Raises:
            NotFoundError: One of the concepts does not exist.
        """
        relation = v2.ConceptRelation(
            object_concept=v2.Concept(id=object_id),
            predicate=predicate,
            knowledge_graph_id=knowledge_graph_id,
        )
        return (yield from ConceptRelationOperations.create.plan(self, relation, timeout=timeout))

    @iteration
    def list(self, **options: Unpack[RelationFilters]) -> ItemPlan[v2.ConceptRelation]:
        """List the relations of the concept.

        Args:
            predicate: Filter by kind: ``"hypernym"``, ``"hyponym"`` or ``"synonym"``.
            knowledge_graph_id: Filter by knowledge graph.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class ConceptRelations(ConceptRelationOperations, Sync): ...


class AsyncConceptRelations(ConceptRelationOperations, Async): ...


class ConceptOperations(Creates[v2.Concept], Gets[v2.Concept], Patches[v2.Concept]):
    """The concepts of an app."""

    _message = v2.Concept
    _create_rpc = "PostConcepts"
    _get_rpc = "GetConcept"
    _list_rpc = "ListConcepts"
    _patch_rpc = "PatchConcepts"

    @nested(ConceptLanguages, AsyncConceptLanguages)
    def languages(self, concept_id: str) -> Parents:
        """Access the names and definitions of a concept in other languages.

        Args:
            concept_id: Id of the concept.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"concept_id": concept_id}

    @nested(ConceptRelations, AsyncConceptRelations)
    def relations(self, concept_id: str) -> Parents:
        """Access the relations of a concept.

        Args:
            concept_id: Id of the concept.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"concept_id": concept_id}

    @iteration
    def search(
        self,
        name: str,
        *,
        language: str = "",
        ignore_app_concepts: bool = False,
        **options: Unpack[Paging],
    ) -> ItemPlan[v2.Concept]:
        """Search for concepts by name.

        Args:
            name: Name to look for; ``*`` matches any characters.
            language: Language code of the name. Empty uses the app's default language.
            ignore_app_concepts: Whether to leave out the concepts of the app itself. Default False.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        query = filled(
            "PostConceptsSearches",
            v2.ConceptQuery,
            name=name,
            language=language,
            ignore_app_concepts=ignore_app_concepts,
        )
        fields = {"concept_query": query, **options}
        return self._pages("PostConceptsSearches", "concepts", fields)

    @iteration
    def counts(self, **options: Unpack[Paging]) -> ItemPlan[v2.ConceptCount]:
        """Count the inputs labelled with each concept.

        Args:
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            An iterator of counts, each with the numbers of positive and negative examples of a
            concept.
        """
        return self._pages("GetConceptCounts", "concept_counts", options)

    @iteration
    def list(self, *, id: str = "", **options: Unpack[Paging]) -> ItemPlan[v2.Concept]:
        """List the concepts of the app.

        Args:
            id: Filter by text in the id.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list({"id": id, **options})


class Concepts(ConceptOperations, Sync): ...


class AsyncConcepts(ConceptOperations, Async): ...


class KnowledgeGraphOperations(Creates[v2.KnowledgeGraph], Lists[v2.KnowledgeGraph]):
    """The knowledge graphs of an app: groups of concept relations."""

    _message = v2.KnowledgeGraph
    _create_rpc = "PostKnowledgeGraphs"
    _list_rpc = "ListKnowledgeGraphs"


class KnowledgeGraphs(KnowledgeGraphOperations, Sync): ...


class AsyncKnowledgeGraphs(KnowledgeGraphOperations, Async): ...
