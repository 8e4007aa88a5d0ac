"""The addresses of the reference pages do what they are for, over REST and over gRPC."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from clarigrpc import v2
from clarigrpc._contract import methods
from clarigrpc._contract.method_scopes import auth_type
from clarigrpc._transports import transcoding
from clarigrpc.local import LocalServer
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.v2._index import METHODS
from tests.local.conftest import Raw, clip, message, ok, png, settled
from tests.waiting import until

Code = v2.StatusCode

ENDPOINTS = json.loads((Path(__file__).parents[1] / "data" / "endpoints.json").read_text())

# These reach models of another app, which the key of an app cannot.
ACROSS = {
    "PostEvaluations",
    "PostWorkflowResults",
    "PostWorkflowResultsSimilarity",
    "PostWorkflows",
}

IMAGE = {"data": {"image": {"base64": base64.b64encode(png("red")).decode()}}}
VIDEO = base64.b64encode(clip(frames=3)).decode()
CLIENT_KINDS = {"id": "color-recognition", "userId": "clarifai", "appId": "main"}
CAT = {"data": {"concepts": [{"id": "c"}]}}
NODES = [{"id": "n", "model": {**CLIENT_KINDS, "id": "image-embedding"}}]

# What the body of a request has, and a part of the response that it leads to.
BODIES: dict[str, dict[str, Any]] = {
    "PostModelVersionsUpload": {
        "uploadConfig": {
            "userAppId": {"userId": "me", "appId": "?app"},
            "modelId": "m",
            "modelVersion": {},
            "totalSize": 5,
        }
    },
    "CancelInputsExtractionJobs": {"ids": ["x"]},
    "DeleteAnnotations": {"ids": ["a"], "inputIds": ["i"]},
    "DeleteDatasetVersions": {"datasetVersionIds": ["v"]},
    "DeleteInputs": {"ids": ["i"]},
    "DeleteLabelOrders": {"ids": ["l"]},
    "DeleteModels": {"ids": ["m"]},
    "DeleteRunners": {"ids": ["r"]},
    "DeleteWorkflowVersions": {"workflowVersionIds": ["v"]},
    "DeleteWorkflows": {"ids": ["w"]},
    "PatchDatasetVersions": {
        "action": "overwrite",
        "datasetVersions": [{"id": "v", "description": "new"}],
    },
    "PatchInputs": {
        "action": "merge",
        "inputs": [{"id": "i", "data": {"concepts": [{"id": "new"}]}}],
    },
    "PatchInputsSearches": {"action": "overwrite", "searches": [{"id": "s", "name": "new"}]},
    "PatchKeys": {"action": "overwrite", "keys": [{"id": "?key", "description": "new"}]},
    "PatchLabelOrders": {"action": "overwrite", "labelOrders": [{"id": "l", "name": "new"}]},
    "PatchModelCheckConsents": {"action": "merge", "checkConsents": ["new"]},
    "PatchModelLanguages": {"action": "merge", "languages": ["new"]},
    "PatchModels": {"action": "overwrite", "models": [{"id": "m", "notes": "new"}]},
    "PatchWorkflowIds": {"action": "overwrite", "ids": [{"id": "w", "newId": "new"}]},
    "PatchWorkflowVersions": {
        "action": "overwrite",
        "workflowVersions": [{"id": "v", "description": "new"}],
    },
    "PatchWorkflows": {"action": "overwrite", "workflows": [{"id": "w", "description": "new"}]},
    "PostDatasetVersions": {"datasetVersions": [{"id": "new"}]},
    "PostEvaluations": {
        "evalMetrics": [{"id": "new", "model": CLIENT_KINDS, "groundTruthDataset": {"id": "d"}}]
    },
    "PostInputs": {"inputs": [{"id": "new", **IMAGE}]},
    "PostInputsDataSources": {"dataSources": [{"inputsAddJobId": "new", "url": {"url": "?file"}}]},
    "PostInputsSearches": {"searches": [{"query": {"filters": [{"annotation": CAT}]}}]},
    "PostInputsUploads": {
        "inputsUploads": [
            {"inputsAddJobId": "new", "upload": {"contentName": "a.zip", "contentLength": 9}}
        ]
    },
    "PostKeys": {"keys": [{"description": "new", "scopes": ["All"], "apps": [{"id": "?app"}]}]},
    "PostLabelOrders": {"labelOrders": [{"id": "new"}]},
    "PostModels": {"models": [{"id": "new"}]},
    "PostModelsSearches": {"modelQuery": {"name": "m"}},
    "PostRunnerItemOutputs": {"runnerItemOutputs": [{"multiOutputResponse": {}}]},
    "PostRunners": {"runners": [{"id": "new"}]},
    "PostValidatePassword": {"password": {"plaintext": "Long-enough-4-all"}},
    "PostWorkflowResults": {"inputs": [{"id": "new", **IMAGE}]},
    "PostWorkflowResultsSimilarity": {
        "probeInputs": [{"id": "new", **IMAGE}],
        "poolInputs": [{"id": "new", **IMAGE}],
    },
    "PostWorkflowVersionsPublish": {"publications": [{"versionId": "v"}]},
    "PostWorkflowVersionsUnPublish": {"publications": [{"versionId": "v"}]},
    "PostWorkflows": {"workflows": [{"id": "new", "nodes": NODES}]},
    "PutDatasetVersionExports": {"exports": [{"format": "COCO"}]},
}

PART = {"contentPart": {"partNumber": 1, "data": base64.b64encode(b"model").decode()}}

# What the response of a method has to contain, where it is not just a success.
SEEN = {
    **{rpc: '"new"' for rpc, body in BODIES.items() if '"new"' in json.dumps(body)},
    "GetAnnotation": '"a"',
    "GetAppDuplication": '"copy"',
    "GetDatasetVersion": '"v"',
    "GetEvaluation": '"e"',
    "GetInput": '"i"',
    "GetInputCount": '"processed":1',
    "GetInputVideoManifest": ".m3u8",
    "GetInputsAddJob": '"j"',
    "GetInputsExtractionJob": '"x"',
    "GetKey": '"?key"',
    "GetLabelOrder": '"l"',
    "GetModel": '"m"',
    "GetModelType": '"visual-classifier"',
    "GetRunner": '"r"',
    "GetWorkflow": '"w"',
    "GetWorkflowVersion": '"v"',
    "ListAppDuplications": '"copy"',
    "ListCollaborations": '"theirs"',
    "ListDatasetVersionMetricsGroups": '"image"',
    "ListDatasetVersions": '"v"',
    "ListDatasets": '"d"',
    "ListEvaluations": '"e"',
    "ListInputs": '"i"',
    "ListInputsAddJobs": '"j"',
    "ListInputsExtractionJobs": '"x"',
    "ListKeys": '"?key"',
    "ListLabelOrders": '"l"',
    "ListModelTypes": '"visual-classifier"',
    "ListModels": '"m"',
    "ListModules": '"module"',
    "ListRunnerItems": '"runner_items":[]',
    "ListRunners": '"r"',
    "ListScopes": '"Inputs_Add"',
    "ListWorkflowVersions": '"v"',
    "ListWorkflows": '"w"',
    "MyScopesUser": '"All"',
    "PostInputsSearches": '"i"',
    "PostModelsSearches": '"m"',
    "PutDatasetVersionExports": '"format":2',
    "StreamInputs": '"i"',
}


class World:
    """A fresh app of a server, with one resource of each kind that the addresses name."""

    def __init__(self, raw: Raw, name: str, folder: Path) -> None:
        self.raw = raw
        self.app = name
        self.file = f"{folder.as_uri()}/"
        self.ids = v2.UserAppIDSet(user_id="me", app_id=name)
        self.post("PostApps", apps=[{"id": name}], user_app_id={})
        keys = [{"scopes": ["All"], "apps": [{"id": name}]}]
        self.key = self.post("PostKeys", keys=keys, user_app_id={}).keys[0].id
        self.post("PostDatasets", datasets=[{"id": "d"}])
        inputs = [{"id": "i", "dataset_ids": ["d"], **IMAGE}]
        inputs[0]["data"] = {**IMAGE["data"], "concepts": [{"id": "c", "value": 1}]}
        self.post("PostInputs", inputs=inputs)
        settled(raw.with_key(self.key), "i")
        self.post("PostAnnotations", annotations=[{"id": "a", "input_id": "i", "data": {}}])
        self.post("PostDatasetVersions", dataset_id="d", dataset_versions=[{"id": "v"}])
        until(lambda: self.version().status.code == Code.DATASET_VERSION_READY)
        self.post("PostModels", models=[{"id": "m"}])
        self.post("PostWorkflows", workflows=[{"id": "w", "nodes": NODES}])
        self.post("PostLabelOrders", label_orders=[{"id": "l"}])
        self.post("PostModules", modules=[{"id": "module"}])
        search = {"id": "s", "save": True, "query": {}}
        self.post("PostInputsSearches", searches=[search])
        self.put("inputs_add_job", v2.InputsAddJob(id="j"))
        self.put("inputs_extraction_job", v2.InputsExtractionJob(id="x"), Code.JOB_COMPLETED)
        metrics = v2.EvalMetrics(id="e", status=v2.Status(code=Code.MODEL_EVALUATED))
        self.put("evaluation", metrics, Code.MODEL_EVALUATED)
        # A workflow's version has an id of the server's choice.
        found = raw("GetWorkflow", v2.GetWorkflowRequest(user_app_id=self.ids, workflow_id="w"))
        self.workflow_version = found.workflow.version.id

    def version(self) -> Any:
        request = v2.GetDatasetVersionRequest(
            user_app_id=self.ids, dataset_id="d", dataset_version_id="v"
        )
        return ok(self.raw("GetDatasetVersion", request)).dataset_version

    def post(self, method: str, **fields: Any) -> Any:
        ids = {"user_app_id": {"user_id": "me", "app_id": self.app}}
        request = message(getattr(v2, METHODS[method][0]), **{**ids, **fields})
        return ok(self.raw(method, request))

    def put(self, kind: str, item: Any, status: int = 0) -> None:
        service = self.raw.server._service
        assert service is not None
        where = StoredCollection(kind, self.raw.server.user_id, self.app)
        service.state.store.insert(where, item.id, item.SerializeToString(), status=status)

    def filled(self, rpc: str, text: str) -> str:
        version = self.workflow_version if "Workflow" in rpc else "v"
        return (
            text.replace("?key", self.key)
            .replace("?app", self.app)
            .replace("?file", self.file)
            .replace('"v"', f'"{version}"')
        )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Raw, Path]]:
    """One server for all; every test works in an app of its own."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "one.png").write_bytes(png("blue"))
    other = {"id": "other", "pat": "other-pat", "apps": [{"id": "theirs"}]}
    config = {"users": [{"id": "me-user", "apps": [{"id": "home"}]}, other]}
    with (
        LocalServer(rest_port=0, config=config, input_roots=[folder]) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw = Raw(server, v2.V2Stub(channel))
        share = v2.PostCollaboratorsRequest()
        share.collaborators.add(scopes=["All"]).user.id = "me-user"
        ok(raw.with_key("other-pat")("PostCollaborators", share))
        ok(raw("PostRunners", v2.PostRunnersRequest(runners=[v2.Runner(id="r")])))
        copy = v2.PostAppDuplicationsRequest()
        copy.app_duplications.add(id="copy").destination_app.id = "copied"
        ok(raw("PostAppDuplications", copy))
        yield raw, folder


_numbers = itertools.count()


@pytest.fixture
def world(shared: tuple[Raw, Path]) -> Iterator[World]:
    raw, folder = shared
    yield World(raw, f"app{next(_numbers)}", folder)
    # Those that belong to the user are made again where a test deleted them.
    raw("PostRunners", v2.PostRunnersRequest(runners=[v2.Runner(id="r")]))
    raw("DeleteRunners", v2.DeleteRunnersRequest(ids=["new"]))


PATHS = {
    "annotationId": "a",
    "appDuplicationId": "copy",
    "datasetId": "d",
    "datasetVersionId": "v",
    "evaluationId": "e",
    "id": "j",
    "inputId": "i",
    "inputsExtractionJobId": "x",
    "keyId": "?key",
    "labelOrderId": "l",
    "modelId": "m",
    "modelTypeId": "visual-classifier",
    "runnerId": "r",
    "runnerItemId": "none",
    "userAppId.userId": "me",
    "userAppId.appId": "?app",
    "versionId": "?version",
    "workflowId": "w",
    "workflowVersionId": "?version",
}


def name_of(endpoint: dict[str, Any]) -> str:
    return f"{endpoint['method']} {endpoint['path']}"


@pytest.mark.parametrize("over", ["grpc", "rest"])
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=name_of)
def test_endpoint(world: World, endpoint: dict[str, Any], over: str) -> None:
    rpc = endpoint["rpc"]
    path = endpoint["path"]
    for name in endpoint["path_params"]:
        value = PATHS[name].replace("?version", world.workflow_version)
        path = path.replace(f"{{{name}}}", world.filled(rpc, value))
    fields = dict(BODIES.get(rpc, {}))
    # What belongs to a user needs a token; the key of an app says which app is meant.
    by_key = auth_type(rpc) == v2.AuthType.KeyAuth and rpc not in ACROSS
    if rpc in ACROSS and "userAppId.appId" not in endpoint["path_params"]:
        fields["userAppId"] = {"userId": "me", "appId": world.app}
    body = "" if endpoint["method"] == "GET" else world.filled(rpc, json.dumps(fields))
    if rpc == "PostModelVersionsUpload":
        body += "\n" + json.dumps(PART)
    if rpc == "GetInputVideoManifest":
        world.post("PostInputs", inputs=[{"id": "video", "data": {"video": {"base64": VIDEO}}}])
        settled(world.raw.with_key(world.key), "video")
        path = path.replace("/i/", "/video/")
    headers = {"authorization": f"Key {world.key if by_key else world.raw.server.pat}"}
    query = f"userAppId.appId={world.app}" if rpc == "ListModules" else ""
    call = _over_rest if over == "rest" else _over_grpc
    response = call(world.raw, endpoint, path, query, body, headers)
    if rpc == "PostModelVersionsUpload":
        assert response.status.code == Code.MODEL_BUILDING
        get = v2.GetModelRequest(user_app_id=world.ids, model_id="m")
        found = ok(world.raw("GetModel", get))
        assert found.model.model_version.id == response.model_version_id
        return
    if rpc == "PostRunnerItemOutputs":
        # Nobody predicts here; test_runners has the whole conversation.
        assert response.status.code == Code.RUNNER_ITEM_CANCELLED
        return
    ok(response)
    if rpc in SEEN:
        text = transcoding.dumps(transcoding.to_json(response)).decode().replace(" ", "")
        assert world.filled(rpc, SEEN[rpc]) in text
    _check_effect(world, rpc)


def _over_rest(
    raw: Raw,
    endpoint: dict[str, Any],
    path: str,
    query: str,
    body: str,
    headers: dict[str, str],
) -> Any:
    answer = httpx.request(
        endpoint["method"],
        f"{raw.server.rest_base}{path}",
        content=body or None,
        params=query,
        headers={**headers, "content-type": "application/json"},
        timeout=20,
    )
    row = methods.lookup(endpoint["rpc"])
    found = answer.json() if not row.response_streaming else None
    if found is None:
        found = json.loads(answer.text.splitlines()[-1])["result"]
    response = row.response_class()()
    transcoding.from_json(found, response)
    return response


def _over_grpc(
    raw: Raw,
    endpoint: dict[str, Any],
    path: str,
    query: str,
    body: str,
    headers: dict[str, str],
) -> Any:
    binding = transcoding.router().match(endpoint["method"], path)
    assert binding is not None
    assert binding.method == endpoint["rpc"]
    requests = [
        transcoding.decode_request(binding, path, query, line.encode())
        for line in body.splitlines() or [""]
    ]
    metadata = tuple(headers.items())
    if methods.lookup(binding.method).request_streaming:
        stream = getattr(raw.stub, binding.method)(iter(requests), metadata=metadata, timeout=20)
        return list(stream)[-1]
    return raw(binding.method, requests[0], metadata=metadata)


def _check_effect(world: World, rpc: str) -> None:
    """What was deleted is gone."""
    gone: dict[str, tuple[str, Any, int]] = {
        "DeleteAnnotation": ("GetAnnotation", {"annotation_id": "a"}, Code.CONN_DOES_NOT_EXIST),
        "DeleteAnnotations": ("GetAnnotation", {"annotation_id": "a"}, Code.CONN_DOES_NOT_EXIST),
        "DeleteDatasetVersions": (
            "GetDatasetVersion",
            {"dataset_id": "d", "dataset_version_id": "v"},
            Code.CONN_DOES_NOT_EXIST,
        ),
        "DeleteInput": ("GetInput", {"input_id": "i"}, Code.CONN_DOES_NOT_EXIST),
        "DeleteInputs": ("GetInput", {"input_id": "i"}, Code.CONN_DOES_NOT_EXIST),
        "DeleteKey": ("GetKey", {"key_id": world.key}, Code.CONN_DOES_NOT_EXIST),
        "DeleteLabelOrders": ("GetLabelOrder", {"label_order_id": "l"}, Code.CONN_DOES_NOT_EXIST),
        "DeleteModel": ("GetModel", {"model_id": "m"}, Code.MODEL_DOES_NOT_EXIST),
        "DeleteModels": ("GetModel", {"model_id": "m"}, Code.MODEL_DOES_NOT_EXIST),
        "DeleteRunners": ("GetRunner", {"runner_id": "r"}, Code.RUNNER_DOES_NOT_EXIST),
        "DeleteWorkflow": ("GetWorkflow", {"workflow_id": "w"}, Code.WORKFLOW_DOES_NOT_EXIST),
        "DeleteWorkflows": ("GetWorkflow", {"workflow_id": "w"}, Code.WORKFLOW_DOES_NOT_EXIST),
        "DeleteWorkflowVersions": (
            "GetWorkflowVersion",
            {"workflow_id": "w", "workflow_version_id": world.workflow_version},
            Code.WORKFLOW_DOES_NOT_EXIST,
        ),
    }
    if rpc not in gone:
        assert not rpc.startswith("Delete")
        return
    method, fields, code = gone[rpc]
    request = getattr(v2, METHODS[method][0])(user_app_id=world.ids, **fields)
    until(lambda: world.raw(method, request).status.code == code)
