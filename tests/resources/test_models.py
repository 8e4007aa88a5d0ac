"""The models of an app, their versions and types, evaluations."""

from __future__ import annotations

import pytest

from clarigrpc import errors, v2
from tests.both import Both

from .conftest import COLORS

Code = v2.StatusCode


async def test_models(both: Both) -> None:
    c = both.client
    made = await both.run(
        c.models.create, v2.Model(id="m", model_type_id="embedding-classifier", notes="mine")
    )
    assert (made.id, made.model_type_id) == ("m", "embedding-classifier")
    for one in ("n", "other"):
        await both.run(c.models.create, one)
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
    versions = models.versions(COLORS.id)
    assert [one.id for one in await both.collect(versions.list())] == [found.model_version.id]
    info = await both.run(
        both.client.models.within(user_id="clarifai", app_id="main").output_info, COLORS.id
    )
    assert info.message or info.ByteSize() >= 0
    concepts = await both.collect(models.versions(COLORS.id).concepts(found.model_version.id))
    assert isinstance(concepts, list)
