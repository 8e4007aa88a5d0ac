"""Inputs in bulk: from folders and archives, and from uploaded files, by jobs in the background."""

from __future__ import annotations

import io
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.byte_budget import BudgetFullError
from clarigrpc.local.engine.app_concepts import AppConcepts
from clarigrpc.local.engine.background_tasks import BackgroundTask, Waiting
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.resource_handlers import Place
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.handlers import file_upload_methods, input_methods
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.local.media import object_stores
from clarigrpc.local.media.archive_files import (
    ARCHIVE_SUFFIXES,
    MAX_FILE_BYTES,
    files_in,
    is_archive,
)
from clarigrpc.local.media.folder_files import files_below
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import Row, Store, StoredCollection, StoreError
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_INPUTS_PER_TRANSACTION = 32
"""Inputs that one transaction of a job adds."""
_BYTES_PER_TRANSACTION = 16 << 20
"""After so many bytes it adds no further one. All jobs together leave memory to the calls."""

JOB_SECONDS = 3600.0
"""Longest time that a job reads its source, from its start or the server's on."""

_KIND_OF_SUFFIX = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "video"),
    **dict.fromkeys((".mp3", ".wav", ".flac", ".ogg", ".m4a"), "audio"),
    **dict.fromkeys((".txt", ".md"), "text"),
}
_logger = logging.getLogger(__name__)

_NamedContent: TypeAlias = tuple[str, bytes]

_OVER = (StatusCode.JOB_COMPLETED, StatusCode.JOB_FAILED, StatusCode.JOB_CANCELLED)


def _tracked(app: UserApp, job_id: str) -> StoredCollection:
    """Where the ids of the inputs of an add job are kept."""
    return StoredCollection.of_app("job_input", app, job_id)


def _items_of_job(kind: str, app: UserApp, job_id: str) -> StoredCollection:
    """Which extraction jobs or uploads an add job has."""
    return StoredCollection.of_app(f"job_{kind}", app, job_id)


def _extractions(app: UserApp) -> StoredCollection:
    return StoredCollection.of_app("inputs_extraction_job", app)


def _forget_credentials(store: Store, seq: int) -> None:
    """Deletes the credentials of a job's source; no job that is over needs them."""
    store.set_content(seq, b"")


# Jobs


def _job(context: Context, place: Place, job_id: str) -> str:
    """The id of an add job, which is made where it is not there."""
    resource = RESOURCES["inputs_add_job"]
    if resource.exists(context, place, job_id):
        return job_id
    made = v2.InputsAddJob(id=job_id, status=make_status(StatusCode.JOB_RUNNING))
    return str(resource.add(context, place, made).id)


def _shown(context: Context, app: UserApp, job_id: str) -> v2.InputsAddJob:
    """A job with the state of what it has to do."""
    store = context.state.store
    place = Place(app)
    job: v2.InputsAddJob = RESOURCES["inputs_add_job"].find(context, place, job_id)
    for row in store.walk(_items_of_job("extraction", app, job_id), newest_first=False):
        job.extraction_jobs.append(RESOURCES["inputs_extraction_job"].find(context, place, row.id))
    waiting = False
    for row in store.walk(_items_of_job("upload", app, job_id), newest_first=False):
        found = store.get(file_upload_methods.uploads_of(app), row.id)
        if found is not None:
            job.uploads.add().ParseFromString(found.body)
            waiting |= job.uploads[-1].status.code != StatusCode.UPLOAD_DONE
    live = StoredCollection.of_app(INPUT_KIND, app)
    progress = job.progress
    for row in store.walk(_tracked(app, job_id)):
        item = store.get(live, row.id)
        if item is None or item.status == StatusCode.INPUT_FAILED:
            progress.failed_count += 1
        elif item.status == StatusCode.INPUT_SUCCESS:
            progress.success_count += 1
        elif item.status == StatusCode.INPUT_PENDING:
            progress.pending_count += 1
        else:
            progress.in_progress_count += 1
    if job.status.code == StatusCode.JOB_CANCELLED:
        return job
    running = waiting or any(e.status.code not in _OVER for e in job.extraction_jobs)
    if running or progress.pending_count or progress.in_progress_count:
        job.status.CopyFrom(make_status(StatusCode.JOB_RUNNING))
    elif job.extraction_jobs and all(
        e.status.code == StatusCode.JOB_FAILED for e in job.extraction_jobs
    ):
        job.status.CopyFrom(job.extraction_jobs[0].status)
    else:
        job.status.CopyFrom(make_status(StatusCode.JOB_COMPLETED))
    return job


def get_job(context: Context, request: v2.GetInputsAddJobRequest) -> v2.SingleInputsAddJobResponse:
    app = context.readable(request.user_app_id)
    return v2.SingleInputsAddJobResponse(
        status=make_status(StatusCode.SUCCESS), inputs_add_job=_shown(context, app, request.id)
    )


def list_jobs(
    context: Context, request: v2.ListInputsAddJobsRequest
) -> v2.MultiInputsAddJobResponse:
    app = context.readable(request.user_app_id)
    response: Any = RESOURCES["inputs_add_job"].page(context, request)
    jobs = [_shown(context, app, job.id) for job in response.inputs_add_jobs]
    return v2.MultiInputsAddJobResponse(status=response.status, inputs_add_jobs=jobs)


def cancel_job(
    context: Context, request: v2.CancelInputsAddJobRequest
) -> v2.SingleInputsAddJobResponse:
    app = context.writable(request.user_app_id)
    place = Place(app)
    resource = RESOURCES["inputs_add_job"]
    with context.state.store.transaction():
        shown = _shown(context, app, request.id)
        if shown.status.code not in _OVER:
            job = resource.find(context, place, request.id)
            job.status.CopyFrom(make_status(StatusCode.JOB_CANCELLED))
            resource.save(context, place, job)
            for extraction in shown.extraction_jobs:
                _cancel(context, place, extraction)
        shown = _shown(context, app, request.id)
    return v2.SingleInputsAddJobResponse(
        status=make_status(StatusCode.SUCCESS), inputs_add_job=shown
    )


def cancel_extractions(
    context: Context, request: v2.CancelInputsExtractionJobsRequest
) -> v2.MultiInputsExtractionJobResponse:
    place = Place(context.writable(request.user_app_id))
    resource = RESOURCES["inputs_extraction_job"]
    if not request.ids:
        raise ServiceError(resource.kind.invalid, "the request has no ids")
    response = v2.MultiInputsExtractionJobResponse(status=make_status(StatusCode.SUCCESS))
    with context.state.store.transaction():
        for job_id in request.ids:
            _cancel(context, place, resource.find(context, place, job_id))
            response.inputs_extraction_jobs.append(resource.find(context, place, job_id))
    return response


def _cancel(context: Context, place: Place, job: v2.InputsExtractionJob) -> None:
    if job.status.code in _OVER:
        return
    job.status.CopyFrom(make_status(StatusCode.JOB_CANCELLED))
    RESOURCES["inputs_extraction_job"].save(context, place, job)
    row = context.state.store.get(_extractions(place.app), job.id)
    if row is not None:
        _forget_credentials(context.state.store, row.seq)


def post_inputs(context: Context, request: v2.PostInputsRequest) -> v2.MultiInputResponse:
    """Adds inputs; a job that the request names counts them."""
    job_id, request.inputs_add_job_id = request.inputs_add_job_id, ""
    if not job_id:
        return input_methods.post_inputs(context, request)
    app = context.writable(request.user_app_id)
    store = context.state.store
    with store.transaction():
        _job(context, Place(app), job_id)
        response = input_methods.post_inputs(context, request)
        for item in response.inputs:
            if item.status.code == StatusCode.INPUT_PENDING:
                store.insert(_tracked(app, job_id), item.id, b"")
    return response


# Sources


def post_data_sources(
    context: Context, request: v2.PostInputsDataSourcesRequest
) -> v2.MultiInputsAddJobResponse:
    app = context.writable(request.user_app_id)
    place = Place(app)
    if not request.data_sources:
        raise ServiceError(StatusCode.INPUT_INVALID_REQUEST, "the request has no data_sources")
    if request.call_back_url:
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED, "the local server does not support call_back_url"
        )
    jobs: list[str] = []
    shared = new_id()
    with context.state.store.transaction():
        for source in request.data_sources:
            _check_source(context.state, source.url.url)
            # Sources that name no job share one.
            job_id = _job(context, place, source.inputs_add_job_id or shared)
            _add_extraction(context.state.store, app, job_id, source.url.url, source)
            jobs.append(job_id)
    context.state.background.wake()
    return _all_shown(context, app, jobs)


def _all_shown(
    context: Context, app: UserApp, job_ids: Iterable[str]
) -> v2.MultiInputsAddJobResponse:
    """The response about jobs; one that is named twice comes once."""
    return v2.MultiInputsAddJobResponse(
        status=make_status(StatusCode.SUCCESS),
        inputs_add_jobs=[_shown(context, app, job_id) for job_id in dict.fromkeys(job_ids)],
    )


def post_uploads(
    context: Context, request: v2.PostInputsUploadsRequest
) -> v2.MultiInputsAddJobResponse:
    app = context.writable(request.user_app_id)
    place = Place(app)
    if not request.inputs_uploads:
        raise ServiceError(StatusCode.INPUT_INVALID_REQUEST, "the request has no inputs_uploads")
    store = context.state.store
    jobs: list[str] = []
    shared = new_id()
    with store.transaction():
        for wanted in request.inputs_uploads:
            if not _is_taken(wanted.upload.content_name):
                raise ServiceError(
                    StatusCode.INPUT_UNSUPPORTED_FORMAT,
                    f"content_name {wanted.upload.content_name!r} has an unsupported suffix",
                )
            job_id = _job(context, place, wanted.inputs_add_job_id or shared)
            upload = v2.Upload()
            upload.CopyFrom(wanted.upload)
            upload.id = upload.id or new_id()
            file_upload_methods.begin(store, app, upload)
            store.insert(_items_of_job("upload", app, job_id), upload.id, b"")
            store.insert(
                StoredCollection.of_app("upload_job", app, job_id),
                upload.id,
                wanted.SerializeToString(),
            )
            jobs.append(job_id)
    return _all_shown(context, app, jobs)


def put_parts(
    context: Context, request: v2.PutUploadContentPartsRequest
) -> v2.SingleUploadResponse:
    """As for any upload; the end of one that a job waits for sets the job going."""
    response = file_upload_methods.put_upload_content_parts(context, request)
    if response.upload.status.code == StatusCode.UPLOAD_DONE:
        app = context.writable(request.user_app_id)
        store = context.state.store
        with store.transaction():
            for where in store.collections("upload_job", app.user_id, app.app_id):
                row = store.get(where, request.upload_id)
                if row is None:
                    continue
                job = store.get(StoredCollection.of_app("inputs_add_job", app), where.parent)
                if job is not None and job.status != StatusCode.JOB_CANCELLED:
                    wanted = v2.InputsUpload.FromString(row.body)
                    url = f"upload:{request.upload_id}/{response.upload.content_name}"
                    _add_extraction(store, app, where.parent, url, wanted)
                store.delete(where, row.id)
        context.state.background.wake()
    return response


def _add_extraction(
    store: Store,
    app: UserApp,
    job_id: str,
    url: str,
    source: v2.InputsDataSource | v2.InputsUpload,
) -> None:
    job = v2.InputsExtractionJob(
        id=new_id(),
        url=url,
        status=make_status(StatusCode.JOB_QUEUED),
        input_id_conflict_resolution=source.input_id_conflict_resolution,
        input_template=source.input_template,
    )
    job.created_at.GetCurrentTime()
    job.modified_at.CopyFrom(job.created_at)
    secrets = None
    if isinstance(source, v2.InputsDataSource) and source.url.HasField("credentials"):
        secrets = source.url.credentials.SerializeToString()
    store.insert(
        _extractions(app),
        job.id,
        job.SerializeToString(),
        status=job.status.code,
        key=job_id,
        # Apart from the job, which is shown; gone when it is over.
        content=secrets,
    )
    store.insert(_items_of_job("extraction", app, job_id), job.id, b"")


def _check_source(state: State, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        if not is_archive(parts.path):
            raise ServiceError(
                StatusCode.INPUT_INVALID_URL,
                f"a source over HTTP must be an archive: {', '.join(ARCHIVE_SUFFIXES)}",
            )
        return
    if parts.scheme in object_stores.SCHEMES:
        object_stores.check(url)
        return
    if parts.scheme != "file":
        known = ", ".join(f"{scheme}:" for scheme in object_stores.SCHEMES)
        raise ServiceError(
            StatusCode.NOT_IMPLEMENTED,
            f"the local server reads file:, http(s):, {known} sources, not {url!r}",
        )
    _root(state, Path(unquote(parts.path)))


def _root(state: State, path: Path) -> Path:
    """The allowed folder that a path is in; ServiceError for any other path."""
    real = path.resolve()
    for root in state.input_roots:
        if real.is_relative_to(root):
            return root
    raise ServiceError(
        StatusCode.INPUT_INVALID_URL,
        f"{path} is not in a folder that this server may read inputs from",
    )


# Extraction


def _is_taken(name: str) -> bool:
    return is_archive(name) or _becomes_input(name)


def _becomes_input(name: str) -> bool:
    return name.lower().endswith(tuple(_KIND_OF_SUFFIX))


def _files(
    state: State, app: UserApp, url: str, credentials: v2.DataSourceCredentials
) -> Iterator[_NamedContent | None]:
    """Name and content of the files of a source, archives unpacked.

    None comes now and then while a source has nothing to take.
    """
    parts = urlsplit(url)
    if parts.scheme == "upload":
        upload_id, _, name = url.removeprefix("upload:").partition("/")
        where = file_upload_methods.uploads_of(app)
        row = state.store.get(where, upload_id)
        if row is None:
            raise ServiceError(
                StatusCode.CONN_DOES_NOT_EXIST, f"upload {upload_id!r} does not exist"
            )
        yield from _opened(name, state.uploads.unary_path(where, row))
    elif parts.scheme in object_stores.SCHEMES:
        for found in object_stores.files(url, credentials, state.object_stores, _is_taken):
            if found is None:
                yield None
            else:
                yield from _unpacked(found.name, found.content)
    elif parts.scheme == "file":
        yield from _local(state, Path(unquote(parts.path)), parts.path.endswith("/"))
    else:
        archive = io.BytesIO(state.fetcher.get(url))
        yield from files_in(PurePosixPath(parts.path).name, archive, _becomes_input)


def _local(state: State, path: Path, is_folder: bool) -> Iterator[_NamedContent | None]:
    root = _root(state, path)
    folder, prefix = (path, "") if is_folder or path.is_dir() else (path.parent, path.name)
    for file in files_below(folder, prefix):
        if file is None:
            yield None
        # A link must not lead out of what the operator allows.
        elif _is_taken(file.name) and file.is_file() and file.resolve().is_relative_to(root):
            yield from _opened(file.relative_to(folder).as_posix(), file)


def _opened(name: str, path: Path) -> Iterator[_NamedContent]:
    """A file as it is, or the files of an archive."""
    with path.open("rb") as file:
        yield from _unpacked(name, file)


def _unpacked(name: str, file: IO[bytes]) -> Iterator[_NamedContent]:
    if is_archive(name):
        yield from files_in(name, file, _becomes_input)
        return
    content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ServiceError(
            StatusCode.INPUT_OVER_LIMIT, f"{name} has more than {MAX_FILE_BYTES} bytes"
        )
    yield name, content


def _input(name: str, content: bytes, template: v2.Input) -> tuple[str, v2.Input] | None:
    """The kind of a file and the input that it becomes; None for files of no known kind."""
    # Names of files may hold what is no text.
    path = PurePosixPath(name.encode(errors="replace").decode())
    kind = _KIND_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        return None
    item = v2.Input()
    item.CopyFrom(template)
    item.id = "-".join(path.with_suffix("").parts)
    if kind == "text":
        item.data.text.raw = content.decode(errors="replace")
    else:
        getattr(item.data, kind).base64 = content
    return kind, item


def _extract(state: State, where: StoredCollection, row: Row) -> None:
    """Carries out a queued extraction, some files at a time; stops when it is cancelled."""
    app = where.app
    job = v2.InputsExtractionJob.FromString(row.body)
    # A restart begins anew: what was added then has an id and is there already.
    job.ClearField("progress")
    tracked = _tracked(app, state.store.key(row.seq) or "")
    secrets = v2.DataSourceCredentials.FromString(state.store.content(row.seq) or b"")
    files = _files(state, app, job.url, secrets)
    end = time.monotonic() + JOB_SECONDS
    job.status.CopyFrom(make_status(StatusCode.JOB_RUNNING))
    while job.status.code == StatusCode.JOB_RUNNING and not state.background.closing:
        try:
            held = state.fetcher.budget.take(MAX_FILE_BYTES + _BYTES_PER_TRANSACTION)
        except BudgetFullError:
            continue  # it has waited, and a job has time
        with held:
            stretch, status = _read(
                files,
                job.input_template,
                end,
                lambda: state.background.closing or _is_cancelled(state.store, row.seq),
            )
            if not _add(state, row.seq, job, tracked, stretch, status):
                return
        state.input_processor.wake()


def _is_cancelled(store: Store, seq: int) -> bool:
    """Whether a job was cancelled, or deleted."""
    now = store.by_seq(seq)
    return now is None or now.status == StatusCode.JOB_CANCELLED


def _add(
    state: State,
    seq: int,
    job: v2.InputsExtractionJob,
    tracked: StoredCollection,
    stretch: list[tuple[str, v2.Input]],
    status: v2.Status,
) -> bool:
    """Adds what was read, and gives the job its status; False for one that is not to go on."""
    store = state.store
    live = tracked._replace(kind=INPUT_KIND, parent="")
    left = deque(stretch)
    while True:
        with store.transaction():
            if _is_cancelled(store, seq):
                return False
            try:
                while left and not store.crowded:
                    kind, given = left.popleft()
                    with store.savepoint():
                        item = v2.Input()
                        input_methods.add_input(
                            store,
                            live,
                            given,
                            job.input_id_conflict_resolution,
                            item,
                            AppConcepts(store, live.app),
                        )
                        if store.get(live, item.id) and not store.get(tracked, item.id):
                            store.insert(tracked, item.id, b"")
                    counter = f"{kind}_inputs_count"
                    setattr(job.progress, counter, getattr(job.progress, counter) + 1)
            except ServiceError as error:
                left.clear()
                status = make_status(StatusCode.JOB_FAILED, f"{given.id}: {error}")
            if not left:
                job.status.CopyFrom(status)
            job.modified_at.GetCurrentTime()
            store.update(seq, job.SerializeToString(), job.status.code)
            if job.status.code in _OVER:
                _forget_credentials(store, seq)
        if not left:
            return True


def _read(
    files: Iterator[_NamedContent | None],
    template: v2.Input,
    end: float,
    is_ended: Callable[[], bool],
) -> tuple[list[tuple[str, v2.Input]], v2.Status]:
    """The next inputs of a source, and the status of its job after them.

    Args:
        files: What is left of the source.
        template: What all inputs have.
        end: Time of the monotonic clock at which the job fails.
        is_ended: Whether to stop; asked while the source has nothing to take.
    """
    stretch: list[tuple[str, v2.Input]] = []
    size = 0
    try:
        while len(stretch) < _INPUTS_PER_TRANSACTION and size < _BYTES_PER_TRANSACTION:
            if time.monotonic() > end:
                return stretch, make_status(
                    StatusCode.JOB_FAILED, f"the source takes more than {JOB_SECONDS:g} s to read"
                )
            file = next(files)
            if file is None:
                if is_ended():
                    break
                continue
            name, content = file
            size += len(content)
            found = _input(name, content, template)
            if found is not None:
                stretch.append(found)
    except StopIteration:
        return stretch, make_status(StatusCode.JOB_COMPLETED)
    except StoreError:
        raise
    except (OSError, ServiceError, BudgetFullError) as error:
        return stretch, make_status(StatusCode.JOB_FAILED, str(error))
    except Exception:
        # The job ends whatever its source holds: it would begin anew at each start.
        _logger.exception("an extraction of inputs failed")
        return stretch, make_status(StatusCode.JOB_FAILED, "internal error; see the server's log")
    return stretch, make_status(StatusCode.JOB_RUNNING)


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostInputs": post_inputs,
    "GetInputsAddJob": get_job,
    "ListInputsAddJobs": list_jobs,
    "CancelInputsAddJob": cancel_job,
    "CancelInputsExtractionJobs": cancel_extractions,
    "PostInputsDataSources": post_data_sources,
    "PostInputsUploads": post_uploads,
    "PutUploadContentParts": put_parts,
}
BACKGROUND_TASKS: dict[Waiting, BackgroundTask] = {
    Waiting("inputs_extraction_job", StatusCode.JOB_QUEUED): _extract,
    Waiting("inputs_extraction_job", StatusCode.JOB_RUNNING): _extract,
}
THREADS: dict[str, int] = {"inputs_extraction_job": 4}
"""Sources that are read at the same time: a large one must not hold up those of others."""
