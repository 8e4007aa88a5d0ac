"""The files in an archive that somebody sent: read one by one, within bounds."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

MAX_FILE_BYTES = 64 << 20
"""Largest file of an archive that is read, in bytes."""

MAX_ARCHIVE_BYTES = 4 << 30
"""What an archive may come to when it is unpacked, in bytes."""

MAX_ARCHIVE_FILES = 100_000
"""Entries that an archive may have."""

_GZIP_MAGIC = b"\x1f\x8b"


def is_archive(name: str) -> bool:
    """Whether a file of that name is an archive that can be read."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def files_in(
    name: str, file: IO[bytes], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files in a ZIP or TAR archive; links and devices are left out.

    Args:
        name: Name of the archive, whose suffix says which kind it is.
        file: Its content; it can seek.
        wanted: Says by its name whether a file is to be read.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101) when the archive is damaged, encrypted or
            compressed by another method, INPUT_OVER_LIMIT (30105) beyond the limits.
    """
    files = _zipped(name, file, wanted) if name.lower().endswith(".zip") else _tarred(name, file)
    try:
        for inner, content in files:
            if wanted(inner):
                yield _text(inner), content
    except ServiceError:
        raise
    except Exception as error:
        # What a hostile archive makes these libraries raise is not documented; the kinds that
        # were seen: BadZipFile, TarError, RuntimeError, NotImplementedError, zlib.error,
        # EOFError, OSError, ValueError, KeyError, RecursionError, MemoryError.
        raise ServiceError(
            StatusCode.INPUT_UNSUPPORTED_FORMAT,
            _text(f"{name} cannot be read: {error or type(error).__name__}"),
        ) from error


def _zipped(
    name: str, file: IO[bytes], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    total = 0
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_count(name, len(entries))
        for entry in entries:
            if entry.is_dir() or not wanted(entry.filename):
                continue
            if entry.flag_bits & 1:
                raise ServiceError(
                    StatusCode.INPUT_UNSUPPORTED_FORMAT, f"{name}: {entry.filename} is encrypted"
                )
            _check_size(f"{name}: {entry.filename}", entry.file_size)
            total += entry.file_size
            _check_total(name, total)
            yield entry.filename, archive.read(entry)


def _tarred(name: str, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    plain: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if magic == _GZIP_MAGIC else file
    count, before = 0, -1
    # tarfile's own decompression would also take formats whose memory cannot be bounded.
    with tarfile.open(fileobj=_Bounded(name, plain), mode="r:") as archive:
        for member in archive:
            count += 1
            _check_count(name, count)
            if member.offset <= before or member.size < 0:
                raise ServiceError(
                    StatusCode.INPUT_UNSUPPORTED_FORMAT, f"{name}: a header has a wrong size"
                )
            before = member.offset
            if member.isfile():
                _check_size(f"{name}: {member.name}", member.size)
                content = archive.extractfile(member)
                assert content is not None  # it is a file
                data = content.read()
                if len(data) != member.size:
                    raise ServiceError(
                        StatusCode.INPUT_UNSUPPORTED_FORMAT, f"{name}: {member.name} is cut off"
                    )
                yield member.name, data


class _Bounded(io.RawIOBase):
    """A tar file that refuses to be read beyond the limits, or in one large piece."""

    def __init__(self, name: str, file: IO[bytes] | gzip.GzipFile) -> None:
        self._name = name
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_FILE_BYTES:
            raise ServiceError(
                StatusCode.INPUT_OVER_LIMIT, f"{self._name}: a header has an absurd size"
            )
        _check_total(self._name, self._file.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        _check_total(self._name, offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _check_size(name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT,
            _text(f"{name} has {size} bytes; the limit is {MAX_FILE_BYTES}"),
        )


def _check_count(name: str, count: int) -> None:
    if count > MAX_ARCHIVE_FILES:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT, f"{name} has more than {MAX_ARCHIVE_FILES} entries"
        )


def _check_total(name: str, size: int) -> None:
    if size > MAX_ARCHIVE_BYTES:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT, f"{name} unpacks to more than {MAX_ARCHIVE_BYTES} bytes"
        )


def _text(name: str) -> str:
    """A text without what names of files can have and messages cannot."""
    return name.encode(errors="replace").decode()
