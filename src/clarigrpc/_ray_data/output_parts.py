"""Predictions in a folder of Parquet files that workers write side by side, and that can go on.

A file appears under its name when it is complete: what is there was predicted. The file
``.run.json`` says what makes the rows and which run may write: a worker of an earlier run, which
has not noticed yet that its driver is gone, finds another run there and stops. A file that it was
about to add at that moment is removed: while a run is not complete, ``.before.json`` names the
files that were there when it began, and all others are its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet
import ray
from pyarrow import fs
from ray.data import Datasink
from ray.data.block import BlockAccessor

from clarigrpc._file_lock import lock_file, unlock_file
from clarigrpc.errors import ConfigurationError, InvalidArgumentError

_PART = re.compile(r"part-([0-9a-f]{16})-(\d{6})\.parquet")
_RUN_FILE = ".run.json"
_BEFORE_FILE = ".before.json"
_OBJECT_STORES = frozenset({"abfs", "gcs", "s3"})
"""Where a file appears when it has been written whole, and cannot be renamed at once."""


class OutputFolder:
    """The folder of one run.

    Args:
        place: Path or URI of the folder; made if it is not there.
        made_by: What makes the rows, in values of JSON. A folder is continued by the same only.

    Attributes:
        before: Names of the files that earlier runs have completed.

    Raises:
        ConfigurationError: The folder is in use, or has rows of something else.
        OSError: The folder cannot be made, or read.
    """

    def __init__(self, place: str | os.PathLike[str], made_by: Mapping[str, Any]) -> None:
        self.before: list[str] = []
        self.writer = open_parts(place)
        self.writer.files.create_dir(self.writer.folder, recursive=True)
        with contextlib.ExitStack() as stack:
            if isinstance(self.writer.files, fs.LocalFileSystem):
                stack.enter_context(_locked(Path(self.writer.folder, ".lock")))
            self._begin(dict(made_by))
            self._held = stack.pop_all()

    def _begin(self, made_by: dict[str, Any]) -> None:
        found, there = self.writer.json_file(_RUN_FILE), self.writer.names()
        if there and found.get("made_by") is None:
            raise ConfigurationError(
                f"{self.writer.folder} has Parquet files, but no {_RUN_FILE} that says what made "
                "them: give another folder"
            )
        if there and found["made_by"] != made_by:
            raise ConfigurationError(
                f"{self.writer.folder} was made by {found['made_by']}, not by {made_by}: give "
                "another folder"
            )
        earlier = self.writer.json_file(_BEFORE_FILE)
        if found and earlier.get("run") == found.get("run"):
            self._remove_late(earlier["run"], earlier["before"])
        # From here on nobody else begins to add a file.
        self.writer.write_json_file(_RUN_FILE, {"run": self.writer.run, "made_by": made_by})
        self.before = self.writer.names()
        self.writer.write_json_file(_BEFORE_FILE, {"run": self.writer.run, "before": self.before})

    def _remove_late(self, run: str, before: Sequence[str]) -> None:
        """Remove what others have added since a run began: it has predicted these rows again."""
        kept = {*before}
        for name in self.writer.names():
            if name not in kept and run not in name:
                self.writer.remove(name)

    def written_ids(self, column: str) -> tuple[Any, int]:
        """Digests of the ids of the rows that are there, sorted, and their number."""
        paths = [posixpath.join(self.writer.folder, name) for name in self.before]
        if not paths:
            return np.empty(0, _DIGEST), 0
        batches = pyarrow.dataset.dataset(paths, filesystem=self.writer.files).to_batches(
            columns=[column]
        )
        found = np.concatenate([digests(batch.column(0)) for batch in batches])
        found.sort()
        return found, len(found)

    def close(self, *, complete: bool) -> None:
        """Let others use the folder.

        Args:
            complete: Whether the run has ended; what other runs have added meanwhile is removed.
        """
        try:
            if complete:
                self._remove_late(self.writer.run, self.before)
                self.writer.remove(_BEFORE_FILE)
        finally:
            self._held.close()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not lock_file(descriptor):
            raise ConfigurationError(
                f"the folder {path.parent} is in use by another run: wait until it has ended, or "
                "give another folder"
            )
        try:
            yield
        finally:
            unlock_file(descriptor)
    finally:
        os.close(descriptor)


def open_parts(place: str | os.PathLike[str]) -> PartWriter:
    """The writer of a new run in a folder, given as a path or a URI that PyArrow knows."""
    text = os.fspath(place)
    if "://" in text:
        files, folder = fs.FileSystem.from_uri(text)
    else:
        files, folder = fs.LocalFileSystem(), os.path.abspath(text)
    return PartWriter(files, folder, uuid4().hex[:16])


class PartWriter:
    """Writes files of a run; workers get copies of it."""

    def __init__(self, files: fs.FileSystem, folder: str, run: str) -> None:
        self.files = files
        self.folder = folder
        self.run = run

    def names(self) -> list[str]:
        """Names of the complete files, sorted."""
        there = self.files.get_file_info(fs.FileSelector(self.folder))
        return sorted(one.base_name for one in there if _PART.fullmatch(one.base_name))

    def json_file(self, name: str) -> dict[str, Any]:
        """What a file beside the parts says; nothing where there is none."""
        try:
            with self.files.open_input_stream(posixpath.join(self.folder, name)) as file:
                found: dict[str, Any] = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def write_json_file(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a file beside the parts."""
        self._put(name, json.dumps(content).encode())

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.files.delete_file(posixpath.join(self.folder, name))

    def write(self, number: int, table: pa.Table) -> None:
        """Write a file of the run; of a number that is there already, in its place.

        Raises:
            ConfigurationError: Another run has taken the folder.
        """
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
        if self.json_file(_RUN_FILE).get("run") != self.run:
            raise ConfigurationError(f"{self.folder} was taken by another run, which goes on")
        self._put(f"part-{self.run}-{number:06d}.parquet", sink.getvalue())

    def _put(self, name: str, content: Any) -> None:
        path = posixpath.join(self.folder, name)
        if self.files.type_name in _OBJECT_STORES:
            with self.files.open_output_stream(path) as file:
                file.write(content)
            return
        hidden = posixpath.join(self.folder, f".{name}.{uuid4().hex[:8]}.tmp")
        with self.files.open_output_stream(hidden) as file:
            file.write(content)
        if isinstance(self.files, fs.LocalFileSystem):
            with open(hidden, "rb+") as local:
                os.fsync(local.fileno())
        self.files.move(hidden, path)


class PartsDatasink(Datasink[tuple[int, int]]):
    """Writes rows of a run.

    Args:
        writer: Writes the files.
        rows_per_file: Rows of a file, or more.
        error_column: Column whose rows are counted as failed where it is not null.

    Attributes:
        written, failed: Rows of the run, when it has ended.
    """

    def __init__(self, writer: PartWriter, rows_per_file: int, error_column: str) -> None:
        self._writer = writer
        self._rows_per_file = rows_per_file
        self._error_column = error_column
        self.written = 0
        self.failed = 0

    @property
    def min_rows_per_write(self) -> int:
        return self._rows_per_file

    def write(self, blocks: Iterable[Any], ctx: Any) -> tuple[int, int]:
        """Write the rows of a task as one file; returns their number, and of those with errors."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if table.num_rows]
        if not tables:
            return 0, 0
        table = pa.concat_tables(tables, promote_options="permissive")
        self._writer.write(ctx.task_idx, table)
        return table.num_rows, table.num_rows - table[self._error_column].null_count

    def on_write_complete(self, write_result: Any) -> None:
        """Add up what the tasks wrote."""
        for rows, failed in write_result.write_returns:
            self.written += rows
            self.failed += failed


_DIGEST = np.dtype("S16")


def digests(ids: Any) -> Any:
    """128 bits of each id, as an array of bytes.

    Raises:
        InvalidArgumentError: An id is null, or of a type that makes no id.
    """
    if ids.null_count:
        raise InvalidArgumentError(f"{ids.null_count} rows have no id (null)")
    kind = ids.type
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        raise InvalidArgumentError(f"an id is a whole number, a string or bytes, not {kind}")
    texts: Sequence[Any] = (ids if _is_text(kind) else pc.cast(ids, pa.string())).to_pylist()
    encoded = (one.encode() if isinstance(one, str) else one for one in texts)
    found = [hashlib.blake2b(one, digest_size=16).digest() for one in encoded]
    return np.array(found, _DIGEST)


def _is_text(kind: Any) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


class NotWritten:
    """Leaves out rows that were written before; Ray calls it with batches of Arrow."""

    def __init__(self, written: Any, column: str) -> None:
        # In Ray's store, so that all workers of a machine share it.
        self._written = ray.put(written)
        self._column = column

    def filter(self, table: pa.Table) -> pa.Table:
        """The rows of a batch that are still to be predicted."""
        if self._column not in table.column_names:
            raise InvalidArgumentError(
                f"the dataset has no column {self._column!r} for ids; its columns are "
                f"{', '.join(table.column_names)}"
            )
        written = ray.get(self._written)
        if not table.num_rows:
            return table
        wanted = digests(table[self._column])
        if not len(written):
            return table
        places = np.minimum(np.searchsorted(written, wanted), len(written) - 1)
        return table.filter(pa.array(written[places] != wanted))
