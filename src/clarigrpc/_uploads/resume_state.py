"""The state of an upload on disk, with which a later process continues it.

A state belongs to a target (service, app, resource, method) and to a content. It is written by
rename, so that it is never incomplete. A state that is invalid or for other content is not used;
the upload then starts from the beginning. The file is locked by the upload that it is of: another
one at the same time does not go on with its version, but has one of its own, and no state.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clarigrpc._file_lock import lock_file, unlock_file
from clarigrpc._replaced_files import replaced
from clarigrpc._uploads.upload_sources import ContentSource

SUFFIX = ".clarigrpc-upload"

_FORMAT = 1
_SAVE_SECONDS = 1.0

logger = logging.getLogger("clarigrpc")


@dataclass(frozen=True, slots=True)
class ResumeState:
    """The state of an unfinished upload.

    Attributes:
        version_id: Id that the service assigned.
        total: Bytes of the content.
        part_size: Bytes of a part.
        identity: ``ContentSource.identity`` of the content.
        acknowledged: Bytes that the service has.
        digest: SHA-256 of these bytes, or "" if the identity is sufficient.
    """

    version_id: str
    total: int
    part_size: int
    identity: str
    acknowledged: int
    digest: str


class ResumeFile:
    """The file with the state of one upload.

    Args:
        path: The file; None stores no state.
        required: Whether a failed write is an error; otherwise it is logged and the upload
            continues without a state.
    """

    def __init__(self, path: Path | None, *, required: bool) -> None:
        self._path = path
        self._required = required
        self._saved: ResumeState | None = None
        self._next_save = 0.0
        self._lock = threading.Lock()
        # The descriptor with the lock of the file.
        self._locked: int | None = None

    @property
    def active(self) -> bool:
        """Whether a state is stored."""
        return self._path is not None

    @classmethod
    def of(
        cls,
        source: ContentSource,
        target: Mapping[str, Any],
        state_dir: str | os.PathLike[str] | None,
    ) -> ResumeFile:
        """The file for an upload: in ``state_dir``, or in the folder of the uploaded file."""
        key = hashlib.sha256(json.dumps(target, sort_keys=True).encode()).hexdigest()[:16]
        if state_dir is not None:
            folder = Path(state_dir)
            folder.mkdir(parents=True, exist_ok=True)
            # Sources with the same name in different folders get different files.
            place = str(source.path.absolute()) if source.path is not None else ""
            key = hashlib.sha256(f"{key}\0{place}\0{source.name}".encode()).hexdigest()[:16]
            return cls(folder / f"{_file_name(source.name)}.{key}{SUFFIX}", required=True)
        if source.path is None:
            return cls(None, required=False)
        path = source.path.absolute()
        return cls(path.with_name(f".{_file_name(path.name)}.{key}{SUFFIX}"), required=False)

    def load(self, source: ContentSource, identity: str) -> ResumeState | None:
        """The state for this content, or None. A state for other content is logged and ignored."""
        if self._path is not None and self._path.exists() and not self._path.is_file():
            # A pipe, say, which would be read without end.
            logger.warning("a later process cannot resume this upload: %s is no file", self._path)
            self._path = None
        if self._path is None or not self._claim():
            return None
        try:
            state = _parse(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            logger.warning(
                "upload starts from the beginning: %s is not usable: %r", self._path, error
            )
            return None
        stale = (
            state.total != source.size
            or state.identity != identity
            or (state.digest and state.digest != source.prefix_digest(state.acknowledged))
        )
        if stale:
            logger.warning("upload starts again: %s is for other content", self._path)
            return None
        self._saved = state
        return state

    def is_due(self, version_id: str) -> bool:
        """Whether to save: at once for a new version, otherwise once per second."""
        if self._path is None or not version_id:
            return False
        return self._is_new(version_id) or time.monotonic() >= self._next_save

    def save(self, state: ResumeState) -> None:
        """Write the state."""
        with self._lock:
            if self._path is None or not self._claim():
                return
            self._write(state, durable=self._is_new(state.version_id))
            self._next_save = time.monotonic() + _SAVE_SECONDS
            self._saved = state

    def _claim(self) -> bool:
        """Lock the file, if it is there; false, and no state any more, if another upload has."""
        if self._path is None or self._locked is not None:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except OSError:  # there is none, or whoever reads or writes it is told why
            return True
        if not (_is_locked(descriptor) and _is_at(self._path, descriptor)):
            os.close(descriptor)
            logger.warning(
                "%s is in use by another upload: this one cannot be resumed by a later process",
                self._path,
            )
            self._path = None
            return False
        self._locked = descriptor
        return True

    def _is_new(self, version_id: str) -> bool:
        return self._saved is None or self._saved.version_id != version_id

    def _write(self, state: ResumeState, *, durable: bool) -> None:
        assert self._path is not None
        new: int | None = None
        try:
            with replaced(self._path, durable=durable) as file:
                file.write(json.dumps({"format": _FORMAT, **asdict(state)}).encode())
                new = os.dup(file.fileno())
                _is_locked(new)  # before another upload can find it
            self._release()
            self._locked, new = new, None
        except OSError as error:
            if self._required:
                raise
            logger.warning("a later process cannot resume this upload: %s", error)
            self._path = None
        finally:
            if new is not None:
                os.close(new)

    def remove(self) -> None:
        """Delete the state: the upload is complete, or cannot be continued."""
        with self._lock:
            self._saved = None
            if self._path is not None and self._locked is not None:
                self._path.unlink(missing_ok=True)
            self._release()

    def close(self) -> None:
        """The upload is over: another one may go on from the state."""
        with self._lock:
            self._path = None
            self._release()

    def _release(self) -> None:
        if self._locked is not None:
            descriptor, self._locked = self._locked, None
            try:
                unlock_file(descriptor)
            finally:
                os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a file was not replaced since it was opened, by whoever had the lock."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _is_locked(descriptor: int) -> bool:
    """Lock a file; false if another upload has. Without locks in its file system it is ours."""
    try:
        return lock_file(descriptor)
    except OSError:
        return True


def _parse(text: bytes) -> ResumeState:
    """The state in a file.

    Raises ValueError, TypeError, KeyError or RecursionError if it is invalid.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.pop("format") != _FORMAT:
        raise ValueError("unknown format")
    state = ResumeState(**fields)
    for name, kind in ResumeState.__annotations__.items():
        if type(getattr(state, name)).__name__ != kind:
            raise ValueError(f"{name} is not of type {kind}")
    state.version_id.encode()  # no message can hold half a character
    if not (state.version_id and 0 <= state.acknowledged <= state.total and state.part_size > 0):
        raise ValueError("inconsistent values")
    return state


def _file_name(name: str) -> str:
    """``name`` with the characters that are safe in a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100]
