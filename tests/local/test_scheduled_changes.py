"""The scheduled changes of the service, row by row; docs/scheduled-changes.md names these tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from clarigrpc import RetryPolicy, errors, v2
from clarigrpc._rpc import statuses
from clarigrpc.local import LocalServer
from tests.conftest import Connect
from tests.local.conftest import PUBLIC, Raw, gone, png, predict_request, settled
from tests.scripted import ScriptedServer, refuse, reply
from tests.waiting import until

Code = v2.StatusCode

# Fields that the contract has no longer, in their wire form.
CROP = b"\x1a\x10" + b"\x00\x00\x80\x3e" * 4  # repeated float crop = 3
CLOSED_ENVIRONMENT = b"\x10\x01"  # bool closed_environment = 2
DELETE_ALL = b"\x18\x01"  # bool delete_all = 3
TYPE = b"\x12\x07concept"  # string type = 2


def seen(image: v2.Image) -> v2.Data:
    return v2.Data(concepts=[v2.Concept(id="seen", value=1)])


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0, models={"mine": seen}) as running:
        yield running


@pytest.fixture
def shared(server: LocalServer) -> Iterator[Raw]:
    """Calls the server of the module."""
    with grpc.insecure_channel(server.address) as channel:
        yield Raw(server, v2.V2Stub(channel))


@pytest.fixture
def http(server: LocalServer) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Key {server.pat}"}
    with httpx.Client(base_url=str(server.rest_base), headers=headers) as client:
        yield client


def refused(response: Any, words: str) -> None:
    assert response.status.code not in statuses.PASSING
    assert words in response.status.details


# Credentials


def test_keys_reach_their_app_alone(serve: Callable[..., Raw]) -> None:
    raw = serve(models={"mine": seen})
    own = v2.UserAppIDSet(user_id=raw.server.user_id, app_id=raw.server.app_id)
    for workflow, place, model in (("own", own, "mine"), ("main", PUBLIC, "color-recognition")):
        request = v2.PostWorkflowsRequest()
        node = request.workflows.add(id=workflow).nodes.add(id="only")
        node.model.id = model
        node.model.user_id, node.model.app_id = place.user_id, place.app_id
        assert raw("PostWorkflows", request).status.code == Code.SUCCESS
    with_key = Raw(raw.server, raw.stub, raw.server.api_key)
    # In its app a key needs no ids; the models of clarifai/main are another app's.
    inside = predict_request(png("red"))
    inside.ClearField("user_app_id")
    inside.model_id = "mine"
    assert with_key("PostModelOutputs", inside).status.code == Code.SUCCESS
    outside = predict_request(png("red"))
    assert with_key("PostModelOutputs", outside).status.code == Code.CONN_INSUFFICIENT_SCOPES
    assert raw("PostModelOutputs", outside).status.code == Code.SUCCESS
    # A PAT has to say whose model it means: the id alone is looked for in the caller's own app.
    outside.ClearField("user_app_id")
    assert raw("PostModelOutputs", outside).status.code == Code.MODEL_DOES_NOT_EXIST
    for workflow, code in (("own", Code.SUCCESS), ("main", Code.CONN_INSUFFICIENT_SCOPES)):
        run = v2.PostWorkflowResultsRequest(workflow_id=workflow)
        run.inputs.add().data.image.base64 = png("red")
        assert with_key("PostWorkflowResults", run).status.code == code
        assert raw("PostWorkflowResults", run).status.code == Code.SUCCESS


# Models


LEARN = v2.PostModelVersionsRequest(model_id="learner", model_versions=[v2.ModelVersion()])


@pytest.fixture
def learner(raw: Raw) -> Raw:
    """A server with labelled texts, and a model that can learn from them."""
    request = v2.PostInputsRequest()
    for number, text in enumerate(("cats purr", "a cat sleeps", "dogs bark", "a dog runs")):
        item = request.inputs.add(id=str(number))
        item.data.text.raw = text
        item.data.concepts.add(id="cat" if "cat" in text else "dog", value=1)
    raw("PostInputs", request)
    for item in request.inputs:
        settled(raw, item.id)
    model = v2.Model(id="learner", model_type_id="text-classifier")
    raw("PostModels", v2.PostModelsRequest(models=[model]))
    return raw


def trained(raw: Raw, request: v2.PostModelVersionsRequest = LEARN) -> v2.ModelVersion:
    """The new version once its training has ended."""
    response = raw("PostModelVersions", request)
    assert response.status.code == Code.SUCCESS, response.status
    asked = v2.GetModelVersionRequest(
        model_id=request.model_id, version_id=response.model.model_version.id
    )
    running = (Code.MODEL_QUEUED_FOR_TRAINING, Code.MODEL_TRAINING)

    def look() -> v2.ModelVersion | None:
        version: v2.ModelVersion = raw("GetModelVersion", asked).model_version
        return None if version.status.code in running else version

    found: v2.ModelVersion = until(look)
    return found


def test_closed_environment_is_refused(learner: Raw) -> None:
    request = v2.PostModelVersionsRequest(model_id="learner")
    version = request.model_versions.add()
    version.output_info.output_config.MergeFromString(CLOSED_ENVIRONMENT)
    refused(learner("PostModelVersions", request), "enrich_dataset")
    version.ClearField("output_info")
    version.train_info.params["closed_environment"] = True
    refused(learner("PostModelVersions", request), "enrich_dataset")
    version.train_info.params.Clear()
    version.train_info.params["enrich_dataset"] = "Sometimes"
    refused(learner("PostModelVersions", request), "Automatic or Disabled")
    # The embeddings of texts have no negatives: with Automatic that is no failure.
    for choice in ("Automatic", "Disabled"):
        version.train_info.params["enrich_dataset"] = choice
        assert trained(learner, request).status.code == Code.MODEL_TRAINED


def test_closed_environment_is_refused_in_json(shared: Raw, http: httpx.Client) -> None:
    request = v2.PostModelsRequest(models=[v2.Model(id="closed")])
    request.models[0].output_info.output_config.MergeFromString(CLOSED_ENVIRONMENT)
    refused(shared("PostModels", request), "enrich_dataset")
    body = {"models": [{"output_info": {"output_config": {"closed_environment": True}}}]}
    response = http.post("/v2/models", json=body)
    assert response.status_code == 400
    assert "closed_environment" in response.json()["status"]["details"]


def test_models_and_versions_are_made_and_patched_apart(raw: Raw) -> None:
    def versions() -> list[v2.ModelVersion]:
        response = raw("ListModelVersions", v2.ListModelVersionsRequest(model_id="m"))
        return list(response.model_versions)

    posted = raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")]))
    assert posted.status.code == Code.SUCCESS
    assert not posted.model.HasField("model_version")
    assert versions() == []
    with_info = v2.PostModelsRequest(models=[v2.Model(id="other")])
    with_info.models[0].model_version.output_info.output_config.max_concepts = 3
    refused(raw("PostModels", with_info), "PostModelVersions")
    patch = v2.PatchModelsRequest(action="overwrite", models=[v2.Model(id="m", notes="n")])
    assert raw("PatchModels", patch).models[0].notes == "n"
    assert versions() == []
    patch.models[0].model_version.description = "x"
    refused(raw("PatchModels", patch), "PatchModelVersions")


def test_training_begins_with_a_version(learner: Raw) -> None:
    listed = v2.ListModelVersionsRequest(model_id="learner")
    assert not learner("ListModelVersions", listed).model_versions
    version = trained(learner)
    assert version.status.code == Code.MODEL_TRAINED
    # One version, which is the trained one; no placeholder beside it.
    assert [one.id for one in learner("ListModelVersions", listed).model_versions] == [version.id]
    asked = v2.PostModelOutputsRequest(model_id="learner")
    asked.inputs.add().data.text.raw = "the cat purrs"
    concepts = learner("PostModelOutputs", asked).outputs[0].data.concepts
    assert concepts[0].id == "cat"


def test_versions_are_patched_by_their_own_method(
    serve: Callable[..., Raw], tmp_path: Path
) -> None:
    weights = tmp_path / "weights.tar"
    weights.write_bytes(b"weights")
    raw = serve()
    raw("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")]))
    with raw.server.client() as client:
        version_id = client.model("m").upload_version(weights).version_id
    request = v2.PatchModelVersionsRequest(model_id="m", action="overwrite")
    version = request.model_versions.add(id=version_id, description="d", license="MIT")
    version.output_info.output_config.max_concepts = 7
    (changed,) = raw("PatchModelVersions", request).model_versions
    assert (changed.description, changed.license) == ("d", "MIT")
    assert changed.output_info.output_config.max_concepts == 7
    model = raw("GetModel", v2.GetModelRequest(model_id="m")).model
    assert (model.notes, model.version_count) == ("", 1)


def test_predictions_name_their_model_by_ids_alone(shared: Raw) -> None:
    output = shared("PostModelOutputs", predict_request(png("red"))).outputs[0]
    workflow = v2.PostWorkflowsRequest()
    node = workflow.workflows.add(id="ids").nodes.add(id="only")
    node.model.id, node.model.user_id, node.model.app_id = "color-recognition", "clarifai", "main"
    shared("PostWorkflows", workflow)
    run = v2.PostWorkflowResultsRequest(workflow_id="ids")
    run.inputs.add().data.image.base64 = png("red")
    in_workflow = shared("PostWorkflowResults", run).results[0].outputs[0]
    whole = shared("GetModel", v2.GetModelRequest(user_app_id=PUBLIC, model_id="color-recognition"))
    assert whole.model.description
    for model in (output.model, in_workflow.model):
        assert {field.name for field, _ in model.ListFields()} == {
            "id",
            "user_id",
            "app_id",
            "model_version",
        }
        assert [field.name for field, _ in model.model_version.ListFields()] == ["id"]


def test_options_of_the_version_go_before_the_older_ones(shared: Raw) -> None:
    request = predict_request(png("red", "blue", "lime"))
    request.model.output_info.output_config.max_concepts = 1
    assert len(shared("PostModelOutputs", request).outputs[0].data.concepts) == 1
    request.model.model_version.output_info.output_config.max_concepts = 2
    assert len(shared("PostModelOutputs", request).outputs[0].data.concepts) == 2


async def test_former_places_of_model_options_warn(connect: Connect, server: LocalServer) -> None:
    both = connect(server.base, pat=server.pat)
    request = predict_request(png("red"))
    request.model.output_info.output_config.max_concepts = 1
    with pytest.warns(DeprecationWarning, match=r"use model\.model_version\.output_info"):
        await both.call("PostModelOutputs", request)


async def test_names_of_models_are_deprecated(connect: Connect, server: LocalServer) -> None:
    both = connect(server.base, pat=server.pat, user_id="", app_id="")
    model = v2.Model(id=f"named-{both.is_sync}", name="My model", display_name="My model")
    with pytest.warns(DeprecationWarning, match="PostModels: models") as found:
        response = await both.call("PostModels", v2.PostModelsRequest(models=[model]))
    assert {str(one.message) for one in found} == {
        f"PostModels: models.{field} is deprecated: use models.id"
        for field in ("name", "display_name")
    }
    assert response.model.id == model.id
    with pytest.raises(errors.NotFoundError):
        await both.call("GetModel", v2.GetModelRequest(model_id="My model"))


def test_models_are_searched_by_model_type_id(shared: Raw, http: httpx.Client) -> None:
    model = v2.Model(id="typed", model_type_id="visual-classifier")
    shared("PostModels", v2.PostModelsRequest(models=[model]))
    search = v2.PostModelsSearchesRequest()
    search.model_query.model_type_id = "visual-classifier"
    assert "typed" in [found.id for found in shared("PostModelsSearches", search).models]
    search.model_query.MergeFromString(TYPE)
    refused(shared("PostModelsSearches", search), "model_type_id")
    response = http.post("/v2/models/searches", json={"model_query": {"type": "concept"}})
    assert response.status_code == 400
    assert "type" in response.json()["status"]["details"]


@pytest.mark.parametrize("model_id", ["demographics", "c0c0ac362b03416da06ab3fa36fb58e3", "focus"])
def test_retired_models_are_not_there(shared: Raw, model_id: str) -> None:
    request = predict_request(png("red"))
    request.model_id = model_id
    assert shared("PostModelOutputs", request).status.code == Code.MODEL_DOES_NOT_EXIST


def test_faces_are_concepts(shared: Raw, http: httpx.Client) -> None:
    assert "face" not in v2.Data.DESCRIPTOR.fields_by_name
    body = {"inputs": [{"data": {"image": {"url": "http://127.0.0.1:1/"}, "face": {}}}]}
    assert http.post("/v2/inputs", json=body).status_code == 400
    request = v2.PostInputsRequest()
    item = request.inputs.add(id="face")
    item.data.image.base64 = png("red")
    item.data.concepts.add(id="20-29", value=1, vocab_id="age_appearance")
    shared("PostInputs", request)
    found = shared("GetInput", v2.GetInputRequest(input_id="face")).input.data.concepts
    assert [(concept.id, concept.vocab_id) for concept in found] == [("20-29", "age_appearance")]


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("facedetect", "detect"),
        ("facedetect-identity", "detect-concept"),
        ("facedetect-demographics", "detect-concept"),
        ("facedetect-embed", "detect-embed"),
    ],
)
async def test_face_model_types_have_new_names(
    connect: Connect, server: LocalServer, former: str, name: str
) -> None:
    both = connect(server.base, pat=server.pat)
    model_id = f"{former}-{both.is_sync}"
    made = v2.PostModelsRequest(models=[v2.Model(id=model_id, model_type_id=former)])
    with pytest.warns(DeprecationWarning, match=f"{former!r} is deprecated: use {name!r}"):
        response = await both.call("PostModels", made)
    assert response.model.model_type_id == name
    asked = v2.ListModelsRequest(model_type_id=former)
    with pytest.warns(DeprecationWarning, match="model_type_id"):
        response = await both.call("ListModels", asked)
    assert model_id in [model.id for model in response.models]
    asked.model_type_id = name
    assert model_id in [model.id for model in (await both.call("ListModels", asked)).models]


def test_training_takes_what_is_there(learner: Raw) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        request = v2.PostInputsRequest()
        item = request.inputs.add(id="slow")
        item.data.text.url = f"http://127.0.0.1:{silent.getsockname()[1]}/never.txt"
        item.data.concepts.add(id="bird", value=1)
        learner("PostInputs", request)
        version = trained(learner)
    assert version.status.code == Code.MODEL_TRAINED
    assert version.total_input_count == 4
    assert {concept.id for concept in version.output_info.data.concepts} == {"cat", "dog"}


def test_pending_inputs_are_counted(raw: Raw) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        request = v2.PostInputsRequest()
        request.inputs.add(id="text").data.text.raw = "there"
        raw("PostInputs", request)
        settled(raw, "text")
        image = request.inputs[0].data.image
        request.inputs[0].data.ClearField("text")
        request.inputs[0].id = "slow"
        image.url = f"http://127.0.0.1:{silent.getsockname()[1]}/never.png"
        raw("PostInputs", request)
        counts = raw("GetInputCount", v2.GetInputCountRequest()).counts
    assert (counts.processed, counts.to_process + counts.processing) == (1, 1)
    assert settled(raw, "slow").status.code == Code.INPUT_FAILED  # the connection was reset


# Searches


async def test_the_general_search_still_works_and_warns(
    connect: Connect, serve: Callable[..., Raw]
) -> None:
    raw = serve()
    request = v2.PostInputsRequest()
    for name in ("cat", "dog"):
        item = request.inputs.add(id=name)
        item.data.text.raw = name
        item.data.concepts.add(id=name, value=1)
    raw("PostInputs", request)
    settled(raw, "dog")
    both = connect(raw.server.base, pat=raw.server.pat)
    search = v2.PostSearchesRequest()
    search.searches.add().query.filters.add().annotation.data.concepts.add(id="cat", value=1)
    with pytest.warns(DeprecationWarning, match="use PostInputsSearches or PostAnnotationsSearch"):
        response = await both.call("PostSearches", search)
    assert [hit.input.id for hit in response.hits] == ["cat"]
    # The one that is to be used instead finds the same, and nothing warns.
    named = v2.PostInputsSearchesRequest(searches=search.searches)
    response = await both.call("PostInputsSearches", named)
    assert [hit.input.id for hit in response.hits] == ["cat"]


# Inputs


def test_inputs_are_deleted_by_ids_alone(shared: Raw, http: httpx.Client) -> None:
    request = v2.DeleteInputsRequest()
    request.MergeFromString(DELETE_ALL)
    refused(shared("DeleteInputs", request), "delete_all")
    response = http.request("DELETE", "/v2/inputs", json={"delete_all": True})
    assert response.status_code == 400
    assert "delete_all" in response.json()["status"]["details"]
    many = v2.DeleteInputsRequest(ids=[str(number) for number in range(129)])
    refused(shared("DeleteInputs", many), "129 ids")


async def test_the_client_deletes_all_by_ids(connect: Connect, serve: Callable[..., Raw]) -> None:
    raw = serve()
    both = connect(
        raw.server.base, pat=raw.server.pat, user_id=raw.server.user_id, app_id=raw.server.app_id
    )
    for start in (0, 128):
        request = v2.PostInputsRequest()
        for number in range(start, start + 100):
            request.inputs.add(id=str(number)).data.text.raw = str(number)
        raw("PostInputs", request)
    assert await both.run(both.client.inputs.delete_all) == 200
    for input_id in ("0", "227"):
        gone(raw, input_id)


def test_inputs_of_every_kind_have_the_same_codes(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(id="image").data.image.base64 = b"no image"
    request.inputs.add(id="video").data.video.url = "http://127.0.0.1:1/video.mp4"
    request.inputs.add(id="text").data.text.raw = "fine"
    for item in raw("PostInputs", request).inputs:
        assert item.status.code == Code.INPUT_PENDING == Code.INPUT_DOWNLOAD_PENDING
    codes = {name: settled(raw, name).status.code for name in ("image", "video", "text")}
    assert codes == {
        "image": Code.INPUT_FAILED,
        "video": Code.INPUT_FAILED,
        "text": Code.INPUT_SUCCESS,
    }
    # The former names are the same numbers; those of the videos are not given out.
    assert Code.INPUT_DOWNLOAD_FAILED == Code.INPUT_FAILED != Code.INPUT_VIDEO_DOWNLOAD_FAILED


def test_overwrite_replaces_the_data(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    item = request.inputs.add(id="one")
    item.data.image.base64 = png("red")
    item.data.concepts.add(id="cat", value=1)
    item.data.metadata["old"] = 1
    raw("PostInputs", request)
    settled(raw, "one")
    change = v2.PatchInputsRequest(action="overwrite")
    patched = change.inputs.add(id="one")
    patched.data.metadata["new"] = 2
    raw("PatchInputs", change)
    data = settled(raw, "one").data
    assert not data.concepts
    assert dict(data.metadata) == {"new": 2}
    assert data.HasField("image")  # what the input is made of is not a label
    change.action = "merge"
    patched.data.concepts.add(id="dog", value=1)
    patched.data.ClearField("metadata")
    raw("PatchInputs", change)
    assert dict(settled(raw, "one").data.metadata) == {"new": 2}


def test_images_are_not_cropped(shared: Raw, http: httpx.Client) -> None:
    predict = predict_request(png("red", "blue"))
    predict.inputs[0].data.image.MergeFromString(CROP)
    refused(shared("PostModelOutputs", predict), "crop the image first")
    adding = v2.PostInputsRequest(inputs=predict.inputs)
    refused(shared("PostInputs", adding), "crop the image first")
    image = {"url": "http://127.0.0.1:1/", "crop": [0.1, 0.1, 0.5, 0.5]}
    response = http.post("/v2/inputs", json={"inputs": [{"data": {"image": image}}]})
    assert response.status_code == 400
    assert "crop" in response.json()["status"]["details"]


def test_a_single_input_is_added_afterwards(raw: Raw) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(id="one").data.image.base64 = png("red")
    (item,) = raw("PostInputs", request).inputs
    assert item.status.code == Code.INPUT_PENDING
    assert settled(raw, "one").status.code == Code.INPUT_SUCCESS


@pytest.mark.parametrize("method", ["DeleteInput", "DeleteInputs"])
def test_a_single_input_is_deleted_afterwards(raw: Raw, method: str) -> None:
    request = v2.PostInputsRequest()
    request.inputs.add(id="one").data.text.raw = "x"
    raw("PostInputs", request)
    settled(raw, "one")
    doomed = (
        v2.DeleteInputRequest(input_id="one")
        if method == "DeleteInput"
        else v2.DeleteInputsRequest(ids=["one"])
    )
    assert raw(method, doomed).status.code == Code.SUCCESS
    gone(raw, "one")


# Downtime


async def test_a_downtime_is_waited_for(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, retry=RetryPolicy(initial_backoff=0.01))
    maintenance = Code.REQUEST_DISABLED_FOR_MAINTENANCE
    scripted.on("GetInput", refuse("GetInput", maintenance), reply("GetInput"))
    await both.call("GetInput", v2.GetInputRequest(input_id="x"))
    assert len(scripted.seen) == 2
    # What may change something is not sent twice.
    scripted.on("PatchInputs", refuse("PatchInputs", maintenance))
    with pytest.raises(errors.UnavailableError) as found:
        await both.call("PatchInputs", v2.PatchInputsRequest(action="merge"))
    assert found.value.code == maintenance
