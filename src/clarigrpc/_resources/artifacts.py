"""The artifacts of an app: files with versions."""

from __future__ import annotations

from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists, filled
from clarigrpc._resources.file_uploads import UploadKeywords, upload_session, uploading
from clarigrpc._resources.long_running import FollowsWork, WorkProgress, by_percent
from clarigrpc._resources.sync_async import Async, Parents, Sync, nested
from clarigrpc._uploads.upload_method import UploadMethod
from clarigrpc._uploads.upload_session import UploadSession
from clarigrpc._uploads.upload_sources import UploadSource


class ArtifactVersionOperations(
    Gets[v2.ArtifactVersion],
    Lists[v2.ArtifactVersion],
    Deletes[v2.ArtifactVersion],
    FollowsWork[v2.ArtifactVersion],
):
    """The versions of an artifact. ``upload`` of each holds size, state and download URL."""

    _message = v2.ArtifactVersion
    _get_rpc = "GetArtifactVersion"
    _list_rpc = "ListArtifactVersions"
    _delete_one_rpc = "DeleteArtifactVersion"
    _work_name = "upload of artifact version"
    _instead_of_cancel = "delete the version"

    def _progress_of(self, item: v2.ArtifactVersion) -> WorkProgress:
        return by_percent(item.upload.status)


class ArtifactVersions(ArtifactVersionOperations, Sync): ...


class AsyncArtifactVersions(ArtifactVersionOperations, Async): ...


class ArtifactOperations(
    Creates[v2.Artifact], Gets[v2.Artifact], Lists[v2.Artifact], Deletes[v2.Artifact]
):
    """The artifacts of an app. A new artifact has no content until a file is uploaded."""

    _message = v2.Artifact
    _create_rpc = "PostArtifacts"
    _get_rpc = "GetArtifact"
    _list_rpc = "ListArtifacts"
    _delete_one_rpc = "DeleteArtifact"

    @nested(ArtifactVersions, AsyncArtifactVersions)
    def versions(self, artifact_id: str) -> Parents:
        """Access the versions of an artifact.

        Args:
            artifact_id: Id of the artifact.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"artifact_id": artifact_id}

    @uploading
    def upload(
        self,
        source: UploadSource,
        artifact_id: str,
        *,
        version: v2.ArtifactVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadSession:
        """Upload a file as a new version of an artifact.

        The upload survives a broken connection and a restart of the service. If this process ends
        before the upload is done, the next call with the same source continues it, from a state
        file kept beside the source. Ctrl-C, cancellation and the timeout end it.

        Args:
            source: A path, a folder (sent as a tar archive), bytes, a binary file (from its current
                position), or any object with ``read``.
            artifact_id: Id of the artifact.
            version: Settings of the new version.
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
            The result, with the id of the version.

        Raises:
            FileNotFoundError: The source is a path that does not exist.
            InvalidArgumentError: The source is empty, has another size than ``size``, or changed
                during the upload; or an option is out of range.
            InternalError: The service stored other content than the source.
            ApiError: The upload failed; the subclass says how (see ``errors``). It can be resumed.
        """
        config = filled(
            "PostArtifactVersionsUpload",
            v2.PostArtifactVersionsUploadConfig,
            user_app_id=self._user_app_id or self._client.user_app_id,
            artifact_id=artifact_id,
            artifact_version=version,
            storage_request_size=storage_request_size,
        )
        method = UploadMethod(
            "PostArtifactVersionsUpload",
            config,
            parent_field="artifact_id",
            version_field="artifact_version",
            id_field="artifact_version_id",
            done={v2.StatusCode.UPLOAD_DONE, v2.StatusCode.SUCCESS},
        )
        return upload_session(self._client, method, source, options)


class Artifacts(ArtifactOperations, Sync): ...


class AsyncArtifacts(ArtifactOperations, Async): ...
