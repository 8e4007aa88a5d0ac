"""What belongs to the connection of a client."""

from __future__ import annotations

from typing import NoReturn


class Connected:
    """Base of what has a client's connection, which stays in its process."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects have a client's connection, and cannot be pickled or "
            "copied; create a client, and this object from it, in each process"
        )
