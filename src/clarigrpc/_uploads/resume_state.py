"""The state of an upload on disk, from which a later process goes on.

A state belongs to a target (service, app, resource, method) and to a content. It is written by
rename, so it is there as a whole or not at all, and it is used only for the content that it was
written for: anything else in it makes the upload begin anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clarigrpc._uploads.upload_sources import Source

SUFFIX = ".clarigrpc-upload"

_FORMAT = 1
_SAVE_SECONDS = 1.0

logger = logging.getLogger("clarigrpc")


@dataclass(frozen=True, slots=True)
class ResumeState:
    """What is known of an unfinished upload.

    Attributes:
        version_id: Id that the service gave it.
        total: Bytes of the content.
        part_size: Bytes of a part.
        identity: ``Source.identity`` of the content.
        acknowledged: Bytes that the service had.
        digest: SHA-256 of these bytes, or "" where the identity is enough.
    """

    version_id: str
    total: int
    part_size: int
    identity: str
    acknowledged: int
    digest: str


class ResumeFile:
    """The state of the upload of one content to one target.

    Args:
        path: The file; None keeps nothing.
        required: Whether failing to write it is an error; otherwise it is logged, and the upload
            goes on without.
    """

    def __init__(self, path: Path | None, *, required: bool) -> None:
        self._path = path
        self._required = required
        self._saved: ResumeState | None = None
        self._next_save = 0.0

    @property
    def active(self) -> bool:
        """Whether anything is kept."""
        return self._path is not None

    @classmethod
    def of(
        cls, source: Source, target: Mapping[str, Any], state_dir: str | os.PathLike[str] | None
    ) -> ResumeFile:
        """The file for an upload: in ``state_dir``, or beside what is uploaded."""
        key = hashlib.sha256(json.dumps(target, sort_keys=True).encode()).hexdigest()[:16]
        if state_dir is not None:
            folder = Path(state_dir)
            folder.mkdir(parents=True, exist_ok=True)
            # Sources of the same name from different places do not share a file.
            place = str(source.path.absolute()) if source.path is not None else ""
            key = hashlib.sha256(f"{key}\0{place}\0{source.name}".encode()).hexdigest()[:16]
            return cls(folder / f"{_file_name(source.name)}.{key}{SUFFIX}", required=True)
        if source.path is None:
            return cls(None, required=False)
        path = source.path.absolute()
        return cls(path.with_name(f".{_file_name(path.name)}.{key}{SUFFIX}"), required=False)

    def load(self, source: Source, identity: str) -> ResumeState | None:
        """The state for exactly this content; one for another is reported and left out."""
        if self._path is None:
            return None
        try:
            state = _parse(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("upload begins anew: %s is not usable: %r", self._path, error)
            return None
        stale = (
            state.total != source.size
            or state.identity != identity
            or (state.digest and state.digest != source.prefix_digest(state.acknowledged))
        )
        if stale:
            logger.warning("upload begins anew: %s is for other content", self._path)
            return None
        self._saved = state
        return state

    def is_due(self, version_id: str) -> bool:
        """Whether to save: at once when the version is new, otherwise about once a second."""
        if self._path is None or not version_id:
            return False
        return self._is_new(version_id) or time.monotonic() >= self._next_save

    def save(self, state: ResumeState) -> None:
        """Write a state."""
        if self._path is None:
            return
        self._write(state, durable=self._is_new(state.version_id))
        self._next_save = time.monotonic() + _SAVE_SECONDS
        self._saved = state

    def _is_new(self, version_id: str) -> bool:
        return self._saved is None or self._saved.version_id != version_id

    def _write(self, state: ResumeState, *, durable: bool) -> None:
        assert self._path is not None
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".clarigrpc-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(json.dumps({"format": _FORMAT, **asdict(state)}).encode())
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
                os.replace(temporary, self._path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            if self._required:
                raise
            logger.warning("this upload cannot be resumed by a later process: %s", error)
            self._path = None

    def remove(self) -> None:
        """Forget the upload: it is complete, or of no use."""
        self._saved = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _parse(text: bytes) -> ResumeState:
    """Raises ValueError, TypeError or KeyError for what is no state."""
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.pop("format") != _FORMAT:
        raise ValueError("of another format")
    state = ResumeState(**fields)
    for name, kind in ResumeState.__annotations__.items():
        if type(getattr(state, name)).__name__ != kind:
            raise ValueError(f"{name} is no {kind}")
    if not (state.version_id and 0 <= state.acknowledged <= state.total and state.part_size > 0):
        raise ValueError("contradicts itself")
    return state


def _file_name(name: str) -> str:
    """``name`` as a part of a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100]
