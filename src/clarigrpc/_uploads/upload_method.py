"""An RPC that uploads a file in parts over a stream."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from clarigrpc._contract.methods import lookup


@dataclass(frozen=True, slots=True)
class UploadMethod:
    """An upload RPC with its first message.

    Attributes:
        method: Name of the RPC.
        config: The upload config; to continue an upload, the version id is added.
        parent_field: Field of the config with the id of the resource that gets the version.
        version_field: Field of the config with the version.
        id_field: Field of the responses with the version id.
        done: Codes of the final status.
    """

    method: str
    config: Any
    parent_field: str
    version_field: str
    id_field: str
    done: Set[int]

    @property
    def resource(self) -> dict[str, str]:
        """Ids of the resource that the file is uploaded to."""
        ids = self.config.user_app_id
        parent = getattr(self.config, self.parent_field)
        return {"user_id": ids.user_id, "app_id": ids.app_id, "parent": parent}

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
