"""Outputs as NumPy arrays: the embeddings or the concepts of a whole response, or of a batch."""

from __future__ import annotations

import functools
from collections.abc import Iterable
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
    listed = outputs.outputs if isinstance(outputs, v2.MultiOutputResponse) else outputs
    for index, output in enumerate(listed):
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
        listed = [*outputs.outputs]
        encoded = outputs.SerializeToString()
        merged = _merged_concepts("Response").FromString(encoded).outputs.data.concepts
    else:
        listed = [*outputs]
        # Serialized messages one after the other are what they merge into.
        encoded = b"".join([output.SerializeToString() for output in listed])
        merged = _merged_concepts("Output").FromString(encoded).data.concepts
    lists = [output.data.concepts for output in listed]
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(concepts) for concepts in lists], out=offsets[1:])
    count = int(offsets[-1])
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
def _merged_concepts(name: str) -> Any:
    """A class that reads all concepts of a response as one: lists of ids and of values.

    Args:
        name: ``Response``, or ``Output`` for what several outputs merge into.

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
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"merged.{name}"))
