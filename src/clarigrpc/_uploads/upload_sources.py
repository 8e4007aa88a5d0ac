"""Content of file uploads: a path, an open file, bytes, a stream that cannot seek, a folder.

Each becomes a ``ContentSource`` with a known size, read at any offset.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import select
import stat
import tarfile
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

from clarigrpc._public_names import named_in
from clarigrpc.errors import DeadlineExceededError, InvalidArgumentError

_BLOCK = 1 << 20
_POLL_SECONDS = 0.1
_KEPT_DIGESTS = 256
"""Number of parts that an acknowledgement may lag behind and still be of use for a resume."""


@named_in("clarigrpc.types")
class Readable(Protocol):
    """A binary file-like object."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; no bytes at the end."""


UploadSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Readable
)
"""Content of a file upload: a path, a folder (as a tar archive), bytes, or a binary file."""


class StoppedError(Exception):
    """The upload ended while the source was being read."""


class ContentSource(ABC):
    """Content of known size.

    Attributes:
        name: Name of the content.
        size: Bytes of the content.
        path: Its path on disk; None if it is not on disk.
        needs_digest: Whether the identity is not sufficient for a resume, which then compares the
            digest of the acknowledged bytes.
    """

    name: str
    size: int
    path: Path | None = None
    needs_digest: bool = False

    def prepare(self, deadline: float = math.inf) -> None:  # noqa: B027 - most sources need none
        """Do slow preparations; ``size`` is valid afterwards.

        Args:
            deadline: When they have to be over, by the monotonic clock. A ``read`` that blocks is
                waited for, unless it is that of a pipe, a socket or a terminal.

        Raises:
            DeadlineExceededError: They are not.
        """

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view, which is within the content, from ``offset``.

        Raises:
            InvalidArgumentError: The source is shorter, or was changed since it was opened.
            DeadlineExceededError: The deadline of ``prepare`` has passed.
        """

    @abstractmethod
    def identity(self) -> str:
        """A text that differs if the content differs, as far as known without reading it."""

    def digest_at(self, length: int) -> str:
        """SHA-256 of the first ``length`` bytes, if known without reading them.

        "" if it is not known, or not needed beside the identity.
        """
        return ""

    def prefix_digest(self, length: int) -> str:
        """SHA-256 of the first ``length`` bytes; "" if not needed beside the identity."""
        return ""

    def sha256(self) -> str:
        """SHA-256 of the whole content; reads it again."""
        return self._digest_of_first(self.size)

    def _digest_of_first(self, length: int) -> str:
        digest = hashlib.sha256()
        block = memoryview(bytearray(min(_BLOCK, length)))
        for offset in range(0, length, _BLOCK):
            view = block[: length - offset]
            self.read_into(offset, view)
            digest.update(view)
        return digest.hexdigest()

    def start(self) -> None:  # noqa: B027 - most sources need none
        """Allow reads after ``stop``."""

    def stop(self) -> None:  # noqa: B027 - most sources need none
        """End a blocking read on another thread with ``StoppedError``."""

    def close(self) -> None:  # noqa: B027 - most sources need none
        """Release resources; a file opened by the caller stays open."""

    def late(self, offset: int, method: str = "") -> DeadlineExceededError:
        """The error for content that did not come in time.

        Args:
            offset: Bytes that came.
            method: What was to send it.
        """
        return DeadlineExceededError(
            f"{self.name}: the content did not come in time, {offset} of {self.size} bytes of it "
            "did; timeout= allows more time",
            method=method,
        )

    def _short(self, offset: int) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self.name}: the content ends at byte {offset}, expected {self.size} bytes"
        )


def open_upload_source(
    value: UploadSource, *, size: int | None = None, name: str = "", folder: Path | None = None
) -> ContentSource:
    """The content source of a value.

    Args:
        value: The content.
        size: Bytes of a stream that cannot seek. None reads it to its end first.
        name: Name of the content; derived from the value if empty.
        folder: Folder for temporary copies of streams that cannot seek. None uses the system's.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: A file or folder cannot be read; nothing was sent.
        InvalidArgumentError: The size differs from ``size``, or a folder contains no files.
        TypeError: The type of the value is not supported.
    """
    source = _open(value, size, name, folder)
    if size is not None and source.size != size:
        source.close()
        raise InvalidArgumentError(
            f"{source.name}: the content has {source.size} bytes, not size={size}"
        )
    return source


def _open(value: Any, size: int | None, name: str, folder: Path | None) -> ContentSource:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BytesSource(value, name or "bytes")
    if isinstance(value, (str, os.PathLike)):
        if not os.fspath(value):  # of a variable that is not set
            raise InvalidArgumentError("the path is empty; '.' is the current folder")
        path = Path(value)
        if path.is_dir():
            return FolderSource(path, name or f"{path.resolve().name}.tar")
        if not path.exists():
            raise FileNotFoundError(f"upload of {os.fspath(value)!r}: no such file")
        if path.is_file():
            return FileSource(os.open(path, os.O_RDONLY), name or path.name, path=path)
        value = path.open("rb", buffering=0)  # a named pipe, a device
        return SpooledSource(value, name or path.name, size, folder, owned=True)
    if isinstance(value, io.TextIOBase) or not callable(getattr(value, "read", None)):
        raise TypeError(
            "expected a path, bytes, a binary file ('rb') or an object with read(), not "
            f"{type(value).__name__}"
        )
    given = getattr(value, "name", "")
    name = name or (os.path.basename(given) if isinstance(given, str) else "") or "stream"
    if _is_plain_file(value):
        if isinstance(value, io.BufferedRandom):
            value.flush()
        return FileSource(os.dup(value.fileno()), name, base=value.tell())
    if callable(getattr(value, "seekable", None)) and value.seekable():
        return SeekableSource(value, name)
    return SpooledSource(value, name, size, folder)


def _is_plain_file(value: Any) -> bool:
    """Whether the file can be read by its descriptor (a ``GzipFile``, e.g., cannot)."""
    raw = getattr(value, "raw", value)
    return (
        isinstance(value, (io.FileIO, io.BufferedReader, io.BufferedRandom))
        and isinstance(raw, io.FileIO)
        and stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    )


class BytesSource(ContentSource):
    """Bytes in memory."""

    def __init__(self, value: bytes | bytearray | memoryview, name: str) -> None:
        self._view = memoryview(value).cast("B")
        self.name = name
        self.size = len(self._view)

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = self._view[offset : offset + len(view)]

    def identity(self) -> str:
        return f"sha256 {self.sha256()}"


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Values that change when the file does. Programs cannot reset the change time."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _pread_into(descriptor: int, offset: int, view: memoryview) -> int:
    """Fill the view from ``offset``; the number of bytes is smaller at the end of the file."""
    done = 0
    while done < len(view) and (count := os.preadv(descriptor, [view[done:]], offset + done)):
        done += count
    return done


class FileSource(ContentSource):
    """A regular file from offset ``base``. Owns the descriptor."""

    def __init__(
        self, descriptor: int, name: str, *, path: Path | None = None, base: int = 0
    ) -> None:
        self._descriptor = descriptor
        self._stamp = _stamp(os.fstat(descriptor))
        self._base = base
        self.name = name
        self.path = path
        self.size = max(0, os.fstat(descriptor).st_size - base)

    def read_into(self, offset: int, view: memoryview) -> None:
        count = _pread_into(self._descriptor, self._base + offset, view)
        # An upload of a file that was changed meanwhile must not complete.
        if count < len(view) or (
            offset + len(view) == self.size
            and _stamp(os.fstat(self._descriptor))[2:4] != self._stamp[2:4]
        ):
            raise InvalidArgumentError(f"{self.name}: the file was changed during the upload")

    def identity(self) -> str:
        return f"file {self._stamp} from {self._base}"

    def close(self) -> None:
        os.close(self._descriptor)


class SeekableSource(ContentSource):
    """An object with ``read`` and ``seek``, from its current position."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._base = file.tell()
        self.name = name
        self.size = max(0, file.seek(0, os.SEEK_END) - self._base)
        file.seek(self._base)
        self._lock = threading.Lock()

    def read_into(self, offset: int, view: memoryview) -> None:
        # A thread of an earlier stream that failed may still be in here, and move the position.
        with self._lock:
            if self._file.tell() != self._base + offset:
                self._file.seek(self._base + offset)
            done = 0
            while done < len(view):
                piece = _bytes(self._file.read(len(view) - done), self.name)
                if not piece:
                    raise self._short(offset + done)
                view[done : done + len(piece)] = piece
                done += len(piece)

    def identity(self) -> str:
        return f"sha256 {self.sha256()}"


class SpooledSource(ContentSource):
    """A stream that cannot seek, copied to a temporary file while it is read.

    Bytes that were not acknowledged can thus be sent again without keeping them in memory.

    Args:
        file: An object with ``read``.
        name: Name of the content.
        size: Bytes to read. None reads to the end in ``prepare``.
        folder: Folder of the temporary file.
        owned: Whether to close ``file``.
    """

    def __init__(
        self,
        file: Any,
        name: str,
        size: int | None,
        folder: Path | None,
        *,
        owned: bool = False,
    ) -> None:
        self.needs_digest = True
        self._file = file
        self._owned = owned
        self._spool = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see close
        self._digest = hashlib.sha256()
        self._digests: dict[int, hashlib._Hash] = {}
        self._read = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._wait_readable = _waiter(file)
        self.name = name
        self.size = size or 0
        self._to_end = size is None
        self._deadline = math.inf

    def prepare(self, deadline: float = math.inf) -> None:
        self._deadline = deadline
        if self._to_end:
            while piece := self._next(_BLOCK):
                self._keep(piece)
            self.size = self._read

    def _next(self, size: int) -> bytes:
        while not self._stopped and time.monotonic() < self._deadline:
            if self._wait_readable(_POLL_SECONDS):
                break
        if self._stopped:
            raise StoppedError
        if time.monotonic() >= self._deadline:
            if not self._to_end:
                raise self.late(self._read)
            raise DeadlineExceededError(
                f"{self.name}: the content was not read to its end in time, {self._read} bytes of "
                "it were; size= sends it while it is read, timeout= allows more time"
            )
        read = getattr(self._file, "read1", self._file.read)
        return _bytes(read(size), self.name)

    def _keep(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[self._spool.write(view) :]
        self._digest.update(piece)
        self._read += len(piece)

    def read_into(self, offset: int, view: memoryview) -> None:
        end = offset + len(view)
        # A thread of an earlier stream that failed may still block in here.
        with self._lock:
            while self._read < end:
                piece = self._next(min(_BLOCK, end - self._read))
                if not piece:
                    raise self._short(self._read)
                self._keep(piece)
            if end == self._read:
                # The end of a part. If the service acknowledges it, a resume compares the digest.
                self._digests[end] = self._digest.copy()
                if len(self._digests) > _KEPT_DIGESTS:
                    del self._digests[next(iter(self._digests))]
            _pread_into(self._spool.fileno(), offset, view)

    def identity(self) -> str:
        return f"stream of {self.size}"

    def digest_at(self, length: int) -> str:
        known = self._digests.get(length)
        return "" if known is None else str(known.hexdigest())

    def prefix_digest(self, length: int) -> str:
        return self._digest_of_first(length)

    def sha256(self) -> str:
        if self._read == self.size:
            return self._digest.hexdigest()
        return super().sha256()

    def start(self) -> None:
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._spool.close()
        if self._owned:
            self._file.close()


def _waiter(file: Any) -> Callable[[float], bool]:
    """A function that waits for a pipe, socket or terminal; true if it can be read."""
    try:
        descriptor = file.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, TypeError):
        return lambda seconds: True
    if stat.S_ISREG(mode) or not hasattr(select, "poll"):
        return lambda seconds: True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda seconds: bool(poll.poll(seconds * 1000))


def _bytes(piece: Any, name: str) -> bytes:
    if not isinstance(piece, bytes):
        raise TypeError(f"{name}: read() must return bytes, not {type(piece).__name__}")
    return piece


class FolderSource(ContentSource):
    """A folder as a tar archive, generated while it is read.

    The archive depends only on names, contents and executable bits of the files, so that it is the
    same on every machine. Links to files are followed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder
        self._members = list(_archive_members(folder))
        if not any(member.path is not None for member in self._members):
            raise InvalidArgumentError(f"{folder}: the folder contains no files")
        self._starts: list[int] = []
        position = 0
        for member in self._members:
            self._starts.append(position)
            position += member.length
        self._end = position
        # An archive ends with two empty blocks and is padded to a record.
        self.size = _round_up(position + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)
        self._opened: tuple[_ArchiveMember, int] | None = None
        self._lock = threading.Lock()

    def read_into(self, offset: int, view: memoryview) -> None:
        # A thread of an earlier stream that failed may still be in here, and close the open file.
        with self._lock:
            self._read_into(offset, view)

    def _read_into(self, offset: int, view: memoryview) -> None:
        begin, end = offset, offset + len(view)
        index = bisect_right(self._starts, offset) - 1
        while offset < end and offset < self._end:
            member, start = self._members[index], self._starts[index]
            stop = min(end, start + member.length)
            self._read_member(member, offset - start, view[offset - begin : stop - begin])
            offset, index = stop, index + 1
        view[offset - begin :] = bytes(end - offset)

    def _read_member(self, member: _ArchiveMember, start: int, view: memoryview) -> None:
        header = member.header()
        if start < len(header):
            first = header[start : start + len(view)]
            view[: len(first)] = first
            view, start = view[len(first) :], len(header)
        content = len(header) + member.size - start
        if view and content > 0:
            self._read_file(member, start - len(header), view[:content])
            view = view[content:]
        view[:] = bytes(len(view))  # up to the next block

    def _read_file(self, member: _ArchiveMember, offset: int, view: memoryview) -> None:
        if self._opened is None or self._opened[0] is not member:
            self._close_file()
            assert member.path is not None
            self._opened = member, os.open(member.path, os.O_RDONLY)
        descriptor = self._opened[1]
        count = _pread_into(descriptor, offset, view)
        if count < len(view) or _stamp(os.fstat(descriptor))[2:4] != member.stamp[2:4]:
            raise InvalidArgumentError(f"{member.path}: the file was changed during the upload")

    def identity(self) -> str:
        digest = hashlib.sha256()
        for member in self._members:
            digest.update(member.header())
            digest.update(repr(member.stamp).encode())
        return f"folder {digest.hexdigest()}"

    def _close_file(self) -> None:
        if self._opened is not None:
            os.close(self._opened[1])
            self._opened = None

    def close(self) -> None:
        self._close_file()


class _ArchiveMember:
    """A member of the archive: a file, or a folder (``path`` is None)."""

    __slots__ = ("length", "mode", "name", "path", "size", "stamp")

    def __init__(self, name: str, path: Path | None, status: os.stat_result | None) -> None:
        self.name = name
        self.path = path
        self.size = status.st_size if status is not None else 0
        self.stamp = _stamp(status) if status is not None else ()
        self.mode = 0o755 if status is None or status.st_mode & stat.S_IXUSR else 0o644
        self.length = len(self.header()) + _round_up(self.size, tarfile.BLOCKSIZE)

    def header(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.type = tarfile.DIRTYPE if self.path is None else tarfile.REGTYPE
        info.size = self.size
        info.mode = self.mode
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _archive_members(folder: Path) -> Iterator[_ArchiveMember]:
    """The members of an archive, each found to be readable.

    Raises:
        OSError: A folder or file cannot be read.
        InvalidArgumentError: There is something else than folders and files.
    """
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders.sort()
        relative = Path(parent).relative_to(folder)
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise InvalidArgumentError(
                    f"{Path(parent) / name} is a link to a folder; link to files instead"
                )
        if relative.parts:
            yield _ArchiveMember(relative.as_posix(), None, None)
        for name in sorted(files):
            path = Path(parent) / name
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise InvalidArgumentError(f"{path} is neither a file nor a folder")
            # Only opening a file shows whether it can be read.
            os.close(os.open(path, os.O_RDONLY))
            yield _ArchiveMember((relative / name).as_posix(), path, status)


def _raise(error: OSError) -> None:
    raise error
