"""Files kept by the service for a while, sent in parts over unary calls."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Unpack

from clarigrpc import errors, v2
from clarigrpc._resources.base import Deletes, Gets, Lists
from clarigrpc._resources.file_uploads import UploadKeywords, open_for
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._rpc import statuses
from clarigrpc._rpc.plan import Plan, Run, call
from clarigrpc._rpc.retry import deadline_after
from clarigrpc._uploads.part_encoding import PartEncoder
from clarigrpc._uploads.resume_state import ResumeFile, ResumeState
from clarigrpc._uploads.upload_progress import reporting
from clarigrpc._uploads.upload_session import UploadOptions, verify_sha256
from clarigrpc._uploads.upload_sources import ContentSource, UploadSource

Begin = Callable[[ContentSource, str], Plan[v2.Upload]]
"""Makes an upload for a source, under a name."""


class UploadOperations(Gets[v2.Upload], Lists[v2.Upload], Deletes[v2.Upload]):
    """The uploads of an app, for files that belong to nothing else."""

    message = v2.Upload

    @operation
    def upload(
        self, source: UploadSource, *, name: str = "", **options: Unpack[UploadKeywords]
    ) -> Plan[v2.Upload]:
        """Upload a file, for itself.

        Part after part, each with a call of its own, which is sent again when it fails; works
        over REST as well. When the process ends before it is done, the next call with the same
        file goes on.

        Args:
            source: A path, a folder (becomes a tar archive as it is sent), bytes, a binary file
                (from where it stands), or any object with ``read``.
            name: Name of the content; empty: that of the file.
            options: ``size``, ``part_size``, ``state_dir``, ``resume``, ``verify``,
                ``progress`` and ``timeout`` (seconds in all), see ``UploadOptions``.

        Returns:
            The finished upload.

        Raises:
            FileNotFoundError: There is no file of this name.
            InvalidArgumentError: The source is empty, of another size than told, or changed
                while it was being uploaded; a size is out of bounds.
            InternalError: The service has other content than the source.
            ApiError: The class of it that fits, see ``errors``. The upload can be resumed.
        """
        return (yield from send(self, source, name, UploadOptions(**options), self._begin))

    def _send_parts(
        self,
        source: ContentSource,
        name: str,
        options: UploadOptions,
        deadline: float,
        begin: Begin,
    ) -> Plan[v2.Upload]:
        resume = ResumeFile(None, required=False)
        identity, state = "", None
        if options.resume:
            ids = self.user_app_id or self._client.user_app_id
            key = {
                "base": self._client.settings.target.url,
                "method": "PutUploadContentParts",
                "user_id": ids.user_id,
                "app_id": ids.app_id,
                "name": name,
            }
            resume = yield Run(lambda: ResumeFile.of(source, key, options.state_dir))
            if resume.active:
                identity = yield Run(source.identity)
                state = yield Run(lambda: resume.load(source, identity))
        upload = None if state is None else (yield from self._unfinished(state.version_id))
        if upload is None:
            upload, state = (yield from begin(source, name)), None
        part_size = options.part_size if state is None else state.part_size
        done = 0 if state is None else state.acknowledged - state.acknowledged % part_size
        request = v2.PutUploadContentPartsRequest(
            user_app_id=self.user_app_id or self._client.user_app_id, upload_id=upload.id
        )
        head = request.SerializeToString()
        encoder = PartEncoder(v2.PutUploadContentPartsRequest, "content_parts")
        with reporting(options.progress, source.size, name) as meter:
            while not _is_done(upload):
                if resume.is_due(upload.id):
                    known = ResumeState(
                        upload.id, source.size, part_size, identity, done, source.digest_at(done)
                    )
                    yield Run(lambda known=known: resume.save(known))  # type: ignore[misc]
                if done == source.size:
                    raise errors.InternalError(
                        "the service has every part and does not say that the upload is done",
                        method="PutUploadContentParts",
                        status=upload.status,
                    )
                size = min(part_size, source.size - done)

                def message(start: int = done, size: int = size) -> bytes:
                    data = source.read_at(start, size)
                    return head + encoder.encode(start // part_size + 1, start, data)

                encoded = yield Run(message)
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise errors.DeadlineExceededError(
                        "the upload was not done in time; call again to go on with it",
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
        return upload

    def _begin(self, source: ContentSource, name: str) -> Plan[v2.Upload]:
        # With an id of ours the call may be repeated: a conflict with it is its first try.
        wanted = v2.Upload(id=uuid.uuid4().hex, content_name=name, content_length=source.size)
        request = v2.PostUploadsRequest(user_app_id=self.user_app_id, uploads=[wanted])
        response: v2.MultiUploadResponse = yield from call(
            "PostUploads", request, idempotent=True, raise_on_partial=False
        )
        upload = response.uploads[0]
        failure = statuses.from_item(
            upload.status, method="PostUploads", request_id=response.status.req_id
        )
        if isinstance(failure, errors.AlreadyExistsError):
            return (yield from self._fetch(wanted.id))
        if failure is not None:
            raise failure
        return upload

    def _unfinished(self, upload_id: str) -> Plan[v2.Upload | None]:
        """The upload of an earlier process, if there is something to go on with."""
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
        yield Run(opened.prepare)
        if not opened.size:
            raise errors.InvalidArgumentError(f"{opened.name}: the content is empty")
        plan = uploads._send_parts(opened, name or opened.name, options, deadline, begin)
        upload = yield from plan
        yield Run(lambda: verify_sha256(opened, upload.status, "GetUpload", options.verify))
        return upload
    finally:
        opened.stop()
        opened.close()


def _is_done(upload: Any) -> bool:
    return bool(upload.status.code == v2.StatusCode.UPLOAD_DONE)


class Uploads(UploadOperations, Sync): ...


class AsyncUploads(UploadOperations, Async): ...
