"""Files that the server makes for its users to fetch."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{32}\.zip")


class Downloads:
    """A folder of files under names that nobody guesses.

    Args:
        folder: Made if it is not there.

    Attributes:
        base: Address of the REST front, which serves them; without one their URLs are those of
            files on this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.base = ""
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a file is to be written."""
        return self._folder / name

    def url(self, name: str) -> str:
        """Where to fetch a file."""
        if self.base:
            return f"{self.base}/downloads/{name}"
        return self.path(name).absolute().as_uri()

    def find(self, name: str) -> Path | None:
        """The file of that name, None where there is none."""
        path = self.path(name)
        return path if _NAME.fullmatch(name) and path.is_file() else None
