"""Files that arrive in parts.

A streamed upload appends to its file, so the length of the file is the whole state: what was
written before the acknowledgement is there after SIGKILL, and a torn last write is a prefix of the
right bytes. The parts of a unary upload come in any order; their ranges are kept beside the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import threading
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clarigrpc import v2
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.local.store.resource_store import Row, StoredCollection
from clarigrpc.v2 import StatusCode

MAX_UPLOAD_BYTES = 64 << 30
"""Largest file that is uploaded in parts."""

MAX_RANGES = 10_000
"""Ranges of a unary upload that do not touch."""

_RANGE = struct.Struct("<QQ")
# Unary uploads whose ranges are remembered between two calls.
_MAX_KNOWN = 64


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


class ScatteredFile:
    """A file whose parts come in any order, as those of a unary upload do.

    The ranges that are there are also kept beside the file, a record for each part: what was
    written is known after a restart, and a torn last record is left out.

    Args:
        path: The file.

    Attributes:
        lock: Held by the call that writes. Nothing else waits for it.
    """

    def __init__(self, path: Path) -> None:
        self.lock: threading.Lock = threading.Lock()
        self._path = path
        self._log = _range_log(path)
        # Sorted ranges of the bytes that are there: ends are exclusive, and no two touch.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._received = 0
        kept = self._log.read_bytes() if self._log.exists() else b""
        for start, end in _RANGE.iter_unpack(kept[: len(kept) - len(kept) % _RANGE.size]):
            self._insert(start, end)
        self._records = len(kept) // _RANGE.size

    @property
    def received(self) -> int:
        """Bytes that are there."""
        return self._received

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First byte of each range, and the one after its last."""
        return list(zip(self._starts, self._ends, strict=True))

    def write(self, parts: Iterable[v2.UploadContentPart], total: int) -> None:
        """Writes parts at their places. Those before one that does not fit are kept.

        Raises:
            PartError: A part is empty, exceeds the total, or differs from what is there, or there
                are too many ranges that do not touch.
        """
        with (
            _opened(self._path, os.O_RDWR | os.O_CREAT) as content,
            _opened(self._log, os.O_WRONLY | os.O_CREAT) as log,
        ):
            for part in parts:
                self._write(content, part, total)
                record = _RANGE.pack(part.range_start, part.range_start + len(part.data))
                _write_all(log, record, self._records * _RANGE.size)
                self._records += 1

    def _write(self, content: int, part: v2.UploadContentPart, total: int) -> None:
        data = part.data
        start, end = part.range_start, part.range_start + len(data)
        if part.part_number < 1:
            raise PartError(f"part_number is {part.part_number}; parts count from 1")
        if start == end:
            raise PartError(f"part {part.part_number} is empty")
        if end > total:
            raise PartError(f"part {part.part_number} ends at {end}, beyond the length of {total}")
        first, last = self._touching(start, end)
        if first == last and len(self._starts) >= MAX_RANGES:
            raise PartError(f"there are {MAX_RANGES} ranges that do not touch; fill the gaps first")
        for low, high in zip(self._starts[first:last], self._ends[first:last], strict=True):
            low, high = max(low, start), min(high, end)
            if (
                low < high
                and os.pread(content, high - low, low) != data[low - start : high - start]
            ):
                raise PartError(
                    f"part {part.part_number} differs from the bytes that are there", conflict=True
                )
        _write_all(content, data, start)
        self._insert(start, end)

    def delete(self) -> None:
        """Deletes all that is there."""
        self._path.unlink(missing_ok=True)
        self._log.unlink(missing_ok=True)
        self._starts, self._ends = [], []
        self._received = self._records = 0

    def _touching(self, start: int, end: int) -> tuple[int, int]:
        """Which ranges overlap or touch one: the first, and the one after the last."""
        return bisect_left(self._ends, start), bisect_right(self._starts, end)

    def _insert(self, start: int, end: int) -> None:
        first, last = self._touching(start, end)
        self._received -= sum(self._ends[first:last]) - sum(self._starts[first:last])
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
        self._received += end - start


def _range_log(path: Path) -> Path:
    return path.with_name(f"{path.name}.ranges")


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


class UploadStore:
    """The folder of uploaded files.

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._streams: dict[str, PartFile] = {}
        self._scattered: OrderedDict[str, ScatteredFile] = OrderedDict()
        self._writers: Counter[str] = Counter()
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

    def unary_path(self, where: StoredCollection, row: Row) -> Path:
        """Where the content of a unary upload is: never where an earlier one of that id had it."""
        return self.path(*where, row.id, str(row.seq))

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

    @contextmanager
    def writing(self, path: Path) -> Iterator[ScatteredFile]:
        """The file of a unary upload, for one call at a time."""
        name = path.name
        with self._lock:
            file = self._scattered.get(name)
            if file is None:
                file = self._scattered[name] = ScatteredFile(path)
            self._scattered.move_to_end(name)
            self._writers[name] += 1
        try:
            with file.lock:
                yield file
        finally:
            with self._lock:
                self._writers[name] -= 1
                if not self._writers[name]:
                    del self._writers[name]
                idle = [each for each in self._scattered if each not in self._writers]
                for each in idle[: max(0, len(self._scattered) - _MAX_KNOWN)]:
                    del self._scattered[each]

    def check_size(self, total: int) -> None:
        """Refuses a size that can never arrive.

        Raises:
            ServiceError: UPLOAD_FAILED: it is above the limit, or more than the disk has free.
        """
        if total > MAX_UPLOAD_BYTES:
            raise ServiceError(
                StatusCode.UPLOAD_FAILED,
                f"the size is {total} bytes; the maximum is {MAX_UPLOAD_BYTES}",
            )
        free = shutil.disk_usage(self._folder).free
        if total > free:
            raise ServiceError(
                StatusCode.UPLOAD_FAILED,
                f"the size is {total} bytes; the server's disk has {free} bytes free",
            )

    def delete(self, path: Path) -> None:
        """Deletes the content, if there is any."""
        with self.writing(path) as file:
            file.delete()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_service_error(error: PartError, code: StatusCode.ValueType) -> ServiceError:
    """The status for a part that does not fit: ``code``, or UPLOAD_CONFLICT."""
    return ServiceError(StatusCode.UPLOAD_CONFLICT if error.conflict else code, str(error))
