"""One upload: everything but the moving of bytes, for both drivers."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clarigrpc import errors, v2
from clarigrpc._config.settings import Settings
from clarigrpc._contract.methods import lookup
from clarigrpc._contract.status_names import code_name
from clarigrpc._public_names import named_in
from clarigrpc._rpc.retry import RetryBudget, deadline_after, retry_delays
from clarigrpc._uploads.part_encoding import PartEncoder
from clarigrpc._uploads.part_state import ChunkedUpload, SendConfig, SendPart
from clarigrpc._uploads.resume_state import ResumeFile, ResumeState
from clarigrpc._uploads.upload_methods import Target
from clarigrpc._uploads.upload_progress import Meter, ProgressCallback, reporting
from clarigrpc._uploads.upload_sources import Source

MIN_PART_SIZE = 128 << 10
MAX_PART_SIZE = 14 << 20
PART_SIZE = 1 << 20
STREAM_BYTES = 90_000_000
"""Longer streams failed for published clients of the service."""

ANSWER_SECONDS = 2.0
"""How long to wait for what the service says to the config of a stream."""

_OVERHEAD = 1 << 10
_SHA256 = re.compile(r"\bsha256 ([0-9a-f]{64})\b")

logger = logging.getLogger("clarigrpc")


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """How to upload.

    Attributes:
        size: Bytes to take from a stream that cannot seek. None: it is read to its end, into a
            temporary file, before anything is sent.
        part_size: Bytes of a part, 128 KiB to 14 MiB.
        stream_bytes: Most bytes of content on one stream; the rest goes on in another one. None:
            no limit.
        state_dir: Folder for the state of an unfinished upload and for temporary files. None:
            beside the file or folder that is uploaded; other sources then cannot be resumed by
            another process.
        resume: Whether to go on with an unfinished upload of the same content.
        verify: Whether the SHA-256 of the content is compared with that of the service: None
            where the service reports one, True always (failing where it reports none), or False.
        progress: Called with an ``UploadProgress``; True: a bar, if stderr is a terminal.
        timeout: Seconds for all of it; None: the ``stream_timeout`` of the client.
    """

    size: int | None = None
    part_size: int = PART_SIZE
    stream_bytes: int | None = STREAM_BYTES
    state_dir: Any = None
    resume: bool = True
    verify: bool | None = None
    progress: bool | ProgressCallback = False
    timeout: float | None = None

    def check(self, max_message_bytes: int) -> None:
        """Raises InvalidArgumentError for values that cannot work."""
        if not MIN_PART_SIZE <= self.part_size <= MAX_PART_SIZE:
            raise errors.InvalidArgumentError(
                f"part_size has to be {MIN_PART_SIZE} to {MAX_PART_SIZE} bytes (what the service "
                f"takes), not {self.part_size}"
            )
        if self.part_size + _OVERHEAD > max_message_bytes:
            raise errors.InvalidArgumentError(
                f"parts of {self.part_size} bytes do not fit the client's max_message_bytes of "
                f"{max_message_bytes}"
            )
        if self.stream_bytes is not None and self.stream_bytes < self.part_size:
            raise errors.InvalidArgumentError(
                f"stream_bytes ({self.stream_bytes}) is less than part_size ({self.part_size})"
            )
        if self.size is not None and self.size < 1:
            raise errors.InvalidArgumentError(f"size has to be 1 or more, not {self.size}")


@named_in("clarigrpc.types")
@dataclass(frozen=True, slots=True)
class UploadResult:
    """A finished upload.

    Attributes:
        version_id: Id of the new version.
        status: The service's final status; building may go on.
        size: Bytes of the content.
        sha256: SHA-256 of the content in hexadecimal, equal here and there; "" where it was not
            compared.
        resumed_from: Bytes that the service had from an earlier process.
    """

    version_id: str
    status: v2.Status
    size: int
    sha256: str
    resumed_from: int


class UploadSession:
    """The state of one upload, and the decisions about it. A driver owns its source."""

    def __init__(
        self,
        settings: Settings,
        budget: RetryBudget,
        target: Target,
        source: Source,
        options: UploadOptions,
    ) -> None:
        options.check(settings.max_message_bytes)
        self.source = source
        self.target = target
        self.path = lookup(target.method).path
        self.response_class = lookup(target.method).response_class()
        timeout = settings.stream_timeout if options.timeout is None else options.timeout
        self.deadline = deadline_after(timeout, time.monotonic())
        self._settings = settings
        self._budget = budget
        self._options = options
        self._encoder = PartEncoder(lookup(target.method).request_class())
        self._resume = ResumeFile(None, required=False)
        self._identity = ""
        self._meter: Meter | None = None
        self._status: v2.Status | None = None
        self._resumed_from = 0
        self._went_on = False
        self._restarted = False
        self._retries: Any = None
        self._machine: ChunkedUpload | None = None

    @property
    def machine(self) -> ChunkedUpload:
        """The state machine, there once the upload is prepared."""
        assert self._machine is not None
        return self._machine

    def prepare(self) -> None:
        """Read what has to be read first, and find out where to begin."""
        self.source.prepare()
        total, options = self.source.size, self._options
        if not total:
            raise errors.InvalidArgumentError(f"{self.source.name}: it is empty")
        state = None
        if options.resume:
            key = {
                "base": self._settings.target.url,
                "method": self.target.method,
                **self.target.resource,
            }
            self._resume = ResumeFile.of(self.source, key, options.state_dir)
            if self._resume.active:
                self._identity = self.source.identity()
                state = self._resume.load(self.source, self._identity)
        if state is None:
            self._machine = self._begin()
            return
        logger.info("upload of %s goes on with version %s", self.source.name, state.version_id)
        self._machine = ChunkedUpload(
            total,
            state.part_size,
            stream_bytes=options.stream_bytes,
            version_id=state.version_id,
            acknowledged=state.acknowledged,
            verified=state.acknowledged if self.source.must_be_followed else None,
        )
        self._resumed = True

    def _begin(self) -> ChunkedUpload:
        self._resumed = False
        return ChunkedUpload(
            self.source.size, self._options.part_size, stream_bytes=self._options.stream_bytes
        )

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Have progress reported."""
        with reporting(self._options.progress, self.source.size, self.source.name) as meter:
            self._meter = meter
            yield

    @property
    def remaining(self) -> float:
        """Seconds to the deadline, at least a moment."""
        return max(1e-3, self.deadline - time.monotonic())

    def open(self) -> None:
        """A stream is opened."""
        self._went_on = bool(self.machine.version_id)
        self.source.start()
        self.machine.open()

    def message(self, step: SendConfig | SendPart) -> bytes:
        """What to send, serialized; reads the source."""
        if isinstance(step, SendConfig):
            return self.target.request(step.version_id, self.machine.total)
        data = self.source.read_at(step.start, step.size)
        return self._encoder.encode(step.number, step.start, data)

    def take(self, response: Any) -> bool:
        """Take in an answer; whether ``save`` is due."""
        machine, status = self.machine, response.status
        first = not machine.answers
        final = self._is_final(status.code, response.bytes_remaining)
        remaining = response.bytes_remaining
        machine.answered(
            getattr(response, self.target.id_field),
            # 0 is what a service sends that does not say, too.
            remaining if remaining and remaining <= machine.total else None,
            final=final,
        )
        self._budget.earn()  # a part that arrived is worth a call that went well
        if final:
            self._status = status
        elif first and self._resumed:
            self._resumed_from = machine.acknowledged
            self._resumed = False
        if self._meter is not None:
            self._meter.update(machine.acknowledged, force=final)
        return not final and self._resume.is_due(machine.version_id)

    def _is_final(self, code: int, remaining: int) -> bool:
        """Whether an answer is the final one.

        SUCCESS counts only after all was sent on this stream: a service may say that to every
        message. The other codes mean the end, also of a version that an earlier stream completed.

        Raises:
            InternalError: The service reports the end of what it cannot have.
        """
        if code not in self.target.done:
            return False
        if code == v2.StatusCode.SUCCESS:
            return self.machine.all_sent and not remaining
        if self.machine.may_be_done and not remaining:
            return True
        raise errors.InternalError(
            f"the service reports {code_name(code)} before it was sent the whole content",
            code=code,
            method=self.target.method,
        )

    def save(self) -> None:
        """Keep the state on disk."""
        machine = self.machine
        done = machine.acknowledged - machine.acknowledged % machine.part_size
        digest = self.source.digest_at(done)
        if not digest and self.source.must_be_followed:
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
        """The upload ends unfinished: keep what another call needs to go on."""
        machine = self._machine
        if machine is None or machine.finished or not machine.version_id:
            return
        try:
            self.save()
        except OSError as error:
            logger.warning("the state of the upload was not saved: %s", error)

    def ended(self) -> None:
        """The stream ended well.

        Raises:
            UnavailableError: It should not have.
        """
        self.machine.ended()
        if not self.machine.finished and not self.machine.progressed:
            raise errors.UnavailableError(
                "the service ended the stream before it had the whole content",
                method=self.target.method,
                retryable=True,
            )

    def failed(self, error: errors.ApiError) -> float:
        """The stream broke: seconds to wait before the next one; raises ``error`` if none."""
        machine = self.machine
        machine.broken()
        if machine.progressed:
            self._retries = None
        if self._is_gone(error):
            logger.warning("upload of %s begins anew: %s", self.source.name, error)
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
            # Going on is no repetition: it costs none of the budget for those.
            delay = policy.backoff(1, random.random())
            if time.monotonic() + delay >= self.deadline:
                raise error
        else:
            delay = self._retry_loop().send(error)
        logger.info("upload of %s goes on in %.2f s: %s", self.source.name, delay, error)
        return delay

    def _is_gone(self, error: errors.ApiError) -> bool:
        """Whether the service lost, or has other content under, the version to go on with."""
        gone = (errors.NotFoundError, errors.AlreadyExistsError, errors.InvalidArgumentError)
        return (
            isinstance(error, gone)
            and error.code is not None
            and self._went_on
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
        """Compare the digests, forget the state.

        Raises:
            InternalError: The service has other content than the source, or, where
                ``verify=True`` asks for it, does not say.
        """
        status = self._status
        assert status is not None
        self._resume.remove()
        return UploadResult(
            version_id=self.machine.version_id,
            status=status,
            size=self.source.size,
            sha256=compare(self.source, status, self.target.method, self._options.verify),
            resumed_from=self._resumed_from,
        )


def compare(source: Source, status: v2.Status, method: str, verify: bool | None) -> str:
    """The SHA-256 that source and service agree on; "" where there is none to compare.

    Raises:
        InternalError: They do not agree, or ``verify`` is True and the service reports none.
    """
    found = _SHA256.search(status.details)
    if verify is False or (found is None and verify is None):
        return ""
    if found is None:
        raise errors.InternalError(
            "the upload is complete, but the service reports no SHA-256 to compare (verify=True)",
            method=method,
            status=status,
        )
    digest = source.sha256()
    if digest != found[1]:
        raise errors.InternalError(
            f"the content differs: SHA-256 is {digest} here and {found[1]} at the service",
            method=method,
            status=status,
        )
    return digest
