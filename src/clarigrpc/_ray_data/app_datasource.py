"""The inputs, annotations or hits of an app, read by many tasks of Ray."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from clarigrpc import v2
from clarigrpc._config.client_options import ClientOptions
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._ray_data.app_columns import AppRows, app_schema, app_table
from clarigrpc._ray_data.bulk_actor import client_options
from clarigrpc._ray_data.input_spans import (
    STREAM_PAGE,
    InputSpan,
    inputs_of,
    number_of_inputs,
    places,
    spans,
)
from clarigrpc._resources.base import chunks
from clarigrpc.client import Client

_ROW_BYTES = 1024
"""Bytes of a row, as far as Ray is told beforehand."""


@dataclass(frozen=True)
class GivenIds:
    """Inputs or annotations by their ids, or annotations by those of their inputs."""

    ids: Sequence[str]
    of_inputs: bool = False


@dataclass(frozen=True)
class HitPages:
    """Pages of a search; the last of them is open-ended where ``stop`` is None."""

    start: int
    stop: int | None


AppPart: TypeAlias = InputSpan | GivenIds | HitPages


@dataclass(frozen=True, kw_only=True)
class AppQuery:
    """What is read.

    Attributes:
        rows: What a row is.
        options: Options of the client of each task.
        conditions: Filters and ranks of a search.
        search: Options of the search.
        search_annotations: Whether the search is for annotations.
        filters: Options of ``client.annotations.list``.
        limit: Most rows, before Ray's filters; one task reads them.
    """

    rows: AppRows
    options: ClientOptions | None = None
    conditions: Sequence[v2.Filter | v2.Rank] = ()
    search: Mapping[str, Any] | None = None
    search_annotations: bool = False
    filters: Mapping[str, Any] | None = None
    limit: int | None = None


class AppDatasource(Datasource):
    """A source of rows of an app.

    Filters and selected columns reach the tasks: equality of ids goes on to the service, the rest
    is applied to each page before it leaves the task.
    """

    def __init__(self, query: AppQuery) -> None:
        super().__init__()
        self._query = query
        self._projection_map: dict[str, str] | None = None
        self._total: int | None = None

    def get_name(self) -> str:
        return f"Clarifai{self._query.rows.capitalize()}"

    def supports_predicate_pushdown(self) -> bool:
        return True

    def supports_projection_pushdown(self) -> bool:
        return True

    def apply_projection(self, projection_map: dict[str, str] | None) -> AppDatasource:
        """The source with these columns only."""
        clone = copy.copy(self)
        if projection_map is not None:
            kept = self._columns()
            names = [name for name in projection_map if kept is None or name in kept]
            # Ray loses the number of rows of blocks without columns.
            clone._projection_map = {name: name for name in names or kept or ["id"]}
        return clone

    def estimate_inmemory_data_size(self) -> int:
        return self._count() * _ROW_BYTES

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,
    ) -> list[ReadTask]:
        """A task for each part of the rows."""
        predicate = self.get_current_predicate()
        tasks = []
        schema = app_schema(self._query.rows, self._columns())
        for part in self._parts(max(1, parallelism)):
            read = partial(_read, self._query, part, predicate, self._columns(), per_task_row_limit)
            metadata = BlockMetadata(
                num_rows=None, size_bytes=None, input_files=None, exec_stats=None
            )
            tasks.append(
                ReadTask(read, metadata, schema=schema, per_task_row_limit=per_task_row_limit)
            )
        return tasks

    def _columns(self) -> list[str] | None:
        return None if self._projection_map is None else [*self._projection_map]

    def _count(self) -> int:
        """How many rows there are about; of annotations, how many inputs."""
        if self._total is None:
            with Client(**client_options(self._query.options)) as client:
                if self._query.rows == "hits":
                    self._total = client.search.count(*self._query.conditions)
                else:
                    self._total = number_of_inputs(client)
        return self._total

    def _parts(self, parallelism: int) -> list[AppPart]:
        rows = self._query.rows
        if self._query.limit is not None:
            return [HitPages(1, None) if rows == "hits" else InputSpan()]
        if rows != "hits":
            for column in ("id", "input_id") if rows == "annotations" else ("id",):
                ids = wanted_values(self.get_current_predicate(), column)
                if ids is not None:
                    size = max(1, min(MAX_ITEMS, math.ceil(len(ids) / parallelism)))
                    return [GivenIds(part, column != "id") for part in chunks(ids, size)]
        if rows == "hits":
            pages = math.ceil(self._count() / MAX_ITEMS)
            starts = places(pages, min(parallelism, pages))
            return [
                HitPages(start + 1, None if stop is None else stop + 1)
                for start, stop in itertools.pairwise([*starts, None])
                if start is not None
            ]
        if parallelism == 1:
            return [InputSpan()]
        with Client(**client_options(self._query.options)) as client:
            return [*spans(client, parallelism)]


def wanted_values(predicate: Any, column: str) -> list[str] | None:
    """The values that a column must have one of, as far as equality says so; None: any.

    Args:
        predicate: An expression of Ray, or None.
        column: Name of the column.
    """
    operation = getattr(getattr(predicate, "op", None), "value", "")
    if operation == "and":
        found = [wanted_values(predicate.left, column), wanted_values(predicate.right, column)]
        known = [one for one in found if one is not None]
        if len(known) == 2:
            return [one for one in known[0] if one in known[1]]
        return known[0] if known else None
    if operation not in ("eq", "in"):
        return None
    left, right = predicate.left, predicate.right
    if operation == "eq" and hasattr(left, "value"):
        left, right = right, left
    # A cast or a renamed column is no column here, and has no value on the other side.
    if type(left).__name__ != "ColumnExpr" or left.name != column or not hasattr(right, "value"):
        return None
    values = [*right.value] if operation == "in" else [right.value]
    return [*dict.fromkeys(one for one in values if isinstance(one, str))]


def _read(
    query: AppQuery,
    part: AppPart,
    predicate: Any,
    columns: Sequence[str] | None,
    limit: int | None,
) -> Iterator[pa.Table]:
    """The tables of a part, page by page; runs in a task."""
    with Client(**client_options(query.options)) as client:
        rows = 0
        left = query.limit
        # What a filter leaves out does not count for Ray's limit.
        pages = _pages(client, query, part, _least(left, limit if predicate is None else None))
        for messages in pages:
            if left is not None:
                messages = messages[:left]
                left -= len(messages)
            if predicate is None:
                table = app_table(query.rows, messages, columns)
            else:
                table = app_table(query.rows, messages, None).filter(predicate.to_pyarrow())
                table = table if columns is None else table.select(columns)
            rows += table.num_rows
            yield table
            if left == 0 or (limit is not None and rows >= limit):
                break
        if not rows:
            yield app_table(query.rows, [], columns)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _pages(
    client: Client, query: AppQuery, part: AppPart, limit: int | None
) -> Iterator[Sequence[Any]]:
    if isinstance(part, HitPages):
        search = client.search.annotations if query.search_annotations else client.search.inputs
        pages = itertools.count(part.start) if part.stop is None else range(part.start, part.stop)
        for page in pages:
            hits = [*search(*query.conditions, page=page, **(query.search or {}))]
            yield hits
            if len(hits) < MAX_ITEMS:
                return
    elif isinstance(part, GivenIds):
        if query.rows == "inputs":
            yield [*client.inputs.list(ids=part.ids)]
        else:
            filters = {**(query.filters or {}), "input_ids" if part.of_inputs else "ids": part.ids}
            yield from _in_pages(client.annotations.list(**filters), MAX_ITEMS)
    elif query.rows == "inputs":
        size = min(limit or STREAM_PAGE, STREAM_PAGE)
        yield from _in_pages(inputs_of(client, part, size), size)
    else:
        for inputs in _in_pages(inputs_of(client, part, STREAM_PAGE), MAX_ITEMS):
            ids = [one.id for one in inputs]
            found = client.annotations.list(input_ids=ids, **(query.filters or {}))
            yield from _in_pages(found, MAX_ITEMS)


def _in_pages(items: Any, size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while page := [*itertools.islice(iterator, size)]:
        yield page
