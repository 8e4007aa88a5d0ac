"""Rows -> inputs of an app, by many tasks of Ray, each input once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.data import Datasink

from clarigrpc import media, v2
from clarigrpc._bulk.input_encoding import is_derived
from clarigrpc._bulk.input_report import FailedInput
from clarigrpc._bulk.input_sources import SourceInput
from clarigrpc._config.client_options import ClientOptions
from clarigrpc._contract.status_names import code_name
from clarigrpc._ray_data.bulk_actor import client_options
from clarigrpc._ray_data.inputs_report import FailedRow, InputsReport
from clarigrpc._ray_data.row_inputs import as_table, column_values, row_inputs
from clarigrpc.client import Client
from clarigrpc.errors import ClarigrpcError, InvalidArgumentError

MAX_FAILURES = 1000
"""Failed rows of a task that a report names; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class InputRows:
    """Which columns inputs are made of.

    Attributes:
        column: Column of the content.
        kind: What it holds, as of ``row_inputs``.
        id_column: Column of ids; empty makes them from the content.
        concepts_column: Column of lists of ids of concepts; empty: none.
        metadata_columns: Columns whose values are kept with the input.
    """

    column: str
    kind: str | None
    id_column: str
    concepts_column: str
    metadata_columns: Sequence[str]

    def read(self, block: Any) -> list[SourceInput]:
        """What makes the inputs of the rows of a block."""
        table = as_table(block)
        extra = [self.id_column, self.concepts_column, *self.metadata_columns]
        columns = {name: column_values(table, name) for name in extra if name}
        contents = row_inputs(column_values(table, self.column), self.kind)

        def made(row: int) -> v2.Input:
            result: v2.Input = contents[row]()
            if self.id_column:
                result.id = _id_text(columns[self.id_column][row])
            if self.concepts_column:
                concepts = columns[self.concepts_column][row] or ()
                result.data.concepts.extend(media.concept_messages(concepts))
            if self.metadata_columns:
                values = {name: columns[name][row] for name in self.metadata_columns}
                result.data.metadata.MergeFrom(media.metadata_struct(values))
            return result

        def made_or_rejected(row: int) -> v2.Input:
            try:
                return made(row)
            except (OSError, ClarigrpcError):
                raise
            except Exception as error:  # whatever is wrong with a row, the others are added
                raise InvalidArgumentError(f"{type(error).__name__}: {error}") from error

        return [
            SourceInput(partial(made_or_rejected, row), f"row {row}")
            for row in range(table.num_rows)
        ]


def _id_text(value: Any) -> str:
    if value is None:
        raise InvalidArgumentError("the row has no id (null)")
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidArgumentError(f"the row's id is {value!r}, not a string or a whole number")


class InputDatasink(Datasink[InputsReport]):
    """Adds the inputs of rows.

    Any of them may have been added by a try whose worker died. So each counts as one whose response
    was lost: what has its id in the app already is compared with it, and not added again.

    Args:
        rows: How inputs are made.
        options: Options of the client of each task.
        upload: Options of ``client.inputs.upload``.

    Attributes:
        report: What was done, when all is done.
    """

    def __init__(
        self, rows: InputRows, options: ClientOptions | None, upload: dict[str, Any]
    ) -> None:
        self._rows = rows
        self._options = options
        self._upload = upload
        self._since = time.time()
        self.report = InputsReport()

    def get_name(self) -> str:
        return "ClarifaiInputs"

    def write(self, blocks: Iterable[Any], ctx: Any) -> InputsReport:
        """Add the inputs of blocks; runs in a task."""

        def source() -> Iterator[FailedInput]:
            for block in blocks:
                for one in self._rows.read(block):
                    yield FailedInput(0, "", v2.Status(), one, maybe_added=True, since=self._since)

        with Client(**client_options(self._options)) as client:
            done = client.inputs.upload(source(), **self._upload)
        report = InputsReport(rows=done.taken, found=done.recognised)
        report.added = done.added - done.recognised
        added = {*done.added_ids} if done.failed_inputs else set()
        for failure in done.failed_inputs:
            if failure.id in added and _is_content_taken(failure):
                report.found += 1
                continue
            report.failed += 1
            if len(report.failures) < MAX_FAILURES:
                said = f"{failure.status.description} {failure.status.details}".strip()
                code = failure.status.code
                report.failures.append(FailedRow(failure.id, code, f"{code_name(code)}: {said}"))
        return report

    def on_write_complete(self, write_result: Any) -> None:
        """Add up the reports of the tasks."""
        for part in write_result.write_returns:
            self.report.rows += part.rows
            self.report.added += part.added
            self.report.found += part.found
            self.report.failed += part.failed
            self.report.failures += part.failures


def _is_content_taken(failure: FailedInput) -> bool:
    """Whether an input with the same content, and so the same id, is in the app."""
    given = failure.input
    return (
        failure.status.code == v2.StatusCode.INPUT_DUPLICATE
        and isinstance(given, v2.Input)
        and is_derived(given)
    )
