"""Starting an upload: from what a caller gives to a driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypedDict, Unpack

from clarigrpc import v2
from clarigrpc._config.settings import Settings
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import Operations, filled
from clarigrpc._resources.sync_async import Driven
from clarigrpc._rpc.client_interface import ClientInterface

if TYPE_CHECKING:  # imported when something is uploaded
    from clarigrpc._uploads.upload_method import UploadMethod
    from clarigrpc._uploads.upload_progress import ProgressCallback
    from clarigrpc._uploads.upload_session import UploadOptions, UploadResult, UploadSession
    from clarigrpc._uploads.upload_sources import ContentSource, UploadSource

P = ParamSpec("P")


@named_in("clarigrpc.types")
class UploadKeywords(TypedDict, total=False):
    """Options of every upload; the methods that take them describe them."""

    size: int | None
    part_size: int
    stream_bytes: int | None
    state_dir: str | os.PathLike[str] | None
    resume: bool
    verify: bool | None
    progress: bool | ProgressCallback
    timeout: float | None


class Uploader(ClientInterface, Protocol):
    """What an upload needs of its client."""

    settings: Settings
    channel: Any


def open_for(source: UploadSource, options: UploadOptions, settings: Settings) -> ContentSource:
    """The source of an upload, once its options are found to be good."""
    from clarigrpc._uploads.upload_sources import open_upload_source

    options.check(settings.max_message_bytes)
    from pathlib import Path

    folder = Path(options.state_dir) if options.state_dir is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return open_upload_source(source, size=options.size, folder=folder)


def upload_session(
    client: Any, method: UploadMethod, source: UploadSource, options: UploadKeywords
) -> UploadSession:
    """The upload of a source, for ``uploading`` to run."""
    from clarigrpc._uploads.upload_session import UploadSession, options_of

    chosen = options_of(options)
    opened = open_for(source, chosen, client.settings)
    return UploadSession(client.settings, client.channel.core.budget, method, opened, chosen)


def _upload(owner: Any, session: UploadSession) -> UploadResult:
    from clarigrpc._uploads import sync_driver

    return sync_driver.run(session, owner._client.channel)


async def _async_upload(owner: Any, session: UploadSession) -> UploadResult:
    from clarigrpc._uploads import async_driver

    return await async_driver.run(session, owner._client.channel)


def uploading(
    begin: Callable[Concatenate[Any, P], UploadSession],
) -> Driven[P, UploadResult, Coroutine[Any, Any, UploadResult]]:
    """Decorates a method that returns the upload to run."""
    return Driven(begin, (_upload, _async_upload), ("UploadResult", "UploadResult"))


class ModelUploadOperations(Operations):
    """The upload of a version of a model."""

    model_id: str

    @uploading
    def upload_version(
        self,
        source: UploadSource,
        *,
        version: v2.ModelVersion | None = None,
        is_v3: bool = True,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadSession:
        """Upload a file as a new version of the model.

        The upload survives a broken connection and a restart of the service. If this process ends
        before the upload is done, the next call with the same source continues it, from a state
        file kept beside the source. Ctrl-C, cancellation and the timeout end it.

        Args:
            source: A path, a folder (sent as a tar archive), bytes, a binary file (from its current
                position), or any object with ``read``.
            version: Settings of the new version.
            is_v3: Whether the file has the third format of model uploads. Default True.
            storage_request_size: Bytes of storage to request. 0 leaves it to the service.
            size: Bytes to take from a stream that cannot seek. None reads it to its end, into a
                temporary file, before anything is sent.
            part_size: Bytes per part, 128 KiB to 14 MiB. Default 1 MiB.
            stream_bytes: Maximum bytes of content per stream; the rest continues on a new stream.
                None sets no limit. Default 90 MB.
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
            The result, with the id of the version, which the service may still be building.

        Raises:
            FileNotFoundError: The source is a path that does not exist.
            InvalidArgumentError: The source is empty, has another size than ``size``, or changed
                during the upload; or an option is out of range.
            InternalError: The service stored other content than the source.
            ApiError: The upload failed; the subclass says how (see ``errors``). It can be resumed.
        """
        from clarigrpc._uploads.upload_method import UploadMethod

        config = filled(
            "PostModelVersionsUpload",
            v2.PostModelVersionsUploadConfig,
            user_app_id=self._user_app_id or self._client.user_app_id,
            model_id=self.model_id,
            model_version=version,
            is_v3=is_v3,
            storage_request_size=storage_request_size,
        )
        method = UploadMethod(
            "PostModelVersionsUpload",
            config,
            parent_field="model_id",
            version_field="model_version",
            id_field="model_version_id",
            done={
                v2.StatusCode.MODEL_BUILDING,
                v2.StatusCode.MODEL_TRAINED,
                v2.StatusCode.UPLOAD_DONE,
            },
        )
        return upload_session(self._client, method, source, options)
