"""The file that makes an upload restartable.

One JSON object a line, appended and fsynced before what it tells of has consequences:

- ``{"journal": 1, "target": {...}, "since": seconds}`` first: whose upload it is.
- ``{"sent": [ids]}`` before a batch is first sent: from here on its inputs may be there.
- ``{"added": [ids]}`` and ``{"failed": [ids]}`` when their outcome is known.

After a crash the last line may be torn. It is cut off: what it told had had no consequence yet.
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

Event = Literal["sent", "added", "failed"]


class Record(NamedTuple):
    """What happened to inputs."""

    event: Event
    ids: Sequence[str]


class Journal:
    """A journal, opened for one upload; a new file is begun when there is none.

    Of the inputs that were added, 8 bytes each are kept in memory.

    Args:
        path: The file.
        target: What the upload is bound to: the base address, the user and the app.
        now: Seconds since the epoch.

    Raises:
        ConfigurationError: The file belongs to another target, or is no journal.
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
        """Whether an input was added before this journal was opened."""
        digest = _digest(input_id)
        place = bisect.bisect_left(self._added, digest)
        return place < len(self._added) and self._added[place] == digest

    def write(self, records: Sequence[Record]) -> None:
        """Append what happened; it is on the disk on return."""
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
                    raise ConfigurationError(f"{self._path} is no journal of an upload")
                break
            try:
                self._apply(json.loads(line), target, first=end == 0)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigurationError(
                    f"line {number} of {self._path} is no line of an upload's journal"
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
                    f"the journal {self._path} belongs to {line['target']}, and this upload goes "
                    f"to {target}: give each upload a journal of its own"
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
    """Put the entry of a new file on the disk, where folders can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
