"""Files that arrive in parts."""

from __future__ import annotations

from pathlib import Path

from clarigrpc.local.store import Store


class UploadStore:
    """Keeps uploads as files beside the store."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def close(self) -> None:
        """Closes open files."""
