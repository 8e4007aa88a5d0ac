"""Jobs, bulk operations, tasks, label orders."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from clarigrpc import errors, v2
from tests.both import Both
from tests.local.conftest import png
from tests.resources.conftest import add_inputs

Code = v2.StatusCode


async def test_jobs_from_addresses(both: Both, folder: Path) -> None:
    c = both.client
    template = v2.Input(data=v2.Data(concepts=[v2.Concept(id="client_kind", value=1)]))
    started = await both.run(c.jobs.create_from_urls, f"{folder.as_uri()}/", template=template)
    (ended,) = await both.run(c.jobs.wait, started)
    assert ended.status.code == Code.JOB_COMPLETED
    assert ended.progress.success_count == 2
    added = await both.collect(c.inputs.list())
    assert [one.data.concepts[0].id for one in added] == ["client_kind", "client_kind"]
    assert (await both.run(c.jobs.get, started.id)).id == started.id
    assert [one.id for one in await both.collect(c.jobs.list())] == [started.id]
    with pytest.raises(errors.InvalidArgumentError, match="address"):
        await both.run(c.jobs.create_from_urls, [])


async def test_jobs_of_archives(both: Both, tmp_path: Path) -> None:
    c = both.client
    archive = tmp_path / "inputs.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("red.png", png("red"))
    wanted = v2.Upload(content_name=archive.name, content_length=archive.stat().st_size)
    job = await both.run(c.jobs.create_for_uploads, [wanted])
    request = v2.PutUploadContentPartsRequest(upload_id=job.uploads[0].id)
    request.content_parts.add(part_number=1, data=archive.read_bytes())
    await both.call("PutUploadContentParts", request)
    (ended,) = await both.run(c.jobs.wait, job)
    assert ended.progress.success_count == 1
    (extraction,) = await both.collect(c.extraction_jobs.list())
    (done,) = await both.run(c.extraction_jobs.wait, extraction)
    assert done.status.code == Code.JOB_COMPLETED
    assert (await both.run(c.extraction_jobs.get, extraction.id)).id == extraction.id
    with pytest.raises(errors.InvalidArgumentError, match="upload"):
        await both.run(c.jobs.create_for_uploads, [])


async def test_jobs_of_uploaded_archives(both: Both, folder: Path) -> None:
    c = both.client
    template = v2.Input(data=v2.Data(concepts=[v2.Concept(id="client_kind", value=1)]))
    started = await both.run(c.jobs.upload, folder, job_id="mine", template=template)
    assert started.id == "mine"
    (ended,) = await both.run(c.jobs.wait, started)
    assert ended.progress.success_count == 2
    added = await both.collect(c.inputs.list())
    assert [one.data.concepts[0].id for one in added] == ["client_kind", "client_kind"]
    with pytest.raises(FileNotFoundError):
        await both.run(c.jobs.upload, folder / "none.zip")


async def test_jobs_that_are_stopped(both: Both) -> None:
    c = both.client
    wanted = v2.Upload(content_name="never-sent.zip", content_length=9)
    job = await both.run(c.jobs.create_for_uploads, [wanted])
    with pytest.raises(errors.DeadlineExceededError, match="1 of 1"):
        await both.run(c.jobs.wait, job, timeout=0.05)
    stopped = await both.run(c.jobs.cancel, job.id)
    assert stopped.status.code == Code.JOB_CANCELLED
    with pytest.raises(errors.CancelledError):
        await both.run(c.jobs.wait, job)
    for one in await both.collect(c.extraction_jobs.list()):
        await both.run(c.extraction_jobs.cancel, one.id)
    with pytest.raises(errors.NotFoundError):
        await both.run(c.jobs.wait, "no-such-job")


async def test_stopped_extractions(both: Both, folder: Path) -> None:
    c = both.client
    with pytest.raises(errors.ApiError):
        await both.run(c.extraction_jobs.cancel, "no-such-job")


def tagging(operation_id: str, *input_ids: str) -> v2.BulkOperation:
    return v2.BulkOperation(
        id=operation_id,
        input_ids=v2.InputIDs(input_ids=input_ids),
        operation=v2.Operation(add_concepts=v2.AddConcepts(concepts=[v2.Concept(id="dog")])),
    )


async def test_bulk_operations(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j")
    started = await both.run(c.bulk_operations.create, tagging("o", "i", "j"))
    (ended,) = await both.run(c.bulk_operations.wait, started)
    assert ended.status.code == Code.BULK_OPERATION_SUCCESS
    assert (await both.run(c.inputs.get, "i")).data.concepts[0].id == "dog"
    (other,) = await both.run(c.bulk_operations.create_many, [tagging("p", "i")])
    await both.run(c.bulk_operations.wait, [other])
    assert (await both.run(c.bulk_operations.get, "o")).id == "o"
    assert {one.id for one in await both.collect(c.bulk_operations.list())} == {"o", "p"}
    (over,) = await both.run(c.bulk_operations.cancel, "o")
    assert over.status.code == Code.BULK_OPERATION_SUCCESS
    await both.run(c.bulk_operations.delete, ["o"])
    assert [one.id for one in await both.collect(c.bulk_operations.list())] == ["p"]


async def test_tasks(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i")
    made = await both.run(c.tasks.create, v2.Task(id="t", name="label these"))
    assert (made.id, made.name) == ("t", "label these")
    await both.run(c.tasks.create_many, [v2.Task(id="u", name="and these")])
    assert (await both.run(c.tasks.get, "t")).name == "label these"
    changed = v2.Task(id="t", description="all of them")
    assert (await both.run(c.tasks.patch, changed, action="overwrite")).description == "all of them"
    await both.run(c.tasks.patch_many, [changed], action="overwrite")
    assert [one.id for one in await both.collect(c.tasks.list(ids=["u"]))] == ["u"]
    pending = v2.Status(code=Code.ANNOTATION_PENDING)
    annotation = v2.Annotation(id="a", input_id="i", task_id="t", status=pending)
    await both.run(c.annotations.create, annotation)
    (count,) = await both.run(c.tasks.annotation_counts, "t")
    assert (count.pending, count.success) == (1, 0)
    assert await both.run(c.tasks.set_annotation_status, "t", Code.ANNOTATION_SUCCESS) == 1
    (count,) = await both.run(c.tasks.annotation_counts, "t")
    assert (count.pending, count.success) == (0, 1)
    counts = await both.run(c.tasks.input_counts, "t")
    assert sum(one.success for one in counts) == 1
    await both.run(c.tasks.delete, "u")
    assert [one.id for one in await both.collect(c.tasks.list())] == ["t"]


async def test_label_orders(both: Both) -> None:
    c = both.client
    made = await both.run(c.label_orders.create, v2.LabelOrder(id="l", name="first"))
    assert made.name == "first"
    await both.run(c.label_orders.create_many, ["m"])
    assert (await both.run(c.label_orders.get, "l")).name == "first"
    changed = v2.LabelOrder(id="l", name="second")
    assert (await both.run(c.label_orders.patch, changed, action="overwrite")).name == "second"
    await both.run(c.label_orders.patch_many, [changed], action="overwrite")
    assert {one.id for one in await both.collect(c.label_orders.list())} == {"l", "m"}
    await both.run(c.label_orders.delete, ["l", "m"])
    assert await both.collect(c.label_orders.list()) == []
