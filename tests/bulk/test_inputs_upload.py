"""Operations on inputs, and uploads from folders and files, against the local server."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarigrpc import errors, image, text, v2
from clarigrpc.ingest import from_coco, from_csv, from_folder, from_json
from clarigrpc.local import LocalServer
from clarigrpc.local.engine.faults import Faults
from clarigrpc.types import UploadReport
from tests.both import Both
from tests.conftest import Connect


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest_asyncio.fixture
async def client(connect: Connect, server: LocalServer) -> Both:
    return connect(server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id)


def texts(count: int, start: int = 0) -> Iterator[v2.Input]:
    for number in range(start, start + count):
        yield text(f"text {number}", id=f"id-{number:05}")


def png(color: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), color).save(file, "PNG")
    return file.getvalue()


async def upload(client: Both, source: Any, **options: Any) -> UploadReport:
    report: UploadReport = await client.run(client.client.inputs.upload, source, **options)
    return report


async def stored(client: Both, **options: Any) -> list[v2.Input]:
    return await client.collect(client.client.inputs.stream(**options))


# Walking and waiting


async def test_stream_walks_all_inputs_and_goes_on_from_a_cursor(client: Both) -> None:
    await upload(client, texts(300), in_flight=1)
    ids = [one.id for one in await stored(client)]
    assert ids == [f"id-{number:05}" for number in range(300)]
    assert [one.id for one in await stored(client, last_id=ids[99], per_page=7)] == ids[100:]
    backwards = await stored(client, order_by_id=True, descending=True, per_page=1000)
    assert [one.id for one in backwards] == ids[::-1]
    with pytest.raises(errors.NotFoundError):
        await stored(client, last_id="nobody")


async def test_stream_asks_for_a_page_when_it_is_needed(client: Both, server: LocalServer) -> None:
    await upload(client, texts(30))
    walk = client.items(client.client.inputs.stream(per_page=10))
    assert [(await anext(walk)).id for _ in range(10)]
    server.faults.unavailable_next = 1  # a failure between two pages is tried again
    assert (await anext(walk)).id == "id-00010"
    await walk.aclose()  # type: ignore[attr-defined]


async def test_wait_follows_the_processing_and_tells_each_failure(
    client: Both, server: LocalServer
) -> None:
    inputs = client.client.inputs
    server.faults.fail_inputs = {"id-00001"}
    created = await client.run(inputs.create, list(texts(3)))
    found = await client.run(inputs.wait, created, raise_on_partial=False)
    success, failed = v2.StatusCode.INPUT_SUCCESS, v2.StatusCode.INPUT_FAILED
    assert [one.id for one in found] == ["id-00000", "id-00001", "id-00002"]
    assert [one.status.code for one in found] == [success, failed, success]
    with pytest.raises(errors.PartialFailureError) as raised:
        await client.run(inputs.wait, ["id-00000", "nobody", "id-00001"])
    assert [(index, status.code) for index, status in raised.value.failed] == [
        (1, v2.StatusCode.INPUT_DOES_NOT_EXIST),
        (2, failed),
    ]
    assert (await client.run(inputs.wait, "id-00000"))[0].status.code == success
    with pytest.raises(errors.NotFoundError):
        await client.run(inputs.wait, "nobody")
    assert await client.run(inputs.wait, []) == []


@pytest.mark.measures
async def test_wait_ends_at_its_deadline(connect: Connect) -> None:
    hold = threading.Event()

    def never(input_id: str) -> bool:
        hold.wait(10)
        return False

    with LocalServer(faults=Faults(fail_inputs=never)) as slow:
        both = connect(slow.base, pat=slow.pat, user_id=slow.user_id, app_id=slow.app_id)
        await client_create(both, text("a", id="a"))
        begin = time.monotonic()
        with pytest.raises(errors.DeadlineExceededError, match="1 of 1"):
            await both.run(both.client.inputs.wait, "a", timeout=0.4)
        assert time.monotonic() - begin < 2
        hold.set()


async def client_create(client: Both, *inputs: v2.Input) -> None:
    await client.run(client.client.inputs.create, inputs)


# Changing and deleting


async def test_concepts_are_merged_removed_and_overwritten(client: Both) -> None:
    inputs = client.client.inputs
    await client_create(client, text("a", id="a", concepts=["x"], metadata={"k": 1}))
    merged = await client.run(inputs.merge_concepts, "a", {"y": 0.0, "x": 1.0})
    assert {one.id: one.value for one in merged.data.concepts} == {"x": 1.0, "y": 0.0}
    removed = await client.run(inputs.remove_concepts, "a", ["x"])
    assert [one.id for one in removed.data.concepts] == ["y"]
    (over,) = await client.run(inputs.overwrite, text("", id="a", concepts=["z"]))
    assert [one.id for one in over.data.concepts] == ["z"]
    assert not over.data.metadata.fields
    (patched,) = await client.run(inputs.patch, text("", id="a", metadata={"m": True}))
    assert patched.data.metadata["m"] is True
    with pytest.raises(errors.NotFoundError):
        await client.run(inputs.merge_concepts, "nobody", ["x"])
    with pytest.raises(errors.InvalidArgumentError):
        await client.run(inputs.patch, [])


async def test_a_patch_of_many_tells_which_are_missing(client: Both) -> None:
    await upload(client, texts(200))
    changes = [v2.Input(id=one.id) for one in texts(200)]
    changes[150].id = "nobody"
    for change in changes:
        change.data.concepts.add(id="x", value=1)
    with pytest.raises(errors.PartialFailureError) as raised:
        await client.run(client.client.inputs.patch, changes)
    assert [index for index, _ in raised.value.failed] == [150]
    assert sum(1 for one in await stored(client) if one.data.concepts) == 199


async def test_delete_all_leaves_nothing(client: Both, server: LocalServer) -> None:
    await upload(client, texts(300))
    assert await client.run(client.client.inputs.delete_all) == 300
    async with asyncio.timeout(30):
        while await stored(client):
            await asyncio.sleep(0.02)
    assert await client.run(client.client.inputs.delete_all) == 0


# Uploads


async def test_one_bad_input_fails_alone_and_can_be_fed_back(client: Both, tmp_path: Path) -> None:
    missing = tmp_path / "later.png"
    source: list[Any] = list(texts(10))
    source[3] = v2.Input(id="empty")
    source[5] = lambda: image(missing, id="later")
    source.append(text("text 0", id="id-00000"))
    # One request after the other: of two inputs with one id the first is added.
    report = await upload(client, source, batch_size=4, in_flight=1)
    assert report.taken == 11
    assert report.added == 8
    assert report.complete
    assert not report.succeeded
    failures = {one.index: one for one in report.failed_inputs}
    assert failures[3].status.code == v2.StatusCode.INPUT_INVALID_ARGUMENT
    assert failures[5].status.code == v2.StatusCode.FAILURE
    assert "later.png" in failures[5].status.description
    assert failures[10].status.code == v2.StatusCode.INPUT_DUPLICATE
    assert "id-00000" in str(failures[10])

    missing.write_bytes(png("red"))
    again = await upload(client, report.failed_inputs)
    assert {one.id for one in again.failed_inputs} == {"empty", "id-00000"}
    assert again.added == 1
    assert len(await stored(client)) == 9


async def test_requests_keep_to_the_limits(client: Both) -> None:
    big = "x" * 3_000
    source = (text(f"{number} {big}") for number in range(40))
    report = await upload(client, source, batch_bytes=10_000)
    assert report.succeeded
    assert report.added == 40


async def test_an_input_over_the_message_limit_fails_alone(
    connect: Connect, server: LocalServer
) -> None:
    small = connect(
        server.base,
        pat=server.pat,
        user_id=server.user_id,
        app_id=server.app_id,
        max_message_bytes=20_000,
    )
    source = [text("a"), text("x" * 30_000), text("y" * 19_000), text("b")]
    report = await upload(small, source)
    (failed,) = report.failed_inputs
    assert (failed.index, failed.status.code) == (1, v2.StatusCode.INPUT_OVER_LIMIT)
    assert report.added == 3


async def test_the_source_is_read_as_requests_leave(client: Both, server: LocalServer) -> None:
    report = UploadReport()
    most = 0

    def watched() -> Iterator[v2.Input]:
        nonlocal most
        for one in texts(600):
            most = max(most, report.taken - report.settled)
            yield one

    server.faults.latency_seconds = 0.02
    await upload(client, watched(), batch_size=10, in_flight=3, report=report)
    assert report.succeeded
    assert 20 <= most <= 40


async def test_an_asynchronous_source_needs_an_async_client(client: Both) -> None:
    async def source() -> AsyncIterator[v2.Input]:
        for one in texts(200):
            await asyncio.sleep(0)
            yield one

    if client.is_sync:
        with pytest.raises(TypeError, match="AsyncClient"):
            await upload(client, source())
    else:
        assert (await upload(client, source())).added == 200


async def test_misuse_is_told(client: Both, tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [{"batch_size": 129}, {"batch_size": 0}, {"in_flight": 0}]
    for wrong in (*options, {"timeout": 0}, {"timeout": math.nan}):
        with pytest.raises(errors.InvalidArgumentError):
            await upload(client, [], **wrong)
    with pytest.raises(FileNotFoundError):
        await upload(client, str(tmp_path / "nowhere"))
    for source in (lambda: "", lambda: from_folder("")):  # not the current folder
        with pytest.raises(errors.InvalidArgumentError, match="the path is empty"):
            await upload(client, source())
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(errors.InvalidArgumentError, match="takes a folder"):
        await upload(client, tmp_path / "a.png")
    report = UploadReport()
    with pytest.raises(TypeError, match="text"):
        await upload(client, [*texts(3), "a string"], report=report)
    assert not report.complete
    assert len(report.failed_inputs) == 3
    # Also where many values are read at once, and with what was read before it.
    report = UploadReport()
    with pytest.raises(TypeError, match="text"):
        await upload(client, [*texts(100), "a string", *texts(9)], report=report)
    assert report.taken == report.settled == 100


async def test_a_refused_credential_ends_the_upload(connect: Connect, server: LocalServer) -> None:
    stranger = connect(server.base, user_id=server.user_id, app_id=server.app_id)
    report = UploadReport()
    with pytest.raises(errors.AuthenticationError):
        await upload(stranger, texts(10_000), report=report)
    assert report.taken < 10_000
    assert report.taken == report.settled == len(report.failed_inputs)


async def test_a_response_that_is_too_large_does_not_say_that_nothing_was_added(
    connect: Connect, server: LocalServer
) -> None:
    limit = 1 << 16
    client = connect(
        server.base,
        pat=server.pat,
        user_id=server.user_id,
        app_id=server.app_id,
        max_message_bytes=limit,
    )
    # The response has the inputs, and more of each than the request.
    report = await upload(client, [text("a" * (limit - 400), id="a"), text("b", id="b")])
    assert report.succeeded
    assert sorted(report.added_ids) == ["a", "b"]
    # Too large to be listed, too: nobody knows.
    report = await upload(client, [text("c" * (limit - 100), id="c")])
    (failed,) = report.failed_inputs
    assert failed.maybe_added


async def test_an_empty_source_is_an_empty_report(client: Both) -> None:
    report = await upload(client, [])
    assert report.succeeded
    assert str(report) == "0 inputs added, 0 failed"


async def test_a_callback_sees_the_progress(client: Both) -> None:
    seen: list[int] = []
    await upload(client, texts(100), batch_size=10, progress=lambda now: seen.append(now.added))
    assert seen == sorted(seen)
    assert 2 <= len(seen) <= 10  # answers that come together are told together
    assert seen[-1] == 100
    # The bar is for terminals: here nothing is shown.
    assert (await upload(client, texts(1, start=500), progress=True)).succeeded


@pytest.mark.measures
async def test_a_throttle_sets_the_pace(connect: Connect) -> None:
    rate, count, reached = 10.0, 30, 0.0
    for _ in range(3):  # a starved machine may be what is slow
        with LocalServer(faults=Faults(rate_limit=rate, rate_burst=2.0)) as server:
            both = connect(
                server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id
            )
            begin = time.monotonic()
            report = await upload(both, texts(count * 5), batch_size=5)
            seconds = time.monotonic() - begin
        assert report.succeeded
        assert report.throttled <= count / 2
        assert seconds >= (count - 3) / rate
        reached = max(reached, (count - 2) / seconds)
        if reached >= 0.9 * rate:
            return
    pytest.fail(f"{reached:.1f} requests a second of {rate}")


@pytest.mark.measures
async def test_no_thread_or_task_stays_behind(client: Both, server: LocalServer) -> None:
    await upload(client, texts(10))
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    for number in range(1, 6):
        await upload(client, texts(300, start=number * 1_000))
    server.faults.latency_seconds = 0.05

    def failing() -> Iterator[v2.Input]:
        yield from texts(300, start=50_000)
        raise RuntimeError("the source is broken")

    with pytest.raises(RuntimeError, match="source is broken"):
        await upload(client, failing(), batch_size=10)
    assert len(asyncio.all_tasks()) == tasks
    # The server and to_thread may have started a few of theirs.
    assert threading.active_count() <= threads + 40


# Sources


def folder(top: Path) -> Path:
    for name, content in {
        "a.png": png("red"),
        "notes.txt": b"some words",
        "cats/b.png": png("green"),
        "dogs/c.PNG": png("blue"),
        "dogs/same.png": png("blue"),
        "dogs/.hidden.png": png("blue"),
        "dogs/readme.md": b"left out",
    }.items():
        path = top / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return top


async def test_a_folder_is_uploaded_with_its_folders_as_concepts(
    client: Both, tmp_path: Path
) -> None:
    source = from_folder(folder(tmp_path), concepts_from_folders=True)
    assert (await upload(client, source)).succeeded
    found = {
        one.data.metadata["filename"]: [concept.id for concept in one.data.concepts]
        for one in await stored(client)
    }
    assert found == {
        "a.png": [],
        "notes.txt": [],
        "cats/b.png": ["cats"],
        "dogs/c.PNG": ["dogs"],
        "dogs/same.png": ["dogs"],
    }
    # By its path alone; the labels are part of what an id is made from.
    assert (await upload(client, tmp_path)).added == 3
    assert len(list(from_folder(tmp_path, recursive=False))) == 2
    with pytest.raises(FileNotFoundError):
        from_folder(tmp_path / "nowhere")


async def test_a_csv_is_uploaded_row_by_row(client: Both, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("red"))
    rows = [
        {"id": "one", "text": "a, b", "concepts": "x| y", "metadata": '{"k": 1}'},
        {"id": "two", "path": "a.png"},
        {"id": "bad", "text": "a", "metadata": "{"},
        {"id": "gone", "path": "b.png"},
        {"id": "both", "text": "a", "path": "a.png"},
        {"id": "odd", "path": "a.xyz"},
    ]
    file = tmp_path / "inputs.csv"
    with file.open("w", newline="") as lines:
        fields = ["id", "url", "path", "text", "concepts", "metadata"]
        writer = csv.DictWriter(lines, fields)
        writer.writeheader()
        writer.writerows(rows)
    report = await upload(client, file)
    assert report.added == 2
    assert [one.index for one in sorted(report.failed_inputs, key=lambda one: one.index)] == [
        2,
        3,
        4,
        5,
    ]
    assert any("line 4" in str(one) for one in report.failed_inputs)
    found = {one.id: one for one in await stored(client)}
    assert found["one"].data.text.raw == "a, b"
    assert [concept.id for concept in found["one"].data.concepts] == ["x", "y"]
    assert found["one"].data.metadata["k"] == 1
    assert found["two"].data.HasField("image")


def test_urls_of_a_csv_become_inputs_of_their_kind(tmp_path: Path) -> None:
    file = tmp_path / "urls.csv"
    file.write_text(
        "url,kind\nhttp://h/a.mp4?x=1,\nhttp://h/a,\nhttp://h/b,audio\nhttp://h/c.txt,\n"
    )
    inputs = [make() for make in from_csv(file)]
    assert inputs[0].data.video.url == "http://h/a.mp4?x=1"
    assert inputs[1].data.image.url == "http://h/a"
    assert inputs[2].data.audio.url == "http://h/b"
    assert inputs[3].data.text.url == "http://h/c.txt"
    file.write_text("id\nx\n")
    with pytest.raises(errors.InvalidArgumentError, match="header"):
        from_csv(file)
    file.write_text("text,name,other\nx,y,z\n")
    with pytest.raises(errors.InvalidArgumentError, match="'name', 'other'; known are url"):
        from_csv(file)
    assert len(list(from_csv(file, ignore_columns=["name", "other"]))) == 1
    file.write_bytes("text\nfine\ncaf\u00e9\n".encode("latin-1"))
    with pytest.raises(errors.InvalidArgumentError, match=r"urls\.csv.*not utf-8-sig.*encoding="):
        from_csv(file)
    assert [make().data.text.raw for make in from_csv(file, encoding="latin-1")][1] == "caf\u00e9"
    with pytest.raises(FileNotFoundError):
        from_csv(tmp_path / "nowhere.csv")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "text": TEXTS,
                "metadata": st.dictionaries(st.text(), JSON, max_size=3).map(json.dumps) | TEXTS,
                "latitude": st.floats(-100, 100).map(str) | st.just(""),
                "longitude": st.floats(-200, 200).map(str) | st.just(""),
                "id": st.sampled_from(["", "a", "b"]),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_row_of_a_csv_is_an_input_or_names_its_place(
    rows: list[dict[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    made = list(from_csv(file))
    assert len(made) == len(rows)
    for row, make in zip(rows, made, strict=True):
        refused = ""
        try:
            message = make()
        except errors.InvalidArgumentError as error:
            refused = str(error)
        if refused:
            assert "rows.csv, line" in refused
            assert row["id"] == "" or f"id {row['id']}" in refused
        else:
            assert message.data.text.raw == row["text"]
            assert message.id == row["id"]
            assert message.data.HasField("geo") == bool(row["latitude"])


def test_long_fields_and_unbalanced_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    long = "x" * 200_000
    deep = '{""k"":' * 60 + "1" + "}" * 60
    file.write_text(f'id,text,metadata\na,{long},\nb,y,,1\nc,z,"{deep}"\nd,"last\nline",\n')
    first, more, nested, last = from_csv(file)
    assert first().data.text.raw == long
    for make, line in ((more, 3), (nested, 4)):
        with pytest.raises(errors.InvalidArgumentError, match=f"line {line}, id"):
            make()
    assert last().data.text.raw == "last\nline"


def test_an_open_quotation_mark_takes_no_rows_with_it_unseen(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('id,text\na,x\nb,"open\nc,y\nd,"z"\ne,fine\nf,"cut off\ng,')
    first, swallowed, fine, cut = from_csv(file)
    assert first().id == "a"
    assert fine().id == "e"
    for make, place in ((swallowed, "lines 3 to 5"), (cut, "lines 7 to 8")):
        with pytest.raises(errors.InvalidArgumentError, match=f"{place}: .* quotation mark"):
            make()


def test_a_column_that_a_csv_has_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,note,text,note\nx,1,y,2\n")
    with pytest.raises(errors.InvalidArgumentError, match=r"more than one column 'text'$"):
        from_csv(file, ignore_columns=["note"])
    with pytest.raises(errors.InvalidArgumentError, match="not known: 'note'"):
        from_csv(file)


def test_a_path_whose_kind_is_unknown_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("path\nno-suffix\n")
    (made,) = from_csv(file)
    with pytest.raises(errors.InvalidArgumentError, match="'no-suffix' has no suffix"):
        made()


async def test_what_is_no_file_or_has_an_odd_name_in_a_folder(client: Both, tmp_path: Path) -> None:
    top = tmp_path / "top"
    odd = Path(os.fsdecode(bytes(top) + b"/odd\xff"))
    odd.mkdir(parents=True)
    unnamed = odd / os.fsdecode(b"\xfe.png")
    unnamed.write_bytes(png("red"))
    (top / "good.png").write_bytes(png("red"))
    os.mkfifo(top / "pipe.png")  # opening it waits for a writer, for ever
    os.mkfifo(top / "pipe.txt")
    report = await asyncio.wait_for(
        upload(client, from_folder(top, concepts_from_folders=True)), timeout=30
    )
    assert report.added == 1
    reasons = {failed.source: failed.status.description for failed in report.failed_inputs}
    pipes = {str(top / "pipe.png"), str(top / "pipe.txt")}
    assert len(reasons) == 3
    assert all("a pipe" in reasons[pipe] for pipe in pipes)
    (odd_name,) = reasons.keys() - pipes
    assert odd_name.endswith(r"odd\xff/\xfe.png")


async def test_a_stream_of_pages_that_hold_nothing_is_refused(client: Both) -> None:
    for wrong in (0, -1):
        with pytest.raises(errors.InvalidArgumentError, match="per_page must be 1 or more"):
            await stored(client, per_page=wrong)


def test_places_datasets_and_splits(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,latitude,longitude,dataset_ids,split\nx,40.5,-74,d|e,train\ny,1,,,\n")
    first, second = from_csv(file)
    message = first()
    assert message.data.geo.geo_point.longitude == -74
    assert list(message.dataset_ids) == ["d", "e"]
    assert message.data.metadata["split"] == "train"
    with pytest.raises(errors.InvalidArgumentError, match="latitude and longitude must both"):
        second()


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"id": "a", "text": "x", "metadata": {"k": {"n": 1}}, "concepts": ["c"], "latitude": 1,'
        ' "longitude": 2}\n\nnonsense\n{"text": "y", "metadata": {"price": NaN}}\n'
        '{"text": "z", "colour": 1}\n{"text": 5}\n[]\n{"text": "q", "concepts": "c"}\n'
    )
    first, *rest = from_json(file)
    message = first()
    assert message.data.metadata.fields["k"].struct_value.fields["n"].number_value == 1
    assert [concept.id for concept in message.data.concepts] == ["c"]
    assert message.data.geo.geo_point.latitude == 1
    for make, line in zip(rest, (3, 4, 5, 6, 7, 8), strict=True):
        with pytest.raises(errors.InvalidArgumentError, match=f"rows.jsonl, line {line}: "):
            make()
    price = list(from_json(file, skip_nan=True, ignore_keys=["colour"]))
    assert "price" not in price[2]().data.metadata
    assert price[3]().data.text.raw == "z"


@pytest.mark.parametrize("place", ["1" + "0" * 400, "[1]", "{}", '"north"', "null"])
def test_a_place_that_is_no_number_is_a_failed_row(tmp_path: Path, place: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"text": "x", "latitude": {place}, "longitude": 1}}\n{{"text": "y"}}\n')
    first, second = from_json(file)
    with pytest.raises(errors.InvalidArgumentError, match=r"rows.jsonl, line 1: .*degrees"):
        first()
    assert second().data.text.raw == "y"


async def test_ids_of_json_lines(client: Both, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    ids: list[Any] = [0, 7, "", False, ["a"], 1.5]
    file.write_text("".join(json.dumps({"id": one, "text": f"of {one}"}) + "\n" for one in ids))
    report = await upload(client, file)
    assert report.added == 3
    assert report.added_ids[:2] == ["0", "7"]
    told = [one.status.description for one in report.failed_inputs]
    assert told == [
        f"{file}, line {line}: id must be a string or a whole number" for line in (4, 5, 6)
    ]


def test_links_of_a_folder(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "nested").mkdir(parents=True)
    (top / "a.txt").write_text("\ufeffa")
    (top / "nested" / "loop").symlink_to(top)
    (top / "b.txt").symlink_to(top / "a.txt")
    (top / "gone.txt").symlink_to(top / "nowhere.txt")
    make, gone = from_folder(top)
    assert make().data.text.raw == "a"
    with pytest.raises(errors.InvalidArgumentError, match=r"gone.txt: .*[Nn]o such file"):
        gone()
    (top / "gone.txt").unlink()
    (top / "itself.txt").symlink_to(top / "itself.txt")
    _, itself = from_folder(top)
    with pytest.raises(errors.InvalidArgumentError, match=r"itself.txt: .*symbolic links"):
        itself()
    (top / "itself.txt").unlink()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.txt").write_text("c")
    (top / "link").symlink_to(outside)
    (top / "again").symlink_to(outside)
    with pytest.raises(errors.InvalidArgumentError, match="leads out of the folder"):
        from_folder(top)
    found = [make() for make in from_folder(top, follow_links=True)]
    assert [one.data.text.raw for one in found] == ["a", "c"]
    (top / "up").symlink_to(tmp_path)
    (outside / "copy").symlink_to(outside / "deep" / "d.txt")
    (outside / "deep").mkdir()
    (outside / "deep" / "d.txt").write_text("d")
    found = [make() for make in from_folder(top, follow_links=True)]
    assert sorted(one.data.text.raw for one in found) == ["a", "c", "d"]


async def test_a_report_has_the_ids_that_were_added(client: Both, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("x")
    (tmp_path / "broken.png").write_bytes(b"")
    report = await upload(client, tmp_path)
    assert len(report.added_ids) == report.added == 1
    assert [one.id for one in await stored(client)] == report.added_ids
    (failed,) = report.failed_inputs
    assert failed.source == str(tmp_path / "broken.png")
    assert failed.source in str(failed)


def test_a_coco_file_gives_each_image_its_categories(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("red"))
    (tmp_path / "b.png").write_bytes(png("red"))
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": category, "bbox": [0, 0, 1, 1]} for category in (7, 8, 7)
        ],
    }
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(content))
    first, second = (make() for make in from_coco(file, tmp_path))
    assert [concept.id for concept in first.data.concepts] == ["cat", "dog"]
    assert list(second.data.concepts) == []
    assert second.data.metadata["filename"] == "b.png"
    file.write_text(json.dumps(content), encoding="utf-8-sig")
    assert len(list(from_coco(file, tmp_path))) == 2
    unnamed = {**content, "images": [{"id": 1, "file_name": None}]}
    for wrong in ("[]", json.dumps(unnamed), "[" * 100_000):
        file.write_text(wrong)
        with pytest.raises(errors.InvalidArgumentError, match="COCO"):
            from_coco(file, tmp_path)


@pytest.mark.measures
async def test_memory_does_not_grow_with_the_source(client: Both) -> None:
    """What an upload holds is bounded: of 20 MB of inputs never more than a window."""
    import tracemalloc

    filler = "x" * 10_000
    source = (text(f"{number} {filler}") for number in itertools.count())
    await upload(client, itertools.islice(source, 100))
    tracemalloc.start()
    await upload(client, itertools.islice(source, 200), batch_size=8)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    await upload(client, itertools.islice(source, 2_000), batch_size=8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The server of the test is in this process as well, and SQLite's memory is not counted.
    assert peak - before < 8_000_000
