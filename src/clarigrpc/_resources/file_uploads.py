"""Starting an upload: from what a caller gives to a driver."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

from clarigrpc import v2
from clarigrpc._config.settings import Settings
from clarigrpc._public_names import named_in
from clarigrpc._rpc.client_interface import ClientInterface

if TYPE_CHECKING:  # imported when something is uploaded
    from clarigrpc._uploads.upload_methods import UploadMethod
    from clarigrpc._uploads.upload_progress import ProgressCallback
    from clarigrpc._uploads.upload_session import UploadOptions, UploadResult, UploadSession
    from clarigrpc._uploads.upload_sources import ContentSource, UploadSource


@named_in("clarigrpc.types")
class UploadKeywords(TypedDict, total=False):
    """The keyword arguments of uploads, see ``UploadOptions``."""

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


def _session(
    client: Any, target: UploadMethod, source: UploadSource, options: UploadKeywords
) -> UploadSession:
    from clarigrpc._uploads.upload_session import UploadOptions, UploadSession

    chosen = UploadOptions(**options)
    opened = open_for(source, chosen, client.settings)
    return UploadSession(client.settings, client.channel.core.budget, target, opened, chosen)


def upload(
    client: Any, target: UploadMethod, source: UploadSource, options: UploadKeywords
) -> UploadResult:
    """Upload with a ``Client``."""
    from clarigrpc._uploads import sync_driver

    return sync_driver.run(_session(client, target, source, options), client.channel)


async def aupload(
    client: Any, target: UploadMethod, source: UploadSource, options: UploadKeywords
) -> UploadResult:
    """Upload with an ``AsyncClient``."""
    from clarigrpc._uploads import async_driver

    return await async_driver.run(_session(client, target, source, options), client.channel)


class _Model(Protocol):
    """What the upload of a version needs of its model."""

    model_id: str
    _client: ClientInterface

    @property
    def user_app_id(self) -> v2.UserAppIDSet | None: ...


def _model_target(
    model: _Model, version: v2.ModelVersion | None, is_v3: bool, storage_request_size: int
) -> UploadMethod:
    from clarigrpc._uploads import upload_methods

    return upload_methods.model_version(
        v2.PostModelVersionsUploadConfig(
            user_app_id=model.user_app_id or model._client.user_app_id,
            model_id=model.model_id,
            model_version=version,
            is_v3=is_v3,
            storage_request_size=storage_request_size,
        )
    )


class ModelUploads:
    """``upload_version`` of a model."""

    def upload_version(
        self: _Model,
        source: UploadSource,
        *,
        version: v2.ModelVersion | None = None,
        is_v3: bool = True,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload a file as a new version of the model.

        A broken connection, or a restart of the service, does not end it: it goes on where the
        service stands. When this process ends before it is done, the next call with the same
        file goes on as well, from a state that is kept beside the file until then. Cancel it
        with Ctrl-C or a deadline.

        Args:
            source: A path, a folder (becomes a tar archive as it is sent), bytes, a binary file
                (from where it stands), or any object with ``read``.
            version: Settings of the new version.
            is_v3: Whether the file has the third format of model uploads.
            storage_request_size: Bytes of storage to ask for; 0 leaves it to the service.
            **options: ``size``, ``part_size``, ``stream_bytes``, ``state_dir``, ``resume``,
                ``verify``, ``progress`` and ``timeout`` (seconds in all), see ``UploadOptions``.

        Returns:
            The id of the version, which the service may still be building.

        Raises:
            FileNotFoundError: There is no file of this name.
            InvalidArgumentError: The source is empty, of another size than told, or changed
                while it was being uploaded; a size is out of bounds.
            InternalError: The service has other content than the source.
            ApiError: The class of it that fits, see ``errors``. The upload can be resumed.
        """
        target = _model_target(self, version, is_v3, storage_request_size)
        return upload(self._client, target, source, options)


class AsyncModelUploads:
    """``upload_version`` of a model."""

    async def upload_version(
        self: _Model,
        source: UploadSource,
        *,
        version: v2.ModelVersion | None = None,
        is_v3: bool = True,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """As ``Model.upload_version``. Files are read on a thread of the upload's own."""
        target = _model_target(self, version, is_v3, storage_request_size)
        return await aupload(self._client, target, source, options)
