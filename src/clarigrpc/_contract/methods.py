"""One row a method of the service: what a call of it needs to know."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

from clarigrpc import v2
from clarigrpc.v2 import _index

SERVICE = "clarifai.api.V2"

CallKind: TypeAlias = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
"""Kind of a call: requests, then responses. Also the name of a channel's factory method."""

# Methods whose repetition has no further effect, beside Get*, List*, MyScopes* and Stream*:
# predictions, searches and queries are reads by POST; a part of an upload is set, not added.
_IDEMPOTENT = frozenset(
    {
        "PostModelOutputs",
        "GenerateModelOutputs",
        "PostWorkflowResults",
        "PostWorkflowResultsSimilarity",
        "PostModelsSearches",
        "PostConceptsSearches",
        "PostInputsSearches",
        "PostAnnotationsSearches",
        "PostTrackAnnotationsSearches",
        "PostAppsSearches",
        "PostAuditLogSearches",
        "PostSearchesByID",
        "PostMetricsQuery",
        "PostStatValuesAggregate",
        "PostValidatePassword",
        "PostModelVersionsTrainingTimeEstimate",
        "PutUploadContentParts",
    }
)
# Hands out work: asking twice hands out twice.
_NOT_IDEMPOTENT = frozenset({"ListNextTaskAssignments"})


_FIELDS_OF_NESTED_STATUS = {"MultiDatasetInputResponse": "dataset_inputs"}
"""Responses whose items carry their status in their ``input``."""


def item_status(item: Any) -> v2.Status:
    """The status of an item of a response."""
    holder = item.input if isinstance(item, v2.DatasetInput) else item
    status: v2.Status = holder.status
    return status


class Method(NamedTuple):
    """What the client knows of a method.

    Attributes:
        name: ``PostInputs``.
        path: ``/clarifai.api.V2/PostInputs``.
        request_streaming: Whether the client sends a stream.
        response_streaming: Whether the server sends a stream.
        idempotent: Whether a call may be sent again when it is not known to have arrived.
        has_user_app_id: Whether the request has a ``user_app_id``.
        deprecated: Whether today's service advises against it or answers UNIMPLEMENTED.
        item_field: Field of the response whose items carry a status each, or "". ``item_status``
            finds it.
    """

    name: str
    path: str
    request_streaming: bool
    response_streaming: bool
    idempotent: bool
    has_user_app_id: bool
    deprecated: bool
    item_field: str
    request_name: str
    response_name: str

    def request_class(self) -> type[Any]:
        """The generated class of the request (imports its module)."""
        return getattr(v2, self.request_name)  # type: ignore[no-any-return]

    def response_class(self) -> type[Any]:
        """The generated class of the response (imports its module)."""
        return getattr(v2, self.response_name)  # type: ignore[no-any-return]

    def user_app_id_bytes(self, user_id: str, app_id: str) -> bytes:
        """``user_app_id`` as it stands in a serialized request, to be appended to one."""
        ids = v2.UserAppIDSet(user_id=user_id, app_id=app_id)
        encoded: bytes = self.request_class()(user_app_id=ids).SerializeToString()
        return encoded

    @property
    def kind(self) -> CallKind:
        """Kind of the method's calls."""
        if self.request_streaming:
            return "stream_stream" if self.response_streaming else "stream_unary"
        return "unary_stream" if self.response_streaming else "unary_unary"

    def factory(self, channel: Any) -> Callable[..., Any]:
        """The method of ``channel`` that makes a multicallable of this method's kind."""
        return getattr(channel, self.kind)  # type: ignore[no-any-return]

    def documentation(self) -> str:
        """What the method does, from the comments of the protos."""
        from clarigrpc.v2 import _docs

        return _docs.DOCS.get(f"V2.{self.name}", "")


def names() -> list[str]:
    """Every method of the service, sorted."""
    return sorted(_index.METHODS)


@cache
def lookup(name: str) -> Method:
    """The row of a method by its name or its path.

    Raises:
        KeyError: The service has no such method.
    """
    short = name.rpartition("/")[2]
    request, response, sends, answers, has_ids, deprecated, items = _index.METHODS[short]
    idempotent = short not in _NOT_IDEMPOTENT and (
        short in _IDEMPOTENT
        or short.startswith(("Get", "List", "MyScopes"))
        or (short.startswith("Stream") and not sends)
    )
    return Method(
        name=short,
        path=f"/{SERVICE}/{short}",
        request_streaming=sends,
        response_streaming=answers,
        idempotent=idempotent,
        has_user_app_id=has_ids,
        deprecated=deprecated,
        item_field=items or _FIELDS_OF_NESTED_STATUS.get(response, ""),
        request_name=request,
        response_name=response,
    )
