"""Outputs of models -> columns of a table, of the same types in every block."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._bulk.predict_engine import PredictFailure, PredictResult
from clarigrpc._named_methods.values import DataType
from clarigrpc.arrays import OutputColumn, output_embeddings, to_arrow
from clarigrpc.errors import InvalidArgumentError

_SCALAR_TYPES: Mapping[DataType.ValueType, Any] = {
    v2.ModelTypeField.STR: pa.string(),
    v2.ModelTypeField.BYTES: pa.binary(),
    v2.ModelTypeField.INT: pa.int64(),
    v2.ModelTypeField.FLOAT: pa.float64(),
    v2.ModelTypeField.BOOL: pa.bool_(),
}


def output_column(
    results: Sequence[PredictResult], columns: Sequence[OutputColumn]
) -> tuple[Any, Any]:
    """Outputs as an array of structs, null where there is none, and why.

    Args:
        results: The result of each row, in the order of the rows.
        columns: Fields of the struct.
    """
    vectors: dict[int, Any] = {}
    if "embedding" in columns:
        results = [_with_vector(result, vectors) for result in results]
    table = to_arrow(results, columns=[one for one in columns if one != "embedding"])
    fields = {
        name: _vectors(vectors, len(results))
        if name == "embedding"
        else table[name].combine_chunks()
        for name in columns
    }
    failed = pa.array([result.output is None for result in results], pa.bool_())
    structs = pa.StructArray.from_arrays([*fields.values()], [*fields], mask=failed)
    return structs, table["error"]


def _with_vector(result: PredictResult, vectors: dict[int, Any]) -> PredictResult:
    """Keep the embedding of a result; one with several has no place in the column and fails."""
    if result.error is not None or not (found := result.output.data.embeddings):
        return result
    if len(found) > 1:
        return PredictFailure(
            result.index,
            None,
            InvalidArgumentError(
                f"the output has {len(found)} embeddings, the column is for one: leave "
                "'embedding' out of columns"
            ),
        )
    vectors[result.index] = output_embeddings([result.output])[0]
    return result


def _vectors(vectors: Mapping[int, Any], count: int) -> Any:
    sizes = [len(vectors[place]) if place in vectors else 0 for place in range(count)]
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    values = np.concatenate([*vectors.values()]) if vectors else np.empty(0, np.float32)
    missing = pa.array([place not in vectors for place in range(count)], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=missing)


def method_column(
    results: Sequence[PredictResult], signature: v2.MethodSignature, decode: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """Results of a method with named arguments as an array, null where there is none, and why.

    A result of str, bytes, int, float or bool is of that type; any other is text in JSON.

    Args:
        results: The result of each row, in the order of the rows.
        signature: Signature of the method.
        decode: Turns an output into the method's result.
    """
    fields = signature.output_fields
    scalar = _SCALAR_TYPES.get(fields[0].type) if len(fields) == 1 else None
    kind = scalar or pa.string()
    values: list[Any] = []
    decoded: list[PredictResult] = []
    for result in results:
        value: Any = None
        if result.error is None:
            try:
                value = decode(result.output)
                value = value if scalar else json.dumps(value, default=_json_value)
                value = pa.scalar(value, kind)
            except Exception as error:  # noqa: BLE001 - a row's own, whatever its output is
                value, result = None, PredictFailure(result.index, None, error)
        values.append(value)
        decoded.append(result)
    return pa.array(values, kind), to_arrow(decoded, columns=[])["error"]


def _json_value(value: Any) -> Any:
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a result of type {type(value).__name__} has no form in a column")
