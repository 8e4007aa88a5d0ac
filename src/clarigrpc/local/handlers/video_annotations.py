"""Annotations of videos in the order of their frames: of one track, or as a stream of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, annotations_of
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.local.user_app import UserApp
from clarigrpc.v2 import StatusCode

_TrackedShape = v2.AnnotationDataType

_REGIONS = {
    "bounding_box": _TrackedShape.BOUNDING_BOX,
    "polygon": _TrackedShape.POLYGON,
    "point": _TrackedShape.POINT,
    "span": _TrackedShape.SPAN,
    "mask": _TrackedShape.MASK,
}


def _by_frame(
    context: Context, app: UserApp, request: Any, track_ids: set[str]
) -> Iterator[v2.Annotation]:
    """The annotations of an input, cut into one a frame, as far as the request asks for them."""
    store = context.state.store
    row = store.get(StoredCollection.of_app(INPUT_KIND, app), request.input_id)
    if row is None:
        raise ServiceError(
            StatusCode.INPUT_DOES_NOT_EXIST, f"input {request.input_id!r} does not exist"
        )
    if not v2.Input.FromString(row.body).data.HasField("video"):
        raise ServiceError(StatusCode.INPUT_INVALID_ARGUMENT, f"input {row.id!r} is not a video")
    found = [
        (*_place(frame), number, cut)
        for number, label in enumerate(reversed(list(annotations_of(store, app, row.id))))
        if _is_by(label, request.worker)
        for frame in label.data.frames
        if frame.frame_info.number >= request.frame_number_start
        and frame.frame_info.time >= request.frame_time_start
        and (cut := _cut(label, frame, request, track_ids)) is not None
    ]
    found.sort(key=lambda entry: entry[:3])
    return _first(found, request)


def _place(frame: v2.Frame) -> tuple[int, int]:
    """Time in milliseconds and number of a frame."""
    return frame.frame_info.time, frame.frame_info.number


def _first(
    found: list[tuple[int, int, int, v2.Annotation]], request: Any
) -> Iterator[v2.Annotation]:
    """Ends after the frames or the time of the video that the request allows.

    Both are counted from where the request starts; where that is told in the other measure, from
    the first frame that is found.
    """
    first_time, first_number = request.frame_time_start, request.frame_number_start
    if found:
        first_time = first_time or (found[0][0] if first_number else 0)
        first_number = first_number or (found[0][1] if request.frame_time_start else 0)
    for time, number, _, annotation in found:
        if request.max_frames and number >= first_number + request.max_frames:
            return
        if request.max_duration and time >= first_time + request.max_duration:
            return
        yield annotation


def _is_by(label: v2.Annotation, wanted: v2.Worker) -> bool:
    kind = wanted.WhichOneof("worker")
    if kind == "model":
        made_by = label.model_version_id or label.worker.model.model_version.id
        return made_by == wanted.model.model_version.id
    if kind == "workflow":
        made_by = label.workflow_version_id or label.worker.workflow.version.id
        return made_by == wanted.workflow.version.id
    return kind is None or wanted.user.id in (label.user_id, label.worker.user.id)


def _cut(
    label: v2.Annotation, frame: v2.Frame, request: Any, track_ids: set[str]
) -> v2.Annotation | None:
    """What an annotation says of one frame; None where it is not asked for."""
    kinds = request.annotation_type
    # People are sure of what they say.
    predicted = label.model_version_id or label.worker.WhichOneof("worker") in ("model", "workflow")
    least = getattr(request, "min_prediction_score", 0.0) if predicted else 0.0
    result = v2.Annotation()
    result.CopyFrom(label)
    result.data.Clear()
    part = result.data.frames.add(id=frame.id, frame_info=frame.frame_info)
    if (not kinds or kinds & _TrackedShape.TAG) and not track_ids:
        part.data.concepts.extend(c for c in frame.data.concepts if c.value >= least)
    for region in frame.data.regions:
        if track_ids and region.track_id not in track_ids:
            continue
        form = next((n for n in _REGIONS if region.region_info.HasField(n)), "")  # type: ignore[arg-type]
        if kinds and not (form and kinds & _REGIONS[form]):
            continue
        score = max([region.value, *(concept.value for concept in region.data.concepts)])
        if score >= least:
            part.data.regions.append(region)
    return result if part.data.ListFields() else None


def search_track(
    context: Context, request: v2.PostTrackAnnotationsSearchesRequest
) -> v2.MultiAnnotationResponse:
    app = context.readable(request.user_app_id)
    if not request.track_id:
        raise ServiceError(StatusCode.ANNOTATION_INVALID_ARGUMENT, "track_id is empty")
    found = _by_frame(context, app, request, {request.track_id})
    return v2.MultiAnnotationResponse(status=make_status(StatusCode.SUCCESS), annotations=found)


def stream_annotations(
    context: Context, request: v2.StreamAnnotationsRequest
) -> Iterator[v2.SingleStreamAnnotationResponse]:
    app = context.readable(request.user_app_id)
    found = _by_frame(context, app, request, set(request.track_ids))
    for _, of_frame in groupby(found, key=lambda one: _place(one.data.frames[0])):
        labels = list(of_frame)
        for number, annotation in enumerate(labels, 1):
            yield v2.SingleStreamAnnotationResponse(
                status=make_status(StatusCode.SUCCESS),
                annotation=annotation,
                frame_fully_processed=number == len(labels),
            )


UNARY: dict[str, Callable[[Context, Any], Message]] = {
    "PostTrackAnnotationsSearches": search_track,
}
SERVER_STREAM: dict[str, Callable[[Context, Any], Iterator[Message]]] = {
    "StreamAnnotations": stream_annotations,
}
