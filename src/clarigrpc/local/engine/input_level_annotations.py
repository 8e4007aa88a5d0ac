"""The annotation that every input has of itself: the labels that it was added with.

It is made of the input whenever it is asked for, and what is changed in it is changed in the input,
so the two never differ and adding inputs costs nothing more.
"""

from __future__ import annotations

from typing import Literal

from clarigrpc import v2
from clarigrpc.local.service_errors import make_status
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_ID_PREFIX = "input-level-"
_LABEL_FIELDS: tuple[
    Literal["concepts", "regions", "frames", "time_segments", "metadata", "geo"], ...
] = ("concepts", "regions", "frames", "time_segments", "metadata", "geo")


def annotation_id(input_id: str) -> str:
    """The id of an input's own annotation."""
    return _ID_PREFIX + input_id


def input_id_of(found: str) -> str:
    """The input whose own annotation has this id; empty where it is another annotation's."""
    return found.removeprefix(_ID_PREFIX) if found.startswith(_ID_PREFIX) else ""


def own_annotation(item: v2.Input, app: UserApp) -> v2.Annotation:
    """What an input says of itself, as an annotation by the owner of its app."""
    found = v2.Annotation(
        id=annotation_id(item.id),
        input_id=item.id,
        user_id=app.user_id,
        input_level=True,
        status=make_status(StatusCode.ANNOTATION_SUCCESS),
        created_at=item.created_at,
        modified_at=item.modified_at,
    )
    have = item.data
    data = found.data
    data.SetInParent()
    data.concepts.extend(have.concepts)
    data.regions.extend(have.regions)
    data.frames.extend(have.frames)
    data.time_segments.extend(have.time_segments)
    if have.HasField("metadata"):
        data.metadata.CopyFrom(have.metadata)
    if have.HasField("geo"):
        data.geo.CopyFrom(have.geo)
    if have.HasField("text"):
        data.text.CopyFrom(have.text)
    return found


def take_labels(item: v2.Input, own: v2.Annotation) -> None:
    """Gives an input the labels of its own annotation, which was changed."""
    for name in _LABEL_FIELDS:
        item.data.ClearField(name)
    labels = v2.Data()
    labels.CopyFrom(own.data)
    labels.ClearField("text")
    item.data.MergeFrom(labels)


def changes_more_than_labels(change: v2.Annotation) -> bool:
    """Whether a patch of such an annotation would change what an input does not hold."""
    fields = {field.name for field, _ in change.ListFields()}
    if change.status.code == StatusCode.ANNOTATION_SUCCESS:
        fields.discard("status")
    labels = {field.name for field, _ in change.data.ListFields()}
    return bool(fields - {"id", "input_id", "data", "input_level"} or labels - {*_LABEL_FIELDS})
