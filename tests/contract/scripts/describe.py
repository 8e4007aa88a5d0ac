"""Write the descriptors of clarifai_grpc to stdout: a FileDescriptorSet, dependencies first.

Runs in the environment of the published package.
"""

import importlib
import pkgutil
import sys
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

files = FileDescriptorSet()
seen: set[str] = set()


def add(file: Any) -> None:
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        add(dependency)
    files.file.add().ParseFromString(file.serialized_pb)


package = importlib.import_module("clarifai_grpc.grpc")
for module in pkgutil.walk_packages(package.__path__, "clarifai_grpc.grpc."):
    if module.name.endswith("_pb2"):
        add(importlib.import_module(module.name).DESCRIPTOR)
sys.stdout.buffer.write(files.SerializeToString())
