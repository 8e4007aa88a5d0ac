"""Small facts about single resources: new ids, visibility, whether a build is over."""

from __future__ import annotations

import time
import uuid
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from clarigrpc import v2


def new_id() -> str:
    """An id in the form that the service makes: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def is_built(since: Timestamp, seconds: float) -> bool:
    """Whether what began to be built at ``since`` is ready by now."""
    return time.time() >= since.ToNanoseconds() / 1e9 + seconds


def is_public(item: Any) -> bool:
    """Whether everybody may see a resource that is in an app which everybody may see."""
    if "visibility" not in item.DESCRIPTOR.fields_by_name:
        return True
    return bool(item.visibility.gettable == v2.Visibility.PUBLIC)
