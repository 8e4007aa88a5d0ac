"""What of the V2 API is deprecated, and what to use instead: the one table, and its warnings.

A call that uses something of the table warns with ``DeprecationWarning`` at the line that made it,
by the ordinary means of ``warnings``: shown once a place, unless the caller's filters say else.
Requests of another package's classes and those of client streams are sent as they are.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_OUR_MESSAGES = "clarigrpc.v2."
_GONE = "today's service answers it with UNIMPLEMENTED"

METHODS: Mapping[str, str] = {
    "ListModelInputs": "there is no replacement",
    "PostSearches": "use PostInputsSearches or PostAnnotationsSearches",
    "PostAppDuplications": "there is no replacement",
    "ListAppDuplications": "there is no replacement",
    "GetAppDuplication": "there is no replacement",
    "PostWorkflowResultsSimilarity": f"use PostInputsSearches with a rank by image; {_GONE}",
    "PostAnnotationSearchMetrics": f"use PostEvaluations; {_GONE}",
    "GetAnnotationSearchMetrics": f"use GetEvaluation; {_GONE}",
    "ListAnnotationSearchMetrics": f"use ListEvaluations; {_GONE}",
    **dict.fromkeys(
        (
            "DeleteAnnotationSearchMetrics",
            "DeleteCollectors",
            "DeleteInstalledModuleVersions",
            "DeleteModuleVersions",
            "DeleteModules",
            "GetCollector",
            "GetInstalledModuleVersion",
            "GetModule",
            "GetModuleVersion",
            "GetModuleVersionUsageCount",
            "ListCollectors",
            "ListInstalledModuleVersions",
            "ListModuleVersions",
            "ListModules",
            "ListTrendingMetricsViews",
            "PatchCollectors",
            "PatchModuleVersions",
            "PatchModules",
            "PostCollectors",
            "PostConceptMappingJobs",
            "PostInstalledModuleVersions",
            "PostInstalledModuleVersionsKey",
            "PostModuleVersions",
            "PostModules",
            "PostStatValues",
            "PostStatValuesAggregate",
            "PostTrendingMetricsView",
        ),
        _GONE,
    ),
}
"""Deprecated method -> what to do instead."""

_MODEL = {
    "name": "use id",
    "display_name": "use id",
    "output_info": "give it to PostModelVersions or PatchModelVersions, in model_versions",
}
_TRAINING = "use train_info.params"
_MODEL_VERSION = {
    "import_info": "upload it by PostModelVersionsUpload",
    **{
        f"output_info.output_config.{name}": _TRAINING
        for name in (
            "concepts_mutually_exclusive",
            "embed_model_version_id",
            "existing_model_id",
            "hyper_parameters",
            "model_metadata",
        )
    },
}
_ANNOTATION = {
    "user_id": "use worker.user",
    "model_version_id": "use worker.model",
    "embed_model_version_id": "the app's workflow decides",
    "trusted": "use status",
}
_TASK = {
    "concept_ids": "use concepts",
    "worker.user_ids": "use worker.workers",
    "worker.users": "use worker.workers",
    "review.user_ids": "use review.users",
    "ai_assistant.workflow_id": "use ai_assistant.workflow",
}
_INFERENCE = {"model.output_info": "use model.model_version.output_info"}
_SEARCH = {"searches.query.ands": "use searches.query.filters and searches.query.ranks"}


def _in(prefix: str, rows: Mapping[str, str]) -> dict[str, str]:
    """Rows about the items of a list, as rows about the request."""
    return {
        f"{prefix}.{path}": advice.replace("use ", f"use {prefix}.", 1)
        for path, advice in rows.items()
    }


FIELDS: Mapping[str, Mapping[str, str]] = {
    "GenerateModelOutputs": _INFERENCE,
    "PostModelOutputs": _INFERENCE,
    "PostWorkflowResults": {"favor_clarifai_workflows": "name user and app in user_app_id"},
    "ListApps": dict.fromkeys(("query", "name", "id"), "use search"),
    "ListDatasets": {"id": "use search"},
    "ListModels": {
        "query": "use search",
        "name": "use search",
        "dont_fetch_from_main": "name user and app in user_app_id",
        "filter_by_user_id": "name user and app in user_app_id",
    },
    "ListWorkflows": dict.fromkeys(("query", "id", "search_term"), "use search"),
    "ListTasks": {"worker_user_ids": "use worker_ids"},
    "PostModels": {"model": "use models", **_in("models", _MODEL)},
    "PatchModels": _in("models", _MODEL),
    "PostModelVersions": _in("model_versions", _MODEL_VERSION),
    "PatchModelVersions": _in("model_versions", _MODEL_VERSION),
    "PostAnnotations": _in("annotations", _ANNOTATION),
    "PatchAnnotations": _in("annotations", _ANNOTATION),
    "PostTasks": _in("tasks", _TASK),
    "PatchTasks": _in("tasks", _TASK),
    "PostApps": {"apps.default_workflow_id": "use apps.default_workflow"},
    "PatchApps": {"apps.default_workflow_id": "use apps.default_workflow"},
    "PostDeployments": {"deployments.nodepools": "use deployments.deployment_nodepools"},
    "PatchDeployments": {"deployments.nodepools": "use deployments.deployment_nodepools"},
    "PostRunners": {"runners.labels": "there is no replacement"},
    "PatchRunners": {"runners.labels": "there is no replacement"},
    "PostConceptsSearches": {"concept_query.workflow_id": "use concept_query.workflow"},
    "PostInputsSearches": _SEARCH,
    "PostAnnotationsSearches": _SEARCH,
    "PostInputsDataSources": {"app_pat": "the credential of the call counts"},
    "PostInputsUploads": {"inputs_uploads.app_pat": "the credential of the call counts"},
}
"""Method -> path of a deprecated field in its request -> what to do instead."""

MODEL_TYPES: Mapping[str, str] = {
    "facedetect": "detect",
    "facedetect-identity": "detect-concept",
    "facedetect-demographics": "detect-concept",
    "facedetect-embed": "detect-embed",
}
"""Former name of a model type -> its name."""

_FORMER_TYPES = {name: f"use {new!r}" for name, new in MODEL_TYPES.items()}
_FORMER_SCOPES = {
    f"{kind}_Patch": f"use '{kind}_Add'"
    for kind in ("Annotations", "Concepts", "Inputs", "Models", "Workflows")
}

VALUES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "ListModels": {"model_type_id": _FORMER_TYPES},
    "PostModels": {"models.model_type_id": _FORMER_TYPES},
    "PostModelsSearches": {"model_query.model_type_id": _FORMER_TYPES},
    "PostKeys": {"keys.scopes": _FORMER_SCOPES},
    "PatchKeys": {"keys.scopes": _FORMER_SCOPES},
    "PostCollaborators": {"collaborators.scopes": _FORMER_SCOPES},
    "PatchCollaborators": {"collaborators.scopes": _FORMER_SCOPES},
}
"""Method -> path of a field in its request -> deprecated value -> what to do instead."""


def watch(method: str) -> Callable[[Any], None] | None:
    """A function that looks at each request of a method and warns; None where nothing can be.

    It is meant to run right where the request is sent, in the thread of the caller.
    """
    if method in METHODS:
        text = f"{method} is deprecated: {METHODS[method]}"
        return lambda request: _warn(text)
    paths = [*FIELDS.get(method, ()), *VALUES.get(method, ())]
    if not paths:
        return None
    heads = tuple(dict.fromkeys(path.partition(".")[0] for path in paths))
    known: type[Any] | None = None
    with_presence: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    # The way of every prediction: a few comparisons, and no look inside.
    def look(request: Any) -> None:
        nonlocal known, with_presence, others
        if type(request) is not known:
            # Another package's classes may lack the fields.
            if not type(request).__module__.startswith(_OUR_MESSAGES):
                return
            known = type(request)
            fields = known.DESCRIPTOR.fields_by_name
            with_presence = tuple(name for name in heads if fields[name].has_presence)
            others = tuple(name for name in heads if not fields[name].has_presence)
        for name in with_presence:
            if request.HasField(name):
                _look_closely(method, request)
                return
        for name in others:
            if getattr(request, name):
                _look_closely(method, request)
                return

    return look


def _look_closely(method: str, request: Any) -> None:
    for path, advice in FIELDS.get(method, {}).items():
        if any(True for _ in _values(request, path)):
            _warn(f"{method}: {path} is deprecated: {advice}")
    for path, known in VALUES.get(method, {}).items():
        for value in dict.fromkeys(_values(request, path)):
            if value in known:
                _warn(f"{method}: {path} {value!r} is deprecated: {known[value]}")


def _values(message: Any, path: str) -> Iterator[Any]:
    """What is set at a path; a list gives what is set in each of its items."""
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        items = getattr(message, name)
    elif field.has_presence:
        items = [getattr(message, name)] if message.HasField(name) else []
    else:
        items = [value] if (value := getattr(message, name)) else []
    for item in items:
        if rest:
            yield from _values(item, rest)
        else:
            yield item


def _warn(text: str) -> None:
    """Warn at the line outside of this package."""
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    warnings.warn(text, DeprecationWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]
