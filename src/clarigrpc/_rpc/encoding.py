"""The hot encodings: predict requests assembled from serialized pieces, arrays out of responses.

Field numbers come from the descriptors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from clarigrpc import v2
from clarigrpc.errors import InvalidArgumentError
from clarigrpc.media import as_input

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """``value`` (not negative) as a protobuf varint."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(message: type[Any], field: str) -> bytes:
    """The tag that precedes an element of a length-delimited field."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return varint(number << 3 | _LENGTH_DELIMITED)


_SHORT = 128
_SMALL = 64 * 1024
_MOST_KEPT = 32 * 1024 * 1024 - 64 * 1024  # glibc learns from blocks of less than 32 MiB


def keep_freed(size: int) -> None:
    """Have the C library keep freed memory for requests of up to ``size`` bytes.

    A request and gRPC's copy of it are freed after each call. glibc gives freed memory beyond a
    threshold back to the system, and then the next request pays a page fault for every 4 KiB: more
    than half of the CPU of a large image. It raises that threshold to twice the size of a block
    that is freed, so one is. It is never touched, so that it takes no memory and next to no time.
    Other C libraries are not disturbed by this.
    """
    bytes(min(2 * size, _MOST_KEPT))


Pieces: TypeAlias = tuple[bytes, bytes]
"""An element of a repeated field: tag and length with what else comes first, and the rest."""


def size_of(pieces: Pieces) -> int:
    """Bytes of an element."""
    return len(pieces[0]) + len(pieces[1])


class PredictEncoder:
    """``PostModelOutputsRequest``s that share everything but their inputs.

    The shared part is serialized once. A request is that part, followed by each input behind its
    tag and length: what protobuf itself would write. The bytes of an image are copied once, into
    the request that is sent.
    """

    def __init__(self, constant: v2.PostModelOutputsRequest) -> None:
        self.constant = constant.SerializeToString()
        self._inputs = tag(v2.PostModelOutputsRequest, "inputs")
        self._short = tuple(self._inputs + varint(length) for length in range(_SHORT))
        self._data = tag(v2.Input, "data")
        self._image = tag(v2.Data, "image")
        self._base64 = tag(v2.Image, "base64")
        self._kept = _SMALL

    def pieces(self, value: Any) -> Pieces:
        """One input as an element of ``inputs``, in two pieces to be joined.

        Args:
            value: The bytes of an image, or what ``media.as_input`` takes.

        Raises:
            TypeError: It is neither.
        """
        if type(value) is bytes and value:
            return self._image_pieces(value)
        one = value if isinstance(value, v2.Input) else as_input(value)
        encoded = one.SerializeToString()
        length = len(encoded)
        if length < _SHORT:
            return self._short[length], encoded
        return self._inputs + varint(length), encoded

    def _image_pieces(self, content: bytes) -> Pieces:
        """An input that is an image and nothing else; the content is not copied."""
        image = self._base64 + varint(len(content))
        data = self._image + varint(len(image) + len(content)) + image
        one = self._data + varint(len(data) + len(content)) + data
        return self._inputs + varint(len(one) + len(content)) + one, content

    def request(self, inputs: Iterable[Pieces]) -> bytes:
        """The serialized request with these inputs."""
        encoded = b"".join((self.constant, *chain.from_iterable(inputs)))
        if len(encoded) > self._kept:
            self._kept = 2 * len(encoded)
            keep_freed(self._kept)
        return encoded

    def encode(self, values: Iterable[Any]) -> bytes:
        """The serialized request with these values."""
        return self.request(map(self.pieces, values))


def output_embeddings(response: v2.MultiOutputResponse) -> NDArray[np.float32]:
    """The embeddings of a response as one array, without a Python object for each number.

    Args:
        response: The outputs of an embedding model, each with one embedding.

    Returns:
        An array of shape (outputs, dimensions) and dtype float32, in the order of the outputs.

    Raises:
        InvalidArgumentError: An output has no embedding, or they differ in their dimensions.
    """
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
