"""The private descriptor pool in which the generated modules register.

Two packages that define ``clarifai.api`` cannot share protobuf's default pool. Ours is a pool of
its own, seeded with the files that the contract imports, so both can be loaded in one process.
"""

import copyreg
from collections.abc import Iterable
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import (
    descriptor_pb2,
    duration_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


def _seeded_pool() -> DescriptorPool:
    pool = DescriptorPool()
    for module in (
        descriptor_pb2,
        timestamp_pb2,
        duration_pb2,
        struct_pb2,
        wrappers_pb2,
        http_pb2,
        annotations_pb2,
    ):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


POOL = _seeded_pool()


def _restore(full_name: str, encoded: bytes) -> Message:
    message: Message = GetMessageClass(POOL.FindMessageTypeByName(full_name))()
    message.ParseFromString(encoded)
    return message


def _reduce(message: Message) -> tuple[Any, ...]:
    return _restore, (message.DESCRIPTOR.full_name, message.SerializePartialToString())


def make_picklable(messages: Iterable[Descriptor]) -> None:
    """Have the nested messages of these pickled by their full name.

    protobuf finds nested and well-known classes through its default pool, which has none of ours,
    or those of another package.
    """
    for message in messages:
        for nested in message.nested_types:
            copyreg.pickle(GetMessageClass(nested), _reduce)
        make_picklable(message.nested_types)


def _make_well_known_picklable() -> None:
    for module in (timestamp_pb2, duration_pb2, struct_pb2, wrappers_pb2):
        for name in module.DESCRIPTOR.message_types_by_name:
            copyreg.pickle(
                GetMessageClass(POOL.FindMessageTypeByName(f"google.protobuf.{name}")), _reduce
            )


_make_well_known_picklable()
