"""The concepts that inputs and annotations bring along, which become concepts of their app."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc.local.engine import search_filters
from clarigrpc.local.service_errors import ServiceError, StatusCodeValue
from clarigrpc.local.store.resource_store import Store, StoredCollection
from clarigrpc.local.user_app import UserApp


class AppConcepts:
    """Completes the concepts of labels, and keeps those that the app does not have.

    It remembers what it read: use one for a transaction, and none where a part of that may be
    undone.

    Args:
        store: Where the concepts are.
        app: The app that the labels belong to.
    """

    def __init__(self, store: Store, app: UserApp) -> None:
        self._store = store
        self._app = app
        self._where = StoredCollection.of_app("concept", app)
        self._names: dict[str, str] = {}

    def complete(self, data: v2.Data, invalid: StatusCodeValue | None = None) -> None:
        """Fills in ids, names and the app; a concept may be given by its id or its name alone.

        Args:
            data: Labels; those in regions, frames and segments count as well.
            invalid: Status code of a concept with neither; None leaves it as it is.

        Raises:
            ServiceError: A concept has neither an id nor a name.
        """
        every = list(search_filters.concepts_of(data))
        concepts = [concept for concept in every if concept.id or concept.name]
        if invalid is not None and len(concepts) < len(every):
            raise ServiceError(invalid, "a concept needs an id or a name")
        if not concepts:
            return
        given: dict[str, str] = {}
        for concept in concepts:
            concept.id = concept.id or concept.name
            if concept.id not in self._names:
                given[concept.id] = given.get(concept.id) or concept.name
        if given:
            for row in self._store.page(self._where, 0, -1, ids=list(given)):
                del given[row.id]
                self._names[row.id] = v2.Concept.FromString(row.body).name
        for concept_id, name in given.items():
            self._add(concept_id, name or concept_id)
        for concept in concepts:
            concept.name = concept.name or self._names[concept.id]
            concept.app_id = self._app.app_id

    def _add(self, concept_id: str, name: str) -> None:
        concept = v2.Concept(id=concept_id, name=name, language="en")
        concept.user_id, concept.app_id = self._app.user_id, self._app.app_id
        concept.created_at.GetCurrentTime()
        concept.visibility.gettable = v2.Visibility.PRIVATE
        self._store.insert(self._where, concept_id, concept.SerializeToString())
        self._names[concept_id] = name
