"""Servers that begin with users, apps, keys, models and workflows of a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import errors, image, v2
from clarigrpc.local import LocalServer
from tests.local.conftest import Raw, png

Code = v2.StatusCode


@pytest.fixture(params=["grpc", "rest"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test runs over both fronts."""
    return str(request.param)


YAML = """
users:
  - id: alice
    first_name: Alice
    primary_email: alice@example.com
    pat: alice-secret
    apps:
      - id: shop
        description: What alice sells
        keys:
          - id: shop-key
            scopes: [Apps_Get, Annotations_Get, Concepts_Get, Inputs_Get, Models_Get]
        concepts: [{id: cat, name: Cat}]
        datasets: [{id: train}]
        models: [{id: mine, model_type_id: any-to-any}]
        workflows:
          - id: colours
            nodes:
              - id: first
                model: {id: color-recognition, user_id: clarifai, app_id: main}
      - id: open
        visibility: {gettable: PUBLIC}
  - id: bob
    pat: bob-secret
    apps: [{id: his}]
"""


def test_a_file_seeds_the_server(serve: Callable[..., Raw], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(YAML)
    raw = serve(config=file)
    assert (raw.server.user_id, raw.server.app_id) == ("alice", "shop")
    alice = raw.with_key("alice-secret")
    user = alice("GetUser", v2.GetUserRequest()).user
    assert (user.first_name, user.primary_email) == ("Alice", "alice@example.com")
    assert alice("GetConcept", v2.GetConceptRequest(concept_id="cat")).concept.name == "Cat"
    assert alice("GetModel", v2.GetModelRequest(model_id="mine")).status.code == Code.SUCCESS
    request = v2.PostWorkflowResultsRequest(workflow_id="colours")
    request.inputs.add().data.image.base64 = png("red")
    result = alice("PostWorkflowResults", request).results[0]
    assert result.outputs[0].data.concepts[0].name == "Red"
    key = raw.with_key("shop-key")
    assert key("ListInputs", v2.ListInputsRequest()).status.code == Code.SUCCESS
    refused = v2.PostConceptsRequest(concepts=[v2.Concept(id="x")])
    assert key("PostConcepts", refused).status.code == Code.CONN_INSUFFICIENT_SCOPES
    bob = raw.with_key("bob-secret")
    his = v2.UserAppIDSet(app_id="his")
    assert bob("GetApp", v2.GetAppRequest(user_app_id=his)).app.id == "his"


def test_users_see_what_is_theirs_or_open(serve: Callable[..., Raw], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(YAML)
    raw = serve(config=file)
    bob = raw.with_key("bob-secret")
    request = v2.ListAppsRequest(user_app_id=v2.UserAppIDSet(user_id="alice"))
    assert [app.id for app in bob("ListApps", request).apps] == ["open"]
    shop = v2.UserAppIDSet(user_id="alice", app_id="shop")
    hidden = bob("ListInputs", v2.ListInputsRequest(user_app_id=shop))
    assert hidden.status.code == Code.CONN_DOES_NOT_EXIST
    open_ = v2.UserAppIDSet(user_id="alice", app_id="open")
    assert bob("ListInputs", v2.ListInputsRequest(user_app_id=open_)).status.code == Code.SUCCESS
    write = v2.PostConceptsRequest(user_app_id=open_, concepts=[v2.Concept(id="x")])
    assert bob("PostConcepts", write).status.code == Code.CONN_INSUFFICIENT_SCOPES
    foreign = v2.ListKeysRequest(user_app_id=v2.UserAppIDSet(user_id="alice"))
    assert bob("ListKeys", foreign).status.code == Code.CONN_INSUFFICIENT_SCOPES
    stranger = bob("GetUser", v2.GetUserRequest(user_app_id=v2.UserAppIDSet(user_id="alice"))).user
    assert (stranger.first_name, stranger.primary_email) == ("Alice", "")


def test_what_is_there_stays(serve: Callable[..., Raw], tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    app: dict[str, Any] = {"id": "shop", "description": "first"}
    for description in ("first", "second"):
        app["description"] = description
        config.write_text(json.dumps({"users": [{"id": "alice", "apps": [app]}]}))
        with LocalServer(tmp_path / "data", config=config) as server, server.client() as client:
            assert client.v2.GetApp(v2.GetAppRequest()).app.description == "first"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"user": []}, "users"),
        ({"users": [{"name": "x"}]}, "ids"),
        ({"users": [{"id": "a", "nonsense": 1}]}, "nonsense"),
        ({"users": [{"id": "a", "apps": [{"id": "b", "models": [{"id": 1.5}]}]}]}, "1.5"),
    ],
)
def test_mistakes_show_at_once(content: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LocalServer(config=content)


def test_a_workflow_of_unknown_models_is_refused() -> None:
    workflow = {"id": "w", "nodes": [{"id": "n", "model": {"id": "none"}}]}
    content = {"users": [{"id": "a", "apps": [{"id": "b", "workflows": [workflow]}]}]}
    with pytest.raises(ValueError, match="none"):
        LocalServer(config=content).start()


def test_what_the_public_app_is_given_is_public() -> None:
    models = [
        {"id": "shown", "model_type_id": "any-to-any"},
        {"id": "hidden", "visibility": {"gettable": "PRIVATE"}},
    ]
    config = {
        "users": [
            {"id": "you", "apps": [{"id": "yours"}]},
            {"id": "clarifai", "apps": [{"id": "main", "models": models}]},
        ]
    }
    with LocalServer(config=config) as server, server.client() as client:
        public = client.with_options(user_id="clarifai", app_id="main")
        assert public.models.get("shown").id == "shown"
        with pytest.raises(errors.NotFoundError):
            public.models.get("hidden")


def _models(*models: dict[str, Any], user: str = "vendor", app: str = "vision") -> dict[str, Any]:
    """A configuration of the default user, and of models in an open app of another one."""
    open_app = {"id": app, "visibility": {"gettable": "PUBLIC"}, "models": list(models)}
    first = {"id": "alice", "apps": [{"id": "shop"}]}
    return {"users": [first, {"id": user, "apps": [open_app]}]}


def test_a_seeded_model_has_a_runtime_and_aliases(
    serve: Callable[..., Raw], tmp_path: Path
) -> None:
    model = {
        "id": "checker",
        "runtime": "color-recognition",
        "aliases": ["0123abcd"],
        "visibility": {"gettable": "PUBLIC"},
    }
    ids = v2.UserAppIDSet(user_id="vendor", app_id="vision")
    raw = serve(config=_models(model), data_dir=tmp_path / "data")
    for model_id in ("checker", "0123abcd"):
        request = v2.PostModelOutputsRequest(user_app_id=ids, model_id=model_id)
        request.inputs.add().data.image.base64 = png("red")
        output = raw("PostModelOutputs", request).outputs[0]
        assert output.model.id == "checker"
        assert output.data.concepts[0].name == "Red"
        found = raw("GetModel", v2.GetModelRequest(user_app_id=ids, model_id=model_id)).model
        assert found.model_type_id == "visual-classifier"
        assert found.model_version.status.code == Code.MODEL_TRAINED
        assert found.model_version.output_info.data.concepts
    raw.server.close()
    # At the next start they are as the file has them then, for what is in the folder already.
    with (
        LocalServer(tmp_path / "data", config=_models({**model, "aliases": ["other"]})) as server,
        server.client(user_id="vendor", app_id="vision") as client,
    ):
        predicted = client.model("other").predict(image(png("blue")))
        assert predicted.data.concepts[0].name == "Blue"
        assert len(list(client.models.versions("checker").list())) == 1
        with pytest.raises(errors.NotFoundError):
            client.models.get("0123abcd")


@pytest.mark.parametrize(
    ("models", "match"),
    [
        ([{"id": "m", "runtime": "dog-recognition"}], "known are .*color-recognition"),
        ([{"id": "m", "aliases": "n"}], "aliases of model 'm' must be a list"),
        ([{"id": "m", "aliases": [""]}], "aliases of model 'm' must be a list"),
        ([{"id": "m", "aliases": ["n"]}, {"id": "n"}], "'n' cannot be an alias of model 'm'"),
        ([{"id": "m", "aliases": ["x"]}, {"id": "n", "aliases": ["x"]}], "'x' cannot be an alias"),
    ],
)
def test_mistakes_about_runtimes_and_aliases(models: list[dict[str, Any]], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LocalServer(config=_models(*models)).start()
