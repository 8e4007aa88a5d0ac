"""The private descriptor pool in which the generated modules register.

Two packages that define ``clarifai.api`` cannot share protobuf's default pool. Ours is a pool of
its own, seeded with the files that the contract imports, so both can be loaded in one process.
"""

from google.api import annotations_pb2, http_pb2
from google.protobuf import (
    descriptor_pb2,
    duration_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pool import DescriptorPool


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
