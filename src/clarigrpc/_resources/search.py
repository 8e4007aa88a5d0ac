"""Searches over the inputs and the annotations of an app, and those that are kept there."""

from __future__ import annotations

from typing import Any, Unpack

from clarigrpc import query, v2
from clarigrpc._resources.base import Deletes, Domain, Gets, Lists, Paging, Patches
from clarigrpc._resources.sync_async import Async, Lazy, Sync, iteration, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


class SearchOptions(Paging, total=False):
    """How a search is done.

    Attributes:
        language: The language of concepts that are given by name.
        min_value: Least score of a hit, 0 to 1.
        metric: How embeddings are compared: ``v2.Search.COSINE_DISTANCE`` or
            ``EUCLIDEAN_DISTANCE``. Default: the app's.
    """

    language: str
    min_value: float
    metric: v2.Search.Metric.ValueType


_SETTINGS = ("language", "min_value", "metric")


class SavedSearchOperations(
    Gets[v2.Search], Lists[v2.Search], Patches[v2.Search], Deletes[v2.Search]
):
    """The searches that are kept in an app."""

    message = v2.Search
    plural = "Searches"
    noun = "saved search"
    nouns = "saved searches"
    patched_by = "PatchInputsSearches"

    @operation
    def create(self, search: v2.Search, *, timeout: float | None = None) -> Plan[v2.Search]:
        """Keep a search over inputs.

        Args:
            search: What ``query.search(..., id=...)`` returns. The service makes up an id that is
                left out.
            timeout: Seconds; None: the client's.

        Returns:
            The search as the service has it.

        Raises:
            AlreadyExistsError: Its id is taken.
        """
        kept = v2.Search()
        kept.CopyFrom(search)
        kept.save = True
        response: v2.MultiSearchResponse = yield from self._invoke(
            "PostInputsSearches", timeout, searches=[kept], pagination=v2.Pagination(per_page=1)
        )
        return (yield from self._fetch(response.id, timeout))

    @iteration
    def run(self, search_id: str, /, **options: Unpack[Paging]) -> ItemPlan[v2.Hit]:
        """What a saved search finds, best first.

        Args:
            search_id: Its id.
            {paging}

        Raises:
            NotFoundError: There is no such search.
        """
        return self._pages("PostSearchesByID", "hits", {"id": search_id, **options})


class SavedSearches(SavedSearchOperations, Sync): ...


class AsyncSavedSearches(SavedSearchOperations, Async): ...


class SearchOperations(Domain):
    """Searches over an app."""

    saved: Lazy[SavedSearches, AsyncSavedSearches] = Lazy(
        __name__, "SavedSearches", "The searches that are kept in the app."
    )

    @iteration
    def inputs(
        self, *conditions: query.Condition, **options: Unpack[SearchOptions]
    ) -> ItemPlan[v2.Hit]:
        """Inputs that pass all filters, those with the best scores first.

        Args:
            conditions: Filters and ranks, made by the functions of ``clarigrpc.query``.
            {options}
            {paging}

        Yields:
            Hits: each with ``input`` and ``score`` (0 to 1; 1 where nothing ranks).
        """
        return self._found("PostInputsSearches", conditions, options)

    @iteration
    def annotations(
        self, *conditions: query.Condition, **options: Unpack[SearchOptions]
    ) -> ItemPlan[v2.Hit]:
        """Annotations that pass all filters, those with the best scores first.

        Args:
            conditions: Filters and ranks, made by the functions of ``clarigrpc.query``.
            {options}
            {paging}

        Yields:
            Hits: each with ``annotation``, its ``input`` and ``score``.
        """
        return self._found("PostAnnotationsSearches", conditions, options)

    def _found(
        self, method: str, conditions: tuple[query.Condition, ...], options: SearchOptions
    ) -> ItemPlan[v2.Hit]:
        if unknown := options.keys() - SearchOptions.__optional_keys__:
            known = ", ".join(sorted(SearchOptions.__optional_keys__))
            raise TypeError(f"a search takes conditions and {known}; not {', '.join(unknown)}")
        fields: dict[str, Any] = dict(options)
        settings = {name: fields.pop(name) for name in _SETTINGS if name in fields}
        return self._pages(
            method, "hits", {"searches": [query.search(*conditions, **settings)], **fields}
        )

    @operation
    def count(
        self, *conditions: query.Condition, min_value: float = 0.0, timeout: float | None = None
    ) -> Plan[int]:
        """How many inputs a search would find, by the service's estimate.

        Args:
            conditions: Filters and ranks, made by the functions of ``clarigrpc.query``.
            min_value: Least score of those that are counted, 0 to 1.
            timeout: Seconds; None: the client's.
        """
        response: v2.MultiSearchResponse = yield from self._invoke(
            "PostInputsSearches",
            timeout,
            searches=[query.search(*conditions, min_value=min_value)],
            only_count=True,
        )
        return sum(one.estimated_total for one in response.hit_counts)


class Search(SearchOperations, Sync): ...


class AsyncSearch(SearchOperations, Async): ...
