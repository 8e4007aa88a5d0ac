"""Uploads: standalone files kept by the service for a while, sent in parts over unary calls."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Unpack

from clarigrpc import errors, v2
from clarigrpc._resources.base import Deletes, Gets, Lists, sole
from clarigrpc._resources.file_uploads import UploadKeywords, open_for
from clarigrpc._resources.long_running import FollowsWork
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.plan import Plan, Run, call
from clarigrpc._rpc.retry import deadline_after
from clarigrpc._uploads.part_encoding import PartEncoder
from clarigrpc._uploads.resume_state import ResumeFile, ResumeState
from clarigrpc._uploads.upload_progress import reporting
from clarigrpc._uploads.upload_session import UploadOptions, options_of, verify_sha256
from clarigrpc._uploads.upload_sources import ContentSource, UploadSource

logger = logging.getLogger("clarigrpc")

Begin = Callable[[ContentSource, str], Plan[v2.Upload]]
"""Makes an upload for a source, under a name."""


class UploadOperations(
    Gets[v2.Upload], Lists[v2.Upload], Deletes[v2.Upload], FollowsWork[v2.Upload]
):
    """The uploads of an app: standalone files."""

    _message = v2.Upload
    _get_rpc = "GetUpload"
    _list_rpc = "ListUploads"
    _delete_rpc = "DeleteUploads"
    _work_name = "upload"
    _instead_of_cancel = "delete the upload"

    @operation
    def upload(
        self, source: UploadSource, *, name: str = "", **options: Unpack[UploadKeywords]
    ) -> Plan[v2.Upload]:
        """Upload a standalone file.

        Each part is sent with a call of its own, which is retried when it fails; this also works
        over REST. If this process ends before the upload is done, the next call with the same file
        continues it.

        Args:
            source: A path, a folder (sent as a tar archive), bytes, a binary file (from its current
                position), or any object with ``read``.
            name: Name of the content. Empty uses the name of the file.
            size: Bytes to take from a stream that cannot seek. None reads it to its end, into a
                temporary file, before anything is sent.
            part_size: Bytes per part, 128 KiB to 14 MiB. Default 1 MiB.
            stream_bytes: Not used: every part is a call of its own.
            state_dir: Folder for the state of an unfinished upload and for temporary files. None
                uses the folder of the source; a source that is neither a file nor a folder then
                cannot be resumed by another process.
            resume: Whether to continue an unfinished upload of the same content. Default True.
            verify: Whether to compare the SHA-256 of the content with that of the service. None
                compares if the service reports one; True fails if it reports none.
            progress: A function called with an ``UploadProgress``, or True for a progress bar if
                stderr is a terminal. Default False.
            timeout: Seconds for the whole upload. None uses the client's ``stream_timeout``.

        Returns:
            The finished upload.

        Raises:
            FileNotFoundError: The source is a path that does not exist.
            InvalidArgumentError: The source is empty, has another size than ``size``, or changed
                during the upload; or an option is out of range.
            InternalError: The service stored other content than the source.
            ApiError: The upload failed; the subclass says how (see ``errors``). It can be resumed.
        """
        return (yield from send(self, source, name, options_of(options), self._begin))

    def _resume_file(
        self, source: ContentSource, name: str, options: UploadOptions
    ) -> Plan[ResumeFile]:
        if not options.resume:
            return ResumeFile(None, required=False)
        ids = self._user_app_id or self._client.user_app_id
        key = {
            "base": self._client.settings.target.url,
            "method": "PutUploadContentParts",
            "user_id": ids.user_id,
            "app_id": ids.app_id,
            "name": name,
        }
        file: ResumeFile = yield Run(lambda: ResumeFile.of(source, key, options.state_dir))
        return file

    def _send_parts(
        self,
        source: ContentSource,
        resume: ResumeFile,
        name: str,
        options: UploadOptions,
        deadline: float,
        begin: Begin,
    ) -> Plan[v2.Upload]:
        identity, state = "", None
        if resume.active:
            identity = yield Run(source.identity)
            state = yield Run(lambda: resume.load(source, identity))
        upload = None if state is None else (yield from self._unfinished(state.version_id))
        if upload is None:
            upload, state = (yield from begin(source, name)), None
        part_size = options.part_size if state is None else state.part_size
        done = 0 if state is None else state.acknowledged - state.acknowledged % part_size
        request = v2.PutUploadContentPartsRequest(
            user_app_id=self._user_app_id or self._client.user_app_id, upload_id=upload.id
        )
        encoder = PartEncoder(
            v2.PutUploadContentPartsRequest, "content_parts", head=request.SerializeToString()
        )
        with reporting(options.progress, source.size, name) as meter:
            while not _is_done(upload) and done < source.size:
                if resume.is_due(upload.id):
                    known = ResumeState(
                        upload.id, source.size, part_size, identity, done, source.digest_at(done)
                    )
                    yield Run(lambda known=known: resume.save(known))  # type: ignore[misc]
                size = min(part_size, source.size - done)

                def message(start: int = done, size: int = size) -> bytes:
                    return encoder.encode(start // part_size + 1, start, size, source.read_into)

                encoded = yield Run(message)
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise errors.DeadlineExceededError(
                        "the upload was not complete in time; call again to continue it",
                        method="PutUploadContentParts",
                    )
                response = yield from call(
                    "PutUploadContentParts",
                    encoded,
                    timeout=min(remaining, self._client.settings.timeout),
                )
                upload = response.upload
                failure = statuses.from_item(
                    upload.status,
                    method="PutUploadContentParts",
                    request_id=response.status.req_id,
                )
                if failure is not None:
                    raise failure
                done += size
                if meter is not None:
                    meter.update(done, force=done == source.size)
        yield Run(resume.remove)
        if _is_done(upload):
            return upload
        if state is not None:
            logger.warning("upload of %s starts again: the service lacks parts of it", name)
            return (yield from self._send_parts(source, resume, name, options, deadline, begin))
        raise errors.InternalError(
            "the service received all parts but did not report the upload as done",
            method="PutUploadContentParts",
            status=upload.status,
        )

    def _begin(self, source: ContentSource, name: str) -> Plan[v2.Upload]:
        # With an id of ours the call may be repeated: a conflict with it is its first try.
        wanted = v2.Upload(id=uuid.uuid4().hex, content_name=name, content_length=source.size)
        request = v2.PostUploadsRequest(user_app_id=self._user_app_id, uploads=[wanted])
        response: v2.MultiUploadResponse = yield from call(
            "PostUploads", request, idempotent=True, raise_on_partial=False
        )
        upload = sole(response.uploads, "PostUploads", response)
        failure = statuses.from_item(
            upload.status, method="PostUploads", request_id=response.status.req_id
        )
        if isinstance(failure, errors.AlreadyExistsError):
            return (yield from self._fetch(wanted.id))
        if failure is not None:
            raise failure
        return upload

    def _unfinished(self, upload_id: str) -> Plan[v2.Upload | None]:
        """The upload of an earlier process, if it can be continued."""
        try:
            upload = yield from self._fetch(upload_id)
        except errors.NotFoundError:
            return None
        return upload if upload.status.code in statuses.PASSING else None


def send(
    uploads: UploadOperations, source: UploadSource, name: str, options: UploadOptions, begin: Begin
) -> Plan[v2.Upload]:
    """The plan of ``UploadOperations.upload``; ``begin`` makes the upload whose parts are sent."""
    settings = uploads._client.settings
    opened = open_for(source, options, settings)
    deadline = deadline_after(
        settings.stream_timeout if options.timeout is None else options.timeout, time.monotonic()
    )
    try:
        yield Run(lambda: opened.prepare(deadline))
        if not opened.size:
            raise errors.InvalidArgumentError(f"{opened.name}: the content is empty")
        # The name of a file may hold bytes that are not UTF-8.
        name = (name or opened.name).encode(errors="backslashreplace").decode()
        resume = yield from uploads._resume_file(opened, name, options)
        try:
            plan = uploads._send_parts(opened, resume, name, options, deadline, begin)
            upload = yield from plan
        finally:
            resume.close()
        yield Run(lambda: verify_sha256(opened, upload.status, "GetUpload", options.verify))
        return upload
    finally:
        opened.stop()
        opened.close()


def _is_done(upload: Any) -> bool:
    return bool(upload.status.code == v2.StatusCode.UPLOAD_DONE)


class Uploads(UploadOperations, Sync): ...


class AsyncUploads(UploadOperations, Async): ...
