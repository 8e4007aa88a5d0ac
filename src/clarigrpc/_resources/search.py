"""Searches over the inputs and annotations of an app, and saved searches."""

from __future__ import annotations

from typing import Any, Unpack

from clarigrpc import query, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Deletes, Domain, Gets, Lists, Paging, Patches
from clarigrpc._resources.sync_async import Async, Sync, iteration, lazy, operation
from clarigrpc._rpc.plan import ItemPlan, Plan


@named_in("clarigrpc.types")
class SearchOptions(Paging, total=False):
    """Options of ``client.search.inputs`` and ``client.search.annotations``."""

    language: str
    min_value: float
    metric: v2.Search.Metric.ValueType


_SETTINGS = ("language", "min_value", "metric")


class SavedSearchOperations(
    Gets[v2.Search], Lists[v2.Search], Patches[v2.Search], Deletes[v2.Search]
):
    """The saved searches of an app."""

    _message = v2.Search
    _get_rpc = "GetSearch"
    _list_rpc = "ListSearches"
    _patch_rpc = "PatchInputsSearches"
    _delete_one_rpc = "DeleteSearch"

    @operation
    def create(self, search: v2.Search, *, timeout: float | None = None) -> Plan[v2.Search]:
        """Save a search over inputs.

        Args:
            search: The search, made by ``query.search(..., id=...)``. The service generates an id
                if none is given.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The search as the service stored it.

        Raises:
            AlreadyExistsError: The id is taken.
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
        """Run a saved search: get its hits, best first.

        Args:
            search_id: Id of the saved search.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            An iterator of hits, each with ``input`` and ``score``.

        Raises:
            NotFoundError: The saved search does not exist; raised by the iterator.
        """
        return self._pages("PostSearchesByID", "hits", {"id": search_id, **options})


class SavedSearches(SavedSearchOperations, Sync): ...


class AsyncSavedSearches(SavedSearchOperations, Async): ...


class SearchOperations(Domain):
    """Searches over an app."""

    @lazy
    def saved(self) -> tuple[type[SavedSearches], type[AsyncSavedSearches]]:
        """The saved searches of the app."""
        return SavedSearches, AsyncSavedSearches

    @iteration
    def inputs(
        self, *conditions: query.Condition, **options: Unpack[SearchOptions]
    ) -> ItemPlan[v2.Hit]:
        """Search for inputs that pass all filters, best score first.

        Args:
            conditions: Filters and ranks, made by the functions of ``clarigrpc.query``.
            language: Language code for concepts given by name. Empty uses the app's default
                language.
            min_value: Lowest score of a hit, 0 to 1. Default 0.
            metric: Distance between embeddings: ``v2.Search.COSINE_DISTANCE`` or
                ``EUCLIDEAN_DISTANCE``. Default: the app's.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            An iterator of hits, each with ``input`` and ``score`` (0 to 1; 1 if there is no rank).

        Raises:
            TypeError: A condition is neither a filter nor a rank, or an option is unknown.
        """
        return self._found("PostInputsSearches", conditions, options)

    @iteration
    def annotations(
        self, *conditions: query.Condition, **options: Unpack[SearchOptions]
    ) -> ItemPlan[v2.Hit]:
        """Search for annotations that pass all filters, best score first.

        Args:
            conditions: Filters and ranks, made by the functions of ``clarigrpc.query``.
            language: Language code for concepts given by name. Empty uses the app's default
                language.
            min_value: Lowest score of a hit, 0 to 1. Default 0.
            metric: Distance between embeddings: ``v2.Search.COSINE_DISTANCE`` or
                ``EUCLIDEAN_DISTANCE``. Default: the app's.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.

        Returns:
            An iterator of hits, each with ``annotation``, its ``input`` and ``score`` (0 to 1; 1 if
            there is no rank).

        Raises:
            TypeError: A condition is neither a filter nor a rank, or an option is unknown.
        """
        return self._found("PostAnnotationsSearches", conditions, options)

    def _found(
        self, method: str, conditions: tuple[query.Condition, ...], options: SearchOptions
    ) -> ItemPlan[v2.Hit]:
        if unknown := options.keys() - SearchOptions.__optional_keys__:
            known = ", ".join(sorted(SearchOptions.__optional_keys__))
            raise TypeError(f"unknown options {', '.join(unknown)}; known are {known}")
        fields: dict[str, Any] = dict(options)
        settings = {name: fields.pop(name) for name in _SETTINGS if name in fields}
        return self._pages(
            method, "hits", {"searches": [query.search(*conditions, **settings)], **fields}
        )

    @operation
    def count(
        self, *conditions: query.Condition, min_value: float = 0.0, timeout: float | None = None
    ) -> Plan[int]:
        """Count the inputs that a search would find, as estimated by the service.

        Args:
            conditions: Filters and ranks, made by the functions of ``clarigrpc.query``.
            min_value: Lowest score to count, 0 to 1. Default 0.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The estimated number of hits.

        Raises:
            TypeError: A condition is neither a filter nor a rank.
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
