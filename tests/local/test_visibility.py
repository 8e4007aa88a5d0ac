"""What strangers see of an app that is open to all: its public resources, and no private ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import v2
from clarigrpc.local import LocalServer
from tests.local.conftest import Raw, message, ok, png, predict_request
from tests.local.handlers.test_bulk_operations import duplicated

Code = v2.StatusCode

CONFIG = {
    "users": [
        {
            "id": "alice",
            "pat": "alice-secret",
            "apps": [{"id": "open", "visibility": {"gettable": "PUBLIC"}}],
        },
        {"id": "bob", "pat": "bob-secret", "apps": [{"id": "his"}]},
        {"id": "carol", "pat": "carol-secret", "apps": [{"id": "hers"}]},
    ]
}
OPEN = v2.UserAppIDSet(user_id="alice", app_id="open")
NODE = {"id": "n", "model": {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"}}
# Name of the kind -> its list in requests and responses, and what its resources need.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Concept": ("concepts", {}),
    "Dataset": ("datasets", {}),
    "Model": ("models", {"model_type_id": "any-to-any"}),
    "Pipeline": ("pipelines", {}),
    "PipelineStep": ("pipeline_steps", {}),
    "Workflow": ("workflows", {"nodes": [NODE]}),
}
VISIBILITIES = ("PUBLIC", "PRIVATE", "")


def own(value: bytes) -> bytes:
    """A private model of alice's."""
    return value


@pytest.fixture(scope="module")
def alice() -> Iterator[Raw]:
    with (
        LocalServer(config=CONFIG, models={"own": own}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw = Raw(server, v2.V2Stub(channel)).with_key("alice-secret")
        for kind, (plural, fields) in KINDS.items():
            for visibility in VISIBILITIES:
                item = {**fields, "id": f"its-{visibility.lower() or 'default'}"}
                if visibility:
                    item["visibility"] = {"gettable": visibility}
                cls = getattr(v2, f"Post{kind}sRequest")
                ok(raw(f"Post{kind}s", message(cls, **{plural: [item]})))
        collaborator = v2.Collaborator(user=v2.User(id="carol"), app=v2.App(id="open"))
        collaborator.scopes[:] = ["All"]
        ok(raw("PostCollaborators", v2.PostCollaboratorsRequest(collaborators=[collaborator])))
        yield raw


def get(raw: Raw, kind: str, name: str) -> Any:
    request = getattr(v2, f"Get{kind}Request")(user_app_id=OPEN)
    field = next(f.name for f in request.DESCRIPTOR.fields if f.name.endswith(f"{_id(kind)}"))
    setattr(request, field, name)
    return raw(f"Get{kind}", request)


def _id(kind: str) -> str:
    return f"{kind.removeprefix('Pipeline').lower() or 'pipeline'}_id"


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_see_what_is_public(alice: Raw, kind: str) -> None:
    plural, _ = KINDS[kind]
    everything = {"its-public", "its-private", "its-default"}
    for secret, visible in (
        ("alice-secret", everything),
        ("carol-secret", everything),
        ("bob-secret", {"its-public"}),
    ):
        raw = alice.with_key(secret)
        listed = ok(raw(f"List{kind}s", getattr(v2, f"List{kind}sRequest")(user_app_id=OPEN)))
        assert {item.id for item in getattr(listed, plural)} - {"own"} == visible, secret
        first = getattr(v2, f"List{kind}sRequest")(user_app_id=OPEN, page=1, per_page=1)
        assert len(getattr(ok(raw(f"List{kind}s", first)), plural)) == 1
        for name in everything:
            assert (get(raw, kind, name).status.code == Code.SUCCESS) == (name in visible), secret
    hidden = get(alice.with_key("bob-secret"), kind, "its-private").status
    absent = get(alice.with_key("bob-secret"), kind, "its-absent").status
    assert hidden.code == absent.code
    assert hidden.details == absent.details.replace("absent", "private")


def test_strangers_predict_with_what_is_public(alice: Raw) -> None:
    bob = alice.with_key("bob-secret")
    request = predict_request(png("red"))
    request.user_app_id.CopyFrom(OPEN)
    request.model_id = "own"
    assert bob("PostModelOutputs", request).status.code == Code.MODEL_DOES_NOT_EXIST
    listed = ok(bob("ListModels", v2.ListModelsRequest(user_app_id=OPEN))).models
    assert "own" not in {model.id for model in listed}
    by_user = v2.ListModelsRequest(user_app_id=v2.UserAppIDSet(user_id="alice"))
    assert {model.id for model in ok(bob("ListModels", by_user)).models} == {"its-public"}
    for name, code in (("public", Code.SUCCESS), ("private", Code.WORKFLOW_DOES_NOT_EXIST)):
        run = v2.PostWorkflowResultsRequest(user_app_id=OPEN, workflow_id=f"its-{name}")
        run.inputs.add().data.image.base64 = png("red")
        assert bob("PostWorkflowResults", run).status.code == code
    counts = ok(bob("GetResourceCounts", v2.GetResourceCountsRequest(user_app_id=OPEN)))
    assert (counts.datasets, counts.models, counts.workflows, counts.pipelines) == (1, 1, 1, 1)


def test_what_lies_below(alice: Raw) -> None:
    """A version is seen where it and what it is a version of are."""
    bob = alice.with_key("bob-secret")
    for dataset in ("its-public", "its-private"):
        for name, visibility in (("seen", v2.Visibility.PUBLIC), ("unseen", 0)):
            made = v2.DatasetVersion(id=name)
            if visibility:
                made.visibility.gettable = v2.Visibility.PUBLIC
            request = v2.PostDatasetVersionsRequest(dataset_id=dataset, dataset_versions=[made])
            ok(alice("PostDatasetVersions", request))
    request_ = v2.ListDatasetVersionsRequest(user_app_id=OPEN, dataset_id="its-public")
    assert [v.id for v in ok(bob("ListDatasetVersions", request_)).dataset_versions] == ["seen"]
    shown = ok(get(bob, "Dataset", "its-public")).dataset
    assert shown.version.id == "seen"
    assert ok(get(alice, "Dataset", "its-public")).dataset.version.id == "unseen"
    request_.dataset_id = "its-private"
    hidden = bob("ListDatasetVersions", request_).status.code
    request_.dataset_id = "its-absent"
    assert hidden == bob("ListDatasetVersions", request_).status.code != Code.SUCCESS


def test_copies_have_what_is_public(alice: Raw) -> None:
    bob = alice.with_key("bob-secret")
    done = duplicated(bob, OPEN, "copied")
    fields = v2.AppDuplicationFilters.DESCRIPTOR.fields
    every = {f.name for f in fields if not f.GetOptions().deprecated}
    assert {entry.field for entry in done.progress} == every  # it had no filter
    again = duplicated(bob, OPEN, "copied", copy_inputs=False)
    assert again.HasField("filter")  # which names nothing
    assert {entry.field for entry in again.progress} == every
    there = v2.UserAppIDSet(user_id="bob", app_id="copied")
    for kind in ("Concept", "Dataset", "Model", "Workflow"):
        request = getattr(v2, f"List{kind}sRequest")(user_app_id=there)
        listed = getattr(ok(bob(f"List{kind}s", request)), KINDS[kind][0])
        assert {item.id for item in listed} == {"its-public"}
    everything = {"its-public", "its-private", "its-default"}
    duplicated(alice.with_key("carol-secret"), OPEN, "whole")
    whole = v2.ListModelsRequest(user_app_id=v2.UserAppIDSet(user_id="carol", app_id="whole"))
    models = ok(alice.with_key("carol-secret")("ListModels", whole)).models
    assert {model.id for model in models} == everything


def test_what_is_published_is_seen(alice: Raw) -> None:
    bob = alice.with_key("bob-secret")
    change = v2.Dataset(id="its-default")
    for visibility in (v2.Visibility.PUBLIC, v2.Visibility.PRIVATE):
        change.visibility.gettable = visibility
        request = v2.PatchDatasetsRequest(datasets=[change], action="overwrite")
        ok(alice("PatchDatasets", request))
        found = get(bob, "Dataset", "its-default").status.code
        assert (found == Code.SUCCESS) == (visibility == v2.Visibility.PUBLIC)
