"""What the patch actions do to a stored message: merge, overwrite, remove.

* ``merge`` sets the fields that the change has. Items of a list that have ids are added or, where
  the id is there already, merged likewise (a concept is replaced); other lists get the values that
  they lack; keys are put into maps and objects.
* ``overwrite`` replaces the fields that the change has, lists and objects as a whole.
* ``remove`` takes from lists the items that the change names by value or by id alone (an item with
  more than its id loses what is named inside it), from maps and objects the keys, and clears other
  fields.

A field that the change leaves out stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from clarigrpc.local.service_errors import ServiceError, StatusCodeValue
from clarigrpc.v2 import StatusCode

ACTIONS = ("merge", "overwrite", "remove")


def check_action(action: str, code: StatusCodeValue = StatusCode.CONN_INVALID_REQUEST) -> None:
    """ServiceError with ``code`` unless it is an action."""
    if action not in ACTIONS:
        raise ServiceError(code, f"action is {action!r}; it must be merge, overwrite or remove")


def patch(target: Message, change: Message, action: str, keep: Collection[str] = ()) -> None:
    """Changes ``target``.

    Args:
        target: The stored message.
        change: What to merge, to put in, or to take away.
        action: One of ``ACTIONS``.
        keep: Fields that never change, such as ids.
    """
    for field, value in change.ListFields():
        if field.name not in keep:
            _patch_field(target, field, value, action)


def _patch_field(target: Any, field: FieldDescriptor, value: Any, action: str) -> None:
    name = field.name
    if action == "overwrite":
        target.ClearField(name)
    if _is_map(field):
        _patch_map(getattr(target, name), value, action)
    elif field.is_repeated:
        _patch_list(target, field, value, action)
    elif field.message_type is not None and _is_open(field):
        if action == "remove":
            patch(getattr(target, name), value, action)
        else:
            getattr(target, name).SetInParent()
            patch(getattr(target, name), value, action)
    elif action == "remove":
        target.ClearField(name)
    elif field.message_type is not None:
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _is_open(field: FieldDescriptor) -> bool:
    """Whether a message is patched inside, field by field, rather than replaced."""
    # A value, a time or a wrapper is one thing; so is what stands for a resource elsewhere.
    kind = field.message_type
    assert kind is not None
    if kind.full_name == "google.protobuf.Struct":
        return True
    if kind.full_name.startswith("google.protobuf."):
        return False
    return "id" not in kind.fields_by_name


def _patch_map(target: Any, change: Any, action: str) -> None:
    for key in change:
        if action == "remove":
            if key not in target:
                continue
            # An object that names keys loses those keys only.
            inner = getattr(change[key], "struct_value", None)
            if inner is not None and inner.fields and target[key].HasField("struct_value"):
                _patch_map(target[key].struct_value.fields, inner.fields, action)
            else:
                del target[key]
        elif isinstance(change[key], Message):
            _put(target, change, key, action)
        else:
            target[key] = change[key]


def _put(target: Any, change: Any, key: Any, action: str) -> None:
    new = change[key]
    if isinstance(new, type(target[key])) and _both_objects(target[key], new):
        _patch_map(target[key].struct_value.fields, new.struct_value.fields, action)
    else:
        target[key].CopyFrom(new)


def _both_objects(old: Any, new: Any) -> bool:
    return bool(
        new.DESCRIPTOR.full_name == "google.protobuf.Value"
        and new.HasField("struct_value")
        and old.HasField("struct_value")
    )


def _patch_list(target: Any, field: FieldDescriptor, change: Any, action: str) -> None:
    items = getattr(target, field.name)
    if field.message_type is None or "id" not in field.message_type.fields_by_name:
        if action == "remove":
            kept = [item for item in items if item not in change]
            del items[:]
            items.extend(kept)
        else:
            items.extend(item for item in list(change) if item not in items)
        return
    named = {item.id: item for item in change if item.id}
    if action == "remove":
        kept = [item for item in items if not _goes(item, named.get(item.id))]
        del items[:]
        items.extend(kept)
        return
    for item in items:
        new = named.pop(item.id, None)
        if new is not None and _is_whole(new):
            item.CopyFrom(new)
        elif new is not None:
            patch(item, new, action)
    items.extend(item for item in change if not item.id or item.id in named)


def _is_whole(item: Message) -> bool:
    # A concept's value of 0 says something, and a merge field by field would not see it.
    return item.DESCRIPTOR.full_name == "clarifai.api.Concept"


def _goes(item: Any, change: Any) -> bool:
    """Whether an item of a list is removed; a change that names parts of it takes only those."""
    if change is None:
        return False
    if _is_whole(change) or {field.name for field, _ in change.ListFields()} == {"id"}:
        return True
    patch(item, change, "remove", keep=("id",))
    return False
