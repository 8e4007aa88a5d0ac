"""The private descriptor pool in which the generated modules register.

Two packages that define ``clarifai.api`` cannot share protobuf's default pool. Ours is a pool of
its own, so both can be loaded in one process.

protobuf's own loader of generated modules imports most of the package, which takes as long as all
of ``clarigrpc``. With protobuf's C extension (upb) three objects are enough, and nothing else is
imported. Other implementations of protobuf take its public way.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from google.protobuf.internal import api_implementation, enum_type_wrapper
from google.protobuf.message import Message

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FileDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool


def _implementation() -> tuple[DescriptorPool, Any, Callable[[Descriptor], type[Message]]]:
    """A new pool, the metaclass of messages, and what finds the class of a descriptor."""
    pool: Any
    if api_implementation.Type() == "upb":
        try:
            from google._upb import _message

            pool, metaclass = _message.DescriptorPool(), _message.MessageMeta
        except (ImportError, AttributeError):
            pass  # another release: the public way does the same
        else:
            return pool, metaclass, _concrete_class
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass
    from google.protobuf.reflection import GeneratedProtocolMessageType

    return DescriptorPool(), GeneratedProtocolMessageType, GetMessageClass


def _concrete_class(descriptor: Any) -> type[Message]:
    found: type[Message] = descriptor._concrete_class
    return found


POOL, _build_class, message_class = _implementation()


def add_file(encoded: bytes, namespace: dict[str, Any]) -> FileDescriptor:
    """Add a file to the pool and its messages, enums and extensions to a module.

    Args:
        encoded: The file as a serialized ``FileDescriptorProto``. Those that it imports are there.
        namespace: What the module defines.
    """
    file: FileDescriptor = POOL.AddSerializedFile(encoded)
    for name, enum in file.enum_types_by_name.items():
        namespace[name] = enum_type_wrapper.EnumTypeWrapper(enum)
        for value in enum.values:
            namespace[value.name] = value.number
    for name, extension in file.extensions_by_name.items():
        namespace[f"{name.upper()}_FIELD_NUMBER"] = extension.number
        namespace[name] = extension
    module = namespace["__name__"]
    for name, message in file.message_types_by_name.items():
        namespace[name] = _built(message, module, "")
    return file


def _built(message: Descriptor, module: str, outer: str) -> type[Message]:
    name = message.name
    members: dict[str, Any] = {
        nested.name: _built(nested, module, f"{outer}{name}.") for nested in message.nested_types
    }
    members.update(DESCRIPTOR=message, __module__=module, __qualname__=outer + name)
    made: type[Message] = _build_class(name, (Message,), members)
    if outer:
        # protobuf finds nested classes through its default pool, which has none of ours, or those
        # of another package.
        copyreg.pickle(made, partial(_reduce, module))
    return made


def _restore(module: str, full_name: str, encoded: bytes) -> Message:
    import_module(module)  # which adds the message to the pool
    message = message_class(POOL.FindMessageTypeByName(full_name))()
    message.ParseFromString(encoded)
    return message


def _reduce(module: str, message: Message) -> tuple[Any, ...]:
    return _restore, (module, message.DESCRIPTOR.full_name, message.SerializePartialToString())
