"""Models: patched apart from their versions."""

from __future__ import annotations

import pytest

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import PUBLIC, Raw, ok

Code = v2.StatusCode


def test_models_are_patched_at_their_own_level(raw: Raw) -> None:
    ok(raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m", model_type_id="t")])))
    patch = v2.PatchModelsRequest(action="overwrite", models=[v2.Model(id="m", notes="n")])
    assert ok(raw("PatchModels", patch)).models[0].notes == "n"
    patch.models[0].model_version.description = "x"
    assert raw("PatchModels", patch).status.code == Code.MODEL_INVALID_ARGUMENT
    tags = v2.PatchModelLanguagesRequest(model_id="m", languages=["en", "de"], action="merge")
    assert ok(raw("PatchModelLanguages", tags)).languages == ["en", "de"]
    tags.action = "remove"
    del tags.languages[1]
    assert ok(raw("PatchModelLanguages", tags)).languages == ["de"]
    search = v2.PostModelsSearchesRequest(model_query=v2.ModelQuery(model_type_id="t"))
    assert [m.id for m in ok(raw("PostModelsSearches", search)).models] == ["m"]
    ok(raw("DeleteModel", v2.DeleteModelRequest(model_id="m")))
    assert (
        raw("GetModel", v2.GetModelRequest(model_id="m")).status.code == Code.MODEL_DOES_NOT_EXIST
    )
    concepts = v2.ListModelConceptsRequest(
        user_app_id=PUBLIC, model_id="color-recognition", search="dark"
    )
    assert all("Dark" in c.name for c in ok(raw("ListModelConcepts", concepts)).concepts)


@pytest.mark.parametrize("model_type", ["multimodal-to-text", "embedding-classifier"])
def test_a_version_that_a_runner_serves_needs_no_upload(raw: Raw, model_type: str) -> None:
    # The published SDK makes such a version for a model that runs on the developer's machine.
    model = v2.Model(id="dev", model_type_id=model_type)
    ok(raw("PostModels", v2.PostModelsRequest(models=[model])))
    request = v2.PostModelVersionsRequest(model_id="dev")
    request.model_versions.add().pretrained_model_config.local_dev = True
    made = ok(raw("PostModelVersions", request)).model.model_version
    get = v2.GetModelVersionRequest(model_id="dev", version_id=made.id)
    version = ok(raw("GetModelVersion", get)).model_version
    assert version.pretrained_model_config.local_dev
    assert version.status.code == v2.StatusCode.MODEL_TRAINED
