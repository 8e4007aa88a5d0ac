"""The RPCs that upload a file in parts over a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clarigrpc import v2
from clarigrpc._contract.methods import lookup


@dataclass(frozen=True, slots=True)
class UploadMethod:
    """An upload RPC with its first message.

    Attributes:
        method: Name of the RPC.
        config: The upload config; to continue an upload, the version id is added.
        version_field: Field of the config with the version.
        id_field: Field of the responses with the version id.
        done: Codes of the final status.
        resource: Ids of the resource that the file is uploaded to.
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


def model_version(config: v2.PostModelVersionsUploadConfig) -> UploadMethod:
    """Uploads a model version."""
    return UploadMethod(
        "PostModelVersionsUpload",
        config,
        "model_version",
        "model_version_id",
        frozenset(
            {v2.StatusCode.MODEL_BUILDING, v2.StatusCode.MODEL_TRAINED, v2.StatusCode.UPLOAD_DONE}
        ),
        _resource(config, "model_id"),
    )


def artifact_version(config: v2.PostArtifactVersionsUploadConfig) -> UploadMethod:
    """Uploads an artifact version."""
    return UploadMethod(
        "PostArtifactVersionsUpload",
        config,
        "artifact_version",
        "artifact_version_id",
        frozenset({v2.StatusCode.UPLOAD_DONE, v2.StatusCode.SUCCESS}),
        _resource(config, "artifact_id"),
    )


def pipeline_step_version(config: v2.PostPipelineStepVersionsUploadConfig) -> UploadMethod:
    """Uploads a pipeline step version."""
    return UploadMethod(
        "PostPipelineStepVersionsUpload",
        config,
        "pipeline_step_version",
        "pipeline_step_version_id",
        frozenset(
            {
                v2.StatusCode.PIPELINE_STEP_BUILDING,
                v2.StatusCode.PIPELINE_STEP_READY,
                v2.StatusCode.UPLOAD_DONE,
            }
        ),
        _resource(config, "pipeline_step_id"),
    )
