"""The models of an app, their versions and types, evaluations."""

from __future__ import annotations

import pytest

from clarigrpc import errors, v2
from tests.both import Both
from tests.local.conftest import png
from tests.resources.conftest import COLORS, add_inputs

Code = v2.StatusCode


async def test_models(both: Both) -> None:
    c = both.client
    made = await both.run(
        c.models.create, v2.Model(id="m", model_type_id="embedding-classifier", notes="mine")
    )
    assert (made.id, made.model_type_id) == ("m", "embedding-classifier")
    for one in ("n", "other"):
        await both.run(c.models.create, v2.Model(id=one, model_type_id="any-to-any"))
    assert (await both.run(c.models.get, "m")).notes == "mine"
    found = await both.collect(c.models.list(model_type_id="embedding-classifier"))
    assert [one.id for one in found] == ["m"]
    assert [one.id for one in await both.collect(c.models.search("oth*"))] == ["other"]
    assert c.settings.app_id in {
        one.app_id for one in await both.collect(c.models.list(all_apps=True))
    }
    patched = await both.run(c.models.patch, v2.Model(id="m", notes="new"), action="overwrite")
    assert patched.notes == "new"
    await both.run(c.models.patch_many, [v2.Model(id="n", notes="x")], action="overwrite")
    assert (await both.run(c.models.rename, "n", "renamed")).id == "renamed"
    assert await both.run(c.models.patch_languages, "m", ["en", "de"]) == ["en", "de"]
    assert await both.run(c.models.patch_toolkits, "m", ["t"]) == ["t"]
    assert await both.run(c.models.patch_use_cases, "m", ["u"]) == ["u"]
    assert await both.run(c.models.patch_check_consents, "m", ["c"]) == ["c"]
    assert await both.run(c.models.patch_languages, "m", ["de"], action="remove") == ["en"]
    assert "Apache-2.0" in await both.run(c.models.licenses)
    assert await both.collect(c.models.references("m")) == []
    await both.run(c.models.delete, ["m", "renamed"])
    assert [one.id for one in await both.collect(c.models.list())] == ["other"]
    with pytest.raises(errors.NotFoundError):
        await both.run(c.models.get, "m")


async def test_types(both: Both) -> None:
    c = both.client
    types = {one.id for one in await both.collect(c.models.types.list())}
    assert "visual-classifier" in types
    assert (await both.run(c.models.types.get, "visual-classifier")).id == "visual-classifier"


async def test_a_public_model(both: Both) -> None:
    models = both.client.models.within(user_id="clarifai", app_id="main")
    found = await both.run(models.get, COLORS.id)
    assert found.model_version.status.code == Code.MODEL_TRAINED
    named = await both.run(models.get, COLORS.id, version_id=found.model_version.id)
    assert named.model_version.id == found.model_version.id


async def labelled(both: Both) -> None:
    """Red and blue images, which say so."""
    c = both.client
    for color in ("red", "blue"):
        ids = [f"{color}{number}" for number in range(4)]
        await add_inputs(both, *ids, color=color)
        await both.run(
            c.inputs.patch,
            [
                v2.Input(id=one, data=v2.Data(concepts=[v2.Concept(id=color, value=1)]))
                for one in ids
            ],
        )


async def test_training(both: Both) -> None:
    c = both.client
    await labelled(both)
    await both.run(c.models.create, v2.Model(id="m", model_type_id="visual-classifier"))
    made = await both.run(c.models.versions("m").create, description="first")
    trained = await both.run(c.models.wait_trained, "m", made.id)
    assert (trained.status.code, trained.total_input_count) == (Code.MODEL_TRAINED, 8)
    assert (await both.run(c.models.wait_trained, "m")).id == made.id
    info = await both.run(c.models.output_info, "m")
    assert {one.id for one in info.data.concepts} == {"red", "blue"}
    output = await both.run(c.model("m").predict, png("#e00000"))
    assert output.data.concepts[0].id == "red"
    concepts = await both.collect(c.models.versions("m").concepts(made.id, search="re"))
    assert [one.id for one in concepts] == ["red"]


async def test_trainings_that_fail(both: Both) -> None:
    c = both.client
    await both.run(c.models.create, v2.Model(id="m", model_type_id="visual-classifier"))
    made = await both.run(c.models.versions("m").create, v2.ModelVersion())
    with pytest.raises(errors.ApiError) as caught:
        await both.run(c.models.wait_trained, "m", made.id)
    assert caught.value.code == Code.MODEL_TRAINING_NO_DATA
    with pytest.raises(errors.NotFoundError):
        await both.run(c.models.wait_trained, "no-such-model")


async def test_versions(both: Both) -> None:
    c = both.client
    await labelled(both)
    await both.run(c.models.create, v2.Model(id="m", model_type_id="visual-classifier"))
    first = await both.run(c.models.versions("m").create)
    second = await both.run(c.models.versions("m").create)
    await both.run(c.models.wait_trained, "m", second.id)
    await both.run(c.models.wait_trained, "m", first.id)
    found = await both.collect(c.models.versions("m").list(trained_only=True))
    assert [one.id for one in found] == [second.id, first.id]
    assert [one.id for one in await both.collect(c.model("m").versions())] == [second.id, first.id]
    assert (await both.run(c.models.versions("m").get, first.id)).id == first.id
    changed = v2.ModelVersion(id=first.id, description="old")
    patched = await both.run(c.models.versions("m").patch, changed, action="overwrite")
    assert patched.description == "old"
    await both.run(c.models.versions("m").patch_many, [changed], action="overwrite")
    await both.run(c.models.versions("m").publish, first.id)
    public = await both.run(c.models.versions("m").get, first.id)
    assert public.visibility.gettable == v2.Visibility.PUBLIC
    await both.run(c.models.versions("m").unpublish, [first.id])
    assert await both.collect(c.models.versions("m").input_examples(first.id).list()) == []
    with pytest.raises(errors.NotFoundError):
        await both.run(c.models.versions("m").input_examples(first.id).get, "no-such-example")
    with pytest.raises(errors.NotFoundError):
        await both.run(c.models.versions("m").get_export, first.id)
    export = await both.run(c.models.versions("m").export, first.id)
    assert export.status.code == Code.MODEL_EXPORT_PENDING
    assert (await both.run(c.models.versions("m").get_export, first.id)).status.code in (
        Code.MODEL_EXPORT_PENDING,
        Code.MODEL_EXPORTED,
    )
    exporting = c.models.versions("m").follow_export(first.id)
    exported = await both.run(exporting.wait)
    assert (exported.status.code, exported.size > 0) == (Code.MODEL_EXPORTED, True)
    with pytest.raises(errors.UnimplementedError, match="cancel the export of version"):
        await both.run(exporting.cancel)
    await both.run(c.models.versions("m").delete, first.id)
    assert [one.id for one in await both.collect(c.models.versions("m").list())] == [second.id]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_inputs_of_a_version(both: Both) -> None:
    c = both.client
    await labelled(both)
    await both.run(c.models.create, v2.Model(id="m", model_type_id="visual-classifier"))
    made = await both.run(c.models.versions("m").create)
    await both.run(c.models.wait_trained, "m", made.id)
    assert len(await both.collect(c.models.versions("m").inputs(made.id, per_page=3))) == 8


async def test_evaluations(both: Both) -> None:
    c = both.client
    await labelled(both)
    await both.run(c.datasets.create, "d")
    every = [one.id for one in await both.collect(c.inputs.list())]
    await both.run(c.datasets.inputs("d").add, every)
    await both.run(c.datasets.versions("d").create, "v")
    await both.run(c.datasets.versions("d").wait, "v")
    truth = v2.Dataset(id="d", version=v2.DatasetVersion(id="v"))
    wanted = v2.EvalMetrics(id="e", model=COLORS, ground_truth_dataset=truth)
    started = await both.run(c.evaluations.create, wanted)
    (ended,) = await both.run(c.evaluations.wait, started)
    assert ended.status.code == Code.MODEL_EVALUATED
    assert await both.run(c.evaluations.follow(started).wait) == ended
    assert ended.summary.macro_avg_recall == 1.0
    plain = await both.run(c.evaluations.get, "e")
    assert not plain.binary_metrics
    full = await both.run(c.evaluations.get, "e", "binary_metrics", "confusion_matrix")
    assert {one.concept.id for one in full.binary_metrics} == {"red", "blue"}
    wanted.id = "f"
    await both.run(c.evaluations.create_many, [wanted])
    await both.run(c.evaluations.wait, ["e", "f"])
    found = await both.collect(c.evaluations.list(eval_dataset_ids=["d"]))
    assert {one.id for one in found} == {"e", "f"}
    assert await both.collect(c.evaluations.list(concept_ids=["green"])) == []
    with pytest.raises(TypeError, match="summary"):
        await both.run(c.evaluations.get, "e", "summary")
    with pytest.raises(errors.NotFoundError):
        await both.run(c.evaluations.wait, "no-such-evaluation")


async def test_evaluations_of_a_version(both: Both) -> None:
    c = both.client
    await labelled(both)
    await both.run(c.datasets.create, "d")
    every = [one.id for one in await both.collect(c.inputs.list())]
    await both.run(c.datasets.inputs("d").add, every)
    await both.run(c.datasets.versions("d").create, "v")
    await both.run(c.datasets.versions("d").wait, "v")
    await both.run(c.models.create, v2.Model(id="m", model_type_id="visual-classifier"))
    version = await both.run(c.models.versions("m").create)
    await both.run(c.models.wait_trained, "m", version.id)
    wanted = v2.EvalMetrics(id="e", ground_truth_dataset=v2.Dataset(id="d"))
    made = await both.run(c.models.versions("m").evaluations(version.id).create, wanted)
    (ended,) = await both.run(c.models.versions("m").evaluations(version.id).wait, made)
    assert ended.summary.macro_avg_precision == 1.0
    followed = c.models.versions("m").evaluations(version.id).follow("e")
    assert await both.run(followed.wait) == ended
    wanted.id = "f"
    await both.run(c.models.versions("m").evaluations(version.id).create_many, [wanted])
    found = await both.run(c.models.versions("m").evaluations(version.id).get, "e", "label_counts")
    assert found.id == "e"
    listed = await both.collect(c.models.versions("m").evaluations(version.id).list())
    assert {one.id for one in listed} == {"e", "f"}


async def test_a_misspelt_type_is_refused(both: Both) -> None:
    models = both.client.models
    with pytest.raises(errors.InvalidArgumentError, match="did you mean 'visual-classifier'"):
        await both.run(models.create, {"id": "m", "model_type_id": "visual-classifer"})
    with pytest.raises(errors.NotFoundError):
        await both.run(models.get, "m")
    # What is like none of them may be a type that is not listed.
    await both.run(models.create, {"id": "m", "model_type_id": "something-new"})
    assert (await both.run(models.get, "m")).model_type_id == "something-new"
