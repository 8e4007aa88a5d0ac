# mypy: ignore-errors
"""Uses a server through the stub of the published gRPC client, over both of its channels.

The environment names the server: ``PORT`` of its gRPC front and ``REST_BASE``, credentials, and
``WEB``, where the files of the current folder are served.
"""

import io
import json
import os
import time
import zipfile
from pathlib import Path

import requests
from acts import Acts, report
from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel
from clarifai_grpc.grpc.api import resources_pb2 as res
from clarifai_grpc.grpc.api import service_pb2 as api
from clarifai_grpc.grpc.api import service_pb2_grpc
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from google.protobuf.struct_pb2 import Struct

REST, PAT, KEY, SESSION, WEB = (
    os.environ[name] for name in ("REST_BASE", "CLARIFAI_PAT", "API_KEY", "SESSION", "WEB")
)
USER, APP = os.environ["CLARIFAI_USER_ID"], os.environ["CLARIFAI_APP_ID"]
MAIN = res.UserAppIDSet(user_id="clarifai", app_id="main")
OWN = res.UserAppIDSet(user_id=USER, app_id=APP)
PICTURE = Path("red.png").read_bytes()

act = Acts()
kept = act.kept


def call(method: str, request: object, key: str = PAT) -> object:
    """The response, which may be a failure."""
    return getattr(kept["stub"], method)(request, metadata=(("authorization", f"Key {key}"),))


def done(method: str, request: object, key: str = PAT) -> object:
    """The response, which is none."""
    response = call(method, request, key)
    assert response.status.code == codes.SUCCESS, response.status
    return response


def name(text: str) -> str:
    """An id of the channel's own."""
    return f"{text}-{kept['channel']}"


def image(**fields: object) -> res.Input:
    return res.Input(data=res.Data(image=res.Image(**fields)))


def until(check: object) -> object:
    """The first true result."""
    deadline = time.monotonic() + 60
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def get_input(input_id: str) -> object:
    return call("GetInput", api.GetInputRequest(user_app_id=OWN, input_id=input_id))


def uploaded(*ids: str) -> None:
    pending = (codes.INPUT_DOWNLOAD_PENDING, codes.INPUT_DOWNLOAD_IN_PROGRESS)
    for input_id in ids:
        until(lambda input_id=input_id: get_input(input_id).input.status.code not in pending)
        assert get_input(input_id).input.status.code == codes.INPUT_DOWNLOAD_SUCCESS


def struct(**values: object) -> Struct:
    made = Struct()
    made.update(values)
    return made


def search(**query: object) -> list[str]:
    """Ids of the inputs that a search finds."""
    request = api.PostInputsSearchesRequest(
        user_app_id=OWN,
        searches=[res.Search(query=res.Query(**query))],
        pagination=api.Pagination(page=1, per_page=1000),
    )
    return [hit.input.id for hit in done("PostInputsSearches", request).hits]


def filter_by(**data: object) -> res.Filter:
    return res.Filter(annotation=res.Annotation(data=res.Data(**data)))


def rank_by(**data: object) -> res.Rank:
    return res.Rank(annotation=res.Annotation(data=res.Data(**data)))


def predict(*inputs: res.Input, model: str = "general-image-recognition", **config: object):
    request = api.PostModelOutputsRequest(
        user_app_id=MAIN,
        model_id=model,
        inputs=inputs,
        model=res.Model(
            model_version=res.ModelVersion(
                output_info=res.OutputInfo(output_config=res.OutputConfig(**config))
            )
        ),
    )
    return call("PostModelOutputs", request)


@act
def wrong_key() -> None:
    response = call("ListModels", api.ListModelsRequest(), "SOME_INVALID_KEY")
    assert response.status.code == codes.CONN_KEY_INVALID


@act
def collaborators() -> None:
    me = res.UserAppIDSet(user_id="me")
    app_id = done("ListApps", api.ListAppsRequest(user_app_id=me)).apps[0].id
    me.app_id = app_id
    done("ListCollaborators", api.ListCollaboratorsRequest(user_app_id=me))


@act
def predict_url() -> None:
    response = predict(image(url=f"{WEB}/red.png"))
    assert response.status.code == codes.SUCCESS, response.status
    assert response.outputs[0].data.concepts


@act
def predict_bytes_by_the_old_id() -> None:
    response = predict(image(base64=PICTURE), model="aaa03c23b3724a16a56b629203edc62c")
    assert response.outputs[0].data.concepts


@act
def predict_with_settings() -> None:
    assert len(predict(image(base64=PICTURE), max_concepts=3).outputs[0].data.concepts) == 3
    high = predict(image(base64=PICTURE), min_value=0.98).outputs[0].data.concepts
    assert all(concept.value >= 0.98 for concept in high)


@act
def predict_with_the_older_settings() -> None:
    request = api.PostModelOutputsRequest(
        user_app_id=MAIN,
        model_id="general-image-recognition",
        inputs=[image(base64=PICTURE)],
        model=res.Model(output_info=res.OutputInfo(output_config=res.OutputConfig(max_concepts=3))),
    )
    assert len(done("PostModelOutputs", request).outputs[0].data.concepts) == 3


@act
def failed_and_mixed_predictions() -> None:
    missing = image(url=f"{WEB}/missing.png")
    response = predict(missing)
    assert response.status.code in (codes.FAILURE, codes.INPUT_DOWNLOAD_FAILED)
    assert response.outputs[0].status.code == codes.INPUT_DOWNLOAD_FAILED
    details = response.outputs[0].status.details
    assert details.startswith("404 Client Error: "), details
    assert details.endswith(f" for url: {WEB}/missing.png"), details
    response = predict(image(base64=PICTURE), missing)
    assert response.status.code == codes.MIXED_STATUS
    assert [output.status.code for output in response.outputs] == [
        codes.SUCCESS,
        codes.INPUT_DOWNLOAD_FAILED,
    ]


@act
def predict_video() -> None:
    video = res.Input(data=res.Data(video=res.Video(base64=Path("clip.mp4").read_bytes())))
    frames = predict(video, sample_ms=2000, max_concepts=3).outputs[0].data.frames
    assert [frame.frame_info.time for frame in frames] == list(
        range(1000, 1000 + 2000 * len(frames), 2000)
    )
    assert {len(frame.data.concepts) for frame in frames} == {3}


@act
def predict_with_a_workflow() -> None:
    request = api.PostWorkflowResultsRequest(
        user_app_id=MAIN,
        workflow_id="General",
        inputs=[image(url=f"{WEB}/red.png")],
        output_config=res.OutputConfig(max_concepts=3),
    )
    response = done("PostWorkflowResults", request)
    assert len(response.results[0].outputs[0].data.concepts) == 3


@act
def list_models() -> None:
    request = api.ListModelsRequest(user_app_id=MAIN, per_page=2)
    assert len(done("ListModels", request).models) == 2
    request = api.ListModelsRequest(user_app_id=OWN, page=1000, per_page=500)
    assert not done("ListModels", request).models


@act
def search_models() -> None:
    request = api.PostModelsSearchesRequest(
        user_app_id=MAIN, model_query=res.ModelQuery(name="*general*")
    )
    models = done("PostModelsSearches", request).models
    assert models
    assert all("general" in model.name.lower() for model in models)


@act
def search_public_concepts() -> None:
    for query in (res.ConceptQuery(name="dog*"), res.ConceptQuery(name="狗*", language="zh")):
        request = api.PostConceptsSearchesRequest(user_app_id=OWN, concept_query=query)
        assert done("PostConceptsSearches", request).concepts


@act
def concepts() -> None:
    concept = res.Concept(id=name("concept"), name=name("concept-name-的な"))
    request = api.PostConceptsRequest(user_app_id=OWN, concepts=[concept])
    done("PostConcepts", request)
    found = done("GetConcept", api.GetConceptRequest(user_app_id=OWN, concept_id=concept.id))
    assert found.concept.name == concept.name
    again = call("PostConcepts", request)
    assert again.status.code == codes.CONCEPTS_INVALID_REQUEST
    assert "duplicate" in again.status.details.lower()
    query = api.PostConceptsSearchesRequest(
        user_app_id=OWN, concept_query=res.ConceptQuery(name=concept.name)
    )
    assert concept.name in done("PostConceptsSearches", query).concepts[0].name
    patch = api.PatchConceptsRequest(
        user_app_id=OWN, action="overwrite", concepts=[res.Concept(id=concept.id, name="new")]
    )
    done("PatchConcepts", patch)
    patch.concepts[0].id = "ai_98Xb0K3q"
    assert call("PatchConcepts", patch).status.code == codes.CONN_DOES_NOT_EXIST


@act
def inputs() -> None:
    sent = image(url=f"{WEB}/red.png", allow_duplicate_url=True)
    sent.data.concepts.add(id="some-concept")
    request = api.PostInputsRequest(user_app_id=OWN, inputs=[sent])
    input_id = done("PostInputs", request).inputs[0].id
    uploaded(input_id)
    listed = done("ListInputs", api.ListInputsRequest(user_app_id=OWN, per_page=1))
    assert len(listed.inputs) == 1
    far = api.ListInputsRequest(user_app_id=OWN, per_page=500, page=1000)
    assert not done("ListInputs", far).inputs
    patch = api.PatchInputsRequest(
        user_app_id=OWN,
        action="overwrite",
        inputs=[
            res.Input(id=input_id, data=res.Data(concepts=[res.Concept(id="some-new-concept")]))
        ],
    )
    done("PatchInputs", patch)
    assert get_input(input_id).input.data.concepts[0].name == "some-new-concept"
    delete = api.DeleteInputsRequest(user_app_id=OWN, ids=[input_id])
    done("DeleteInputs", delete)
    until(lambda: get_input(input_id).status.code == codes.CONN_DOES_NOT_EXIST)


@act
def an_input_with_everything() -> None:
    data = res.Data(
        image=res.Image(url=f"{WEB}/red.png", allow_duplicate_url=True),
        concepts=[res.Concept(id=name("yes"), value=1), res.Concept(id=name("no"), value=0)],
        geo=res.Geo(geo_point=res.GeoPoint(longitude=44, latitude=55)),
        metadata=struct(key1=123, key2={"inner": name("value")}),
    )
    kept["input"] = name("dog")
    sent = res.Input(id=kept["input"], data=data)
    done("PostInputs", api.PostInputsRequest(user_app_id=OWN, inputs=[sent]))
    uploaded(kept["input"])
    found = get_input(kept["input"]).input.data
    assert [(c.id, c.value) for c in found.concepts] == [(name("yes"), 1), (name("no"), 0)]
    assert found.metadata["key1"] == 123
    patch = api.PatchInputsRequest(user_app_id=OWN, action="merge")
    change = patch.inputs.add(id=kept["input"]).data
    change.concepts.add(id=name("third"), value=1)
    change.metadata.update({"new-key": "new-value"})
    found = done("PatchInputs", patch).inputs[0].data
    assert found.concepts[2].id == name("third")
    assert (found.metadata["key1"], found.metadata["new-key"]) == (123, "new-value")


@act
def searches() -> None:
    mine = kept["input"]
    yes, third = name("yes"), name("third")
    assert mine in search(filters=[filter_by(concepts=[res.Concept(id=yes, value=1)])])
    assert mine in search(filters=[filter_by(concepts=[res.Concept(name=third, value=1)])])
    assert search(filters=[filter_by(metadata=struct(key2={"inner": name("value")}))]) == [mine]
    near = res.Geo(
        geo_point=res.GeoPoint(longitude=43, latitude=56),
        geo_limit=res.GeoLimit(value=1000, type="withinKilometers"),
    )
    assert mine in search(filters=[filter_by(geo=near)])
    corners = [
        res.GeoBoxedPoint(geo_point=res.GeoPoint(longitude=x, latitude=y))
        for x, y in ((43, 54), (45, 56))
    ]
    box = filter_by(geo=res.Geo(geo_box=corners))
    assert mine in search(filters=[box])
    assert mine in search(ranks=[rank_by(image=res.Image(url=f"{WEB}/red.png"))])
    assert mine in search(ranks=[rank_by(image=res.Image(base64=PICTURE))], filters=[box])


@act
def older_searches() -> None:
    def found(*ands: res.And) -> list[str]:
        request = api.PostSearchesRequest(
            user_app_id=OWN,
            query=res.Query(ands=ands),
            pagination=api.Pagination(page=1, per_page=1000),
        )
        return [hit.input.id for hit in done("PostSearches", request).hits]

    labelled = res.Data(concepts=[res.Concept(id=name("yes"), value=1)])
    assert found(res.And(input=res.Input(data=labelled))) == [kept["input"]]
    like = res.Input(data=res.Data(image=res.Image(url=f"{WEB}/red.png")))
    assert kept["input"] in found(res.And(output=res.Output(input=like)))


@act
def annotations() -> None:
    mine = kept["input"]
    for concept, top, bottom in ((name("palm"), 0, 0.45), (name("water"), 0.6, 1)):
        box = res.BoundingBox(top_row=top, left_col=0, bottom_row=bottom, right_col=1)
        region = res.Region(
            region_info=res.RegionInfo(bounding_box=box),
            data=res.Data(concepts=[res.Concept(id=concept, value=1)]),
        )
        request = api.PostAnnotationsRequest(user_app_id=OWN)
        request.annotations.add(input_id=mine).data.regions.append(region)
        done("PostAnnotations", request)

    def found(*names: str) -> list[str]:
        filters = [filter_by(concepts=[res.Concept(id=one, value=1)]) for one in names]
        request = api.PostAnnotationsSearchesRequest(
            user_app_id=OWN,
            searches=[res.Search(query=res.Query(filters=filters))],
            pagination=api.Pagination(page=1, per_page=1000),
        )
        return [hit.input.id for hit in done("PostAnnotationsSearches", request).hits]

    assert mine in found(name("palm"))
    assert mine in found(name("water"))
    assert found(name("palm"), name("water")) == []


@act
def train_evaluate_predict() -> None:
    second = image(base64=Path("blue.png").read_bytes())
    second.id = name("other")
    second.data.concepts.add(id=name("new"), value=1)
    done("PostInputs", api.PostInputsRequest(user_app_id=OWN, inputs=[second]))
    uploaded(second.id)
    model_id = name("model")
    done("PostModels", api.PostModelsRequest(user_app_id=OWN, models=[res.Model(id=model_id)]))
    patch = api.PatchModelsRequest(user_app_id=OWN, action="overwrite")
    patch.models.add(id=model_id, name="some new name")
    done("PatchModels", patch)
    versions = api.PostModelVersionsRequest(user_app_id=OWN, model_id=model_id)
    versions.model_versions.add().output_info.data.concepts.add(id=name("new"))
    version = done("PostModelVersions", versions).model.model_version.id
    get = api.GetModelVersionRequest(user_app_id=OWN, model_id=model_id, version_id=version)
    until(lambda: done("GetModelVersion", get).model_version.status.code == codes.MODEL_TRAINED)
    info = api.GetModelRequest(user_app_id=OWN, model_id=model_id)
    model = done("GetModelOutputInfo", info).model
    assert model.name == "some new name"
    assert [c.id for c in model.model_version.output_info.data.concepts] == [name("new")]
    evaluate = api.PostModelVersionMetricsRequest(
        user_app_id=OWN, model_id=model_id, version_id=version
    )
    done("PostModelVersionMetrics", evaluate)
    metrics = api.GetModelVersionMetricsRequest(
        user_app_id=OWN, model_id=model_id, version_id=version
    )
    until(
        lambda: (
            done("GetModelVersionMetrics", metrics).model_version.metrics.status.code
            == codes.MODEL_EVALUATED
        )
    )
    outputs = api.PostModelOutputsRequest(
        user_app_id=OWN, model_id=model_id, version_id=version, inputs=[second]
    )
    found = done("PostModelOutputs", outputs).outputs[0].data.concepts
    assert [concept.id for concept in found] == [name("new")]
    done("DeleteModel", api.DeleteModelRequest(user_app_id=OWN, model_id=model_id))


@act
def train_with_an_api_key_and_a_dataset() -> None:
    dataset = res.Dataset(id=name("train"))
    done("PostDatasets", api.PostDatasetsRequest(datasets=[dataset]), KEY)
    ids = []
    for number, colour in enumerate(("red", "blue", "red")):
        sent = image(base64=Path(f"{colour}.png").read_bytes())
        sent.id = name(f"train-{number}")
        sent.dataset_ids.append(dataset.id)
        sent.data.concepts.add(id=name(colour), value=1)
        ids.append(done("PostInputs", api.PostInputsRequest(inputs=[sent]), KEY).inputs[0].id)
    uploaded(*ids)
    model = res.Model(id=name("deep"), model_type_id="visual-classifier")
    done("PostModels", api.PostModelsRequest(models=[model]), KEY)
    types = done("ListModelTypes", api.ListModelTypesRequest(page=1, per_page=1000), KEY)
    (kind,) = (one for one in types.model_types if one.id == "visual-classifier")
    (field,) = (one for one in kind.model_type_fields if one.path == "train_info.params.template")
    versions = api.PostModelVersionsRequest(model_id=model.id)
    params = versions.model_versions.add().train_info.params
    params.update({"template": field.model_type_enum_options[0].id, "dataset_id": dataset.id})
    version = done("PostModelVersions", versions, KEY).model.model_version.id
    get = api.GetModelVersionRequest(model_id=model.id, version_id=version)
    found = until(
        lambda: (
            (now := done("GetModelVersion", get, KEY).model_version).status.code
            not in (codes.MODEL_QUEUED_FOR_TRAINING, codes.MODEL_TRAINING)
            and now
        )
    )
    assert found.status.code == codes.MODEL_TRAINED
    assert {c.id for c in found.output_info.data.concepts} == {name("red"), name("blue")}
    assert found.total_input_count == 3


@act
def workflows() -> None:
    def node(version: str) -> res.WorkflowNode:
        model = res.Model(
            id="aaa03c23b3724a16a56b629203edc62c", model_version=res.ModelVersion(id=version)
        )
        return res.WorkflowNode(id="general", model=model)

    workflow = res.Workflow(id=name("flow"), nodes=[node("aa7f35c01e0642fda5cf400f543e7c40")])
    done("PostWorkflows", api.PostWorkflowsRequest(user_app_id=OWN, workflows=[workflow]))
    older = "aa9ca48295b37401f8af92ad1af0d91d"
    patch = api.PatchWorkflowsRequest(user_app_id=OWN, action="overwrite")
    patch.workflows.add(id=workflow.id).nodes.append(node(older))
    done("PatchWorkflows", patch)
    get = api.GetWorkflowRequest(user_app_id=OWN, workflow_id=workflow.id)
    assert done("GetWorkflow", get).workflow.nodes[0].model.model_version.id == older
    delete = api.DeleteWorkflowRequest(user_app_id=OWN, workflow_id=workflow.id)
    done("DeleteWorkflow", delete)


@act
def export_a_dataset() -> None:
    dataset_id = name("export")
    datasets = api.PostDatasetsRequest(user_app_id=OWN, datasets=[res.Dataset(id=dataset_id)])
    done("PostDatasets", datasets)
    request = api.PostInputsRequest(user_app_id=OWN)
    for _ in range(2):
        request.inputs.add(dataset_ids=[dataset_id]).data.image.base64 = PICTURE
    uploaded(*(item.id for item in done("PostInputs", request).inputs))
    versions = api.PostDatasetVersionsRequest(user_app_id=OWN, dataset_id=dataset_id)
    versions.dataset_versions.add(id=dataset_id)
    done("PostDatasetVersions", versions)
    get = api.GetDatasetVersionRequest(
        user_app_id=OWN, dataset_id=dataset_id, dataset_version_id=dataset_id
    )

    def version() -> res.DatasetVersion:
        return done("GetDatasetVersion", get).dataset_version

    until(lambda: version().status.code == codes.DATASET_VERSION_READY)
    exports = api.PutDatasetVersionExportsRequest(
        user_app_id=OWN, dataset_id=dataset_id, dataset_version_id=dataset_id
    )
    for form in (res.CLARIFAI_DATA_PROTOBUF, res.CLARIFAI_DATA_JSON):
        exports.exports.add(format=form)
    done("PutDatasetVersionExports", exports)

    def both() -> tuple:
        info = version().export_info
        found = (info.clarifai_data_protobuf, info.clarifai_data_json)
        ready = codes.DATASET_VERSION_EXPORT_SUCCESS
        return found if all(one.status.code == ready for one in found) else ()

    for export, kind in zip(until(both), ("protobuf", "json"), strict=True):
        assert export.size > 0
        response = requests.get(export.url, timeout=30)
        assert response.status_code == 200
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            names = archive.namelist()
            assert archive.read(names[0]) == f"application/x.clarifai-data+{kind}".encode()
            (batch,) = (archive.read(one) for one in names[1:])
        if kind == "json":
            assert len(json.loads(batch)["inputs"]) == 2
        else:
            assert len(res.InputBatch.FromString(batch).inputs) == 2


@act
def secure_data_hosting() -> None:
    hosted = get_input(kept["input"]).input.data.image.hosted
    assert {"orig", "tiny", "small", "large"} <= set(hosted.sizes)
    good = [
        {"headers": {"X-Clarifai-Session-Token": SESSION}},
        {"headers": {"authorization": f"Key {KEY}"}},
        {"headers": {"authorization": f"Key {PAT}"}},
        {"cookies": {"x_clarifai_session_token": SESSION}},
        {"cookies": {"x-clarifai-api-key": KEY}},
        {"cookies": {"x-clarifai-api-key": PAT}},
    ]
    bad = [
        {"headers": {"X-Clarifai-Session-Token": "0" * 32}},
        {"headers": {"authorization": "Key " + "0" * 32}},
        {"cookies": {"x_clarifai_session_token": "0" * 32}},
        {"cookies": {"x-clarifai-api-key": "0" * 32}},
    ]
    for size in ("orig", "tiny", "small", "large"):
        url = f"{hosted.prefix}/{size}/{hosted.suffix}"
        for credentials in good:
            response = requests.get(url, timeout=30, **credentials)
            assert response.status_code == 200, (credentials.keys(), response.status_code)
            assert response.content == PICTURE if size == "orig" else response.content
        for credentials in bad:
            assert requests.get(url, timeout=30, **credentials).status_code == 401
        assert requests.get(url, timeout=30).status_code == 404


def run(kind: str, channel: object) -> dict[str, str]:
    kept.clear()
    kept["channel"] = kind
    kept["stub"] = service_pb2_grpc.V2Stub(channel)
    return act.run(f"{kind}: ")


results = run(
    "grpc", ClarifaiChannel.get_insecure_grpc_channel("127.0.0.1", int(os.environ["PORT"]))
)
# Not before: making a channel decides for the whole process how stubs read responses.
results |= run("json", ClarifaiChannel.get_json_channel(REST))
report(results)
