"""Files that are replaced as a whole: a reader sees the old or the new content, never a part.

The new content is written beside the file and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replaced(
    path: str | os.PathLike[str], *, private: bool = False, durable: bool = True
) -> Iterator[BinaryIO]:
    """Write a file. If the block raises, the file is as it was before.

    Args:
        path: The file; of a symbolic link, the file that it leads to is replaced. A device or pipe
            is written to.
        private: Whether only its owner may read it, for secrets. Otherwise the permissions are
            those of any new file.
        durable: Whether the content is on the disk when the block has ended, so that it also
            survives a power failure.

    Raises:
        OSError: The file cannot be written.
    """
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null, /dev/stdout, a pipe
        with open(path, "wb") as file:
            yield file
        return
    folder = os.path.dirname(path)
    draft = os.path.join(folder, f".clarigrpc-{os.urandom(8).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(draft, flags, 0o600 if private else 0o666)
    except OSError as error:
        error.filename = path  # what the caller knows
        raise
    try:
        with open(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    if durable:
        sync_folder(folder)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Write the folder's entry of a new file to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
