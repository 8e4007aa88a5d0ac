"""Outputs as NumPy arrays, Arrow tables, pandas frames and Parquet files.

The functions take a whole response, a list of outputs, or what ``predict_batches`` yields.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._extras import NeedsExtra
from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._parquet_parts import PartFiles
from clarigrpc._rpc.encoding import tag
from clarigrpc.errors import InvalidArgumentError
from clarigrpc.media import is_iterable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from clarigrpc._bulk.predict_engine import PredictBatch, PredictResult
    from clarigrpc._resources.model_handle import Model
    from clarigrpc.media import PredictInput

__all__ = [
    "ConceptArrays",
    "OutputColumn",
    "ParquetReport",
    "RegionArrays",
    "TokenArrays",
    "output_concepts",
    "output_embeddings",
    "output_regions",
    "output_tokens",
    "to_arrow",
    "to_pandas",
    "to_parquet",
]

OutputColumn: TypeAlias = Literal[
    "concepts",
    "regions",
    "embedding",
    "text",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
]
"""A column of ``to_arrow``; ``index``, ``input_id`` and ``error`` are always there."""


def output_embeddings(
    outputs: v2.MultiOutputResponse | Iterable[v2.Output],
) -> NDArray[np.float32]:
    """Embeddings as one array, without a Python object for each number.

    Args:
        outputs: Outputs of an embedding model, each with one embedding: a response, a list, or the
            ``outputs`` of a batch of ``predict_batches``.

    Returns:
        An array of shape (outputs, dimensions) and dtype float32, in the order of the outputs.

    Raises:
        InvalidArgumentError: An output has no embedding, or they differ in their dimensions.
    """
    with NeedsExtra("arrays", "output_embeddings()"):
        import numpy as np

    rows = []
    for index, output in enumerate(_each(outputs, "output_embeddings")):
        embeddings = output.data.embeddings
        if not embeddings:
            raise InvalidArgumentError(f"output {index} has no embedding")
        rows.append(_packed_floats(embeddings[0].SerializeToString()))
    if not rows:
        return np.empty((0, 0), np.float32)
    if len({len(row) for row in rows}) > 1:
        raise InvalidArgumentError("the embeddings differ in their dimensions")
    array = np.frombuffer(bytearray().join(rows), dtype="<f4")
    return array.reshape(len(rows), -1).astype(np.float32, copy=False)


_VECTOR = tag(v2.Embedding, "vector")


def _packed_floats(embedding: bytes) -> memoryview:
    """The content of ``vector`` in a serialized ``Embedding``, where protobuf writes it first."""
    if not embedding.startswith(_VECTOR):
        return memoryview(b"")
    length = shift = 0
    position = len(_VECTOR)
    while True:
        byte = embedding[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return memoryview(embedding)[position : position + length]


class ConceptArrays(NamedTuple):
    """The concepts of outputs, one after the other.

    Attributes:
        ids: Their ids, an array of ``str`` objects of shape (concepts,).
        values: Their values, float32 of shape (concepts,).
        offsets: int64 of shape (outputs + 1,): those of output ``i`` are
            ``[offsets[i]:offsets[i + 1]]``. Where all outputs have ``k`` concepts,
            ``values.reshape(-1, k)`` is a table with a row for each.
    """

    ids: NDArray[np.object_]
    values: NDArray[np.float32]
    offsets: NDArray[np.int64]


def output_concepts(outputs: v2.MultiOutputResponse | Iterable[v2.Output]) -> ConceptArrays:
    """Concepts as arrays, without a Python object for each of them.

    Args:
        outputs: Outputs of a model with concepts: a response, a list, or the ``outputs`` of a batch
            of ``predict_batches``. An output may have none.

    Returns:
        Ids, values and where each output's begin, in the order of the outputs.
    """
    with NeedsExtra("arrays", "output_concepts()"):
        import numpy as np

    if isinstance(outputs, v2.MultiOutputResponse):
        lists = [output.data.concepts for output in outputs.outputs]
        encoded = outputs.SerializeToString()
        merged = _merged_concepts("Response", named=False).FromString(encoded).outputs.data.concepts
    else:
        listed = [*_each(outputs, "output_concepts")]
        lists = [output.data.concepts for output in listed]
        # Serialized messages one after the other are what they merge into.
        encoded = b"".join([output.SerializeToString() for output in listed])
        merged = _merged_concepts("Output", named=False).FromString(encoded).data.concepts
    found = _concept_columns(lists, merged, named=False)
    ids = np.empty(len(found.ids), object)
    ids[:] = found.ids
    return ConceptArrays(ids, found.values, found.offsets)


class _ConceptColumns(NamedTuple):
    """Concepts of several messages, one after the other; ``offsets`` as of ``ConceptArrays``.

    ``names`` is empty where they were not asked for."""

    ids: list[str]
    names: list[str]
    values: NDArray[np.float32]
    offsets: NDArray[np.int64]


def _concept_columns(
    lists: Sequence[Sequence[v2.Concept]], merged: Any, *, named: bool
) -> _ConceptColumns:
    """The concepts of messages.

    Args:
        lists: The concepts of each.
        merged: All of them as one message of ``_merged_concepts``, which it may change.
        named: Whether to give their names.
    """
    import numpy as np

    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(concepts) for concepts in lists], out=offsets[1:])
    count = int(offsets[-1])
    ids, names = list(merged.id), list(merged.name) if named else []
    if named and len(names) != count:  # what is empty is not written
        names = [concept.name for concepts in lists for concept in concepts]
    if len(ids) == len(merged.value) == count:
        merged.DiscardUnknownFields()
        for field in merged.DESCRIPTOR.fields:
            if field.name != "value":
                merged.ClearField(field.name)
        packed = merged.SerializeToString()  # tag, length, values
        values = np.frombuffer(packed, "<f4", count, len(packed) - 4 * count).astype(np.float32)
    else:  # neither is a value of zero
        ids = [concept.id for concepts in lists for concept in concepts]
        values = np.array([concept.value for concepts in lists for concept in concepts], np.float32)
    return _ConceptColumns(ids, names, values, offsets)


def _concepts_of(listed: Sequence[v2.Data]) -> _ConceptColumns:
    encoded = b"".join([data.SerializeToString() for data in listed])
    merged = _merged_concepts("Data", named=True).FromString(encoded).concepts
    return _concept_columns([data.concepts for data in listed], merged, named=True)


class RegionArrays(NamedTuple):
    """The regions of outputs, one after the other.

    Attributes:
        boxes: float32 of shape (regions, 4): top, left, bottom and right of each, as shares of the
            height and the width from 0 to 1. A region that is no box has zeros.
        ids: Their ids, an array of ``str`` objects of shape (regions,).
        concepts: Their concepts; those of region ``i`` are
            ``[concepts.offsets[i]:concepts.offsets[i + 1]]``.
        offsets: int64 of shape (outputs + 1,): those of output ``i`` are
            ``[offsets[i]:offsets[i + 1]]``.
    """

    boxes: NDArray[np.float32]
    ids: NDArray[np.object_]
    concepts: ConceptArrays
    offsets: NDArray[np.int64]


def output_regions(outputs: v2.MultiOutputResponse | Iterable[v2.Output]) -> RegionArrays:
    """Regions, such as those of a detector, as arrays.

    Args:
        outputs: As of ``output_concepts``.

    Returns:
        Boxes, ids, concepts, and where each output's begin, in the order of the outputs.
    """
    with NeedsExtra("arrays", "output_regions()"):
        import numpy as np

    regions, offsets = _regions_of([*_each(outputs, "output_regions")])
    found = _concepts_of([region.data for region in regions])
    ids, concept_ids = np.empty(len(regions), object), np.empty(len(found.ids), object)
    ids[:] = [region.id for region in regions]
    concept_ids[:] = found.ids
    concepts = ConceptArrays(concept_ids, found.values, found.offsets)
    return RegionArrays(_boxes(regions), ids, concepts, offsets)


def _each(outputs: Any, called: str) -> Iterable[Any]:
    """The outputs of a response, or those given.

    Raises:
        TypeError: It is a single one, or no iterable.
    """
    if isinstance(outputs, v2.MultiOutputResponse):
        return outputs.outputs
    if isinstance(outputs, str | Message) or not is_iterable(outputs):
        raise TypeError(
            f"{called}() takes a response or a list of outputs, not {type(outputs).__name__}; put "
            "a single output in a list"
        )
    given: Iterable[Any] = outputs
    return given


def _regions_of(listed: Sequence[v2.Output]) -> tuple[list[v2.Region], NDArray[np.int64]]:
    """The regions of outputs, and where each output's begin."""
    import numpy as np

    lists = [output.data.regions for output in listed]
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(regions) for regions in lists], out=offsets[1:])
    return [*itertools.chain.from_iterable(lists)], offsets


def _boxes(regions: Sequence[v2.Region]) -> NDArray[np.float32]:
    import numpy as np

    boxes = [region.region_info.bounding_box for region in regions]
    sides = [(box.top_row, box.left_col, box.bottom_row, box.right_col) for box in boxes]
    return np.array(sides, np.float32).reshape(-1, 4)


class TokenArrays(NamedTuple):
    """How many tokens outputs took, each an int64 array of shape (outputs,).

    Attributes:
        prompt: Tokens of the input.
        completion: Tokens that were generated.
        cached: Tokens of the input that a cache had.
    """

    prompt: NDArray[np.int64]
    completion: NDArray[np.int64]
    cached: NDArray[np.int64]


def output_tokens(outputs: v2.MultiOutputResponse | Iterable[v2.Output]) -> TokenArrays:
    """The counts of tokens of outputs, in their order.

    Args:
        outputs: As of ``output_concepts``.
    """
    with NeedsExtra("arrays", "output_tokens()"):
        import numpy as np

    counts = [
        (output.prompt_tokens, output.completion_tokens, output.cached_tokens)
        for output in _each(outputs, "output_tokens")
    ]
    table = np.array(counts, np.int64).reshape(-1, 3)
    return TokenArrays(*(np.ascontiguousarray(column) for column in table.T))


@dataclass(frozen=True, slots=True)
class _TableRow:
    """A row of a table: an output, or the error in its place."""

    index: int
    output: v2.Output | None
    error: Exception | None


def _rows(outputs: Any) -> list[_TableRow]:
    """The rows of all that ``to_arrow`` takes."""
    from clarigrpc._bulk.predict_engine import PredictBatch, PredictResult

    rows: list[_TableRow] = []
    for one in _each(outputs, "to_arrow"):
        if isinstance(one, v2.Output):
            rows.append(_TableRow(len(rows), one, None))
        elif isinstance(one, PredictBatch):
            batch = [_TableRow(*both, None) for both in zip(one.indexes, one.outputs, strict=True)]
            batch += [_TableRow(index, None, error) for index, error in one.errors.items()]
            rows += sorted(batch, key=lambda row: row.index)
        elif isinstance(one, PredictResult) and isinstance(one.output, v2.Output | None):
            rows.append(_TableRow(one.index, one.output, one.error))
        else:
            raise TypeError(
                "to_arrow() takes outputs of models, and results or batches of predict_many and "
                f"predict_batches, not {type(one).__name__}"
            )
    return rows


def to_arrow(
    outputs: v2.MultiOutputResponse | Iterable[v2.Output | PredictResult | PredictBatch],
    *,
    columns: Sequence[OutputColumn] | None = None,
) -> pa.Table:
    """Outputs as an Arrow table with a row for each.

    Its columns are:

    - ``index``: int64, the index of the input among the values given; of outputs alone, their
      number.
    - ``input_id``: string.
    - ``error``: string, why the input failed; null where it did not.
    - ``concepts``: list of structs of ``id``, ``name`` (strings) and ``value`` (float32).
    - ``regions``: list of structs of ``id`` (string), ``top``, ``left``, ``bottom``, ``right``
      (float32, shares of the height and the width from 0 to 1), ``text`` (string) and ``concepts``
      as above.
    - ``embedding``: list of fixed size of float32.
    - ``text``: string.
    - ``prompt_tokens``, ``completion_tokens``, ``cached_tokens``: int64.

    All but ``index`` and ``error`` are null in the row of an input that failed, and so is an
    embedding or a text that an output does not have.

    Args:
        outputs: A response, outputs, or what ``predict_many`` or ``predict_batches`` yields.
        columns: Those to have besides the first three. None has all, but ``embedding`` only where
            an output has one.

    Raises:
        ConfigurationError: The extra ``tables`` is not installed.
        InvalidArgumentError: There is no such column, the embeddings differ in their dimensions, or
            an output has several.
        TypeError: ``outputs`` has something else.
    """
    with NeedsExtra("tables", "to_arrow()"):
        import pyarrow as pa
    return _table(pa, _rows(outputs), checked_columns(columns))


_OUTPUT_COLUMNS: tuple[OutputColumn, ...] = get_args(OutputColumn)


def checked_columns(columns: Sequence[OutputColumn] | None) -> tuple[OutputColumn, ...] | None:
    """Columns in the order in which tables have them."""
    if columns is None:
        return None
    if isinstance(columns, str) or (
        unknown := [one for one in columns if one not in _OUTPUT_COLUMNS]
    ):
        wrong = columns if isinstance(columns, str) else unknown[0]
        raise InvalidArgumentError(
            f"columns={wrong!r}: columns is a list of {', '.join(_OUTPUT_COLUMNS)}"
        )
    return tuple(one for one in _OUTPUT_COLUMNS if one in columns)


def _table(
    pa: Any,
    rows: Sequence[_TableRow],
    columns: tuple[OutputColumn, ...] | None,
    dimensions: int | None = None,
) -> pa.Table:
    """A table of rows; ``dimensions`` are those of embeddings that came before."""
    import numpy as np

    failed = np.array([row.output is None for row in rows], bool)
    listed = [v2.Output() if row.output is None else row.output for row in rows]
    made: dict[str, Any] = {
        "index": pa.array([row.index for row in rows], pa.int64()),
        "input_id": pa.array(
            [None if row.output is None else row.output.input.id for row in rows], pa.string()
        ),
        "error": pa.array([_told(row.error) for row in rows], pa.string()),
    }
    for name in _OUTPUT_COLUMNS if columns is None else columns:
        if name == "concepts":
            found = _concepts_of([output.data for output in listed])
            made[name] = _concept_lists(pa, found, failed)
        elif name == "regions":
            made[name] = _region_lists(pa, listed, failed)
        elif name == "embedding":
            column = _embedding_column(pa, rows, dimensions)
            if columns is not None or column.type.list_size:
                made[name] = column
        elif name == "text":
            raws = [output.data.text.raw or None for output in listed]
            made[name] = pa.array(raws, pa.string())
        else:
            counts = np.array([getattr(output, name) for output in listed], np.int64)
            made[name] = pa.array(counts, mask=failed)
    return pa.table(made)


def _told(error: Exception | None) -> str | None:
    if error is None:
        return None
    # The name of a file may hold bytes that no column can.
    return f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()


def _concept_lists(pa: Any, found: _ConceptColumns, missing: NDArray[np.bool_] | None) -> Any:
    fields = {
        "id": pa.array(found.ids, pa.string()),
        "name": pa.array(found.names, pa.string()),
        "value": pa.array(found.values),
    }
    structs = pa.StructArray.from_arrays([*fields.values()], [*fields])
    return _lists(pa, structs, found.offsets, missing)


def _lists(
    pa: Any, values: Any, offsets: NDArray[np.int64], missing: NDArray[np.bool_] | None
) -> Any:
    mask = None if missing is None else pa.array(missing)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=mask)


def _region_lists(pa: Any, listed: Sequence[v2.Output], failed: NDArray[np.bool_]) -> Any:
    regions, offsets = _regions_of(listed)
    boxes = _boxes(regions)
    fields = {
        "id": pa.array([region.id for region in regions], pa.string()),
        **{
            side: pa.array(boxes[:, place].copy())
            for place, side in enumerate(("top", "left", "bottom", "right"))
        },
        "text": pa.array([region.data.text.raw or None for region in regions], pa.string()),
        "concepts": _concept_lists(pa, _concepts_of([one.data for one in regions]), None),
    }
    structs = pa.StructArray.from_arrays([*fields.values()], [*fields])
    return _lists(pa, structs, offsets, failed)


def _embedding_column(pa: Any, rows: Sequence[_TableRow], dimensions: int | None) -> Any:
    """Embeddings as lists of one size, which is 0 where nothing tells it."""
    import numpy as np

    packed: list[memoryview] = []
    for row in rows:
        embeddings = () if row.output is None else row.output.data.embeddings
        if len(embeddings) > 1:
            raise InvalidArgumentError(
                f"output {row.index} has {len(embeddings)} embeddings, the column is for one"
            )
        packed.append(_packed_floats(embeddings[0].SerializeToString() if embeddings else b""))
    sizes = {len(one) // 4 for one in packed if one} | ({dimensions} if dimensions else set())
    if len(sizes) > 1:
        raise InvalidArgumentError(
            f"the embeddings differ in their dimensions: {', '.join(map(str, sorted(sizes)))}"
        )
    size = sizes.pop() if sizes else 0
    if not size:
        return pa.nulls(len(rows), pa.list_(pa.float32(), 0))
    nothing = bytes(4 * size)
    joined = bytearray().join([one or nothing for one in packed])
    floats = pa.array(np.frombuffer(joined, "<f4").astype(np.float32, copy=False))
    mask = pa.array([not one for one in packed])
    return pa.FixedSizeListArray.from_arrays(floats, size, mask=mask)


def to_pandas(
    outputs: v2.MultiOutputResponse | Iterable[v2.Output | PredictResult | PredictBatch],
    *,
    rows: Literal["outputs", "concepts", "regions"] = "outputs",
    columns: Sequence[OutputColumn] | None = None,
) -> pd.DataFrame:
    """Outputs as a frame of pandas.

    Args:
        outputs: As of ``to_arrow``.
        rows: What has a row. "outputs" has the columns of ``to_arrow``, with concepts and regions
            as lists of dictionaries. "concepts" has ``index``, ``input_id``, ``id``, ``name`` and
            ``value``; "regions" has ``index``, ``input_id`` and the fields of regions.
        columns: As of ``to_arrow``, where outputs have a row.

    Raises:
        ConfigurationError: The extra ``tables`` is not installed.
        InvalidArgumentError: As of ``to_arrow``, or ``rows`` is something else.
        TypeError: ``outputs`` has something else.
    """
    with NeedsExtra("tables", "to_pandas()"):
        import pandas  # noqa: F401 - told here where it is missing
        import pyarrow as pa
        import pyarrow.compute as pc
    if rows == "outputs":
        frame: pd.DataFrame = to_arrow(outputs, columns=columns).to_pandas()
        return frame
    if rows not in ("concepts", "regions"):
        raise InvalidArgumentError(f"rows={rows!r}: rows are outputs, concepts or regions")
    if columns is not None:
        raise InvalidArgumentError("to_pandas(): columns are for rows='outputs'")
    table = to_arrow(outputs, columns=[rows])
    lists = table[rows].combine_chunks()
    parents = table.select(["index", "input_id"]).take(pc.list_parent_indices(lists))
    structs = lists.flatten()
    fields = {field.name: structs.field(field.name) for field in structs.type}
    return pa.table(
        {**{name: parents[name] for name in parents.column_names}, **fields}
    ).to_pandas()


_ROWS_AT_ONCE = 1024
"""Rows that are held before they are written; a row group of a file has as many or more."""


@dataclass(frozen=True)
class ParquetReport:
    """What ``to_parquet`` did.

    Attributes:
        rows: Rows that this run wrote.
        failed: Those of them with an ``error``.
        rows_before: Rows that were there from earlier runs.
    """

    rows: int
    failed: int
    rows_before: int


def to_parquet(
    model: Model,
    values: Iterable[PredictInput],
    folder: str | os.PathLike[str],
    *,
    columns: Sequence[OutputColumn] | None = None,
    rows_per_file: int = 10_000,
    batch_size: int | None = None,
    in_flight: int | None = None,
    timeout: float | None = None,
    progress: bool = False,
) -> ParquetReport:
    """Predict any number of inputs and write the outputs to Parquet files, in constant memory.

    The folder gets files ``part-000000000000.parquet``, ..., named after the index of their first
    row, with the columns of ``to_arrow`` and a row for each input, in order. Readers of Parquet
    take the folder as one table.

    Run it again with the same values to continue: files that are complete stay, and as many values
    are skipped. An error, also Ctrl-C, completes the file that is being written; a process that is
    killed loses the rows of that file alone, which are predicted again.

    Args:
        model: A model of a ``Client``.
        values: What ``predict_many`` takes, the same at each run.
        folder: Where to write; made if it is not there.
        columns: As of ``to_arrow``. Of None, ``embedding`` is there if one of the first 1024
            outputs has one.
        rows_per_file: Rows of a file.
        batch_size, in_flight, timeout, progress: As of ``predict_many``.

    Returns:
        How many rows were written, and how many of them have an ``error``.

    Raises:
        ConfigurationError: The extra ``tables`` is not installed, or the folder has outputs of
            another model or ``output_config`` or other columns, lacks a file, or is in use by
            another run.
        InvalidArgumentError: As of ``to_arrow`` and ``predict_many``, or ``rows_per_file`` is below
            1, an output has an embedding where the files have no such column, or ``columns`` names
            ``embedding`` and none of the first 1024 outputs has one.
    """
    with NeedsExtra("tables", "to_parquet()"):
        import pyarrow as pa
    if rows_per_file < 1:
        raise InvalidArgumentError(f"rows_per_file={rows_per_file!r}: at least 1")
    chosen = checked_columns(columns)
    sent = model._constant()
    config = sent.model.model_version.output_info.output_config
    made_by = {
        "user_id": sent.user_app_id.user_id,
        "app_id": sent.user_app_id.app_id,
        "model_id": sent.model_id,
        "version_id": sent.version_id,
        "output_config": MessageToDict(config, preserving_proto_field_name=True),
        "columns": "default" if chosen is None else ",".join(chosen),
    }
    with closing(PartFiles(folder, made_by, rows_per_file)) as parts:
        start = parts.next_index
        written = failed = 0
        held: list[_TableRow] = []

        def write() -> None:
            nonlocal written, failed
            if not held:
                return
            with HeldInterrupt():  # the report has the rows that the files have
                rows = [replace(row, index=row.index + start) for row in held]
                held.clear()
                parts.write(_fitting(pa, rows, chosen, parts.schema))
                written += len(rows)
                failed += sum(row.error is not None for row in rows)

        run = model.predict_batches(
            itertools.islice(values, start, None),
            batch_size=batch_size,
            in_flight=in_flight,
            timeout=timeout,
            progress=progress,
        )
        try:
            for batch in run:
                held += _rows([batch])
                if len(held) >= _ROWS_AT_ONCE:
                    write()
            write()
        except BaseException as raised:
            run.close()
            try:
                write()
            except InvalidArgumentError as error:
                raised.add_note(f"to_parquet: the last rows were not written: {error}")
            raise
    return ParquetReport(written, failed, start)


def _fitting(
    pa: Any, rows: Sequence[_TableRow], columns: tuple[OutputColumn, ...] | None, schema: Any
) -> pa.Table:
    """A table of rows with the schema of those before; None where there are none."""
    if schema is None:
        table = _table(pa, rows, columns)
        if "embedding" in table.column_names and not table.schema.field("embedding").type.list_size:
            # Written as it is, the column would be one of no dimensions for ever.
            told = next((f": {_told(row.error)}" for row in rows if row.error is not None), "")
            raise InvalidArgumentError(
                f"none of the first {len(rows)} outputs has an embedding{told}; nothing was written"
            )
        return table
    place = schema.get_field_index("embedding")
    dimensions = schema.field(place).type.list_size if place >= 0 else None
    table = _table(pa, rows, columns, dimensions)
    if table.schema.equals(schema):
        return table
    raise InvalidArgumentError(
        "an output has an embedding, and none of those that came first had: name the columns, or "
        "give another folder"
    )


@functools.cache
def _merged_concepts(name: str, *, named: bool) -> Any:
    """A class that reads all concepts of a response as one: lists of ids, values and names.

    Args:
        name: ``Response``, or ``Output`` or ``Data`` for what several of them merge into.
        named: Whether it lists the names.

    It has the fields of ``MultiOutputResponse`` with the same numbers, but single where that one
    repeats messages. protobuf merges messages that come again, and lists grow when it does.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="merged", package="merged", syntax="proto3")

    def add(message: str, like: type[Any], field: str, **options: Any) -> None:
        (target,) = [one for one in file.message_type if one.name == message] or [
            file.message_type.add(name=message)
        ]
        number = like.DESCRIPTOR.fields_by_name[field].number
        target.field.add(name=field, number=number, **options)

    single = {"type": kinds.TYPE_MESSAGE, "label": kinds.LABEL_OPTIONAL}
    listed = {"label": kinds.LABEL_REPEATED}
    for field in v2.Concept.DESCRIPTOR.fields:
        if field.name in ("id", "value") or (named and field.name == "name"):
            add("Concept", v2.Concept, field.name, type=field.type, **listed)
        elif field.type == kinds.TYPE_STRING:  # read and overwritten: unknown fields would be kept
            add("Concept", v2.Concept, field.name, type=field.type, label=kinds.LABEL_OPTIONAL)
    add("Data", v2.Data, "concepts", type_name=".merged.Concept", **single)
    add("Output", v2.Output, "data", type_name=".merged.Data", **single)
    add("Response", v2.MultiOutputResponse, "outputs", type_name=".merged.Output", **single)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"merged.{name}"))
