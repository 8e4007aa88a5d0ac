"""The artifacts of an app: files with versions."""

from __future__ import annotations

from typing import Unpack

from clarigrpc import v2
from clarigrpc._resources.base import Creates, Deletes, Gets, Lists
from clarigrpc._resources.file_uploads import UploadKeywords, aupload, upload
from clarigrpc._resources.sync_async import Async, Sync, nested
from clarigrpc._uploads import upload_methods
from clarigrpc._uploads.upload_methods import UploadMethod
from clarigrpc._uploads.upload_session import UploadResult
from clarigrpc._uploads.upload_sources import UploadSource


class ArtifactVersionOperations(
    Gets[v2.ArtifactVersion], Lists[v2.ArtifactVersion], Deletes[v2.ArtifactVersion]
):
    """The versions of an artifact; ``upload`` of each tells size, state and download URL."""

    message = v2.ArtifactVersion


class ArtifactVersions(ArtifactVersionOperations, Sync): ...


class AsyncArtifactVersions(ArtifactVersionOperations, Async): ...


class ArtifactOperations(
    Creates[v2.Artifact], Gets[v2.Artifact], Lists[v2.Artifact], Deletes[v2.Artifact]
):
    """The artifacts of an app. A new one has no content until something is uploaded."""

    message = v2.Artifact

    versions = nested(
        "artifact_id", ArtifactVersions, AsyncArtifactVersions, "The versions of an artifact."
    )

    def _target(
        self, artifact_id: str, version: v2.ArtifactVersion | None, storage_request_size: int
    ) -> UploadMethod:
        return upload_methods.artifact_version(
            v2.PostArtifactVersionsUploadConfig(
                user_app_id=self.user_app_id or self._client.user_app_id,
                artifact_id=artifact_id,
                artifact_version=version,
                storage_request_size=storage_request_size,
            )
        )


class Artifacts(ArtifactOperations, Sync):
    """The artifacts of an app."""

    def upload(
        self,
        source: UploadSource,
        artifact_id: str,
        *,
        version: v2.ArtifactVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload a file as a new version of an artifact. As ``Model.upload_version``."""
        target = self._target(artifact_id, version, storage_request_size)
        return upload(self._client, target, source, options)


class AsyncArtifacts(ArtifactOperations, Async):
    """The artifacts of an app."""

    async def upload(
        self,
        source: UploadSource,
        artifact_id: str,
        *,
        version: v2.ArtifactVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload a file as a new version of an artifact. As ``Model.upload_version``."""
        target = self._target(artifact_id, version, storage_request_size)
        return await aupload(self._client, target, source, options)
