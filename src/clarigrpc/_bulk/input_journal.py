"""The journal: a file with which an upload of inputs continues after a crash.

Each line is a JSON object, appended and fsynced before the upload goes on:

- ``{"journal": 1, "target": {...}, "since": seconds}``: the first line, the app of the upload.
- ``{"sent": [ids]}``: before a batch is first sent; from here on, its inputs may have been added.
- ``{"added": [ids]}`` and ``{"failed": [ids]}``: when the outcome is known.

After a crash the last line may be incomplete. It is removed, as nothing happened after it. The file
is locked while it is open, as the records of two uploads would contradict each other.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import os
import stat
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from clarigrpc._file_lock import lock_file, unlock_file
from clarigrpc._replaced_files import sync_folder
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
        ConfigurationError: Another upload uses the file, it belongs to another app, or it is not a
            journal.
        OSError: The file cannot be opened, locked or written.
    """

    def __init__(
        self, path: str | os.PathLike[str], target: Mapping[str, str], *, now: float
    ) -> None:
        self._path = Path(path)
        self.since = now
        self._unsure: Counter[str] = Counter()
        self._added = array("Q")
        self._end = 0
        self._torn = False
        # Unbuffered: what could not be written is not written later behind our back.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._file = open(os.open(path, flags, 0o666), "r+b", buffering=0)  # noqa: SIM115 - see close
        try:
            self._lock()
            self._load(dict(target))
        except BaseException:
            self.close()
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
        """Close the file and release its lock."""
        if not self._file.closed:
            unlock_file(self._file.fileno())
        self._file.close()

    def is_added(self, input_id: str) -> bool:
        """Whether the input was added before the journal was opened."""
        digest = _digest(input_id)
        place = bisect.bisect_left(self._added, digest)
        return place < len(self._added) and self._added[place] == digest

    def is_unsure(self, input_id: str) -> bool:
        """Whether the input was sent before, with an unknown outcome."""
        return input_id in self._unsure

    def write(self, records: Sequence[Record]) -> None:
        """Append records. They are on the disk on return."""
        if records:
            self._append([{record.event: list(record.ids)} for record in records])

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            # It keeps nothing, and to read a pipe would never end.
            raise ConfigurationError(f"the journal {self._path} is a pipe or a device")
        if not lock_file(self._file.fileno()):
            raise ConfigurationError(
                f"the journal {self._path} is in use by another upload: wait until it has ended, "
                "or use a separate journal"
            )

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        encoded = [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines]
        if self._torn:
            # An earlier write was interrupted, or the disk was full: a line may be incomplete.
            self._file.truncate(self._end)
        self._torn = True
        self._file.seek(self._end)
        data = memoryview(b"".join(encoded))
        end = self._end + len(data)
        while data:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())
        self._end, self._torn = end, False

    def _load(self, target: dict[str, str]) -> None:
        # First, as the first "line" of other files may be gigabytes.
        start = self._file.read(len(_BEGINNING))
        if not _BEGINNING.startswith(start):
            raise ConfigurationError(f"{self._path} is not the journal of an upload")
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._apply(json.loads(line), target, first=number == 1)
                except (
                    ValueError,
                    KeyError,
                    TypeError,
                    AttributeError,
                    RecursionError,
                    OverflowError,
                ):
                    raise ConfigurationError(
                        f"line {number} of {self._path} is not a line of an upload's journal"
                    ) from None
                self._end += len(line)
        self._file.truncate(self._end)
        # Sorted once, so that a million inputs cost 8 MB and not a set of strings.
        self._added = array("Q", sorted(self._added))
        if self._end == 0:
            self._append([{"journal": _VERSION, "target": target, "since": self.since}])
            sync_folder(self._path.parent)

    def _apply(self, line: dict[str, Any], target: dict[str, str], *, first: bool) -> None:
        if first:
            if line["journal"] != _VERSION or not math.isfinite(line["since"]):
                raise ValueError(line)
            if line["target"] != target:
                raise ConfigurationError(
                    f"the journal {self._path} belongs to an upload to {line['target']}, not to "
                    f"{target}: use a separate journal for each upload"
                )
            self.since = float(line["since"])
            return
        ((event, ids),) = line.items()
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise ValueError(ids)
        if event == "sent":
            self._unsure.update(ids)
        elif event == "added":
            self._added.extend(map(_digest, ids))
            for one in ids:
                self._unsure.pop(one, None)
        elif event == "failed":
            # Of two inputs with the same id, the failure of one says nothing about the other.
            for one in ids:
                self._unsure[one] -= 1
                if self._unsure[one] <= 0:
                    del self._unsure[one]
        else:
            raise ValueError(event)


def _digest(input_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(input_id.encode(), digest_size=8).digest())
