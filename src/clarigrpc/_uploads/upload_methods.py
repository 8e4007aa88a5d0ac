"""What the upload methods of the service have in common, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clarigrpc import v2
from clarigrpc._contract.methods import lookup

_Code = v2.StatusCode


@dataclass(frozen=True, slots=True)
class Target:
    """A stream method that takes a file, and what to fill with it.

    Attributes:
        method: Name of the method.
        config: The first message; its version is completed with an id to go on with.
        version_field: Field of the config with the version.
        id_field: Field of the answers with the version's id.
        done: Codes of the final status.
        resource: Ids that tell this target from others of the same method.
    """

    method: str
    config: Any
    version_field: str
    id_field: str
    done: frozenset[int]
    resource: Mapping[str, str]

    def request(self, version_id: str, total: int) -> bytes:
        """The serialized first message of a stream."""
        config = type(self.config)()
        config.CopyFrom(self.config)
        config.total_size = total
        version = getattr(config, self.version_field)
        version.SetInParent()
        if version_id:
            version.id = version_id
        request = lookup(self.method).request_class()(upload_config=config)
        return bytes(request.SerializeToString())


def _resource(config: Any, parent_field: str) -> dict[str, str]:
    ids = config.user_app_id
    return {
        "user_id": ids.user_id,
        "app_id": ids.app_id,
        "parent": getattr(config, parent_field),
    }


def model_version(config: v2.PostModelVersionsUploadConfig) -> Target:
    """The target for a version of a model."""
    return Target(
        "PostModelVersionsUpload",
        config,
        "model_version",
        "model_version_id",
        frozenset({_Code.MODEL_BUILDING, _Code.MODEL_TRAINED, _Code.UPLOAD_DONE}),
        _resource(config, "model_id"),
    )


def artifact_version(config: v2.PostArtifactVersionsUploadConfig) -> Target:
    """The target for a version of an artifact."""
    return Target(
        "PostArtifactVersionsUpload",
        config,
        "artifact_version",
        "artifact_version_id",
        frozenset({_Code.UPLOAD_DONE, _Code.SUCCESS}),
        _resource(config, "artifact_id"),
    )


def pipeline_step_version(config: v2.PostPipelineStepVersionsUploadConfig) -> Target:
    """The target for a version of a pipeline step."""
    return Target(
        "PostPipelineStepVersionsUpload",
        config,
        "pipeline_step_version",
        "pipeline_step_version_id",
        frozenset({_Code.PIPELINE_STEP_BUILDING, _Code.PIPELINE_STEP_READY, _Code.UPLOAD_DONE}),
        _resource(config, "pipeline_step_id"),
    )
