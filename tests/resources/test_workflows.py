"""Workflows, their versions, and what they predict."""

from __future__ import annotations

import pytest

from clarigrpc import errors, image, v2
from clarigrpc.types import WorkflowBatch, WorkflowSuccess
from tests.both import Both
from tests.local.conftest import png


def nodes(model_id: str) -> list[dict[str, object]]:
    model = {"id": model_id, "user_id": "clarifai", "app_id": "main"}
    return [{"id": "n", "model": model}]


NODES = nodes("color-recognition")
EMBEDDING = nodes("image-embedding")


async def test_workflows(both: Both) -> None:
    c = both.client
    made = await both.run(c.workflows.create, {"id": "w", "nodes": NODES, "description": "colours"})
    assert (made.id, [node.id for node in made.nodes]) == ("w", ["n"])
    await both.run(c.workflows.create_many, [{"id": "x", "nodes": NODES}])
    assert (await both.run(c.workflows.get, "w")).description == "colours"
    assert [one.id for one in await both.collect(c.workflows.list(search="colours"))] == ["w"]
    assert len(await both.collect(c.workflows.list(all_apps=True))) >= 2
    changed = await both.run(c.workflows.patch, {"id": "w", "notes": "n"}, action="overwrite")
    assert changed.notes == "n"
    await both.run(c.workflows.patch_many, [{"id": "x", "notes": "m"}], action="overwrite")
    assert (await both.run(c.workflows.rename, "x", "y")).id == "y"
    await both.run(c.workflows.delete, "y")
    assert [one.id for one in await both.collect(c.workflows.list())] == ["w"]
    with pytest.raises(errors.InvalidArgumentError):
        await both.run(c.workflows.create, {"id": "z", "knots": []})


async def test_versions(both: Both) -> None:
    c = both.client
    await both.run(c.workflows.create, {"id": "w", "nodes": NODES})
    await both.run(c.workflows.patch, {"id": "w", "nodes": EMBEDDING}, action="overwrite")
    newest, first = await both.collect(c.workflows.versions("w").list())
    assert newest.nodes[0].model.id == "image-embedding"
    assert (await both.run(c.workflows.versions("w").get, first.id)).nodes[
        0
    ].model.id == "color-recognition"
    changed = v2.WorkflowVersion(id=first.id, description="old")
    patched = await both.run(c.workflows.versions("w").patch, changed, action="overwrite")
    assert patched.description == "old"
    await both.run(c.workflows.versions("w").patch_many, [changed], action="overwrite")
    await both.run(c.workflows.versions("w").publish, first.id)
    public = await both.run(c.workflows.versions("w").get, first.id)
    assert public.visibility.gettable == v2.Visibility.PUBLIC
    await both.run(c.workflows.versions("w").unpublish, [first.id])
    private = await both.run(c.workflows.versions("w").get, first.id)
    assert private.visibility.gettable != v2.Visibility.PUBLIC
    await both.run(c.workflows.versions("w").delete, first.id)
    assert [one.id for one in await both.collect(c.workflows.versions("w").list())] == [newest.id]


async def test_evaluations_as_they_are_kept(both: Both) -> None:
    c = both.client
    made = await both.run(c.workflows.create, {"id": "w", "nodes": NODES})
    version = made.version.id
    wanted = v2.WorkflowVersionEvaluation(id="e", target_node_id="n")
    wanted.status.code = v2.StatusCode.EVALUATION_SUCCESS  # who evaluates says how it went
    there = c.workflows.versions("w").evaluations
    assert (await both.run(there(version).create, wanted)).target_node_id == "n"
    await both.run(c.workflows.versions("w").evaluations(version).create, "f")
    await both.run(c.workflows.versions("w").evaluations(version).create_many, ["g"])
    (ended,) = await both.run(c.workflows.versions("w").evaluations(version).wait, "e")
    assert ended.id == "e"
    followed = c.workflows.versions("w").evaluations(version).follow("e")
    assert await both.run(followed.wait) == ended
    assert (await both.run(c.workflows.versions("w").evaluations(version).get, "f")).id == "f"
    wanted.id = "f"
    await both.run(c.workflows.versions("w").evaluations(version).patch, wanted, action="overwrite")
    await both.run(
        c.workflows.versions("w").evaluations(version).patch_many, [wanted], action="overwrite"
    )
    listed = await both.collect(c.workflows.versions("w").evaluations(version).list())
    assert {one.id for one in listed} == {"e", "f", "g"}
    data = v2.WorkflowVersionEvaluationData(id="1")
    made = await both.run(c.workflows.versions("w").evaluations(version).data("e").create, data)
    assert made.id == "1"
    await both.run(c.workflows.versions("w").evaluations(version).data("e").create_many, ["2"])
    found = await both.collect(c.workflows.versions("w").evaluations(version).data("e").list())
    assert {one.id for one in found} == {"1", "2"}


async def test_results(both: Both) -> None:
    c = both.client
    await both.run(c.workflows.create, {"id": "w", "nodes": NODES})
    result = await both.run(c.workflows.predict, "w", image(png("red")))
    assert result.outputs[0].data.colors[0].w3c.name == "Red"
    pictures = [png("red"), b"no image", png("blue"), "a string"]
    results = await both.collect(c.workflows.predict_many("w", pictures))
    assert [one.index for one in results] == [0, 1, 2, 3]
    assert [type(one.error) for one in results if one.error] == [
        errors.InvalidArgumentError,
        TypeError,
    ]
    colors = [one.output.outputs[0].data.colors[0] for one in results if one.error is None]
    assert [color.w3c.name for color in colors] == ["Red", "Blue"]
    assert isinstance(results[0], WorkflowSuccess)
    (batch,) = await both.collect(c.workflows.predict_batches("w", pictures[:1] * 5, batch_size=5))
    assert isinstance(batch, WorkflowBatch)
    assert [*batch.indexes] == [0, 1, 2, 3, 4]
    assert {one.outputs[0].data.colors[0].w3c.name for one in batch.outputs} == {"Red"}
    (failed,) = await both.collect(c.workflows.predict_many("no-such-workflow", [png("red")]))
    assert isinstance(failed.error, errors.NotFoundError)
    assert await both.collect(c.workflows.predict_many("w", [])) == []
    with pytest.raises(errors.ApiError):
        await both.run(c.workflows.predict, "w", b"no image")
    with pytest.raises(errors.NotFoundError):
        await both.run(c.workflows.predict, "no-such-workflow", png("red"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_similarity(both: Both) -> None:
    c = both.client
    await both.run(c.workflows.create, {"id": "w", "nodes": EMBEDDING})
    (found,) = await both.run(
        c.workflows.similarity,
        "w",
        [image(png("red"), id="probe")],
        [image(png("blue"), id="blue"), image(png("#f00808"), id="reddish")],
    )
    assert found.probe_input.id == "probe"
    assert [hit.input.id for hit in found.pool_results] == ["reddish", "blue"]
    assert found.pool_results[0].score > found.pool_results[1].score
