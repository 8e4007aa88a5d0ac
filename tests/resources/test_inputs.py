"""The verbs of inputs beside those that tests/streams has."""

from __future__ import annotations

import httpx
import pytest

from clarigrpc import errors, image, text, v2, video
from clarigrpc._rpc import statuses
from tests.both import Both
from tests.local.conftest import clip, png
from tests.resources.conftest import add_inputs, wait_deleted

Code = v2.StatusCode


async def test_add_get_change_and_delete(both: Both) -> None:
    c = both.client
    added = await both.run(c.inputs.create, [image(png("red"), id="i"), text("x", id="t")])
    assert [one.status.code for one in added] == [Code.INPUT_PENDING] * 2
    done = await both.run(c.inputs.wait, added)
    assert [one.status.code for one in done] == [Code.INPUT_SUCCESS] * 2
    assert (await both.run(c.inputs.get, "t")).data.text.raw == "x"
    assert (await both.run(c.inputs.status)).processed == 2
    changed = await both.run(c.inputs.merge_concepts, "i", {"tree": 1, "water": 0})
    assert {one.id: one.value for one in changed.data.concepts} == {"tree": 1.0, "water": 0.0}
    changed = await both.run(c.inputs.remove_concepts, "i", ["tree"])
    assert [one.id for one in changed.data.concepts] == ["water"]
    patch = v2.Input(id="i", data=v2.Data(concepts=[v2.Concept(id="sky", value=1)]))
    (changed,) = await both.run(c.inputs.overwrite, patch)
    assert [one.id for one in changed.data.concepts] == ["sky"]
    (changed,) = await both.run(c.inputs.patch, patch, action="remove")
    assert not changed.data.concepts
    await both.run(c.inputs.delete, "i")
    await both.run(c.inputs.delete, ["t"])
    await wait_deleted(both, "i")
    with pytest.raises(errors.NotFoundError):
        await both.run(c.inputs.wait, "i")


async def test_concepts_of_many(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j")
    changed = await both.run(c.inputs.merge_concepts_many, {"i": {"tree": 1}, "j": ["sky", "sea"]})
    assert [[one.id for one in item.data.concepts] for item in changed] == [
        ["tree"],
        ["sky", "sea"],
    ]
    changed = await both.run(c.inputs.remove_concepts_many, {"j": ["sea"]})
    assert [[one.id for one in item.data.concepts] for item in changed] == [["sky"]]
    with pytest.raises(errors.PartialFailureError):
        await both.run(c.inputs.merge_concepts_many, {"i": ["a"], "gone": ["b"]})
    with pytest.raises(errors.NotFoundError):
        await both.run(c.inputs.merge_concepts, "gone", ["b"])


async def test_filters_of_lists(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j", "k")
    listed = await both.collect(c.inputs.list(ids=["i", "k"]))
    assert {one.id for one in listed} == {"i", "k"}
    assert await both.collect(c.inputs.list(status=v2.Status(code=Code.INPUT_FAILED))) == []
    assert len(await both.collect(c.inputs.stream(per_page=2))) == 3
    with pytest.raises(TypeError, match="ListInputs has no field client_kind"):
        await both.collect(c.inputs.list(client_kind="red"))
    assert await both.run(c.inputs.delete_all) == 3


async def test_failures_are_reported_item_by_item(both: Both) -> None:
    c = both.client
    await both.run(c.inputs.create, [image(png("red"), id="good"), image(b"no image", id="bad")])
    with pytest.raises(errors.PartialFailureError) as caught:
        await both.run(c.inputs.wait, ["good", "bad", "gone"])
    assert [one.index for one in caught.value.failed] == [1, 2]
    assert caught.value.failed[1].status.code == Code.INPUT_DOES_NOT_EXIST
    found = await both.run(c.inputs.wait, ["good", "bad"], raise_on_partial=False)
    assert found[0].status.code == Code.INPUT_SUCCESS
    assert found[1].status.code not in statuses.PASSING
    with pytest.raises(errors.ApiError) as single:
        await both.run(c.inputs.wait, "bad")
    assert single.value.code == found[1].status.code


async def test_video_manifests(both: Both) -> None:
    c = both.client
    await both.run(c.inputs.create, video(clip(frames=3), id="v"))
    await both.run(c.inputs.wait, "v")
    url = await both.run(c.inputs.video_manifest, "v")
    assert httpx.get(url).text.startswith("#EXTM3U")
    await add_inputs(both, "i")
    with pytest.raises(errors.InvalidArgumentError):
        await both.run(c.inputs.video_manifest, "i")


async def test_an_upload_of_many(both: Both) -> None:
    c = both.client
    report = await both.run(
        c.inputs.upload, (text(f"t{number}", id=f"t{number}") for number in range(9)), batch_size=4
    )
    assert (report.added, report.failed_inputs) == (9, [])


async def test_an_error_says_which_items_failed(both: Both) -> None:
    create = both.client.inputs.create
    await both.run(create, text("a", id="a"))
    with pytest.raises(errors.AlreadyExistsError) as alone:
        await both.run(create, text("b", id="a"))
    with pytest.raises(errors.ApiError) as every:
        await both.run(create, [text("b", id="a"), v2.Input(id="empty")])
    with pytest.raises(errors.NotFoundError) as whole:
        await both.run(both.client.inputs.get, "nobody")
    duplicate, invalid = v2.StatusCode.INPUT_DUPLICATE, v2.StatusCode.INPUT_INVALID_ARGUMENT
    assert [(index, status.code) for index, status in alone.value.failed] == [(0, duplicate)]
    assert [(index, status.code) for index, status in every.value.failed] == [
        (0, duplicate),
        (1, invalid),
    ]
    assert whole.value.failed in ((), [])
