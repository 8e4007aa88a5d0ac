"""Inputs from folders, archives and uploads, by jobs."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from clarigrpc import v2
from clarigrpc.local.handlers import input_jobs
from clarigrpc.local.media import folder_files
from tests.local.conftest import Raw, ok, png
from tests.waiting import until

Code = v2.StatusCode


@pytest.fixture(params=["grpc", "rest"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test runs over both fronts."""
    return str(request.param)


def finished(raw: Raw, job_id: str) -> v2.InputsAddJob:
    def look() -> v2.InputsAddJob | None:
        get = v2.GetInputsAddJobRequest(id=job_id)
        job: v2.InputsAddJob = ok(raw("GetInputsAddJob", get)).inputs_add_job
        return None if job.status.code == Code.JOB_RUNNING else job

    job: v2.InputsAddJob = until(look)
    return job


def source(url: str, **fields: object) -> v2.PostInputsDataSourcesRequest:
    request = v2.PostInputsDataSourcesRequest()
    entry = request.data_sources.add(**fields)
    entry.url.url = url
    return request


def ids(raw: Raw) -> set[str]:
    return {item.id for item in ok(raw("ListInputs", v2.ListInputsRequest())).inputs}


def folder(path: Path) -> Path:
    root = path / "root"
    (root / "deep").mkdir(parents=True)
    (root / "cat1.png").write_bytes(png("red"))
    (root / "deep" / "note.txt").write_text("hello")
    (root / "other.xyz").write_bytes(b"?")
    with zipfile.ZipFile(root / "cats.zip", "w") as archive:
        archive.writestr("in/zipped.png", png("blue"))
    with tarfile.open(root / "more.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("tarred.png")
        info.size = len(png("blue"))
        tar.addfile(info, io.BytesIO(png("blue")))
    return root


def test_a_folder(serve: Callable[..., Raw], tmp_path: Path) -> None:
    root = folder(tmp_path)
    (tmp_path / "outside.png").write_bytes(png("red"))
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    raw = serve(input_roots=[root])
    template = v2.Input()
    template.data.concepts.add(id="seen", value=1.0)
    request = source(f"{root.as_uri()}/", input_template=template)
    (job,) = ok(raw("PostInputsDataSources", request)).inputs_add_jobs
    done = finished(raw, job.id)
    assert done.status.code == Code.JOB_COMPLETED
    assert ids(raw) == {"cat1", "deep-note", "in-zipped", "tarred"}
    assert (done.progress.success_count, done.progress.failed_count) == (4, 0)
    (extraction,) = done.extraction_jobs
    assert extraction.progress.image_inputs_count == 3
    item = ok(raw("GetInput", v2.GetInputRequest(input_id="cat1"))).input
    assert [concept.id for concept in item.data.concepts] == ["seen"]
    listed = ok(raw("ListInputsAddJobs", v2.ListInputsAddJobsRequest())).inputs_add_jobs
    assert [entry.id for entry in listed] == [job.id]
    found = ok(raw("ListInputsExtractionJobs", v2.ListInputsExtractionJobsRequest()))
    assert [entry.id for entry in found.inputs_extraction_jobs] == [extraction.id]


def test_a_prefix_and_a_conflict(serve: Callable[..., Raw], tmp_path: Path) -> None:
    root = folder(tmp_path)
    raw = serve(input_roots=[root])
    for _ in range(2):
        request = source(
            f"{root.as_uri()}/cat", input_id_conflict_resolution=v2.InputIDConflictResolution.SUFFIX
        )
        (job,) = ok(raw("PostInputsDataSources", request)).inputs_add_jobs
        finished(raw, job.id)
    assert len(ids(raw)) == 4
    assert {"cat1", "in-zipped"} <= ids(raw)


def test_sources_of_one_request_share_a_job(serve: Callable[..., Raw], tmp_path: Path) -> None:
    root = folder(tmp_path)
    raw = serve(input_roots=[root])
    request = source(f"{root.as_uri()}/cat1")
    request.data_sources.add().url.url = f"{root.as_uri()}/deep/"
    (job,) = ok(raw("PostInputsDataSources", request)).inputs_add_jobs
    done = finished(raw, job.id)
    assert (len(done.extraction_jobs), done.progress.success_count) == (2, 2)
    assert ids(raw) == {"cat1", "note"}


def test_only_what_the_operator_allows(serve: Callable[..., Raw], tmp_path: Path) -> None:
    root = folder(tmp_path)
    raw = serve(input_roots=[root])
    for url in ("file:///etc/", f"{root.as_uri()}/../", "ftp://bucket/x", "http://127.0.0.1/x.png"):
        code = raw("PostInputsDataSources", source(url)).status.code
        assert code in (Code.INPUT_INVALID_URL, Code.NOT_IMPLEMENTED), url


def test_a_broken_archive(serve: Callable[..., Raw], tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    raw = serve(input_roots=[tmp_path])
    request = source(f"{tmp_path.as_uri()}/bad.zip")
    (job,) = ok(raw("PostInputsDataSources", request)).inputs_add_jobs
    assert finished(raw, job.id).status.code == Code.JOB_FAILED


def test_an_upload(raw: Raw) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("one.png", png("red"))
        archive.writestr("two.png", b"broken")
    data = content.getvalue()
    request = v2.PostInputsUploadsRequest()
    upload = request.inputs_uploads.add().upload
    upload.content_name, upload.content_length = "a.zip", len(data)
    (job,) = ok(raw("PostInputsUploads", request)).inputs_add_jobs
    assert job.status.code == Code.JOB_RUNNING
    parts = v2.PutUploadContentPartsRequest(upload_id=job.uploads[0].id)
    parts.content_parts.add(part_number=1, data=data)
    ok(raw("PutUploadContentParts", parts))
    done = finished(raw, job.id)
    assert (done.progress.success_count, done.progress.failed_count) == (1, 1)


def test_folders_without_end_can_be_cancelled(
    serve: Callable[..., Raw], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path)
    (root / "endless").mkdir()
    scandir = os.scandir

    @contextlib.contextmanager
    def scanned(path: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path if path.name != "endless" else root) as entries:
            yield entries if path.name != "endless" else itertools.cycle(entries)

    # Only what lists folders looks it up there.
    monkeypatch.setattr(folder_files, "os", SimpleNamespace(scandir=scanned))
    monkeypatch.setattr(folder_files, "_ENTRIES_PER_STRETCH", 10)
    raw = serve(input_roots=[root])
    jobs = []
    for _ in range(input_jobs.THREADS["inputs_extraction_job"]):
        wanted = source(f"{root.as_uri()}/endless/")
        jobs += ok(raw("PostInputsDataSources", wanted)).inputs_add_jobs

    for job in jobs:
        ok(raw("CancelInputsAddJob", v2.CancelInputsAddJobRequest(id=job.id)))
    # Their threads are free.
    (job,) = ok(raw("PostInputsDataSources", source(f"{root.as_uri()}/deep/"))).inputs_add_jobs
    assert finished(raw, job.id).status.code == Code.JOB_COMPLETED


def test_jobs_of_calls_and_cancelling(raw: Raw) -> None:
    request = v2.PostInputsRequest(inputs_add_job_id="mine")
    request.inputs.add(id="i").data.text.raw = "x"
    ok(raw("PostInputs", request))
    assert finished(raw, "mine").progress.success_count == 1
    wanted = v2.PostInputsUploadsRequest()
    upload = wanted.inputs_uploads.add().upload
    upload.content_name, upload.content_length = "a.zip", 10
    (job,) = ok(raw("PostInputsUploads", wanted)).inputs_add_jobs
    cancel = v2.CancelInputsAddJobRequest(id=job.id)
    cancelled = ok(raw("CancelInputsAddJob", cancel)).inputs_add_job
    assert cancelled.status.code == Code.JOB_CANCELLED
    none = v2.CancelInputsExtractionJobsRequest(ids=["none"])
    assert raw("CancelInputsExtractionJobs", none).status.code == Code.CONN_DOES_NOT_EXIST
