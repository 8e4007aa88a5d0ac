"""Archives of model versions: what a training learned, or what was uploaded."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local import json_values
from clarigrpc.local.engine.background_tasks import BackgroundTask, Waiting
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.model_catalog import versions_of
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import Row, StoredCollection
from clarigrpc.v2 import StatusCode

_EXPORT_KIND = "model_export"

VERSION_FILE, WEIGHTS_FILE, UPLOADED_FILE = "model_version.json", "weights.npz", "content"
"""Files in an archive: the version itself; what was learned, or the file that was uploaded."""


def _version(
    context: Context, request: Any, *, write: bool
) -> tuple[StoredCollection, Row, v2.ModelVersion]:
    """Where exports of the version's model are kept, and the version itself."""
    app = (context.writable if write else context.readable)(request.user_app_id)
    entry = context.model(app, request.model_id)
    version = entry.version(request.version_id)
    where = versions_of(app, entry.model.id)
    row = context.state.store.get(where, version.id) if version is not None else None
    if row is None or version is None:
        raise ServiceError(
            StatusCode.MODEL_INVALID_REQUEST,
            f"model {entry.model.id!r} has no version that can be exported",
        )
    return where._replace(kind=_EXPORT_KIND), row, version


def put_model_version_exports(
    context: Context, request: v2.PutModelVersionExportsRequest
) -> v2.SingleModelVersionExportResponse:
    where, row, version = _version(context, request, write=True)
    if version.status.code != StatusCode.MODEL_TRAINED:
        raise ServiceError(StatusCode.MODEL_INVALID_REQUEST, f"version {row.id!r} is not trained")
    export = v2.ModelVersionExport(status=make_status(StatusCode.MODEL_EXPORT_PENDING))
    store = context.state.store
    with store.transaction():
        # By its place: an id may come back with another version.
        store.delete(where, str(row.seq))
        store.insert(
            where, str(row.seq), export.SerializeToString(), status=export.status.code, key=row.id
        )
    context.state.background.wake()
    return v2.SingleModelVersionExportResponse(
        status=make_status(StatusCode.SUCCESS), export=export
    )


def get_model_version_export(
    context: Context, request: v2.GetModelVersionExportRequest
) -> v2.SingleModelVersionExportResponse:
    where, row, _ = _version(context, request, write=False)
    found = context.state.store.get(where, str(row.seq))
    if found is None:
        raise ServiceError(
            StatusCode.CONN_DOES_NOT_EXIST, f"no export of version {row.id!r} was requested"
        )
    return v2.SingleModelVersionExportResponse(
        status=make_status(StatusCode.SUCCESS), export=v2.ModelVersionExport.FromString(found.body)
    )


def _export(state: State, where: StoredCollection, row: Row) -> None:
    """Writes a pending archive."""
    version_row = state.store.by_seq(int(row.id))
    if version_row is None:
        state.store.delete(where, row.id)
        return
    export = v2.ModelVersionExport.FromString(row.body)
    name = state.downloads.name(".zip")
    path = state.downloads.path(name)
    uploaded = state.uploads.path(*where._replace(kind="model_version"), version_row.id)
    weights = state.store.content(version_row.seq)
    if weights is None and not uploaded.exists():
        export.status.CopyFrom(
            make_status(StatusCode.MODEL_EXPORTING_FAILED, "the version has no content")
        )
    else:
        version, _ = json_values.with_nulls(v2.ModelVersion.FromString(version_row.body))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(VERSION_FILE, json_format.MessageToJson(version))
            if weights is not None:
                archive.writestr(WEIGHTS_FILE, weights)
            else:
                archive.write(uploaded, UPLOADED_FILE)
        export.status.CopyFrom(make_status(StatusCode.MODEL_EXPORTED))
        export.url = state.downloads.url(name)
        export.size = path.stat().st_size
        state.downloads.keep(name, version_row.seq)
    state.store.update(row.seq, export.SerializeToString(), export.status.code)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PutModelVersionExports": put_model_version_exports,
    "GetModelVersionExport": get_model_version_export,
}
BACKGROUND_TASKS: dict[Waiting, BackgroundTask] = {
    Waiting(_EXPORT_KIND, StatusCode.MODEL_EXPORT_PENDING): _export
}
