"""Parse messages from stdin with the classes of clarifai_grpc and write them back.

Runs in the environment of the published package. A request is the lengths of a full name and of
the message, both as uint32, then both; the answer is a length and the message, serialized
deterministically. Unknown fields are dropped, so that a field that this package does not know
does not come back by itself.
"""

import importlib
import struct
import sys
from typing import Any

from google.protobuf import descriptor_pool, message_factory

importlib.import_module("clarifai_grpc.grpc.api.service_pb2")
pool = descriptor_pool.Default()  # type: ignore[no-untyped-call, unused-ignore]
while header := sys.stdin.buffer.read(8):
    name_length, length = struct.unpack("<II", header)
    name = sys.stdin.buffer.read(name_length).decode()
    descriptor = pool.FindMessageTypeByName(name)
    message: Any = message_factory.GetMessageClass(descriptor)()
    message.ParseFromString(sys.stdin.buffer.read(length))
    message.DiscardUnknownFields()
    data = message.SerializeToString(deterministic=True)
    sys.stdout.buffer.write(struct.pack("<I", len(data)) + data)
    sys.stdout.buffer.flush()
