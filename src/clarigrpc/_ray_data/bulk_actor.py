"""What an actor of ``clarigrpc.ray.Predictor`` does with a batch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from clarigrpc import v2
from clarigrpc._bulk.predict_engine import PredictResult
from clarigrpc._config.client_options import ClientOptions
from clarigrpc._named_methods.signatures import MethodCall, find, signature_text
from clarigrpc._ray_data.output_columns import method_column, output_column
from clarigrpc._ray_data.row_inputs import as_table, column_values, row_inputs
from clarigrpc.arrays import OutputColumn
from clarigrpc.client import AsyncClient
from clarigrpc.errors import InvalidArgumentError


def client_options(options: ClientOptions | None) -> dict[str, Any]:
    """The options that differ from their defaults, by name."""
    if options is None:
        return {}
    given = {one.name: (getattr(options, one.name), one.default) for one in _OPTION_FIELDS}
    return {name: value for name, (value, default) in given.items() if value != default}


_OPTION_FIELDS = dataclasses.fields(ClientOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorTask:
    """What to predict with, and which columns to read and to add.

    Attributes:
        model: Arguments of ``client.model``.
        column: Column of the inputs; empty where a method is called.
        kind: What the column holds.
        method: Name of the method to call, or empty.
        arguments: Column by argument of the method.
        columns: Fields of the output.
        run: Options of ``predict_many``.
        prefix: Before the names of the columns that are added.
    """

    model: Mapping[str, Any]
    column: str
    kind: str | None
    method: str
    arguments: Mapping[str, str]
    columns: Sequence[OutputColumn]
    run: Mapping[str, Any]
    prefix: str


class BulkActor:
    """A client and a model, for one event loop.

    Args:
        task: What to do.
        options: Options of the client.
    """

    def __init__(self, task: ActorTask, options: ClientOptions | None) -> None:
        self._task = task
        self._client = AsyncClient(**client_options(options))
        self._model = self._client.model(**task.model)

    async def add_columns(self, batch: Any) -> pa.Table:
        """The batch as a table with output, error and latency of each row."""
        table = as_table(batch)
        names = [f"{self._task.prefix}{name}" for name in ("output", "error", "latency")]
        if taken := [name for name in names if name in table.column_names]:
            raise InvalidArgumentError(
                f"the dataset has a column {taken[0]!r} already: give another prefix="
            )
        if self._task.method:
            signature = await self._signature()
            results, latencies = await self._results(self._calls(table, signature))
            bare = v2.MethodSignature(name=signature.name, output_fields=signature.output_fields)
            added = method_column(results, signature, MethodCall(bare, {}, _same).result)
        else:
            values = column_values(table, self._task.column)
            results, latencies = await self._results(row_inputs(values, self._task.kind))
            added = output_column(results, self._task.columns)
        for name, column in zip(names, (*added, pa.array(latencies, pa.float64())), strict=True):
            table = table.append_column(name, column)
        return table

    async def _signature(self) -> v2.MethodSignature:
        known = await self._model.methods()
        signature = find(known, self._task.method, self._model.model_id)
        if signature.method_type not in (0, v2.RunnerMethodType.UNARY_UNARY):
            raise InvalidArgumentError(
                f"{signature_text(signature)} streams; methods for rows take and return values"
            )
        return signature

    def _calls(
        self, table: pa.Table, signature: v2.MethodSignature
    ) -> list[Callable[[], v2.Input]]:
        """Functions that make the inputs of calls."""
        columns = {
            argument: column_values(table, column)
            for argument, column in self._task.arguments.items()
        }

        def call(row: int) -> Callable[[], v2.Input]:
            def made() -> v2.Input:
                arguments = {argument: values[row] for argument, values in columns.items()}
                return MethodCall(signature, arguments, _same).request()  # type: ignore[return-value]

            return made

        return [call(row) for row in range(table.num_rows)]

    async def _results(self, inputs: Sequence[Any]) -> tuple[list[PredictResult], list[float]]:
        """The results of inputs in their order, and the seconds from reading each to its result."""
        began: list[float] = []

        def read() -> Iterator[Any]:
            for one in inputs:
                began.append(time.monotonic())
                yield one

        results: list[Any] = [None] * len(inputs)
        latencies = [0.0] * len(inputs)
        async for result in self._model.predict_many(read(), ordered=False, **self._task.run):
            results[result.index] = result
            latencies[result.index] = time.monotonic() - began[result.index]
        return results, latencies

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


def _same(value: Any) -> Any:
    return value
