"""Workflows as files describe them: with the fields of the service, or as its own tools write them.

The second form has all of it under ``workflow``, and a model by ``model_id`` and
``model_version_id``. Source: the fixtures and the check of ``clarifai/workflows`` in the published
SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

_MODEL_IDS = ("user_id", "app_id")


def workflow_fields(tree: dict[str, Any]) -> dict[str, Any]:
    """The fields of a workflow, from either form.

    Raises:
        UsageError: It has a model that would have to be made first.
    """
    content = tree.get("workflow", tree)
    if not isinstance(content, dict) or (content is not tree and len(tree) > 1):
        raise click.UsageError("a file with 'workflow' has its fields below that, and no others")
    nodes = content.get("nodes")
    if not isinstance(nodes, list):
        return content
    return {**content, "nodes": [_node(one) for one in nodes]}


def _node(node: Any) -> Any:
    model = node.get("model") if isinstance(node, dict) else None
    if not isinstance(model, dict) or "model_id" not in model:
        return node
    return {**node, "model": _model(model)}


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    known = {"model_id", "model_version_id", *_MODEL_IDS}
    if other := sorted(model.keys() - known):
        raise click.UsageError(
            f"the model {model['model_id']!r} has {', '.join(other)}: make it first, with "
            f"'clarigrpc models create', and name it by model_id and model_version_id"
        )
    found = {"id": model["model_id"], **{name: model[name] for name in _MODEL_IDS if name in model}}
    if "model_version_id" in model:
        found["model_version"] = {"id": model["model_version_id"]}
    return found
