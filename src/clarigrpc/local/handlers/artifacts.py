"""Artifacts and their versions: create, get, list. Contents come by uploads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.core import (
    Context,
    Scope,
    ServiceError,
    make_status,
    new_id,
    page_bounds,
)
from clarigrpc.local.store import Collection, DuplicateIdError

_Code = v2.StatusCode


def artifacts(scope: Scope) -> Collection:
    """Where the artifacts of an app are kept."""
    return Collection("artifact", scope.user_id, scope.app_id)


def artifact_versions(scope: Scope, artifact_id: str) -> Collection:
    """Where the versions of an artifact are kept."""
    return Collection("artifact_version", scope.user_id, scope.app_id, artifact_id)


def post_artifacts(context: Context, request: v2.PostArtifactsRequest) -> v2.MultiArtifactResponse:
    scope = context.writable(request.user_app_id)
    if not request.artifacts:
        raise ServiceError(_Code.ARTIFACT_INVALID_REQUEST, "the request has no artifacts")
    response = v2.MultiArtifactResponse(status=make_status(_Code.SUCCESS))
    # An artifact has no status of its own to say that it failed: all are made, or none.
    with context.state.store.transaction():
        for given in request.artifacts:
            made = response.artifacts.add(
                id=given.id or new_id(), user_id=scope.user_id, app_id=scope.app_id
            )
            made.created_at.GetCurrentTime()
            made.modified_at.CopyFrom(made.created_at)
            try:
                context.state.store.insert(artifacts(scope), made.id, made.SerializeToString())
            except DuplicateIdError:
                raise ServiceError(
                    _Code.DATABASE_DUPLICATE_KEY, f"there is an artifact {made.id!r} already"
                ) from None
    return response


def get_artifact(context: Context, request: v2.GetArtifactRequest) -> v2.SingleArtifactResponse:
    scope = context.scope(request.user_app_id)
    row = context.state.store.get(artifacts(scope), request.artifact_id)
    if row is None:
        raise _no_artifact(request.artifact_id)
    return v2.SingleArtifactResponse(
        status=make_status(_Code.SUCCESS), artifact=_described(context, scope, row.body)
    )


def list_artifacts(context: Context, request: v2.ListArtifactsRequest) -> v2.MultiArtifactResponse:
    scope = context.scope(request.user_app_id)
    offset, limit = page_bounds(request.page, request.per_page)
    rows = context.state.store.page(artifacts(scope), offset, limit)
    return v2.MultiArtifactResponse(
        status=make_status(_Code.SUCCESS),
        artifacts=[_described(context, scope, row.body) for row in rows],
    )


def _described(context: Context, scope: Scope, body: bytes) -> v2.Artifact:
    """The artifact with its newest version in it."""
    artifact = v2.Artifact.FromString(body)
    newest = context.state.store.page(artifact_versions(scope, artifact.id), 0, 1)
    if newest:
        artifact.artifact_version.ParseFromString(newest[0].body)
    return artifact


def get_artifact_version(
    context: Context, request: v2.GetArtifactVersionRequest
) -> v2.SingleArtifactVersionResponse:
    scope = context.scope(request.user_app_id)
    row = context.state.store.get(
        artifact_versions(scope, request.artifact_id), request.artifact_version_id
    )
    if row is None:
        raise ServiceError(
            _Code.ARTIFACT_VERSION_DOES_NOT_EXIST,
            f"artifact {request.artifact_id!r} has no version {request.artifact_version_id!r}",
        )
    return v2.SingleArtifactVersionResponse(
        status=make_status(_Code.SUCCESS),
        artifact_version=v2.ArtifactVersion.FromString(row.body),
    )


def list_artifact_versions(
    context: Context, request: v2.ListArtifactVersionsRequest
) -> v2.MultiArtifactVersionResponse:
    scope = context.scope(request.user_app_id)
    store = context.state.store
    if store.get(artifacts(scope), request.artifact_id) is None:
        raise _no_artifact(request.artifact_id)
    offset, limit = page_bounds(request.page, request.per_page)
    rows = store.page(artifact_versions(scope, request.artifact_id), offset, limit)
    return v2.MultiArtifactVersionResponse(
        status=make_status(_Code.SUCCESS),
        artifact_versions=[v2.ArtifactVersion.FromString(row.body) for row in rows],
    )


def _no_artifact(artifact_id: str) -> ServiceError:
    return ServiceError(_Code.ARTIFACT_DOES_NOT_EXIST, f"there is no artifact {artifact_id!r}")


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostArtifacts": post_artifacts,
    "GetArtifact": get_artifact,
    "ListArtifacts": list_artifacts,
    "GetArtifactVersion": get_artifact_version,
    "ListArtifactVersions": list_artifact_versions,
}
