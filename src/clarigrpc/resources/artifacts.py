"""The artifacts of an app: files with versions."""

from __future__ import annotations

from typing import Unpack

from clarigrpc import v2
from clarigrpc.plan import ItemPlan, Plan, aiterating, awaiting, blocking, call, iterating
from clarigrpc.resources.base import Operations, pages
from clarigrpc.upload import targets
from clarigrpc.upload.operations import UploadKeywords, aupload, upload
from clarigrpc.upload.session import UploadResult
from clarigrpc.upload.sources import Uploadable
from clarigrpc.upload.targets import Target


class ArtifactOperations(Operations):
    """The artifacts of an app."""

    def _create(self, artifact_id: str = "", *, timeout: float | None = None) -> Plan[v2.Artifact]:
        """Make an artifact, without content yet.

        Args:
            artifact_id: Its id; the service makes one up when it is empty.
            timeout: Seconds; None: the client's.

        Raises:
            AlreadyExistsError: There is one of this id.
        """
        request = v2.PostArtifactsRequest(
            user_app_id=self.user_app_id, artifacts=[v2.Artifact(id=artifact_id)]
        )
        response: v2.MultiArtifactResponse = yield from call(
            "PostArtifacts", request, timeout=timeout
        )
        return response.artifacts[0]

    def _get(self, artifact_id: str, *, timeout: float | None = None) -> Plan[v2.Artifact]:
        """An artifact by its id, with its newest version.

        Raises:
            NotFoundError: There is no such artifact.
        """
        request = v2.GetArtifactRequest(user_app_id=self.user_app_id, artifact_id=artifact_id)
        found: v2.Artifact = (yield from call("GetArtifact", request, timeout=timeout)).artifact
        return found

    def _list(
        self,
        *,
        page: int | None = None,
        per_page: int | None = None,
        timeout: float | None = None,
    ) -> ItemPlan[v2.Artifact]:
        """The artifacts of the app, fetched page by page; with ``page`` that one only."""
        request = v2.ListArtifactsRequest(user_app_id=self.user_app_id)
        yield from pages(
            "ListArtifacts", request, "artifacts", page=page, per_page=per_page, timeout=timeout
        )

    def _versions(
        self,
        artifact_id: str,
        *,
        page: int | None = None,
        per_page: int | None = None,
        timeout: float | None = None,
    ) -> ItemPlan[v2.ArtifactVersion]:
        """The versions of an artifact, fetched page by page; with ``page`` that one only."""
        request = v2.ListArtifactVersionsRequest(
            user_app_id=self.user_app_id, artifact_id=artifact_id
        )
        yield from pages(
            "ListArtifactVersions",
            request,
            "artifact_versions",
            page=page,
            per_page=per_page,
            timeout=timeout,
        )

    def _get_version(
        self, artifact_id: str, version_id: str, *, timeout: float | None = None
    ) -> Plan[v2.ArtifactVersion]:
        """A version of an artifact; its ``upload`` tells size, state and download URL.

        Raises:
            NotFoundError: There is no such version.
        """
        request = v2.GetArtifactVersionRequest(
            user_app_id=self.user_app_id, artifact_id=artifact_id, artifact_version_id=version_id
        )
        response: v2.SingleArtifactVersionResponse = yield from call(
            "GetArtifactVersion", request, timeout=timeout
        )
        return response.artifact_version

    def _target(
        self, artifact_id: str, version: v2.ArtifactVersion | None, storage_request_size: int
    ) -> Target:
        return targets.artifact_version(
            v2.PostArtifactVersionsUploadConfig(
                user_app_id=self.user_app_id or self._client.user_app_id,
                artifact_id=artifact_id,
                artifact_version=version,
                storage_request_size=storage_request_size,
            )
        )


class Artifacts(ArtifactOperations):
    """The artifacts of an app."""

    create = blocking(ArtifactOperations._create)
    get = blocking(ArtifactOperations._get)
    list = iterating(ArtifactOperations._list)
    versions = iterating(ArtifactOperations._versions)
    get_version = blocking(ArtifactOperations._get_version)

    def upload(
        self,
        source: Uploadable,
        artifact_id: str,
        *,
        version: v2.ArtifactVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload a file as a new version of an artifact. As ``Model.upload_version``."""
        target = self._target(artifact_id, version, storage_request_size)
        return upload(self._client, target, source, options)


class AsyncArtifacts(ArtifactOperations):
    """The artifacts of an app."""

    create = awaiting(ArtifactOperations._create)
    get = awaiting(ArtifactOperations._get)
    list = aiterating(ArtifactOperations._list)
    versions = aiterating(ArtifactOperations._versions)
    get_version = awaiting(ArtifactOperations._get_version)

    async def upload(
        self,
        source: Uploadable,
        artifact_id: str,
        *,
        version: v2.ArtifactVersion | None = None,
        storage_request_size: int = 0,
        **options: Unpack[UploadKeywords],
    ) -> UploadResult:
        """Upload a file as a new version of an artifact. As ``Model.upload_version``."""
        target = self._target(artifact_id, version, storage_request_size)
        return await aupload(self._client, target, source, options)
