"""Rows of blocks of Ray Data -> inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data.block import BlockAccessor

from clarigrpc import media, v2
from clarigrpc.errors import InvalidArgumentError


def as_table(batch: Any) -> pa.Table:
    """A batch of any of Ray's formats (NumPy, pandas, Arrow) as an Arrow table."""
    if isinstance(batch, pa.Table):
        return batch
    if isinstance(batch, Mapping):
        batch = BlockAccessor.batch_to_block(dict(batch))
    return BlockAccessor.for_block(batch).to_arrow()


def column_values(table: pa.Table, name: str) -> list[Any]:
    """The values of a column as Python objects; those of a column of tensors are NumPy arrays.

    Raises:
        InvalidArgumentError: There is no such column.
    """
    if name not in table.column_names:
        raise InvalidArgumentError(
            f"the dataset has no column {name!r}; its columns are {', '.join(table.column_names)}"
        )
    column = table.column(name)
    if isinstance(column.type, pa.BaseExtensionType):
        return [*BlockAccessor.for_block(table.select([name])).to_numpy(name)]
    values: list[Any] = column.to_pylist()
    return values


_INPUT_MAKERS: Mapping[str, Callable[[Any], v2.Input]] = {
    "image": media.image,
    "video": media.video,
    "audio": media.audio,
    "text": media.text,
    "input": v2.Input.FromString,
}


def row_inputs(values: Sequence[Any], kind: str | None) -> list[Any]:
    """Functions that make the inputs of rows, so that each fails alone.

    Args:
        values: Values of a column.
        kind: What they are. None takes what is no string for an image.
    """
    make = media.as_input if kind is None else _INPUT_MAKERS[kind]
    return [partial(_made, make, value) for value in values]


def _made(make: Callable[[Any], v2.Input], value: Any) -> v2.Input:
    if value is None:
        raise InvalidArgumentError("the row has no value (null)")
    return make(value)
