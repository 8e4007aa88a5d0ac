"""What can be uploaded: a path, an open file, bytes, a stream that cannot seek, a folder.

Every source is brought to one form: a known size, and bytes at an offset.
"""

from __future__ import annotations

import hashlib
import io
import os
import select
import stat
import tarfile
import tempfile
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

from clarigrpc._public_names import named_in
from clarigrpc.errors import InvalidArgumentError

Content = bytes | memoryview

_BLOCK = 1 << 20
_POLL_SECONDS = 0.1
_KEPT_DIGESTS = 256
"""How many parts an acknowledgement may be behind to be of use for a resume."""


@named_in("clarigrpc.types")
class Readable(Protocol):
    """Any binary file-like object."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


UploadSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Readable
)
"""What is uploaded as a file: a path, a folder (as a tar archive), bytes, or a binary file."""


class StoppedError(Exception):
    """The upload ended while its source was being read."""


class Source(ABC):
    """Content of a known size.

    Attributes:
        name: What to call it.
        size: Bytes.
        path: Where it lies on disk, for what is kept beside it; None if it does not.
        must_be_followed: Whether the identity tells too little, and a resume needs the digest of
            what was acknowledged.
    """

    name: str
    size: int
    path: Path | None = None
    must_be_followed: bool = False

    def prepare(self) -> None:  # noqa: B027 - most sources need none
        """Do what takes long; the size holds from then on."""

    @abstractmethod
    def read_at(self, offset: int, size: int) -> Content:
        """Exactly ``size`` bytes from ``offset`` on.

        Raises:
            InvalidArgumentError: The source has less, or has changed since it was opened.
        """

    @abstractmethod
    def identity(self) -> str:
        """Text that is another when the content is, as far as can be told before it is read."""

    def digest_at(self, length: int) -> str:
        """SHA-256 of the first ``length`` bytes, as far as it is known without reading.

        "" where it is not, and where the identity says enough.
        """
        return ""

    def prefix_digest(self, length: int) -> str:
        """SHA-256 of the first ``length`` bytes, "" where the identity says enough."""
        return ""

    def sha256(self) -> str:
        """SHA-256 of the whole content; reads it again."""
        digest = hashlib.sha256()
        for offset in range(0, self.size, _BLOCK):
            digest.update(self.read_at(offset, min(_BLOCK, self.size - offset)))
        return digest.hexdigest()

    def start(self) -> None:  # noqa: B027 - most sources need none
        """Allow reads again after ``stop``."""

    def stop(self) -> None:  # noqa: B027 - most sources need none
        """Have a read that waits for data, on another thread, end with ``StoppedError``."""

    def close(self) -> None:  # noqa: B027 - most sources need none
        """Free what the source holds; what the caller gave stays open."""

    def _short(self, offset: int) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self.name}: the content ends at byte {offset}, its size was said to be {self.size}"
        )


def open_source(
    value: UploadSource, *, size: int | None = None, name: str = "", folder: Path | None = None
) -> Source:
    """The source for what a caller gave.

    Args:
        value: What to upload.
        size: Bytes of a stream that cannot seek; None: it is read to its end first.
        name: What to call it; empty: derived from the value.
        folder: Where temporary copies of streams that cannot seek go; None: the system's place.

    Raises:
        FileNotFoundError: There is no file of this name.
        InvalidArgumentError: The content is not of the size given, or a folder has no files.
        TypeError: The value is of no type that can be uploaded.
    """
    source = _open(value, size, name, folder)
    if size is not None and source.size != size:
        source.close()
        raise InvalidArgumentError(
            f"{source.name}: the content has {source.size} bytes, size= says {size}"
        )
    return source


def _open(value: Any, size: int | None, name: str, folder: Path | None) -> Source:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BytesSource(value, name or "bytes")
    if isinstance(value, (str, os.PathLike)):
        path = Path(value)
        if path.is_dir():
            return FolderSource(path, name or f"{path.resolve().name}.tar")
        if not path.exists():
            raise FileNotFoundError(f"upload of {os.fspath(value)!r}: there is no such file")
        if path.is_file():
            return FileSource(os.open(path, os.O_RDONLY), name or path.name, path=path)
        value = path.open("rb", buffering=0)  # a named pipe, a device
        return SpooledSource(value, name or path.name, size, folder, owned=True)
    if isinstance(value, io.TextIOBase) or not callable(getattr(value, "read", None)):
        raise TypeError(
            "an upload takes a path, bytes, a binary file ('rb') or an object with read(), not "
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
    """Whether the descriptor's bytes are the object's (those of a ``GzipFile`` are not)."""
    raw = getattr(value, "raw", value)
    return (
        isinstance(value, (io.FileIO, io.BufferedReader, io.BufferedRandom))
        and isinstance(raw, io.FileIO)
        and stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    )


class BytesSource(Source):
    """Bytes in memory."""

    def __init__(self, value: bytes | bytearray | memoryview, name: str) -> None:
        self._view = memoryview(value).cast("B")
        self.name = name
        self.size = len(self._view)

    def read_at(self, offset: int, size: int) -> Content:
        return self._view[offset : offset + size]

    def identity(self) -> str:
        return f"sha256 {self.sha256()}"


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does; its time of change cannot be set back by programs."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    """``size`` bytes, less at the end of the file."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


class FileSource(Source):
    """A regular file, from ``base`` on. Owns the descriptor."""

    def __init__(
        self, descriptor: int, name: str, *, path: Path | None = None, base: int = 0
    ) -> None:
        self._descriptor = descriptor
        self._stamp = _stamp(os.fstat(descriptor))
        self._base = base
        self.name = name
        self.path = path
        self.size = max(0, os.fstat(descriptor).st_size - base)

    def read_at(self, offset: int, size: int) -> Content:
        data = _pread(self._descriptor, size, self._base + offset)
        # A file that was written to meanwhile must not be completed.
        if (
            offset + size == self.size
            and _stamp(os.fstat(self._descriptor))[2:4] != self._stamp[2:4]
        ):
            raise InvalidArgumentError(f"{self.name}: the file changed while it was being uploaded")
        if len(data) < size:
            raise self._short(offset + len(data))
        return data

    def identity(self) -> str:
        return f"file {self._stamp} from {self._base}"

    def close(self) -> None:
        os.close(self._descriptor)


class SeekableSource(Source):
    """An object with ``read`` and ``seek``, from where it stands on."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._base = file.tell()
        self.name = name
        self.size = max(0, file.seek(0, os.SEEK_END) - self._base)
        file.seek(self._base)

    def read_at(self, offset: int, size: int) -> Content:
        if self._file.tell() != self._base + offset:
            self._file.seek(self._base + offset)
        pieces = []
        missing = size
        while missing:
            piece = _bytes(self._file.read(missing), self.name)
            if not piece:
                raise self._short(offset + size - missing)
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def identity(self) -> str:
        return f"sha256 {self.sha256()}"


class SpooledSource(Source):
    """A stream that cannot seek, copied to a temporary file as it is read.

    What was sent and not acknowledged can so be sent again, without keeping it in memory.

    Args:
        file: An object with ``read``.
        name: What to call it.
        size: Bytes to take from it; None: all of it, read to its end by ``prepare``.
        folder: Where the temporary file goes.
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
        self.must_be_followed = True
        self._file = file
        self._owned = owned
        self._spool = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see close
        self._digest = hashlib.sha256()
        self._digests: dict[int, hashlib._Hash] = {}
        self._read = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._waits = _waiter(file)
        self.name = name
        self.size = size or 0
        self._to_end = size is None

    def prepare(self) -> None:
        if self._to_end:
            while piece := self._next(_BLOCK):
                self._keep(piece)
            self.size = self._read

    def _next(self, size: int) -> bytes:
        while not self._stopped and not self._waits(_POLL_SECONDS):
            pass
        if self._stopped:
            raise StoppedError
        read = getattr(self._file, "read1", self._file.read)
        return _bytes(read(size), self.name)

    def _keep(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[self._spool.write(view) :]
        self._digest.update(piece)
        self._read += len(piece)

    def read_at(self, offset: int, size: int) -> Content:
        end = offset + size
        # A thread of a stream that broke may still wait for the source in here.
        with self._lock:
            while self._read < end:
                piece = self._next(min(_BLOCK, end - self._read))
                if not piece:
                    raise self._short(self._read)
                self._keep(piece)
            if end == self._read:
                # The end of a part, which may be acknowledged: what a resume will check.
                self._digests[end] = self._digest.copy()
                if len(self._digests) > _KEPT_DIGESTS:
                    del self._digests[next(iter(self._digests))]
            return _pread(self._spool.fileno(), size, offset)

    def identity(self) -> str:
        return f"stream of {self.size}"

    def digest_at(self, length: int) -> str:
        known = self._digests.get(length)
        return "" if known is None else str(known.hexdigest())

    def prefix_digest(self, length: int) -> str:
        digest = hashlib.sha256()
        for offset in range(0, length, _BLOCK):
            digest.update(self.read_at(offset, min(_BLOCK, length - offset)))
        return digest.hexdigest()

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
    """Waits some seconds for a pipe, socket or terminal; true when it can be read."""
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
        raise TypeError(f"{name}: read() has to return bytes, not {type(piece).__name__}")
    return piece


class FolderSource(Source):
    """A folder as a tar archive that is never written anywhere.

    Its bytes depend on the names, the contents and the executable bits of the files only, so the
    same folder is the same archive on every machine. Links to files are followed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder
        self._entries = list(_entries(folder))
        if not any(entry.path is not None for entry in self._entries):
            raise InvalidArgumentError(f"{folder}: there is no file in this folder")
        self._starts: list[int] = []
        position = 0
        for entry in self._entries:
            self._starts.append(position)
            position += entry.length
        self._end = position
        # Two empty blocks end an archive, which is padded to a record.
        self.size = _round_up(position + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)
        self._opened: tuple[_Entry, int] | None = None

    def read_at(self, offset: int, size: int) -> Content:
        pieces: list[bytes] = []
        end = offset + size
        index = bisect_right(self._starts, offset) - 1
        while offset < end and offset < self._end:
            entry, start = self._entries[index], self._starts[index]
            stop = min(end, start + entry.length)
            pieces.extend(self._pieces(entry, offset - start, stop - start))
            offset, index = stop, index + 1
        if offset < end:
            pieces.append(bytes(end - offset))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _pieces(self, entry: _Entry, start: int, end: int) -> Iterator[bytes]:
        header = entry.header()
        if start < len(header):
            yield header[start:end]
        content = len(header) + entry.size
        low, high = max(start, len(header)), min(end, content)
        if low < high:
            yield self._content(entry, low - len(header), high - low)
        padding = end - max(start, content)
        if padding > 0:
            yield bytes(padding)

    def _content(self, entry: _Entry, offset: int, size: int) -> bytes:
        if self._opened is None or self._opened[0] is not entry:
            self._close_file()
            assert entry.path is not None
            self._opened = entry, os.open(entry.path, os.O_RDONLY)
        descriptor = self._opened[1]
        data = _pread(descriptor, size, offset)
        if len(data) < size or _stamp(os.fstat(descriptor))[2:4] != entry.stamp[2:4]:
            raise InvalidArgumentError(f"{entry.path}: changed while it was being uploaded")
        return data

    def identity(self) -> str:
        digest = hashlib.sha256()
        for entry in self._entries:
            digest.update(entry.header())
            digest.update(repr(entry.stamp).encode())
        return f"folder {digest.hexdigest()}"

    def _close_file(self) -> None:
        if self._opened is not None:
            os.close(self._opened[1])
            self._opened = None

    def close(self) -> None:
        self._close_file()


class _Entry:
    """A member of the archive: a folder (without a path) or a file."""

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


def _entries(folder: Path) -> Iterator[_Entry]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        relative = Path(parent).relative_to(folder)
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise InvalidArgumentError(
                    f"{Path(parent) / name} is a link to a folder; only links to files are followed"
                )
        if relative.parts:
            yield _Entry(relative.as_posix(), None, None)
        for name in sorted(files):
            path = Path(parent) / name
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise InvalidArgumentError(f"{path} is neither a file nor a folder")
            yield _Entry((relative / name).as_posix(), path, status)
