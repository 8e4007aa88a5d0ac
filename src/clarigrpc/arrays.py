"""Outputs as NumPy arrays: the embeddings or the concepts of a whole response."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from clarigrpc import v2
from clarigrpc._extras import NeedsExtra
from clarigrpc._rpc.encoding import tag
from clarigrpc.errors import InvalidArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ConceptArrays",
    "output_concepts",
    "output_embeddings",
]


def output_embeddings(response: v2.MultiOutputResponse) -> NDArray[np.float32]:
    """The embeddings of a response as one array, without a Python object for each number.

    Args:
        response: The outputs of an embedding model, each with one embedding.

    Returns:
        An array of shape (outputs, dimensions) and dtype float32, in the order of the outputs.

    Raises:
        InvalidArgumentError: An output has no embedding, or they differ in their dimensions.
    """
    with NeedsExtra("arrays", "output_embeddings()"):
        import numpy as np

    rows = []
    for index, output in enumerate(response.outputs):
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
    """The concepts of all outputs of a response, one after the other.

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


def output_concepts(response: v2.MultiOutputResponse) -> ConceptArrays:
    """The concepts of a response as arrays, without a Python object for each of them.

    Args:
        response: The outputs of a model with concepts. An output may have none.

    Returns:
        Ids, values and where each output's begin, in the order of the response.
    """
    with NeedsExtra("arrays", "output_concepts()"):
        import numpy as np

    lists = [output.data.concepts for output in response.outputs]
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(concepts) for concepts in lists], out=offsets[1:])
    count = int(offsets[-1])
    merged = _merged_concepts().FromString(response.SerializeToString()).outputs.data.concepts
    found: list[str] = list(merged.id)
    if len(found) == len(merged.value) == count:
        merged.DiscardUnknownFields()
        for field in merged.DESCRIPTOR.fields:
            if field.name != "value":
                merged.ClearField(field.name)
        packed = merged.SerializeToString()  # tag, length, values
        values = np.frombuffer(packed, "<f4", count, len(packed) - 4 * count).astype(np.float32)
    else:  # an empty id or a value of zero is not written
        found = [concept.id for concepts in lists for concept in concepts]
        values = np.array([concept.value for concepts in lists for concept in concepts], np.float32)
    ids = np.empty(count, object)
    ids[:] = found
    return ConceptArrays(ids, values, offsets)


@functools.cache
def _merged_concepts() -> Any:
    """A class that reads all concepts of a response as one: lists of ids and of values.

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
        if field.name in ("id", "value"):
            add("Concept", v2.Concept, field.name, type=field.type, **listed)
        elif field.type == kinds.TYPE_STRING:  # read and overwritten: unknown fields would be kept
            add("Concept", v2.Concept, field.name, type=field.type, label=kinds.LABEL_OPTIONAL)
    add("Data", v2.Data, "concepts", type_name=".merged.Concept", **single)
    add("Output", v2.Output, "data", type_name=".merged.Data", **single)
    add("Response", v2.MultiOutputResponse, "outputs", type_name=".merged.Output", **single)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("merged.Response"))
