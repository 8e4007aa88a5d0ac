"""Files that arrive in parts.

A streamed upload appends to its file, so the length of the file is the whole state: what was
written before the acknowledgement is there after SIGKILL, and a torn last write is a prefix of the
right bytes. The parts of a unary upload come in any order; the store remembers their ranges.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from clarigrpc import v2
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode


class PartError(Exception):
    """A part that does not fit; ``conflict`` when other bytes are there already."""

    def __init__(self, text: str, *, conflict: bool = False) -> None:
        super().__init__(text)
        self.conflict = conflict


class PartFile:
    """A file that grows by consecutive parts, as one stream of an upload sends them.

    Args:
        path: The file; what it holds already counts as received.
        total: Size that the file will have.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._path = path
        # Some clients send the end of a part as its range_start. Which kind one is shows in its
        # first part only, so it is remembered beside the file.
        self._end_mark = path.with_name(f"{path.name}.end")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._received = os.fstat(self._descriptor).st_size
        self._ends = self._end_mark.exists()
        self._hash = hashlib.sha256() if self._received == 0 else None
        self._number: int | None = None
        self._open = True

    @property
    def received(self) -> int:
        """Bytes that are kept, from the first on without a gap."""
        return self._received

    @property
    def remaining(self) -> int:
        """Bytes that are missing."""
        return self.total - self._received

    def add(self, part: v2.UploadContentPart) -> None:
        """Keeps a part; one that is there already, with equal bytes, is fine.

        Raises:
            PartError: The part leaves a gap, exceeds the total, is out of order, or differs
                from what is there.
        """
        with self._lock:
            if not self._open:
                raise PartError("another stream has taken over this upload", conflict=True)
            data = part.data
            start = self._start(part, len(data))
            known = min(self._received - start, len(data))
            if known and os.pread(self._descriptor, known, start) != data[:known]:
                raise PartError(
                    f"part {part.part_number} differs from the bytes that are there", conflict=True
                )
            if known < len(data):
                self._append(memoryview(data)[known:])
            self._number = part.part_number

    def _start(self, part: v2.UploadContentPart, size: int) -> int:
        number, offset = part.part_number, part.range_start
        if not size:
            raise PartError(f"part {number} is empty")
        if number < 1:
            raise PartError(f"part_number is {number}; parts count from 1")
        if self._number is None:
            if self._received == 0 and number != 1:
                raise PartError(f"the upload starts with part {number}, not with part 1")
        elif number > self._number + 1:
            raise PartError(f"part {number} arrived after part {self._number}")
        if self._received == 0:
            self._ends = offset == size
            if self._ends:
                self._end_mark.touch()
        start = offset - size if self._ends else offset
        if start < 0 or start > self._received:
            raise PartError(
                f"part {number} starts at {start}; the next missing byte is {self._received}"
            )
        if start + size > self.total:
            raise PartError(
                f"part {number} ends at {start + size}, beyond the total size of {self.total}"
            )
        if self._number is not None and number <= self._number and start + size > self._received:
            raise PartError(f"part {number} was sent again with different content", conflict=True)
        return start

    def _append(self, data: memoryview) -> None:
        if self._hash is not None:
            self._hash.update(data)
        while data:
            written = os.pwrite(self._descriptor, data, self._received)
            self._received += written
            data = data[written:]

    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with self._lock:
            # An upload that came in one go was hashed on the way.
            if self._hash is not None:
                return self._hash.hexdigest()
            return hash_file(self._path)

    def close(self) -> None:
        """Takes no more parts."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._descriptor)


class UploadStore:
    """The folder of uploaded files.

    Args:
        folder: Made if it is not there.

    Attributes:
        unary: Held while parts of a unary upload are written: their ranges are read, changed
            and kept, and two calls at once would lose one's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.unary: threading.Lock = threading.Lock()
        self._lock = threading.Lock()
        self._streams: dict[str, PartFile] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Ends all uploads; what they received stays."""
        with self._lock:
            for stream in self._streams.values():
                stream.close()
            self._streams.clear()

    def path(self, *name: str) -> Path:
        """Where the content of that name is; the name may hold any text."""
        return self._folder / hashlib.sha256("\0".join(name).encode()).hexdigest()[:40]

    def open(self, path: Path, total: int) -> PartFile:
        """Goes on with an upload; a stream that still has it loses it.

        That is how it must be: the server may not have noticed yet that a client which now
        resumes lost its connection.
        """
        with self._lock:
            before = self._streams.pop(path.name, None)
            if before is not None:
                before.close()
            stream = self._streams[path.name] = PartFile(path, total)
            return stream

    def release(self, path: Path, stream: PartFile) -> None:
        """Ends one stream's part in an upload."""
        with self._lock:
            if self._streams.get(path.name) is stream:
                del self._streams[path.name]
        stream.close()

    def delete(self, path: Path) -> None:
        """Deletes the content, if there is any."""
        path.unlink(missing_ok=True)


Ranges = list[list[int]]
"""Sorted ``[start, end]`` of the bytes that are there; ends are exclusive, none touch."""


def write_part(path: Path, ranges: Ranges, part: v2.UploadContentPart, total: int) -> Ranges:
    """Writes a part of a unary upload at its place; returns the ranges that are there then.

    Raises:
        PartError: The part is empty, exceeds the total, or differs from what is there.
    """
    start, end = part.range_start, part.range_start + len(part.data)
    if part.part_number < 1:
        raise PartError(f"part_number is {part.part_number}; parts count from 1")
    if start == end:
        raise PartError(f"part {part.part_number} is empty")
    if end > total:
        raise PartError(f"part {part.part_number} ends at {end}, beyond the length of {total}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for low, high in ranges:
            low, high = max(low, start), min(high, end)
            if (
                low < high
                and os.pread(descriptor, high - low, low) != part.data[low - start : high - start]
            ):
                raise PartError(
                    f"part {part.part_number} differs from the bytes that are there", conflict=True
                )
        data, offset = memoryview(part.data), start
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(descriptor)
    return merge_ranges([*ranges, [start, end]])


def merge_ranges(ranges: Iterable[list[int]]) -> Ranges:
    """Joins ranges that overlap or touch."""
    merged: Ranges = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_service_error(error: PartError, code: StatusCode.ValueType) -> ServiceError:
    """The status for a part that does not fit: ``code``, or UPLOAD_CONFLICT."""
    return ServiceError(StatusCode.UPLOAD_CONFLICT if error.conflict else code, str(error))
