"""What the resources have: every documented method, on both clients, tested and explained."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from clarigrpc import AsyncClient, Client, query, v2
from clarigrpc._resources.sync_async import Async, Sync, lazy
from clarigrpc._rpc.client_context import ClientContext
from tests.both import Both, ClientKind
from tests.resources.verbs import KINDS, model_verbs, resources, verbs

ENDPOINTS = json.loads((Path(__file__).parents[1] / "data" / "endpoints.json").read_text())
DOCUMENTED = sorted({endpoint["rpc"] for endpoint in ENDPOINTS})

# Documented method -> the verb that sends it.
VERBS: dict[str, Callable[[Any], Any]] = {
    "CancelInputsAddJob": lambda c: c.jobs.cancel("j"),
    "CancelInputsExtractionJobs": lambda c: c.extraction_jobs.cancel(["j"]),
    "DeleteAnnotation": lambda c: c.annotations.delete("i", "a"),
    "DeleteAnnotations": lambda c: c.annotations.delete_many([("i", "a")]),
    "DeleteDatasetVersions": lambda c: c.datasets.versions("d").delete("v"),
    "DeleteInput": lambda c: c.inputs.delete("i"),
    "DeleteInputs": lambda c: c.inputs.delete(["i"]),
    "DeleteKey": lambda c: c.keys.delete("k"),
    "DeleteLabelOrders": lambda c: c.label_orders.delete("l"),
    "DeleteModel": lambda c: c.models.delete("m"),
    "DeleteModels": lambda c: c.models.delete(["m", "n"]),
    "DeleteRunners": lambda c: c.runners.delete("r"),
    "DeleteWorkflow": lambda c: c.workflows.delete("w"),
    "DeleteWorkflowVersions": lambda c: c.workflows.versions("w").delete("v"),
    "DeleteWorkflows": lambda c: c.workflows.delete(["w", "x"]),
    "GetAnnotation": lambda c: c.annotations.get("i", "a"),
    "GetAppDuplication": lambda c: c.app_duplications.get("d"),
    "GetDatasetVersion": lambda c: c.datasets.versions("d").get("v"),
    "GetEvaluation": lambda c: c.evaluations.get("e"),
    "GetInput": lambda c: c.inputs.get("i"),
    "GetInputCount": lambda c: c.inputs.status(),
    "GetInputVideoManifest": lambda c: c.inputs.video_manifest("i"),
    "GetInputsAddJob": lambda c: c.jobs.get("j"),
    "GetInputsExtractionJob": lambda c: c.extraction_jobs.get("j"),
    "GetKey": lambda c: c.keys.get("k"),
    "GetLabelOrder": lambda c: c.label_orders.get("l"),
    "GetModel": lambda c: c.models.get("m"),
    "GetModelType": lambda c: c.models.types.get("t"),
    "GetRunner": lambda c: c.runners.get("r"),
    "GetWorkflow": lambda c: c.workflows.get("w"),
    "GetWorkflowVersion": lambda c: c.workflows.versions("w").get("v"),
    "ListAppDuplications": lambda c: c.app_duplications.list(),
    "ListCollaborations": lambda c: c.collaborations.list(),
    "ListDatasetVersionMetricsGroups": lambda c: c.datasets.versions("d").metrics("v"),
    "ListDatasetVersions": lambda c: c.datasets.versions("d").list(),
    "ListDatasets": lambda c: c.datasets.list(),
    "ListEvaluations": lambda c: c.evaluations.list(),
    "ListInputs": lambda c: c.inputs.list(),
    "ListInputsAddJobs": lambda c: c.jobs.list(),
    "ListInputsExtractionJobs": lambda c: c.extraction_jobs.list(),
    "ListKeys": lambda c: c.keys.list(),
    "ListLabelOrders": lambda c: c.label_orders.list(),
    "ListModelInputs": lambda c: c.models.versions("m").inputs("v"),
    "ListModelTypes": lambda c: c.models.types.list(),
    "ListModels": lambda c: c.models.list(),
    "ListModules": lambda c: c.modules.list(),
    "ListRunnerItems": lambda c: c.runners.items("r").list(),
    "ListRunners": lambda c: c.runners.list(),
    "ListScopes": lambda c: c.scopes.list(),
    "ListWorkflowVersions": lambda c: c.workflows.versions("w").list(),
    "ListWorkflows": lambda c: c.workflows.list(),
    "MyScopesUser": lambda c: c.scopes.mine_as_user(),
    "PatchDatasetVersions": lambda c: c.datasets.versions("d").patch({"id": "v"}),
    "PatchInputs": lambda c: c.inputs.patch(v2.Input(id="i")),
    "PatchInputsSearches": lambda c: c.search.saved.patch({"id": "s"}),
    "PatchKeys": lambda c: c.keys.patch({"id": "k"}),
    "PatchLabelOrders": lambda c: c.label_orders.patch({"id": "l"}),
    "PatchModelCheckConsents": lambda c: c.models.patch_check_consents("m", ["c"]),
    "PatchModelLanguages": lambda c: c.models.patch_languages("m", ["en"]),
    "PatchModels": lambda c: c.models.patch({"id": "m"}),
    "PatchWorkflowIds": lambda c: c.workflows.rename("w", "x"),
    "PatchWorkflowVersions": lambda c: c.workflows.versions("w").patch({"id": "v"}),
    "PatchWorkflows": lambda c: c.workflows.patch({"id": "w"}),
    "PostDatasetVersions": lambda c: c.datasets.versions("d").create("v"),
    "PostEvaluations": lambda c: c.evaluations.create("e"),
    "PostInputs": lambda c: c.inputs.create(v2.Input()),
    "PostInputsDataSources": lambda c: c.jobs.create_from_urls("https://example.org/a.zip"),
    "PostInputsSearches": lambda c: c.search.inputs(query.has_concept("c")),
    "PostInputsUploads": lambda c: c.jobs.create_for_uploads([v2.Upload()]),
    "PostKeys": lambda c: c.keys.create(v2.Key()),
    "PostLabelOrders": lambda c: c.label_orders.create("l"),
    "PostModels": lambda c: c.models.create("m"),
    "PostModelsSearches": lambda c: c.models.search("m"),
    "PostRunnerItemOutputs": lambda c: c.runners.items("r").answer("i", v2.RunnerItemOutput()),
    "PostRunners": lambda c: c.runners.create("r"),
    "PostValidatePassword": lambda c: c.users.validate_password("p"),
    "PostWorkflowResults": lambda c: c.workflows.predict("w", v2.Input()),
    "PostWorkflowResultsSimilarity": lambda c: c.workflows.similarity("w", [v2.Input()], []),
    "PostWorkflowVersionsPublish": lambda c: c.workflows.versions("w").publish("v"),
    "PostWorkflowVersionsUnPublish": lambda c: c.workflows.versions("w").unpublish("v"),
    "PostWorkflows": lambda c: c.workflows.create("w"),
    "PutDatasetVersionExports": lambda c: c.datasets.versions("d").export(
        "v", v2.DatasetVersionExportFormat.COCO
    ),
    "StreamInputs": lambda c: c.inputs.stream(),
}


class Sent(Exception):
    """A request that a client was about to send."""

    def __init__(self, method: str, request: Any) -> None:
        super().__init__(method)
        self.method = method
        self.request = request


@pytest.mark.parametrize("rpc", VERBS)
async def test_documented_methods_have_a_verb(
    rpc: str, client_kind: ClientKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unary(self: object, method: str, *, encoded: bool = False) -> Callable[..., Any]:
        def send(request: Any, **options: Any) -> Any:
            raise Sent(method, request)

        return send

    monkeypatch.setattr(ClientContext, "unary", unary)
    both = Both(client_kind, base="http://127.0.0.1:1", pat="p", user_id="u", app_id="a")
    try:
        with pytest.raises(Sent) as caught:
            found = VERBS[rpc](both.client)
            if hasattr(found, "__await__"):
                await found
            else:
                await both.collect(found)
        assert caught.value.method == rpc
    finally:
        await both.close()


def test_the_table_is_that_of_the_documents() -> None:
    # A stream of requests: test_rpc_names.py sends it.
    assert VERBS.keys() | {"PostModelVersionsUpload"} == set(DOCUMENTED)
    assert len(DOCUMENTED) == 84


class _Chains(ast.NodeVisitor):
    """Finds ``c.datasets.versions("d").export`` as ``datasets.versions.export``."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names = []
        current: ast.expr = node
        while isinstance(current, (ast.Attribute, ast.Call)):
            if isinstance(current, ast.Attribute):
                names.append(current.attr)
                current = current.value
            else:
                current = current.func
        chain = list(reversed(names))
        self.found.update(".".join(chain[start:]) for start in range(len(chain)))
        self.generic_visit(node)


def test_every_verb_is_tested() -> None:
    chains = _Chains()
    for file in Path(__file__).parent.glob("test_*.py"):
        if file.name != Path(__file__).name:
            chains.visit(ast.parse(file.read_text()))
    for file in Path(__file__).parents[1].joinpath("streams").glob("test_*.py"):
        chains.visit(ast.parse(file.read_text()))
    # What lies in two places has to be tested in one.
    tested = {verb.function.__qualname__ for verb in verbs() if verb.path in chains.found}
    assert [v.path for v in verbs() if v.function.__qualname__ not in tested] == []


def test_both_clients_have_the_same() -> None:
    mine, theirs = resources("sync"), resources("async")
    assert len(mine) >= 34
    assert mine.keys() == theirs.keys()
    sync_verbs, async_verbs = ([*verbs(kind), *model_verbs(kind)] for kind in KINDS)
    for one, other in zip(sync_verbs, async_verbs, strict=True):
        assert one.expression == other.expression
        assert issubclass(one.owner, Sync)
        assert issubclass(other.owner, Async)
        signatures = [inspect.signature(verb.function) for verb in (one, other)]
        assert list(signatures[0].parameters) == list(signatures[1].parameters), one.path
        assert inspect.getdoc(one.function) == inspect.getdoc(other.function), one.path


def test_help_says_what_each_verb_takes_and_does() -> None:
    by_path = {verb.path: inspect.signature(verb.function) for verb in verbs()}
    signature = str(by_path["datasets.create"])
    assert signature.startswith("(self, item: 'v2.Dataset | str | Mapping[str, Any]'")
    assert signature.endswith("-> 'v2.Dataset'")
    assert {"page", "per_page", "model_type_id", "timeout"} <= by_path[
        "models.list"
    ].parameters.keys()
    assert str(by_path["datasets.versions"]) == "(self, dataset_id: 'str') -> 'DatasetVersions'"
    assert str(by_path["logs.stream"]).endswith("-> 'Stream[v2.LogEntry]'")
    keys = resources()["keys"]
    assert get_type_hints(keys.create) == {
        "item": v2.Key | str | Mapping[str, Any],
        "timeout": float | None,
        "return": v2.Key,
    }
    assert (keys.__doc__ or "").startswith("The keys of a user.")


def test_a_resource_shows_its_verbs_and_nothing_else() -> None:
    with Client(base="http://127.0.0.1:1", pat="p") as client:
        for name in resources():
            found = {one for one in dir(getattr(client, name)) if not one.startswith("_")}
            parts = {
                verb.path.split(".")[1] for verb in verbs() if verb.path.startswith(f"{name}.")
            }
            assert found == parts | {"user_id", "app_id"}


def test_resources_are_imported_when_they_are_asked_for() -> None:
    program = """
import sys
from clarigrpc import Client
client = Client(base="http://127.0.0.1:1", pat="p")
loaded = lambda: sorted(m for m in sys.modules if m.startswith("clarigrpc._resources."))
assert loaded() == ["clarigrpc._resources.sync_async"], loaded()
client.datasets.list
assert "clarigrpc._resources.datasets" in loaded()
assert "clarigrpc._resources.workflows" not in loaded()
assert client.datasets is client.datasets
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_attributes_themselves() -> None:
    for client in (Client, AsyncClient):
        assert {"datasets", "models", "search"} <= set(dir(client))
        assert isinstance(client.datasets, lazy)
        assert client.datasets.__doc__ == "The datasets of the app."
