"""Options that the service no longer takes, and names that it has replaced.

Requests of old clients still carry them. The contract has no fields for the options any more, so
over gRPC they arrive as fields that the message does not know (JSON with such names is refused by
the gateway). Ignoring them would do something else than what was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet

from clarigrpc._contract.deprecations import MODEL_TYPES, VALUES
from clarigrpc.local.service_errors import ServiceError, StatusCodeValue
from clarigrpc.v2 import StatusCode


class _RetiredField(NamedTuple):
    """A field that there was: the path of its message in the request, and its number there."""

    parent_path: str
    number: int
    code: StatusCodeValue
    details: str


_CROP = "image.crop is no longer supported: crop the image first and send its bytes"
_CLOSED = "closed_environment was replaced by enrich_dataset in train_info.params"
_RETIRED_FIELDS: Mapping[str, tuple[_RetiredField, ...]] = {
    **{
        method: (_RetiredField("inputs.data.image", 3, StatusCode.INPUT_INVALID_ARGUMENT, _CROP),)
        for method in (
            "GenerateModelOutputs",
            "PatchInputs",
            "PostInputs",
            "PostModelOutputs",
            "PostWorkflowResults",
        )
    },
    "DeleteInputs": (
        _RetiredField(
            "", 3, StatusCode.INPUT_INVALID_REQUEST, "delete_all is gone: delete inputs by ids"
        ),
    ),
    "PostModels": (
        _RetiredField(
            "models.output_info.output_config", 2, StatusCode.MODEL_INVALID_ARGUMENT, _CLOSED
        ),
    ),
    "PostModelVersions": (
        _RetiredField(
            "model_versions.output_info.output_config",
            2,
            StatusCode.MODEL_INVALID_ARGUMENT,
            _CLOSED,
        ),
    ),
    "PostModelsSearches": (
        _RetiredField(
            "model_query", 2, StatusCode.SEARCH_INVALID_REQUEST, "type is gone: use model_type_id"
        ),
    ),
}


def check(method: str, request: Any) -> None:
    """Refuses options that are gone, and puts today's names of model types for former ones.

    Raises:
        ServiceError: The request has such an option; the text says what to do instead.
    """
    for option in _RETIRED_FIELDS.get(method, ()):
        for message in _messages(request, option.parent_path):
            unknown: Iterable[Any] = UnknownFieldSet(message)  # type: ignore[assignment]
            if any(field.field_number == option.number for field in unknown):
                raise ServiceError(option.code, option.details)
    for path in VALUES.get(method, ()):
        parent_path, _, name = path.rpartition(".")
        if name == "model_type_id":
            for message in _messages(request, parent_path):
                former = message.model_type_id
                message.model_type_id = MODEL_TYPES.get(former, former)


def _messages(message: Any, path: str) -> Iterator[Any]:
    """The messages at a path that are there; a list gives its items."""
    if not path:
        yield message
        return
    name, _, rest = path.partition(".")
    if message.DESCRIPTOR.fields_by_name[name].is_repeated:
        for item in getattr(message, name):
            yield from _messages(item, rest)
    elif message.HasField(name):
        yield from _messages(getattr(message, name), rest)
