"""Uploads in parts: of model, artifact and pipeline step versions over a stream, and unary."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc._rpc import statuses
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.model_catalog import models_in, versions_of
from clarigrpc.local.engine.request_checks import page_bounds
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, StatusCodeValue, make_status, overall
from clarigrpc.local.store import upload_files
from clarigrpc.local.store.resource_store import DuplicateIdError, Row, Store, StoredCollection
from clarigrpc.local.store.upload_files import PartError, PartFile
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

SHA256_KEY = "content_sha256"
"""Key of a model version's metadata: SHA-256 of its content, in hexadecimal. A client may give it
with the config; content that then differs fails the upload."""

SIZE_KEY = "content_size"
"""Key of a model version's metadata: bytes of its content."""


class UploadableVersion(ABC):
    """What one of the three upload methods fills. One instance serves one stream."""

    method: str
    response: type[Any]
    id_field: str
    invalid: StatusCodeValue
    missing: StatusCodeValue
    uploading: StatusCodeValue
    done: StatusCodeValue

    def __init__(self, app: UserApp, config: Any) -> None:
        self.app = app
        self.config = config

    def _collection_of(self, kind: str, parent: str = "") -> StoredCollection:
        return StoredCollection.of_app(kind, self.app, parent)

    @abstractmethod
    def versions(self) -> StoredCollection:
        """Where the versions are kept; raises ServiceError if there is no such parent."""

    @abstractmethod
    def given(self) -> Any:
        """The version in the config."""

    def check_parent(self, store: Store) -> None:
        """Raises ServiceError when there is nothing that the version could belong to."""
        parents, parent_id, missing = self.parent()
        if store.get(parents, parent_id) is None:
            raise ServiceError(missing, f"{parents.kind} {parent_id!r} does not exist")

    @abstractmethod
    def parent(self) -> tuple[StoredCollection, str, StatusCodeValue]:
        """Collection and id of what the version belongs to, and the code for its absence."""

    @abstractmethod
    def begin(self, version: Any) -> None:
        """Completes a new version."""

    @abstractmethod
    def finish(self, version: Any, digest: str) -> str:
        """Marks the version as complete; returns what is wrong with its content, if anything."""

    @abstractmethod
    def status(self, version: Any) -> v2.Status:
        """The part of a version that says how far its upload is."""


class UploadableModelVersion(UploadableVersion):
    method = "PostModelVersionsUpload"
    response: type[Any] = v2.PostModelVersionsUploadResponse
    id_field = "model_version_id"
    invalid: StatusCodeValue = StatusCode.MODEL_INVALID_ARGUMENT
    missing: StatusCodeValue = StatusCode.MODEL_DOES_NOT_EXIST
    uploading: StatusCodeValue = StatusCode.MODEL_UPLOADING
    done: StatusCodeValue = StatusCode.MODEL_BUILDING

    def versions(self) -> StoredCollection:
        return versions_of(self.app, self.config.model_id)

    def given(self) -> v2.ModelVersion:
        return self.config.model_version  # type: ignore[no-any-return]

    def parent(self) -> tuple[StoredCollection, str, StatusCodeValue]:
        return models_in(self.app), self.config.model_id, StatusCode.MODEL_DOES_NOT_EXIST

    def begin(self, version: v2.ModelVersion) -> None:
        version.status.CopyFrom(make_status(self.uploading))
        version.user_id, version.app_id = self.app.user_id, self.app.app_id

    def finish(self, version: v2.ModelVersion, digest: str) -> str:
        fields = version.metadata.fields
        announced = fields[SHA256_KEY].string_value if SHA256_KEY in fields else digest
        if announced.lower() != digest:
            failure = f"the content has SHA-256 {digest}, announced was {announced}"
            version.status.CopyFrom(make_status(StatusCode.MODEL_UPLOADING_FAILED, failure))
            return failure
        fields[SHA256_KEY].string_value = digest
        fields[SIZE_KEY].number_value = self.config.total_size
        version.status.CopyFrom(make_status(StatusCode.MODEL_BUILDING))
        version.completed_at.GetCurrentTime()
        return ""

    def status(self, version: v2.ModelVersion) -> v2.Status:
        return version.status


class UploadableArtifactVersion(UploadableVersion):
    method = "PostArtifactVersionsUpload"
    response: type[Any] = v2.PostArtifactVersionsUploadResponse
    id_field = "artifact_version_id"
    invalid: StatusCodeValue = StatusCode.ARTIFACT_VERSION_INVALID_ARGUMENT
    missing: StatusCodeValue = StatusCode.ARTIFACT_VERSION_DOES_NOT_EXIST
    uploading: StatusCodeValue = StatusCode.UPLOAD_IN_PROGRESS
    done: StatusCodeValue = StatusCode.UPLOAD_DONE

    def versions(self) -> StoredCollection:
        return self._collection_of("artifact_version", self.config.artifact_id)

    def given(self) -> v2.ArtifactVersion:
        return self.config.artifact_version  # type: ignore[no-any-return]

    def parent(self) -> tuple[StoredCollection, str, StatusCodeValue]:
        artifacts = self._collection_of("artifact")
        return artifacts, self.config.artifact_id, StatusCode.ARTIFACT_DOES_NOT_EXIST

    def begin(self, version: v2.ArtifactVersion) -> None:
        version.artifact.CopyFrom(
            v2.Artifact(
                id=self.config.artifact_id,
                user_id=self.app.user_id,
                app_id=self.app.app_id,
            )
        )
        version.upload.id = version.id
        version.upload.content_length = self.config.total_size
        version.upload.status.CopyFrom(make_status(self.uploading))

    def finish(self, version: v2.ArtifactVersion, digest: str) -> str:
        # An artifact version has no metadata: the hash stands in the status of its upload.
        version.upload.status.CopyFrom(make_status(StatusCode.UPLOAD_DONE, f"sha256 {digest}"))
        version.upload.modified_at.GetCurrentTime()
        return ""

    def status(self, version: v2.ArtifactVersion) -> v2.Status:
        return version.upload.status


class UploadablePipelineStepVersion(UploadableVersion):
    method = "PostPipelineStepVersionsUpload"
    response: type[Any] = v2.PostPipelineStepVersionsUploadResponse
    id_field = "pipeline_step_version_id"
    invalid: StatusCodeValue = StatusCode.PIPELINE_STEP_INVALID_ARGUMENT
    missing: StatusCodeValue = StatusCode.PIPELINE_STEP_DOES_NOT_EXIST
    uploading: StatusCodeValue = StatusCode.PIPELINE_STEP_UPLOADING
    done: StatusCodeValue = StatusCode.PIPELINE_STEP_BUILDING

    def versions(self) -> StoredCollection:
        return self._collection_of("pipeline_step_version", self.config.pipeline_step_id)

    def given(self) -> v2.PipelineStepVersion:
        return self.config.pipeline_step_version  # type: ignore[no-any-return]

    def parent(self) -> tuple[StoredCollection, str, StatusCodeValue]:
        code = StatusCode.PIPELINE_STEP_DOES_NOT_EXIST
        return self._collection_of("pipeline_step"), self.config.pipeline_step_id, code

    def begin(self, version: v2.PipelineStepVersion) -> None:
        version.status.CopyFrom(make_status(self.uploading))
        version.user_id, version.app_id = self.app.user_id, self.app.app_id
        version.pipeline_step.id = self.config.pipeline_step_id

    def finish(self, version: v2.PipelineStepVersion, digest: str) -> str:
        size = self.config.total_size
        version.status.CopyFrom(
            make_status(StatusCode.PIPELINE_STEP_BUILDING, f"sha256 {digest}, {size} bytes")
        )
        return ""

    def status(self, version: v2.PipelineStepVersion) -> v2.Status:
        return version.status


class _Upload:
    """One stream of an upload."""

    def __init__(self, context: Context, target: UploadableVersion) -> None:
        self._context = context
        self._store = context.state.store
        self._target = target
        self._collection = target.versions()
        self._total: int = target.config.total_size
        self._digest = ""
        self.version: Any = None

    def begin(self) -> bool:
        """Makes the version, or finds the one to go on with; False if it is complete."""
        target = self._target
        if not self._total:
            raise ServiceError(target.invalid, "total_size is 0")
        self._context.state.uploads.check_size(self._total)
        target.check_parent(self._store)
        version_id = target.given().id
        if version_id:
            self.version = self._load(version_id)
            status = target.status(self.version)
            if statuses.kind_of(status.code) is statuses.StatusKind.FAILED:
                raise ServiceError(StatusCode.UPLOAD_FAILED, status.details)
            state = json.loads(self._state(version_id).body)
            if status.code != target.uploading:
                self._digest = state["sha256"]
                return False
            length = state["total_size"]
            if length != self._total:
                raise ServiceError(
                    target.invalid,
                    f"total_size is {self._total}; the upload was started with {length}",
                )
            return True
        self.version = type(target.given())()
        self.version.CopyFrom(target.given())
        self.version.id = new_id()
        self.version.created_at.GetCurrentTime()
        self.version.modified_at.CopyFrom(self.version.created_at)
        target.begin(self.version)
        with self._store.transaction():
            self._store.insert(self._collection, self.version.id, self.version.SerializeToString())
            state = json.dumps({"total_size": self._total}).encode()
            self._store.insert(self._states(), self.version.id, state)
        return True

    def parts(self, requests: Iterator[Any]) -> Iterator[Message]:
        """Keeps the parts and acknowledges each; the last answer has the final status."""
        uploads = self._context.state.uploads
        path = uploads.path(*self._collection, self.version.id)
        stream = uploads.open(path, self._total)
        try:
            if stream.remaining:
                yield self.progress(stream)
            while stream.remaining:
                request = next(requests, None)
                if request is None:  # to be gone on with in another stream
                    return
                stream.add(self._part(request))
                if stream.remaining:
                    yield self.progress(stream)
            self._finish(stream)
            yield self.final()
        except (PartError, ServiceError, OSError) as error:
            yield self.failed(error, stream)
        finally:
            uploads.release(path, stream)

    def _part(self, request: Any) -> v2.UploadContentPart:
        if request.WhichOneof("upload_data") != "content_part":
            raise ServiceError(
                self._target.invalid, "every message after the first must have content_part"
            )
        return request.content_part  # type: ignore[no-any-return]

    def progress(self, stream: PartFile) -> Message:
        status = make_status(StatusCode.UPLOAD_IN_PROGRESS)
        status.percent_completed = stream.received * 100 // stream.total
        return self._response(status, stream.remaining)

    def final(self) -> Message:
        # Every kind of version is told its hash in the same place.
        status = make_status(self._target.done, f"sha256 {self._digest}")
        status.percent_completed = 100
        return self._response(status, 0)

    def failed(self, error: PartError | ServiceError | OSError, stream: PartFile) -> Message:
        if isinstance(error, PartError):
            error = upload_files.as_service_error(error, self._target.invalid)
        elif isinstance(error, OSError):
            error = _not_stored(error)
        return self._response(error.status(), stream.remaining)

    def _response(self, status: v2.Status, remaining: int) -> Message:
        response = self._target.response(status=status, bytes_remaining=remaining)
        setattr(response, self._target.id_field, self.version.id)
        return response  # type: ignore[no-any-return]

    def _finish(self, stream: PartFile) -> None:
        digest = stream.digest()
        with self._store.transaction():
            row = self._store.get(self._collection, self.version.id)
            if row is None:
                raise ServiceError(
                    self._target.missing, "the version was deleted during the upload"
                )
            self.version.ParseFromString(row.body)
            self.version.modified_at.GetCurrentTime()
            failure = self._target.finish(self.version, digest)
            state = json.dumps({"total_size": self._total, "sha256": digest}).encode()
            self._store.update(self._state(self.version.id).seq, state, 0)
            self._digest = digest
            self._store.update(row.seq, self.version.SerializeToString(), 0)
        if failure:
            raise ServiceError(StatusCode.UPLOAD_FAILED, failure)

    def _load(self, version_id: str) -> Any:
        row = self._store.get(self._collection, version_id)
        if row is None:
            raise ServiceError(
                self._target.missing,
                f"version {version_id!r} does not exist; leave the id empty to start a new upload",
            )
        return type(self._target.given()).FromString(row.body)

    def _states(self) -> StoredCollection:
        return self._collection._replace(kind=f"{self._collection.kind}_upload")

    def _state(self, version_id: str) -> Row:
        row = self._store.get(self._states(), version_id)
        if row is None:  # made by other means than an upload
            raise ServiceError(
                self._target.invalid, f"version {version_id!r} was not created by an upload"
            )
        return row


def _streamed(
    target_class: type[UploadableVersion],
) -> Callable[[Context, Iterator[Any]], Iterator[Message]]:
    def handler(context: Context, requests: Iterator[Any]) -> Iterator[Message]:
        first = next(requests, None)
        if first is None or first.WhichOneof("upload_data") != "upload_config":
            raise ServiceError(target_class.invalid, "the first message must be upload_config")
        config = first.upload_config
        with context.state.store.transaction():
            target = target_class(context.writable(config.user_app_id), config)
            upload = _Upload(context, target)
            incomplete = upload.begin()
        if incomplete:
            yield from upload.parts(requests)
        else:
            # The final answer of an earlier stream may have been lost on its way.
            yield upload.final()

    return handler


def post_uploads(context: Context, request: v2.PostUploadsRequest) -> v2.MultiUploadResponse:
    app = context.writable(request.user_app_id)
    if not request.uploads:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "the request has no uploads")
    response = v2.MultiUploadResponse()
    statuses = []
    with context.state.store.transaction():
        for given in request.uploads:
            upload = response.uploads.add()
            upload.CopyFrom(given)
            upload.id = given.id or new_id()
            try:
                context.state.uploads.check_size(upload.content_length)
                begin(context.state.store, app, upload)
            except ServiceError as error:
                upload.status.CopyFrom(error.status())
            statuses.append(upload.status)
    response.status.CopyFrom(overall(statuses))
    return response


def begin(store: Store, app: UserApp, upload: v2.Upload) -> None:
    """Keeps an upload, with an id already, whose parts will come."""
    if not upload.content_name or not upload.content_length:
        raise ServiceError(
            StatusCode.CONN_INVALID_REQUEST, "an upload needs content_name and content_length"
        )
    upload.status.CopyFrom(make_status(StatusCode.UPLOAD_IN_PROGRESS))
    upload.created_at.GetCurrentTime()
    upload.modified_at.CopyFrom(upload.created_at)
    try:
        store.insert(uploads_of(app), upload.id, upload.SerializeToString())
    except DuplicateIdError:
        raise ServiceError(
            StatusCode.UPLOAD_CONFLICT, f"upload {upload.id!r} already exists"
        ) from None


def _not_stored(error: OSError) -> ServiceError:
    """The failure of a full disk, for example; the parts before are kept, so it can go on."""
    return ServiceError(StatusCode.UPLOAD_FAILED, f"the content cannot be stored: {error.strerror}")


def put_upload_content_parts(
    context: Context, request: v2.PutUploadContentPartsRequest
) -> v2.SingleUploadResponse:
    app = context.writable(request.user_app_id)
    store = context.state.store
    if not request.content_parts:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "the request has no content_parts")
    found = _upload_row(store, app, request.upload_id)
    path = context.state.uploads.unary_path(uploads_of(app), found)
    with context.state.uploads.writing(path) as file:
        upload = v2.Upload.FromString(_same_upload(store, found).body)
        try:
            file.write(request.content_parts, upload.content_length)
        except PartError as error:
            raise upload_files.as_service_error(error, StatusCode.CONN_INVALID_REQUEST) from error
        except OSError as error:
            raise _not_stored(error) from error
        if upload.status.code == StatusCode.UPLOAD_IN_PROGRESS:
            if file.received == upload.content_length:
                details = f"sha256 {upload_files.hash_file(path)}"
                upload.status.CopyFrom(make_status(StatusCode.UPLOAD_DONE, details))
            upload.status.percent_completed = file.received * 100 // upload.content_length
            upload.modified_at.GetCurrentTime()
        with store.transaction():
            if store.by_seq(found.seq) is None:
                # With the file, which was written after it was deleted.
                file.delete()
            row = _same_upload(store, found)
            store.update(row.seq, upload.SerializeToString(), 0)
    return v2.SingleUploadResponse(status=make_status(StatusCode.SUCCESS), upload=upload)


def get_upload(context: Context, request: v2.GetUploadRequest) -> v2.SingleUploadResponse:
    row = _upload_row(context.state.store, context.readable(request.user_app_id), request.upload_id)
    return v2.SingleUploadResponse(
        status=make_status(StatusCode.SUCCESS), upload=v2.Upload.FromString(row.body)
    )


def list_uploads(context: Context, request: v2.ListUploadsRequest) -> v2.MultiUploadResponse:
    offset, limit = page_bounds(request.page, request.per_page)
    store = context.state.store
    rows = store.page(uploads_of(context.readable(request.user_app_id)), offset, limit)
    uploads = (store.message(v2.Upload, row) for row in rows)
    return v2.MultiUploadResponse(
        status=make_status(StatusCode.SUCCESS), uploads=[each for each in uploads if each]
    )


def delete_uploads(context: Context, request: v2.DeleteUploadsRequest) -> v2.BaseResponse:
    app = context.writable(request.user_app_id)
    store = context.state.store
    if not request.ids:
        raise ServiceError(StatusCode.CONN_INVALID_REQUEST, "the request has no ids")
    uploads = context.state.uploads
    with store.transaction():
        rows = [_upload_row(store, app, upload_id) for upload_id in request.ids]
        for row in rows:
            store.delete(uploads_of(app), row.id)
            path = uploads.unary_path(uploads_of(app), row)
            store.after_commit(partial(uploads.delete, path))
    return v2.BaseResponse(status=make_status(StatusCode.SUCCESS))


def uploads_of(app: UserApp) -> StoredCollection:
    """Where the uploads of an app are kept."""
    return StoredCollection.of_app("upload", app)


def _upload_row(store: Store, app: UserApp, upload_id: str) -> Row:
    row = store.get(uploads_of(app), upload_id)
    if row is None:
        raise _no_upload(upload_id)
    return row


def _same_upload(store: Store, before: Row) -> Row:
    """An upload as it is now; another one may have its id meanwhile."""
    row = store.by_seq(before.seq)
    if row is None:
        raise _no_upload(before.id)
    return row


def _no_upload(upload_id: str) -> ServiceError:
    return ServiceError(StatusCode.CONN_DOES_NOT_EXIST, f"upload {upload_id!r} does not exist")


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostUploads": post_uploads,
    "PutUploadContentParts": put_upload_content_parts,
    "GetUpload": get_upload,
    "ListUploads": list_uploads,
    "DeleteUploads": delete_uploads,
}
DUPLEX: dict[str, Callable[[Context, Any], Iterator[Message]]] = {
    target.method: _streamed(target)
    for target in (UploadableModelVersion, UploadableArtifactVersion, UploadablePipelineStepVersion)
}
