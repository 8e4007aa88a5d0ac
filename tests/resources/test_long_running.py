"""Work in the background: one object for its status, its end and its cancellation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import errors, v2
from clarigrpc.local import LocalServer
from clarigrpc.types import AsyncLongRunningWork, LongRunningWork, WorkProgress
from tests.both import Both
from tests.resources.conftest import add_inputs

Code = v2.StatusCode


@pytest.fixture
def slowly(service: LocalServer) -> Iterator[LocalServer]:
    """The server takes a long while for each training, until the test shortens it."""
    with service.faults.during(train_seconds=600):
        yield service


async def test_a_training_is_followed(both: Both, slowly: LocalServer) -> None:
    c = both.client
    await add_inputs(both, "red", color="red")
    await both.run(c.inputs.merge_concepts, "red", ["red"])
    await both.run(c.models.create, v2.Model(id="m", model_type_id="embedding-classifier"))
    version = await both.run(c.models.versions("m").create)
    training = c.models.versions("m").follow(version)
    assert isinstance(training, LongRunningWork if both.is_sync else AsyncLongRunningWork)
    assert repr(training) == f"{type(training).__name__}(training of version {version.id!r})"
    queued = await both.run(training.status)
    assert queued.code in (Code.MODEL_QUEUED_FOR_TRAINING, Code.MODEL_TRAINING)
    with pytest.raises(errors.UnimplementedError, match=r"version .*; delete the version instead"):
        await both.run(training.cancel)
    with pytest.raises(errors.DeadlineExceededError, match=r"has not ended after 0\.05 s") as late:
        await both.run(training.wait, timeout=0.05)
    assert late.value.method == "GetModelVersion"
    slowly.faults.train_seconds = 0.3
    seen: list[WorkProgress] = []
    trained = await both.run(training.wait, timeout=60, progress=seen.append)
    assert trained.status.code == Code.MODEL_TRAINED
    assert seen[0].percent is None
    assert seen[-1].percent == 100
    assert [one.status.code for one in seen[-2:]] != [Code.MODEL_TRAINED] * 2
    assert (await both.run(training.status)).code == Code.MODEL_TRAINED


async def test_a_service_that_does_not_answer_is_late_as_well(
    both: Both, service: LocalServer
) -> None:
    c = both.client
    started = await both.run(
        c.jobs.create_for_uploads, [v2.Upload(content_name="a.zip", content_length=9)]
    )
    late = pytest.raises(
        errors.DeadlineExceededError, match=r"has not ended after 0\.2 s; .* not answer"
    )
    with service.faults.delay("GetInputsAddJob", 20), late:
        await both.run(c.jobs.follow(started).wait, timeout=0.2)


async def test_a_look_that_hangs_does_not_take_the_whole_wait(
    both: Both, service: LocalServer
) -> None:
    await add_inputs(both, "i")
    impatient = both.client.with_options(timeout=0.3)
    seen: list[WorkProgress] = []
    with service.faults.delay("ListInputs", 300, count=2):
        (one,) = await both.run(
            impatient.inputs.follow(["i"]).wait, timeout=120, progress=seen.append
        )
    assert one.status.code == Code.INPUT_SUCCESS
    assert seen


async def test_a_failure_is_raised_and_told(both: Both) -> None:
    c = both.client
    await both.run(c.models.create, v2.Model(id="m", model_type_id="embedding-classifier"))
    version = await both.run(c.models.versions("m").create)
    training = c.models.versions("m").follow(version.id)
    with pytest.raises(errors.ApiError) as caught:
        await both.run(training.wait, timeout=60)
    assert caught.value.code == Code.MODEL_TRAINING_NO_DATA
    assert "label" in caught.value.details
    # Asked for, a failure is a status as any other.
    status = await both.run(training.status)
    assert status.code == Code.MODEL_TRAINING_NO_DATA
    assert status.details == caught.value.details


async def test_work_that_the_service_does_not_know(both: Both) -> None:
    c = both.client
    for work in (c.jobs.follow("none"), c.evaluations.follow("none")):
        for ask in (work.status, work.wait):
            with pytest.raises(errors.NotFoundError):
                await both.run(ask)
    with pytest.raises(errors.NotFoundError):
        await both.run(c.jobs.follow("none").cancel)
    with pytest.raises(errors.InvalidArgumentError, match="empty"):
        c.jobs.follow("")


async def test_a_job_is_followed_and_cancelled(both: Both, folder: Path) -> None:
    c = both.client
    started = await both.run(c.jobs.create_from_urls, f"{folder.as_uri()}/")
    seen: list[WorkProgress] = []
    ended = await both.run(c.jobs.follow(started).wait, progress=seen.append)
    assert ended.status.code == Code.JOB_COMPLETED
    assert (seen[-1].items_done, seen[-1].items_total, seen[-1].percent) == (2, 2, 100)
    (extraction,) = await both.collect(c.extraction_jobs.list())
    done = await both.run(c.extraction_jobs.follow(extraction).wait)
    assert done.status.code == Code.JOB_COMPLETED
    waiting = await both.run(
        c.jobs.create_for_uploads, [v2.Upload(content_name="never-sent.zip", content_length=9)]
    )
    work = c.jobs.follow(waiting)
    assert (await both.run(work.cancel)).code == Code.JOB_CANCELLED
    with pytest.raises(errors.CancelledError):
        await both.run(work.wait)
    # What has ended stays as it is.
    ended_code = (await both.run(c.extraction_jobs.follow(extraction).status)).code
    assert ended_code == Code.JOB_COMPLETED


async def test_a_bulk_operation_is_followed(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j")
    started = await both.run(
        c.bulk_operations.create,
        v2.BulkOperation(
            input_ids=v2.InputIDs(input_ids=["i", "j"]),
            operation=v2.Operation(add_concepts=v2.AddConcepts(concepts=[v2.Concept(id="dog")])),
        ),
    )
    work = c.bulk_operations.follow(started)
    seen: list[WorkProgress] = []
    ended = await both.run(work.wait, progress=seen.append)
    assert ended.status.code == Code.BULK_OPERATION_SUCCESS
    assert (seen[-1].items_done, seen[-1].items_total) == (2, 2)
    assert (await both.run(work.cancel)).code == Code.BULK_OPERATION_SUCCESS  # too late


async def test_inputs_are_followed_until_they_are_gone(both: Both, service: LocalServer) -> None:
    c = both.client
    inputs = [v2.Input(id=one, data=v2.Data(text=v2.Text(raw=one))) for one in ("i", "j")]
    made = await both.run(c.inputs.create, inputs)
    seen: list[WorkProgress] = []
    processing = c.inputs.follow(made)
    assert [one.id for one in await both.run(processing.wait, progress=seen.append)] == ["i", "j"]
    assert (seen[-1].items_done, seen[-1].items_total, seen[-1].percent) == (2, 2, 100)
    assert (await both.run(processing.status)).code == Code.SUCCESS
    with pytest.raises(errors.UnimplementedError, match="delete them instead"):
        await both.run(processing.cancel)
    deletion = c.inputs.follow_deletion(["i", "j"])
    with pytest.raises(errors.DeadlineExceededError, match="2 of 2 inputs are not deleted yet"):
        await both.run(deletion.wait, timeout=0.05)
    assert (await both.run(deletion.status)).code == Code.ACCEPTED
    await both.run(c.inputs.delete, ["i", "j"])
    assert await both.run(deletion.wait) == ["i", "j"]
    for one in ("i", "j"):
        with pytest.raises(errors.NotFoundError):
            await both.run(c.inputs.get, one)
    assert await both.run(c.inputs.follow_deletion([]).wait) == []


async def test_some_inputs_fail(both: Both) -> None:
    c = both.client
    bad = v2.Input(id="bad", data=v2.Data(image=v2.Image(base64=b"no image")))
    await add_inputs(both, "good")
    await both.run(c.inputs.create, bad, raise_on_partial=False)
    work = c.inputs.follow(["good", "bad", "none"])
    with pytest.raises(errors.PartialFailureError) as caught:
        await both.run(work.wait)
    assert [failed.index for failed in caught.value.failed] == [1, 2]
    assert (await both.run(work.status)).code == Code.MIXED_STATUS


async def test_the_status_of_an_input_that_is_not_there(both: Both) -> None:
    status = await both.run(both.client.inputs.follow("no-such-input").status)
    assert status.code == v2.StatusCode.INPUT_DOES_NOT_EXIST
    assert status.description == "Input does not exist"


async def test_the_wait_of_another_process(both: Both) -> None:
    """What is followed needs the id alone, and a callback that raises ends the wait."""
    c = both.client
    await both.run(c.datasets.create, "d")
    await both.run(c.datasets.versions("d").create, "v")
    work = c.datasets.versions("d").follow("v")

    def stop(progress: WorkProgress) -> None:
        raise KeyError(progress.status.code)

    with pytest.raises(KeyError):
        await both.run(work.wait, progress=stop)
    assert (await both.run(work.wait)).status.code == Code.DATASET_VERSION_READY


async def test_pages_tell_where_they_are(both: Both) -> None:
    c = both.client
    await both.run(c.concepts.create_many, [f"c{number}" for number in range(5)])
    listing = c.concepts.list(per_page=2)
    assert listing.page_info is None
    infos: list[Any] = []
    async for _ in both.items(listing):
        infos.append(listing.page_info)
    assert [(one.page, one.per_page, one.count, one.is_last) for one in infos] == [
        *[(1, 2, 2, False)] * 2,
        *[(2, 2, 2, False)] * 2,
        (3, 2, 1, True),
    ]
    one_page = c.concepts.list(page=2, per_page=2)
    items = await both.collect(one_page)
    assert (one_page.page_info.page, one_page.page_info.is_last) == (2, False)
    assert one_page.page_info.last_id == items[-1].id
    assert one_page.page_info.total is None
    types = c.models.types.list()
    count = len(await both.collect(types))
    assert (types.page_info.page, types.page_info.count) == (1, count)


async def test_a_stream_of_inputs_is_continued_from_a_page(both: Both) -> None:
    c = both.client
    await add_inputs(both, *(f"i{number}" for number in range(5)))
    everything = [one.id for one in await both.collect(c.inputs.stream())]
    first = c.inputs.stream(per_page=2)
    items: Any = both.items(first)
    await anext(items)
    await items.aclose()
    await both.run(first.close if both.is_sync else first.aclose)
    assert (first.page_info.page, first.page_info.count) == (1, 2)
    rest = await both.collect(c.inputs.stream(first.page_info.last_id, per_page=2))
    assert [one.id for one in rest] == everything[2:]
    hits = c.search.inputs(per_page=2)
    found = await both.collect(hits)
    assert hits.page_info.last_id == found[-1].input.id


async def test_the_last_looks_are_close_to_the_end_of_the_wait(both: Both) -> None:
    await add_inputs(both, "i")
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceededError, match="1 of 1 inputs are not deleted yet"):
        await both.run(both.client.inputs.follow_deletion(["i"]).wait, timeout=1)
    assert time.monotonic() - began > 0.9


async def test_asynchronous_functions_are_refused_as_progress(both: Both, tmp_path: Path) -> None:
    async def progress(state: object) -> None:
        """Would never be awaited."""

    c = both.client
    await add_inputs(both, "i")
    file = tmp_path / "model.tar"
    file.write_bytes(b"content")
    for verb, argument in (
        (c.inputs.follow(["i"]).wait, ()),
        (c.inputs.upload, ([v2.Input(id="j")],)),
        (c.model("m").upload_version, (file,)),
    ):
        with pytest.raises(TypeError, match="takes a plain function"):
            await both.run(verb, *argument, progress=progress)
