"""Which ids of resources are refused before they are written."""

from __future__ import annotations

import re

from clarigrpc import errors

_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"


def has_control(text: str) -> bool:
    """Whether a text has control characters or line breaks."""
    # The first question is much the faster one, and decides nearly always.
    return not text.isprintable() and re.search(_CONTROL, text) is not None


def check_printed(resource_id: str) -> None:
    """Refuse control characters in the id of what is written: a slip, such as a line not stripped.

    Ids are parts of URLs and lines of listings. Which other characters an id may have is for the
    service to say.

    Raises:
        InvalidArgumentError: The id has some.
    """
    if has_control(resource_id):
        raise errors.InvalidArgumentError(
            f"the id {resource_id!r} has control characters, such as line breaks"
        )
