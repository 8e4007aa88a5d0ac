"""A table in a folder of Parquet files that grows file by file, and goes on after a crash.

A file is written under a hidden name and renamed when it is complete and on the disk: what has its
name is whole. Names tell the index of the first row, so that a missing file is noticed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clarigrpc._file_lock import lock_file, unlock_file
from clarigrpc._interrupts import HeldInterrupt
from clarigrpc._replaced_files import sync_folder
from clarigrpc.errors import ConfigurationError

_PART_NAME = re.compile(r"part-(\d{12})\.parquet")
_KEY = b"clarigrpc"
"""Key of the metadata of a file's schema that says what made it, as JSON."""


class PartFiles:
    """The files of a folder, opened for one run, to be closed at its end.

    Args:
        folder: The folder; made if it is not there.
        made_by: What made the rows, in values of JSON. A folder is continued by the same only.
        rows_per_file: Rows of a file.

    Raises:
        ConfigurationError: The folder is in use, was made by something else, or lacks a file.
        OSError: The folder cannot be made, or read.
    """

    def __init__(
        self, folder: str | os.PathLike[str], made_by: Mapping[str, Any], rows_per_file: int
    ) -> None:
        self._folder = Path(folder)
        self._made_by = dict(made_by)
        self._rows_per_file = rows_per_file
        self._folder.mkdir(parents=True, exist_ok=True)
        self.next_index = 0
        self.schema: Any = None
        self._writer: Any = None
        self._begun = 0
        self._partial = self._folder / ".part.tmp"
        self._lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take_lock()
            self._load()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Complete the file that is being written, and let others use the folder."""
        try:
            with HeldInterrupt():
                self._complete()
        finally:
            unlock_file(self._lock)
            os.close(self._lock)

    def write(self, table: Any) -> None:
        """Append rows of a table that has the schema of those before."""
        self.schema = table.schema
        while len(table):
            if self._writer is None:
                self._begin()
            room = self._rows_per_file - (self.next_index - self._begun)
            now, table = table.slice(0, room), table.slice(room)
            try:
                self._writer.write_table(now)
            except BaseException:  # what is on the disk now is not known
                self._discard()
                raise
            self.next_index += len(now)
            if len(now) == room:
                self._complete()

    def _take_lock(self) -> None:
        if not lock_file(self._lock):
            raise ConfigurationError(
                f"the folder {self._folder} is in use by another run: wait until it has ended, "
                "or give another folder"
            )

    def _load(self) -> None:
        import pyarrow.parquet as pq

        found = [path for path in self._folder.iterdir() if _PART_NAME.fullmatch(path.name)]
        for path in sorted(found):
            with pq.ParquetFile(path) as file:
                count, schema = file.metadata.num_rows, file.schema_arrow
            metadata = schema.metadata or {}
            try:
                made_by = json.loads(metadata.get(_KEY, b"null"))
            except ValueError:
                made_by = None
            if made_by != self._made_by:
                raise ConfigurationError(
                    f"{path} was made by {made_by}, not by {self._made_by}: give another folder"
                )
            if int(path.stem.removeprefix("part-")) != self.next_index:
                raise ConfigurationError(
                    f"{self._folder} lacks the file that begins with row {self.next_index}: bring "
                    f"it back, or remove {path.name} and those after it"
                )
            self.next_index += count
            self.schema = schema.remove_metadata()

    def _begin(self) -> None:
        import pyarrow.parquet as pq

        self._begun = self.next_index
        marked = self.schema.with_metadata({_KEY: json.dumps(self._made_by)})
        self._writer = pq.ParquetWriter(self._partial, marked)

    def _discard(self) -> None:
        """Forget the file that is being written; its rows are to be made again."""
        writer, self._writer = self._writer, None
        self.next_index = self._begun
        with contextlib.suppress(OSError):
            writer.close()
        self._partial.unlink(missing_ok=True)

    def _complete(self) -> None:
        """Give the file that is being written its name."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.close()
        if self.next_index == self._begun:
            self._partial.unlink()
            return
        with self._partial.open("rb+") as file:
            os.fsync(file.fileno())
        self._partial.replace(self._folder / f"part-{self._begun:012d}.parquet")
        sync_folder(self._folder)
