"""The journal: a file with which an upload of inputs continues after a crash.

Each line is a JSON object, appended and fsynced before the upload goes on:

- ``{"journal": 1, "target": {...}, "since": seconds}``: the first line, the app of the upload.
- ``{"sent": [ids]}``: before a batch is first sent; from here on, its inputs may have been added.
- ``{"added": [ids]}`` and ``{"failed": [ids]}``: when the outcome is known.

After a crash the last line may be incomplete. It is removed, as nothing happened after it.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self

from clarigrpc.errors import ConfigurationError

_VERSION = 1
_BEGINNING = b'{"journal":'

JournalEvent = Literal["sent", "added", "failed"]


class Record(NamedTuple):
    """A line of the journal: what happened to the inputs with these ids."""

    event: JournalEvent
    ids: Sequence[str]


class Journal:
    """A journal, opened for one upload; the file is created if it does not exist.

    Uses 8 bytes of memory for each input that was added before.

    Args:
        path: The file.
        target: Base address, user and app of the upload.
        now: Seconds since the epoch.

    Raises:
        ConfigurationError: The file belongs to another app, or is not a journal.
    """

    def __init__(
        self, path: str | os.PathLike[str], target: Mapping[str, str], *, now: float
    ) -> None:
        self._path = Path(path)
        self.since = now
        self.unsure: set[str] = set()
        self._added = array("Q")
        try:
            self._file: BinaryIO = self._path.open("r+b")
        except FileNotFoundError:
            self._file = self._path.open("x+b")
        try:
            self._load(dict(target))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def is_added(self, input_id: str) -> bool:
        """Whether the input was added before the journal was opened."""
        digest = _digest(input_id)
        place = bisect.bisect_left(self._added, digest)
        return place < len(self._added) and self._added[place] == digest

    def write(self, records: Sequence[Record]) -> None:
        """Append records. They are on the disk on return."""
        if records:
            self._append([{record.event: list(record.ids)} for record in records])

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        encoded = [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines]
        self._file.write(b"".join(encoded))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _load(self, target: dict[str, str]) -> None:
        end = number = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                if end == 0 and not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                    raise ConfigurationError(f"{self._path} is not the journal of an upload")
                break
            try:
                self._apply(json.loads(line), target, first=end == 0)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigurationError(
                    f"line {number} of {self._path} is not a line of an upload's journal"
                ) from None
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        # Sorted once, so that a million inputs cost 8 MB and not a set of strings.
        self._added = array("Q", sorted(self._added))
        if end == 0:
            self._append([{"journal": _VERSION, "target": target, "since": self.since}])
            _sync_folder(self._path.parent)

    def _apply(self, line: dict[str, Any], target: dict[str, str], *, first: bool) -> None:
        if first:
            if line["journal"] != _VERSION:
                raise ValueError(line["journal"])
            if line["target"] != target:
                raise ConfigurationError(
                    f"the journal {self._path} belongs to an upload to {line['target']}, not to "
                    f"{target}: use a separate journal for each upload"
                )
            self.since = float(line["since"])
            return
        ((event, ids),) = line.items()
        if event == "sent":
            self.unsure.update(ids)
            return
        if event == "added":
            self._added.extend(map(_digest, ids))
        elif event != "failed":
            raise ValueError(event)
        self.unsure.difference_update(ids)


def _digest(input_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(input_id.encode(), digest_size=8).digest())


def _sync_folder(folder: Path) -> None:
    """Write the folder's entry of a new file to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
