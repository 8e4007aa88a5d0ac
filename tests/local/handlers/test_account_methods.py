"""Users, apps, keys and collaborators: what keys may do, who shares an app, passwords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clarigrpc import v2
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, message, ok
from tests.local.library import library as library

Code = v2.StatusCode


def key(raw: Raw, **fields: Any) -> v2.Key:
    request = v2.PostKeysRequest(keys=[message(v2.Key, **fields)])
    made: v2.Key = ok(raw("PostKeys", request)).keys[0]
    return made


def test_keys_do_what_their_scopes_say(raw: Raw) -> None:
    app = {"id": raw.server.app_id}
    scopes = ["Inputs:Get", "Annotations_Get", "Concepts_Get", "Apps_Get"]
    made = key(raw, scopes=scopes, apps=[app])
    assert made.scopes[0] == "Inputs_Get"
    reader = raw.with_key(made.id)
    ok(reader("ListInputs", v2.ListInputsRequest()))
    request = v2.PostInputsRequest()
    request.inputs.add().data.text.raw = "x"
    assert reader("PostInputs", request).status.code == Code.CONN_INSUFFICIENT_SCOPES
    mine = ok(reader("MyScopes", v2.MyScopesRequest()))
    assert sorted(mine.scopes) == sorted(made.scopes)
    assert mine.app.id == raw.server.app_id
    change = v2.PatchKeysRequest(keys=[v2.Key(id=made.id, scopes=["All"])], action="merge")
    ok(raw("PatchKeys", change))
    ok(reader("PostInputs", request))
    ok(raw("DeleteKey", v2.DeleteKeyRequest(key_id=made.id)))
    assert reader("ListInputs", v2.ListInputsRequest()).status.code == Code.CONN_KEY_INVALID


def test_endpoints_and_expiry_of_keys(raw: Raw) -> None:
    app = {"id": raw.server.app_id}
    one = key(raw, endpoints=["/clarifai.api.V2/GetInputCount"], apps=[app])
    caller = raw.with_key(one.id)
    ok(caller("GetInputCount", v2.GetInputCountRequest()))
    refused = caller("ListInputs", v2.ListInputsRequest())
    assert refused.status.code == Code.CONN_INSUFFICIENT_SCOPES
    past = key(raw, scopes=["All"], apps=[app], expires_at="2020-01-01T00:00:00Z")
    expired = raw.with_key(past.id)
    assert expired("ListInputs", v2.ListInputsRequest()).status.code == Code.CONN_KEY_INVALID
    listed = ok(raw("ListKeys", v2.ListKeysRequest(not_expired=True))).keys
    assert past.id not in {found.id for found in listed}
    assert {raw.server.pat, raw.server.api_key} <= {found.id for found in listed}


@pytest.mark.parametrize(
    "fields",
    [
        {"scopes": ["Nonsense"], "apps": [{"id": "local-app"}]},
        {"scopes": ["Inputs_Add"], "apps": [{"id": "local-app"}]},
        {"scopes": ["All"]},
        {"scopes": ["All"], "type": "other"},
        {"apps": [{"id": "local-app"}]},
    ],
)
def test_keys_that_cannot_be(raw: Raw, fields: dict[str, Any]) -> None:
    request = v2.PostKeysRequest(keys=[message(v2.Key, **fields)])
    assert raw("PostKeys", request).status.code == Code.CONN_INVALID_REQUEST


def test_collaborators(serve: Callable[..., Raw]) -> None:
    users = [
        {"id": "a", "apps": [{"id": "shared"}]},
        {"id": "b", "primary_email": "b@c", "pat": "b-pat"},
    ]
    raw = serve(config={"users": users})
    other = raw.with_key("b-pat")
    there = v2.UserAppIDSet(user_id="a", app_id="shared")
    listing = v2.ListDatasetsRequest(user_app_id=there)
    assert other("ListDatasets", listing).status.code == Code.CONN_DOES_NOT_EXIST
    request = v2.PostCollaboratorsRequest()
    entry = request.collaborators.add(scopes=["Apps_Get", "Datasets_Get", "SavedSearch_Get"])
    entry.user.primary_email = "b@c"
    made = ok(raw("PostCollaborators", request)).collaborators[0]
    assert (made.user.id, made.app.id) == ("b", "shared")
    ok(other("ListDatasets", listing))
    shared = ok(other("ListCollaborations", v2.ListCollaborationsRequest())).collaborations
    assert [(c.app.id, c.app_owner.id) for c in shared] == [("shared", "a")]
    write = v2.PostDatasetsRequest(user_app_id=there, datasets=[v2.Dataset(id="d")])
    assert other("PostDatasets", write).status.code == Code.CONN_INSUFFICIENT_SCOPES
    ok(raw("DeleteCollaborators", v2.DeleteCollaboratorsRequest(user_emails=["b@c"])))
    assert other("ListDatasets", listing).status.code == Code.CONN_DOES_NOT_EXIST


def test_apps_rename_and_delete(raw: Raw) -> None:
    ok(raw("PostApps", v2.PostAppsRequest(apps=[v2.App(id="one")])))
    one, two = (v2.UserAppIDSet(user_id="me", app_id=name) for name in ("one", "two"))
    ok(raw("PostDatasets", v2.PostDatasetsRequest(user_app_id=one, datasets=[v2.Dataset(id="d")])))
    request = v2.PostInputsRequest(user_app_id=one)
    request.inputs.add(id="i", dataset_ids=["d"]).data.text.raw = "x"
    ok(raw("PostInputs", request))
    ids = v2.PatchAppsIdsRequest(action="overwrite")
    ids.ids.add(id="one", new_id="two")
    assert ok(raw("PatchAppsIds", ids)).apps[0].id == "two"
    dataset = ok(raw("GetDataset", v2.GetDatasetRequest(user_app_id=two, dataset_id="d"))).dataset
    assert dataset.app_id == "two"
    missing = raw("GetDataset", v2.GetDatasetRequest(user_app_id=one, dataset_id="d"))
    assert missing.status.code == Code.CONN_DOES_NOT_EXIST
    ok(raw("DeleteApp", v2.DeleteAppRequest(user_app_id=two)))
    ok(raw("PostApps", v2.PostAppsRequest(apps=[v2.App(id="two")])))
    assert not ok(raw("ListInputs", v2.ListInputsRequest(user_app_id=two))).inputs


def test_passwords(raw: Raw) -> None:
    request = v2.PostValidatePasswordRequest()
    request.password.plaintext = "short"
    response = raw("PostValidatePassword", request)
    assert response.status.code == Code.PASSWORD_VALIDATION_FAILED
    assert response.password_violations.minimum_length
    request.password.plaintext = "Long-enough-4-all"
    assert not ok(raw("PostValidatePassword", request)).HasField("password_violations")


def test_counts_of_an_app(library: Raw) -> None:
    counts = ok(library("GetResourceCounts", v2.GetResourceCountsRequest()))
    assert (counts.inputs, counts.datasets, counts.workflows) == (3, 0, 0)


def test_an_app_that_keeps_its_id_keeps_what_is_in_it(raw: Raw) -> None:
    raw("PostApps", v2.PostAppsRequest(apps=[v2.App(id="shop")]))
    ids = v2.UserAppIDSet(user_id="me", app_id="shop")
    raw("PostConcepts", v2.PostConceptsRequest(user_app_id=ids, concepts=[v2.Concept(id="cat")]))
    change = v2.PatchAppsIdsRequest(action="overwrite")
    change.ids.add(id="shop", new_id="shop")
    raw("PatchAppsIds", change)
    listed = raw("ListConcepts", v2.ListConceptsRequest(user_app_id=ids))
    assert [concept.id for concept in listed.concepts] == ["cat"]
