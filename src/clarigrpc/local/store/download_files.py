"""Files that the server makes for its users to fetch."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from clarigrpc.local.store.resource_store import Store

MEDIA_TYPES = {
    ".zip": "application/zip",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4s": "video/iso.segment",
}
"""What the server makes, by the ends of the names."""

_FILE_NAME = re.compile(rf"[0-9a-f]{{32}}({'|'.join(map(re.escape, MEDIA_TYPES))})")


class Downloads:
    """A folder of files under names that nobody guesses.

    Args:
        folder: Made if it is not there.
        store: Knows what the files belong to.

    Attributes:
        base: Address of the REST front, which serves them; without one their URLs are those of
            files on this machine.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self.base = ""
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def name(suffix: str) -> str:
        """A new name that nobody guesses."""
        return f"{secrets.token_hex(16)}{suffix}"

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
        return path if _FILE_NAME.fullmatch(name) and path.is_file() else None

    def keep(self, name: str, seq: int) -> None:
        """Keeps a file, with those beside it that differ by the suffix, as long as a resource.

        Args:
            name: Its name.
            seq: Place of the resource in the store.
        """
        self._store.own_file(name, seq)
        self.sweep()  # that may have been deleted while the file was made

    def sweep(self) -> None:
        """Deletes the files of resources that are gone."""
        for name in self._store.abandoned_files():
            for suffix in MEDIA_TYPES:
                self.path(name).with_suffix(suffix).unlink(missing_ok=True)
            self._store.forget_file(name)
