"""Datasets, the inputs in them, versions with exports and metrics."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest

from clarigrpc import errors, query, v2
from clarigrpc._resources.downloads import fetch
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.resources.conftest import add_inputs

Format = v2.DatasetVersionExportFormat


async def test_datasets(both: Both) -> None:
    c = both.client
    made = await both.run(c.datasets.create, v2.Dataset(id="train", description="to learn from"))
    assert made.description == "to learn from"
    await both.run(c.datasets.create_many, ["test", "other"])
    assert (await both.run(c.datasets.get, "train")).id == "train"
    found = await both.collect(c.datasets.list(search="learn"))
    assert [one.id for one in found] == ["train"]
    by_id = await both.collect(c.datasets.list(sort_by_id=True, sort_ascending=True, per_page=2))
    assert [one.id for one in by_id] == ["other", "test", "train"]
    changed = await both.run(c.datasets.patch, v2.Dataset(id="test", notes="n"), action="overwrite")
    assert changed.notes == "n"
    await both.run(c.datasets.patch_many, [v2.Dataset(id="test", notes="m")], action="overwrite")
    assert (await both.run(c.datasets.get, "test")).notes == "m"
    everywhere = await both.collect(c.datasets.list(all_apps=True))
    assert len({one.app_id for one in everywhere}) >= 1
    assert len([one for one in everywhere if one.app_id == c.settings.app_id]) == 3
    await both.run(c.datasets.delete, ["train", "other"])
    assert [one.id for one in await both.collect(c.datasets.list())] == ["test"]


async def test_a_dataset_of_another_app(both: Both) -> None:
    c = both.client
    other = f"{c.settings.app_id}-too"
    await both.run(c.apps.create, other)
    there = c.datasets.within(app_id=other)
    await both.run(there.create, "d")
    assert [one.id for one in await both.collect(there.list())] == ["d"]
    assert await both.collect(c.datasets.list()) == []
    assert repr(there).endswith(f"Datasets(app_id={other!r})")


async def test_inputs_of_a_dataset(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j", "k")
    await both.run(c.datasets.create, "d")
    added = await both.run(c.datasets.inputs("d").add, ["i", "j"])
    assert [one.input.id for one in added] == ["i", "j"]
    assert (await both.run(c.datasets.inputs("d").get, "i")).input.id == "i"
    found = await both.collect(c.datasets.inputs("d").list())
    assert {one.input.id for one in found} == {"i", "j"}
    await both.run(c.datasets.inputs("d").remove, "i")
    assert len(await both.collect(c.datasets.inputs("d").list())) == 1
    search = query.search(query.is_input("k"))
    operation = await both.run(c.datasets.inputs("d").add_found, search)
    await both.run(c.bulk_operations.wait, operation)
    found = await both.collect(c.datasets.inputs("d").list())
    assert {one.input.id for one in found} == {"j", "k"}
    assert {one.id for one in await both.collect(c.inputs.list())} == {"i", "j", "k"}
    with pytest.raises(errors.InvalidArgumentError, match="dataset_id"):
        c.datasets.inputs("")


async def test_inputs_that_cannot_be_added(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j", "k")
    await both.run(c.datasets.create, "d")
    inputs = c.datasets.inputs("d")
    await both.run(inputs.add, ["i", "j"])
    duplicate = v2.StatusCode.DATASET_INPUT_DUPLICATE
    for ids, failed in (
        (["i", "j"], {0: duplicate, 1: duplicate}),
        (["i", "k", "none"], {0: duplicate, 2: v2.StatusCode.INPUT_DOES_NOT_EXIST}),
    ):
        with pytest.raises(errors.PartialFailureError, match="already in the dataset") as caught:
            await both.run(inputs.add, ids)
        assert {one.index: one.status.code for one in caught.value.failed} == failed
        assert len(caught.value.succeeded) == len(ids) - len(failed)
    with pytest.raises(errors.AlreadyExistsError, match="'i' is already in the dataset"):
        await both.run(inputs.add, "i")
    with pytest.raises(errors.NotFoundError, match="'none' does not exist"):
        await both.run(inputs.add, "none")
    found = await both.collect(inputs.list())
    assert {one.input.id for one in found} == {"i", "j", "k"}


async def test_versions(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j")
    await both.run(c.inputs.merge_concepts, "i", ["dog"])
    await both.run(c.datasets.create, "d")
    await both.run(c.datasets.inputs("d").add, ["i", "j"])
    made = await both.run(c.datasets.versions("d").create, v2.DatasetVersion(id="v"))
    assert made.id == "v"
    await both.run(c.datasets.versions("d").create_many, ["w"])
    ready = await both.run(c.datasets.versions("d").wait, ["v", "w"])
    assert {one.status.code for one in ready} == {v2.StatusCode.DATASET_VERSION_READY}
    assert (await both.run(c.datasets.versions("d").get, "v")).dataset_id == "d"
    assert len(await both.collect(c.datasets.versions("d").list())) == 2
    changed = v2.DatasetVersion(id="v", description="first")
    await both.run(c.datasets.versions("d").patch, changed, action="overwrite")
    (again,) = await both.run(c.datasets.versions("d").patch_many, [changed], action="overwrite")
    assert again.description == "first"
    groups = await both.collect(
        c.datasets.versions("d").metrics("v", types=[v2.DatasetVersionMetricsGroupType.CONCEPT_ID])
    )
    assert [one.value.string_value for one in groups] == ["dog"]
    await both.run(c.datasets.versions("d").delete, "w")
    assert [one.id for one in await both.collect(c.datasets.versions("d").list())] == ["v"]


async def exported(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i")
    await both.run(c.datasets.create, "d")
    await both.run(c.datasets.inputs("d").add, "i")
    await both.run(c.datasets.versions("d").create, "v")
    await both.run(c.datasets.versions("d").follow("v").wait)


async def test_exports(both: Both, tmp_path: Path) -> None:
    c = both.client
    await exported(both)
    with pytest.raises(errors.NotFoundError, match="coco"):
        await both.run(c.datasets.versions("d").wait_exported, "v", Format.COCO)
    exports = await both.run(c.datasets.versions("d").export, "v", Format.COCO)
    assert [one.format for one in exports] == [Format.COCO]
    done = await both.run(c.datasets.versions("d").wait_exported, "v", Format.COCO)
    followed = c.datasets.versions("d").follow_export("v", Format.COCO)
    assert await both.run(followed.wait) == done
    assert (await both.run(followed.status)).code == v2.StatusCode.DATASET_VERSION_EXPORT_SUCCESS
    file = tmp_path / "d.zip"
    file.write_bytes(b"what was there before")
    path = await both.run(c.datasets.versions("d").download, "v", Format.COCO, file)
    assert path == file
    assert file.stat().st_size == done.size
    assert zipfile.ZipFile(file).namelist()
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(errors.InvalidArgumentError, match="format"):
        await both.run(c.datasets.versions("d").export, "v")


async def test_downloads_that_fail(both: Both, tmp_path: Path) -> None:
    c = both.client
    await exported(both)
    await both.run(c.datasets.versions("d").export, "v", Format.COCO)
    with pytest.raises(OSError, match="no-such-folder"):
        await both.run(
            c.datasets.versions("d").download, "v", Format.COCO, tmp_path / "no-such-folder" / "x"
        )
    with pytest.raises(errors.DeadlineExceededError):
        await both.run(
            c.datasets.versions("d").download, "v", Format.COCO, tmp_path / "x", timeout=0.0
        )
    assert list(tmp_path.iterdir()) == []


def fetched(url: str, path: Path, *, size: int = 0, local: bool = False) -> Path:
    deadline = time.monotonic() + 10
    return fetch(url, path, size=size, deadline=deadline, local=local, method="m")


def test_what_is_fetched_and_what_is_not(service: LocalServer, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"content")
    target = tmp_path / "target.bin"
    assert fetched(source.as_uri(), target, size=7, local=True).read_bytes() == b"content"
    with pytest.raises(errors.InternalError, match="7 of 8"):
        fetched(source.as_uri(), target, size=8, local=True)
    # A service elsewhere cannot make a client copy its own files.
    with pytest.raises(errors.UnavailableError):
        fetched(source.as_uri(), target)
    with pytest.raises(errors.UnavailableError) as caught:
        fetched(f"{service.rest_base}/downloads/none.zip?signature=secret", target)
    assert "secret" not in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["source.bin", "target.bin"]
