"""Inputs, annotations and hits -> rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import pyarrow as pa
from google.protobuf.json_format import MessageToJson

from clarigrpc import v2

AppRows: TypeAlias = Literal["inputs", "annotations", "hits"]

_CONCEPTS = pa.list_(pa.struct({"id": pa.string(), "name": pa.string(), "value": pa.float32()}))
_MOMENT = pa.timestamp("us", tz="UTC")


def _concepts(data: v2.Data) -> list[dict[str, Any]]:
    return [{"id": one.id, "name": one.name, "value": one.value} for one in data.concepts]


def _metadata(data: v2.Data) -> str | None:
    if not data.HasField("metadata"):
        return None
    return MessageToJson(data.metadata, indent=None, ensure_ascii=False)


_CONTENT_KINDS: tuple[Literal["image", "video", "audio", "text"], ...] = (
    "image",
    "video",
    "audio",
    "text",
)


def _kind(data: v2.Data) -> str | None:
    return next((kind for kind in _CONTENT_KINDS if data.HasField(kind)), None)


def _url(data: v2.Data) -> str | None:
    kind = _kind(data)
    return getattr(data, kind).url or None if kind else None


def _moment(message: Any) -> Any:
    return message.created_at.ToMicroseconds() if message.HasField("created_at") else None


_AppColumn: TypeAlias = tuple[Any, Callable[[Any], Any]]
"""Type of a column, and how a message gives its value."""

_INPUT_COLUMNS: Mapping[str, _AppColumn] = {
    "id": (pa.string(), lambda one: one.id),
    "kind": (pa.string(), lambda one: _kind(one.data)),
    "url": (pa.string(), lambda one: _url(one.data)),
    "text": (pa.string(), lambda one: one.data.text.raw or None),
    "concepts": (_CONCEPTS, lambda one: _concepts(one.data)),
    "metadata": (pa.string(), lambda one: _metadata(one.data)),
    "dataset_ids": (pa.list_(pa.string()), lambda one: [*one.dataset_ids]),
    "status_code": (pa.int32(), lambda one: one.status.code),
    "created_at": (_MOMENT, _moment),
    "message": (pa.binary(), lambda one: one.SerializeToString()),
}


def _of_hit(take: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda one: take(one.input)


APP_COLUMNS: Mapping[AppRows, Mapping[str, _AppColumn]] = {
    "inputs": _INPUT_COLUMNS,
    "annotations": {
        "id": (pa.string(), lambda one: one.id),
        "input_id": (pa.string(), lambda one: one.input_id),
        "user_id": (pa.string(), lambda one: one.user_id),
        "task_id": (pa.string(), lambda one: one.task_id),
        "concepts": (_CONCEPTS, lambda one: _concepts(one.data)),
        "regions": (pa.int32(), lambda one: len(one.data.regions)),
        "metadata": (pa.string(), lambda one: _metadata(one.data)),
        "status_code": (pa.int32(), lambda one: one.status.code),
        "created_at": (_MOMENT, _moment),
        "message": (pa.binary(), lambda one: one.SerializeToString()),
    },
    "hits": {
        "score": (pa.float32(), lambda one: one.score),
        "annotation_id": (pa.string(), lambda one: one.annotation.id or None),
        **{
            name: (kind, _of_hit(take))
            for name, (kind, take) in _INPUT_COLUMNS.items()
            if name != "message"
        },
        "message": (pa.binary(), lambda one: one.SerializeToString()),
    },
}


def app_schema(rows: AppRows, names: Iterable[str] | None) -> pa.Schema:
    """The schema of rows with the columns of these names; None: all."""
    columns = APP_COLUMNS[rows]
    return pa.schema([(name, columns[name][0]) for name in (columns if names is None else names)])


def app_table(rows: AppRows, messages: Sequence[Any], names: Iterable[str] | None) -> pa.Table:
    """A table with a row for each message."""
    schema = app_schema(rows, names)
    takes = {name: APP_COLUMNS[rows][name][1] for name in schema.names}
    arrays = [
        pa.array([takes[field.name](one) for one in messages], field.type) for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
