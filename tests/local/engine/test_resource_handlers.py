"""The general mechanism over all kinds, and patches of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc.local.engine.patching import patch
from clarigrpc.local.engine.resource_kinds import RESOURCE_KINDS
from clarigrpc.local.handlers.kind_handlers import RESOURCES
from clarigrpc.v2._index import METHODS
from tests.local.conftest import Raw

Code = v2.StatusCode


@pytest.fixture(params=["grpc", "rest"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test runs over both fronts."""
    return str(request.param)


# What a new one needs besides an id, and the ids above it.
GIVEN: dict[str, dict[str, Any]] = {
    "annotation_filter": {},
    "annotation_track": {"input_id": "in"},
    "app": {"description": "x"},
    "collector": {"description": "x"},
    "compute_cluster": {"description": "x"},
    "concept": {"definition": "x"},
    "concept_language": {"name": "Katze"},
    "dataset": {"description": "x", "metadata": {"a": 1}},
    "deployment": {"description": "x"},
    "label_order": {"name": "x"},
    "module": {"description": "x"},
    "module_version": {"description": "x"},
    "nodepool": {"description": "x"},
    "pipeline": {"description": "x", "pipeline_version": {"id": "pipeline_version"}},
    "pipeline_version_run": {},
    "runner": {"description": "x"},
    "search": {"name": "x", "save": True},
    "secret": {"value": "hidden", "description": "x"},
    "task": {"name": "x"},
    "workflow": {
        "nodes": [
            {
                "id": "n",
                "model": {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"},
            }
        ],
        "description": "x",
    },
    "workflow_version_evaluation": {},
    "workflow_version_evaluation_data": {},
}
ABOVE: dict[str, dict[str, str]] = {
    "annotation_track": {"input_id": "in"},
    "concept_language": {"concept_id": "concept"},
    "module_version": {"module_id": "module"},
    "nodepool": {"compute_cluster_id": "compute_cluster"},
    "pipeline_version": {"pipeline_id": "pipeline"},
    "pipeline_version_run": {"pipeline_id": "pipeline", "pipeline_version_id": "pipeline_version"},
    "runner": {"compute_cluster_id": "cluster", "nodepool_id": "pool"},
    "workflow_version_evaluation": {"workflow_id": "workflow", "workflow_version_id": "?"},
    "workflow_version_evaluation_data": {
        "workflow_id": "workflow",
        "workflow_version_id": "?",
        "workflow_version_evaluation_id": "workflow_version_evaluation",
    },
}


def items_of(message: Any, kind: str) -> list[Any]:
    """The resources in a request or a response."""
    cls = RESOURCES[kind].cls
    for field in message.DESCRIPTOR.fields:
        if field.message_type is cls.DESCRIPTOR:
            value = getattr(message, field.name)
            return value if field.is_repeated else [value]
    raise AssertionError(message)


class Kit:
    """Makes and calls by kind."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.version = ""

    def call(self, verb: str, kind: str, **fields: Any) -> Any:
        resource = RESOURCES[kind]
        name = f"{verb}{resource.kind.singular}"
        if verb in ("List", "Post", "Patch") or name not in METHODS:
            name = f"{verb}{resource.plural}"
        request = getattr(v2, METHODS[name][0])()
        known = request.DESCRIPTOR.fields_by_name
        for key, value in ABOVE.get(kind, {}).items():
            if key in known:
                setattr(request, key, self.version if value == "?" else value)
        for key, value in fields.items():
            if key == "items":
                items_of(request, kind).extend(value)
            elif known[key].is_repeated:
                getattr(request, key).extend(value)
            else:
                setattr(request, key, value)
        return self.raw(name, request)

    def make(self, kind: str, name: str = "") -> Any:
        """A resource of the kind, and what has to be above it."""
        item = json_format.ParseDict(GIVEN[kind], RESOURCES[kind].cls())
        item.id = name or kind
        response = self.call("Post", kind, items=[item])
        assert response.status.code == Code.SUCCESS, (kind, response.status)
        (made,) = items_of(response, kind)
        if kind == "workflow":
            self.version = made.version.id
        return made

    def above(self, kind: str) -> None:
        for name in RESOURCES[kind].kind.parents:
            if name in GIVEN:
                self.make(name)
        if "input_id" in ABOVE.get(kind, {}):
            request = v2.PostInputsRequest()
            request.inputs.add(id="in").data.text.raw = "x"
            self.raw("PostInputs", request)


def has(verb: str, kind: str) -> bool:
    resource = RESOURCES[kind]
    name = resource.kind.singular
    return bool({f"{verb}{name}", f"{verb}{resource.plural}"} & METHODS.keys())


@pytest.mark.parametrize("kind", [kind for kind in GIVEN if has("Post", kind) and kind != "search"])
def test_life_of_a_resource(raw: Raw, kind: str) -> None:
    kit = Kit(raw)
    kit.above(kind)
    made = kit.make(kind)
    resource = RESOURCES[kind]
    fields = made.DESCRIPTOR.fields_by_name
    assert made.id == kind
    if "created_at" in fields:
        assert made.HasField("created_at")
    if "app_id" in fields and not resource.kind.of_user:
        assert made.app_id == raw.server.app_id
    id_field = resource.kind.id_field or f"{kind}_id"
    if kind == "app":
        request = v2.GetAppRequest(user_app_id=v2.UserAppIDSet(app_id=kind))
        assert raw("GetApp", request).app == made
    elif has("Get", kind):
        (same,) = items_of(kit.call("Get", kind, **{id_field: kind}), kind)
        assert same == made
        missing = kit.call("Get", kind, **{id_field: "none"})
        assert missing.status.code == resource.kind.missing
    if has("List", kind):
        listed = items_of(kit.call("List", kind), kind)
        assert made in list(listed)
    item = json_format.ParseDict(GIVEN[kind], resource.cls())
    item.id = kind
    again = kit.call("Post", kind, items=[item])
    assert again.status.code == resource.kind.duplicate
    assert kit.call("Post", kind).status.code == resource.kind.invalid
    # The contract gives PatchRunners the address of PostRunners, so over HTTP it has none.
    patchable = kind != "runner" or kit.raw.web is None
    if has("Patch", kind) and patchable and "description" in fields:
        change = resource.cls(id=kind, description="new")
        response = kit.call("Patch", kind, items=[change], action="overwrite")
        assert response.status.code == Code.SUCCESS, response.status
        assert items_of(response, kind)[0].description == "new"
        refused = kit.call("Patch", kind, items=[change], action="twist")
        assert refused.status.code == resource.kind.invalid
        change.id = "none"
        # The service patches deployments with no other action.
        action = "overwrite" if kind == "deployment" else "merge"
        lost = kit.call("Patch", kind, items=[change], action=action)
        assert lost.status.code == resource.kind.missing
    if kind == "app":
        gone = v2.DeleteAppRequest(user_app_id=v2.UserAppIDSet(app_id=kind))
        assert raw("DeleteApp", gone).status.code == Code.SUCCESS
        assert raw("DeleteApp", gone).status.code == Code.CONN_DOES_NOT_EXIST
    elif f"Delete{resource.plural}" in METHODS:
        name = f"Delete{resource.plural}"
        request = getattr(v2, METHODS[name][0])()
        for key, value in ABOVE.get(kind, {}).items():
            if key in request.DESCRIPTOR.fields_by_name:
                setattr(request, key, value)
        ids = next(f.name for f in request.DESCRIPTOR.fields if f.is_repeated)
        getattr(request, ids).extend([kind, "none"])
        response = raw(name, request)
        assert response.status.code == Code.SUCCESS
        assert "none" in response.status.details
        assert raw(name, request).status.code == resource.kind.missing
        getattr(request, ids).extend(str(n) for n in range(128))
        assert raw(name, request).status.code == resource.kind.invalid


def test_every_kind_fits_its_methods() -> None:
    """Fields of ids, parents and resources are found for all methods of all kinds."""
    for kind in RESOURCE_KINDS:
        resource = RESOURCES[kind.name]
        assert resource.handlers(), kind.name
        for method in resource.handlers():
            request = getattr(v2, METHODS[method][0])()
            fields = request.DESCRIPTOR.fields_by_name
            for name in kind.parents:
                assert any(n in fields for n in RESOURCES[name]._id_names), (method, name)
            if method.startswith(("Post", "Patch")):
                items_of(request, kind.name)
            if not method.startswith("Delete"):
                items_of(getattr(v2, METHODS[method][1])(), kind.name)


def test_pages_filters_and_order(raw: Raw) -> None:
    for number in range(5):
        request = v2.PostDatasetsRequest()
        request.datasets.add(
            id=f"d{number}", description=f"about {'cats' if number % 2 else 'dogs'}"
        )
        raw("PostDatasets", request)

    def ids(**fields: Any) -> list[str]:
        response = raw("ListDatasets", v2.ListDatasetsRequest(**fields))
        assert response.status.code == Code.SUCCESS
        return [dataset.id for dataset in response.datasets]

    assert ids(page=1, per_page=2) == ["d4", "d3"]
    assert ids(page=3, per_page=2) == ["d0"]
    assert ids(sort_by_id=True, sort_ascending=True) == ["d0", "d1", "d2", "d3", "d4"]
    assert ids(search="cat", sort_by_id=True) == ["d3", "d1"]
    assert ids(id="d[12]", sort_by_id=True) == ["d2", "d1"]
    assert ids(starred_only=True) == ids(bookmark=True) == []
    assert ids(user_app_id=v2.UserAppIDSet(user_id="me")) == ["d4", "d3", "d2", "d1", "d0"]


def test_versions_go_with_their_resource(raw: Raw) -> None:
    kit = Kit(raw)
    kit.make("pipeline")
    kit.make("pipeline_version_run")
    pipeline = raw("GetPipeline", v2.GetPipelineRequest(pipeline_id="pipeline")).pipeline
    assert pipeline.pipeline_version.id == "pipeline_version"
    logs = raw(
        "ListPipelineVersionRunStatusLogs",
        v2.ListPipelineVersionRunStatusLogsRequest(
            pipeline_id="pipeline",
            pipeline_version_id="pipeline_version",
            pipeline_version_run_id="pipeline_version_run",
        ),
    ).pipeline_version_run_status_logs
    assert [log.status.code for log in logs] == [Code.JOB_QUEUED]
    raw("DeletePipelines", v2.DeletePipelinesRequest(ids=["pipeline"]))
    kit.make("pipeline")
    assert not items_of(kit.call("List", "pipeline_version_run"), "pipeline_version_run")


def test_secrets_stay_inside(raw: Raw) -> None:
    kit = Kit(raw)
    made = kit.make("secret")
    assert (made.value, made.version) == ("", 1)
    change = v2.Secret(id="secret", value="other")
    assert not kit.call("Patch", "secret", items=[change], action="overwrite").secrets[0].value
    assert kit.call("Get", "secret", id="secret").secret.version == 2


def test_a_restart_keeps_resources(serve: Callable[..., Raw], tmp_path: Any) -> None:
    raw = serve(data_dir=tmp_path)
    Kit(raw).make("workflow")
    raw.server.close()
    raw = serve(data_dir=tmp_path)
    workflow = raw("GetWorkflow", v2.GetWorkflowRequest(workflow_id="workflow")).workflow
    assert [node.id for node in workflow.nodes] == ["n"]


def data(**fields: Any) -> v2.Data:
    return json_format.ParseDict(fields, v2.Data())


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            "merge",
            {
                "concepts": [{"id": "a", "value": 0.0}, {"id": "b", "value": 1.0}, {"id": "c"}],
                "metadata": {"x": {"y": 1, "z": 2}, "k": 1},
                "text": {"raw": "new"},
            },
        ),
        (
            "overwrite",
            {
                "concepts": [{"id": "a", "value": 0.0}, {"id": "c"}],
                "metadata": {"x": {"z": 2}},
                "text": {"raw": "new"},
            },
        ),
        ("remove", {"concepts": [{"id": "b", "value": 1.0}], "metadata": {"x": {"y": 1}, "k": 1}}),
    ],
)
def test_actions(action: str, expected: dict[str, Any]) -> None:
    target = data(
        concepts=[{"id": "a", "value": 1.0}, {"id": "b", "value": 1.0}],
        metadata={"x": {"y": 1}, "k": 1},
        text={"raw": "old"},
    )
    change = data(
        concepts=[{"id": "a", "value": 0.0}, {"id": "c"}],
        metadata={"x": {"z": 2}},
        text={"raw": "new"},
    )
    patch(target, change, action)
    if not target.text.ListFields():
        target.ClearField("text")
    assert target == data(**expected)


def test_regions_are_patched_inside() -> None:
    box = {"bounding_box": {"top_row": 0.5}}
    target = data(
        regions=[{"id": "r", "region_info": box, "data": {"concepts": [{"id": "a", "value": 1.0}]}}]
    )
    more = data(regions=[{"id": "r", "data": {"concepts": [{"id": "b", "value": 1.0}]}}])
    patch(target, more, "merge")
    assert [c.id for c in target.regions[0].data.concepts] == ["a", "b"]
    assert target.regions[0].region_info.bounding_box.top_row == 0.5
    patch(target, data(regions=[{"id": "r", "data": {"concepts": [{"id": "a"}]}}]), "remove")
    assert [c.id for c in target.regions[0].data.concepts] == ["b"]
    patch(target, data(regions=[{"id": "r"}]), "remove")
    assert not target.regions
