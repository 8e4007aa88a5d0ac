"""One file upload: options, resume, retries and result. The drivers send and wait."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from clarigrpc import errors, v2
from clarigrpc._config.option_types import whole_number
from clarigrpc._config.settings import Settings
from clarigrpc._contract.methods import lookup
from clarigrpc._contract.status_names import code_name
from clarigrpc._progress_bar import progress_callback
from clarigrpc._public_names import named_in
from clarigrpc._rpc.retry import RetryBudget, deadline_after, retry_delays
from clarigrpc._uploads.part_encoding import SENDING, PartEncoder
from clarigrpc._uploads.part_state import ChunkedUpload, SendConfig, SendPart
from clarigrpc._uploads.resume_state import ResumeFile, ResumeState
from clarigrpc._uploads.upload_method import UploadMethod
from clarigrpc._uploads.upload_progress import ProgressCallback, RateMeter, reporting
from clarigrpc._uploads.upload_sources import ContentSource

MIN_PART_SIZE = 128 << 10
MAX_PART_SIZE = 14 << 20
DEFAULT_PART_SIZE = 1 << 20
DEFAULT_STREAM_BYTES = 90_000_000
"""Published clients of the service limit a stream to this, because longer ones failed."""

RESPONSE_SECONDS = 2.0
"""Maximum seconds to wait for the response to the config of a stream."""

GATHER_SECONDS = 0.01
"""Time in which responses gather, so that reading them does not take turns with the sending."""

_GATHERED_SECONDS = 0.0005
"""A response that took longer than this had not come before it was asked for."""

_PART_OVERHEAD_BYTES = 1 << 10
_SHA256 = re.compile(r"\bsha256 ([0-9a-f]{64})\b")

logger = logging.getLogger("clarigrpc")


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """Options of a file upload.

    Attributes:
        size: Bytes to read from a source that cannot seek. None reads it to its end, into a
            temporary file, before anything is sent.
        part_size: Bytes per part, 128 KiB to 14 MiB.
        stream_bytes: Maximum bytes of content per stream; the upload continues on another stream.
            None sets no limit.
        state_dir: Folder for the state of an unfinished upload and for temporary files. None uses
            the folder of the uploaded file or folder; uploads of other sources then cannot be
            resumed by another process.
        resume: Whether to continue an unfinished upload of the same content.
        verify: Whether to compare the SHA-256 of the content with that of the service. None
            compares if the service reports one; True fails if it reports none.
        progress: Called with an ``UploadProgress``; True shows a bar if stderr is a terminal.
        timeout: Seconds for the whole upload. None uses the client's ``stream_timeout``.
    """

    size: int | None = None
    part_size: int = DEFAULT_PART_SIZE
    stream_bytes: int | None = DEFAULT_STREAM_BYTES
    state_dir: Any = None
    resume: bool = True
    verify: bool | None = None
    progress: bool | ProgressCallback = False
    timeout: float | None = None

    def check(self, max_message_bytes: int) -> None:
        """Raise InvalidArgumentError for values that are out of range, TypeError for no numbers."""
        numbers = {
            "part_size": self.part_size,
            "stream_bytes": self.stream_bytes,
            "size": self.size,
        }
        for name, value in numbers.items():
            if value is not None:
                whole_number(name, value)
        if not MIN_PART_SIZE <= self.part_size <= MAX_PART_SIZE:
            raise errors.InvalidArgumentError(
                f"part_size must be {MIN_PART_SIZE} to {MAX_PART_SIZE} bytes (limits of the "
                f"service), not {self.part_size}"
            )
        if self.part_size + _PART_OVERHEAD_BYTES > max_message_bytes:
            raise errors.InvalidArgumentError(
                f"part_size of {self.part_size} bytes exceeds the client's max_message_bytes of "
                f"{max_message_bytes}"
            )
        if self.stream_bytes is not None and self.stream_bytes < self.part_size:
            raise errors.InvalidArgumentError(
                f"stream_bytes ({self.stream_bytes}) is less than part_size ({self.part_size})"
            )
        if self.size is not None and self.size < 1:
            raise errors.InvalidArgumentError(f"size must be 1 or more, not {self.size}")


def options_of(keywords: Mapping[str, Any]) -> UploadOptions:
    """The options that a caller gave by name.

    Raises:
        TypeError: An upload has no such option, or ``progress`` is of another type.
    """
    progress_callback(keywords.get("progress", False))
    known = [field.name for field in fields(UploadOptions)]
    unknown = [name for name in keywords if name not in known]
    if unknown:
        raise TypeError(f"an upload has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return UploadOptions(**keywords)


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class UploadResult:
    """A finished file upload.

    Attributes:
        version_id: Id of the new version.
        status: Final status of the service; the version may still be building.
        size: Bytes of the content.
        sha256: SHA-256 of the content in hexadecimal, verified with the service; "" if it was not
            compared.
        resumed_from: Bytes that the service had from an earlier process.
    """

    version_id: str
    status: v2.Status
    size: int
    sha256: str
    resumed_from: int


class UploadSession:
    """The state of one upload and all decisions about it. A driver runs it."""

    def __init__(
        self,
        settings: Settings,
        budget: RetryBudget,
        method: UploadMethod,
        source: ContentSource,
        options: UploadOptions,
    ) -> None:
        options.check(settings.max_message_bytes)
        self.source = source
        self.method = method
        self.path = lookup(method.method).path
        self.response_class = lookup(method.method).response_class()
        timeout = settings.stream_timeout if options.timeout is None else options.timeout
        self.deadline = deadline_after(timeout, time.monotonic())
        self._settings = settings
        self._budget = budget
        self._options = options
        self._request_class = lookup(method.method).request_class()
        self._resume = ResumeFile(None, required=False)
        self._identity = ""
        self._meter: RateMeter | None = None
        self._status: v2.Status | None = None
        self._resumed_from = 0
        self._awaited: int | None = None  # where the source is being read
        self._continued = False
        self._restarted = False
        self._retries: Any = None
        self._machine: ChunkedUpload | None = None

    @property
    def machine(self) -> ChunkedUpload:
        """The state machine; available after ``prepare``."""
        assert self._machine is not None
        return self._machine

    def prepare(self) -> None:
        """Prepare the source, and find out where to start."""
        self.source.prepare(self.deadline)
        total, options = self.source.size, self._options
        if not total:
            raise errors.InvalidArgumentError(f"{self.source.name}: the content is empty")
        state = None
        if options.resume:
            key = {
                "base": self._settings.target.url,
                "method": self.method.method,
                **self.method.resource,
            }
            self._resume = ResumeFile.of(self.source, key, options.state_dir)
            if self._resume.active:
                self._identity = self.source.identity()
                state = self._resume.load(self.source, self._identity)
        if state is None:
            self._machine = self._begin()
            return
        logger.info("upload of %s continues with version %s", self.source.name, state.version_id)
        self._machine = ChunkedUpload(
            total,
            state.part_size,
            stream_bytes=options.stream_bytes,
            version_id=state.version_id,
            acknowledged=state.acknowledged,
            verified=state.acknowledged if self.source.needs_digest else None,
        )
        self._resumed = True

    def _begin(self) -> ChunkedUpload:
        self._resumed = False
        return ChunkedUpload(
            self.source.size, self._options.part_size, stream_bytes=self._options.stream_bytes
        )

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report the progress."""
        with reporting(self._options.progress, self.source.size, self.source.name) as meter:
            self._meter = meter
            yield

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 1 ms."""
        return max(1e-3, self.deadline - time.monotonic())

    def open(self) -> None:
        """A stream is opened."""
        self._continued = bool(self.machine.version_id)
        self._awaited = None
        self.source.start()
        self.machine.open()

    def encoder(self, ahead: int = 1) -> PartEncoder:
        """An encoder of messages, of which ``ahead`` are made before the first of them is sent."""
        return PartEncoder(self._request_class, buffers=SENDING + ahead)

    def message(self, step: SendConfig | SendPart, encoder: PartEncoder) -> bytes:
        """The serialized message of a step; reads the source."""
        if isinstance(step, SendConfig):
            return self.method.request(step.version_id, self.machine.total)
        self._awaited = step.start
        encoded = encoder.encode(step.number, step.start, step.size, self.source.read_into)
        self._awaited = None
        return encoded

    def responded(self, response: Any) -> bool:
        """A response was received; returns whether to ``save``."""
        machine, status = self.machine, response.status
        first = not machine.responses
        final = self._is_final(status.code, response.bytes_remaining)
        remaining = response.bytes_remaining
        self._check_version(version_id := getattr(response, self.method.id_field), final=final)
        machine.responded(
            version_id,
            # 0 also means that the service does not report it.
            remaining if remaining and remaining <= machine.total else None,
            final=final,
        )
        self._budget.earn()  # a part that arrived counts as a successful call
        if final:
            self._status = status
        elif first and self._resumed:
            self._resumed_from = machine.acknowledged
            self._resumed = False
        if self._meter is not None:
            self._meter.update(machine.acknowledged, force=final)
        return not final and self._resume.is_due(machine.version_id)

    def gathers(self, asked: float) -> bool:
        """Whether to let responses gather before the next one is read, up to ``GATHER_SECONDS``.

        Args:
            asked: When the driver asked for the response, by the monotonic clock.
        """
        return time.monotonic() - asked > _GATHERED_SECONDS

    def _check_version(self, version_id: str, *, final: bool) -> None:
        """Check that a response is about the version of this upload.

        Raises:
            InternalError: It names another one; or the upload is complete and none was named.
        """
        known = self.machine.version_id
        if version_id and known and version_id != known:
            raise errors.InternalError(
                f"the service answered about version {version_id!r} during the upload of version "
                f"{known!r}",
                method=self.method.method,
            )
        if final and not (version_id or known):
            raise errors.InternalError(
                "the service reports a complete upload without the id of its version",
                method=self.method.method,
            )

    def _is_final(self, code: int, remaining: int) -> bool:
        """Whether a response has the final status.

        SUCCESS is final only after the whole content was sent on this stream, because a service may
        respond it to every message. The other codes are final, even if an earlier stream completed
        the version.

        Raises:
            InternalError: The service reports completion before the whole content was sent.
        """
        if code not in self.method.done:
            return False
        if code == v2.StatusCode.SUCCESS:
            return self.machine.all_sent and not remaining
        if self.machine.may_be_done and not remaining:
            return True
        raise errors.InternalError(
            f"the service reports {code_name(code)} before the whole content was sent",
            code=code,
            method=self.method.method,
        )

    def save(self) -> None:
        """Write the state to the disk."""
        machine = self.machine
        done = machine.acknowledged - machine.acknowledged % machine.part_size
        digest = self.source.digest_at(done)
        if not digest and self.source.needs_digest:
            done = 0
        self._resume.save(
            ResumeState(
                version_id=machine.version_id,
                total=machine.total,
                part_size=machine.part_size,
                identity=self._identity,
                acknowledged=done,
                digest=digest,
            )
        )

    def interrupted(self) -> None:
        """The upload ends unfinished: save the state for another call."""
        machine = self._machine
        if machine is None or machine.finished or not machine.version_id:
            return
        try:
            self.save()
        except OSError as error:
            logger.warning("the state of the upload was not saved: %s", error)

    def close(self) -> None:
        """Release the source and the state."""
        self._resume.close()
        self.source.close()

    def ended(self) -> None:
        """The stream ended with OK.

        Raises:
            UnavailableError: The service ended it too early.
        """
        self.machine.ended()
        if not self.machine.finished and not self.machine.progressed:
            raise errors.UnavailableError(
                "the service ended the stream before the whole content was received",
                method=self.method.method,
                retryable=True,
            )

    def failed(self, error: errors.ApiError) -> float:
        """The stream failed; returns the delay before the next one, or raises why."""
        try:
            return self._delay(error)
        except errors.DeadlineExceededError as late:
            if self._awaited is None or late.grpc_code is None:  # the source said it itself
                raise
            raise self.source.late(self._awaited, self.method.method) from late

    def _delay(self, error: errors.ApiError) -> float:
        """Seconds until the next stream; raises the error if there is none."""
        machine = self.machine
        machine.broken()
        if machine.progressed:
            self._retries = None
        if self._is_gone(error):
            logger.warning("upload of %s starts again: %s", self.source.name, error)
            self._resume.remove()
            self._restarted = True
            self._machine = self._begin()
            return 0.0
        policy = self._settings.retry
        if (
            machine.progressed
            and error.retryable
            and error.retry_after is None
            and policy.max_attempts > 1
        ):
            # To continue is no retry and does not use the retry budget.
            delay = policy.backoff(1, random.random())
            if time.monotonic() + delay >= self.deadline:
                raise error
        else:
            delay = self._retry_loop().send(error)
        logger.info("upload of %s continues in %.2f s: %s", self.source.name, delay, error)
        return delay

    def _is_gone(self, error: errors.ApiError) -> bool:
        """Whether the version to continue is missing or has other content."""
        gone = (errors.NotFoundError, errors.AlreadyExistsError, errors.InvalidArgumentError)
        return (
            isinstance(error, gone)
            and error.code is not None
            and self._continued
            and not self._restarted
            and not self.machine.progressed
        )

    def _retry_loop(self) -> Any:
        if self._retries is None:
            self._retries = retry_delays(
                self._settings.retry,
                self._budget,
                idempotent=True,
                deadline=self.deadline,
                clock=time.monotonic,
                random=random.random,
            )
            next(self._retries)
        return self._retries

    def finish(self) -> UploadResult:
        """Delete the state, verify the SHA-256 and return the result.

        Raises:
            InternalError: The SHA-256 of the service differs, or ``verify=True`` and the service
                reports none.
        """
        status = self._status
        assert status is not None
        self._resume.remove()
        return UploadResult(
            version_id=self.machine.version_id,
            status=status,
            size=self.source.size,
            sha256=verify_sha256(self.source, status, self.method.method, self._options.verify),
            resumed_from=self._resumed_from,
        )


def verify_sha256(
    source: ContentSource, status: v2.Status, method: str, verify: bool | None
) -> str:
    """The verified SHA-256 of a source, in hexadecimal; "" if it was not compared.

    Args:
        source: The content.
        status: Final status of the service.
        method: RPC for the error.
        verify: See ``UploadOptions``.

    Raises:
        InternalError: The SHA-256 differs, or ``verify`` is True and the service reports none.
    """
    found = _SHA256.search(status.details)
    if verify is False or (found is None and verify is None):
        return ""
    if found is None:
        raise errors.InternalError(
            "the upload is complete, but the service reports no SHA-256 to verify (verify=True)",
            method=method,
            status=status,
        )
    digest = source.sha256()
    if digest != found[1]:
        raise errors.InternalError(
            f"the content differs: SHA-256 is {digest} locally and {found[1]} at the service",
            method=method,
            status=status,
        )
    return digest
