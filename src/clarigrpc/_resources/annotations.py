"""The annotations of an app."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import (
    Creates,
    Deletes,
    Gets,
    Lists,
    Paging,
    PatchAction,
    Patches,
    as_ids,
    chunks,
    filled,
)
from clarigrpc._resources.sync_async import (
    Async,
    Opening,
    Parents,
    Sync,
    iteration,
    lazy,
    nested,
    operation,
    streaming,
)
from clarigrpc._rpc.plan import ItemPlan, Plan
from clarigrpc._streams.response_stream import StreamSession


@named_in("clarigrpc.types")
class FrameOptions(TypedDict, total=False):
    """Options of ``client.annotations.stream``."""

    track_ids: Sequence[str]
    frame_number_start: int
    frame_time_start: int
    annotation_type: v2.AnnotationDataType.ValueType
    max_frames: int
    max_duration: int
    worker: v2.Worker
    min_prediction_score: float


@named_in("clarigrpc.types")
class TrackFilters(Paging, total=False):
    """Options of ``client.annotations.tracks(input_id).list``."""

    ids: Sequence[str]


@named_in("clarigrpc.types")
class AnnotationListFilters(Paging, total=False):
    """Options of ``client.annotations.list``."""

    ids: Sequence[str]
    input_ids: Sequence[str]
    user_ids: Sequence[str]
    model_version_ids: Sequence[str]
    workflow_version_ids: Sequence[str]
    statuses: Sequence[v2.Status]
    task_id: str
    list_all_annotations: bool
    return_model_output: bool


class FrameSession(StreamSession[v2.Annotation]):
    """Annotations in the order of their frames. A broken stream is resumed at its last frame.

    The cursor is the number of the frame, or its time if the request starts or ends by time. It
    works as long as annotations carry their frame and an id.
    """

    def __init__(self, request: v2.StreamAnnotationsRequest) -> None:
        self._request = request
        by_time = bool(request.frame_time_start or request.max_duration)
        self._start, self._length, self._position = (
            ("frame_time_start", "max_duration", "time")
            if by_time
            else ("frame_number_start", "max_frames", "number")
        )
        self._origin = getattr(request, self._start)
        self._limit = getattr(request, self._length)
        # The cursor cannot move an end that is given in the other unit.
        self._resumable = not by_time or not (request.frame_number_start or request.max_frames)
        self._at = self._origin
        self._seen: set[str] = set()
        self._progress = False

    def request(self) -> v2.StreamAnnotationsRequest:
        request = v2.StreamAnnotationsRequest()
        request.CopyFrom(self._request)
        setattr(request, self._start, self._at)
        if self._limit:
            setattr(request, self._length, self._limit - (self._at - self._origin))
        self._progress = False
        return request

    def may_resume(self, error: errors.ApiError) -> bool:
        # Without progress the channel itself has tried again.
        left = not self._limit or self._at < self._origin + self._limit
        return self._progress and self._resumable and left

    def accept(self, response: v2.SingleStreamAnnotationResponse) -> Iterator[v2.Annotation]:
        new = response.HasField("annotation") and self._is_new(response.annotation)
        if response.frame_fully_processed:
            self._at += 1
            self._seen.clear()
        if new:
            self._progress = True
            yield response.annotation

    def _is_new(self, annotation: v2.Annotation) -> bool:
        """Whether no attempt has seen it yet; moves the cursor to it."""
        frames = annotation.data.frames
        at = getattr(frames[0].frame_info, self._position) if frames else -1
        if at < self._at or not annotation.id:
            self._resumable = False
            return True
        if at > self._at:
            self._at = at
            self._seen.clear()
        if annotation.id in self._seen:
            return False
        self._seen.add(annotation.id)
        return True


class _LiveSession(StreamSession[v2.Annotation]):
    """Annotations as they are made. There is no cursor."""

    def __init__(self, request: v2.StreamLivestreamAnnotationsRequest) -> None:
        self._request = request

    def request(self) -> v2.StreamLivestreamAnnotationsRequest:
        return self._request

    def accept(self, response: v2.SingleStreamAnnotationResponse) -> Iterator[v2.Annotation]:
        if response.HasField("annotation"):
            yield response.annotation


class AnnotationTrackOperations(
    Creates[v2.AnnotationTrack], Patches[v2.AnnotationTrack], Deletes[v2.AnnotationTrack]
):
    """The tracks of a video: each follows one object through the frames."""

    _message = v2.AnnotationTrack
    _create_rpc = "PostAnnotationTracks"
    _list_rpc = "ListAnnotationTracks"
    _patch_rpc = "PatchAnnotationTracks"
    _delete_rpc = "DeleteAnnotationTracks"

    @iteration
    def list(self, **options: Unpack[TrackFilters]) -> ItemPlan[v2.AnnotationTrack]:
        """List the tracks of the video.

        Args:
            ids: Filter by ids of tracks.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)


class AnnotationTracks(AnnotationTrackOperations, Sync): ...


class AsyncAnnotationTracks(AnnotationTrackOperations, Async): ...


class AnnotationFilterOperations(
    Creates[v2.AnnotationFilter],
    Gets[v2.AnnotationFilter],
    Lists[v2.AnnotationFilter],
    Patches[v2.AnnotationFilter],
    Deletes[v2.AnnotationFilter],
):
    """The annotation filters of an app: saved conditions that datasets and tasks refer to."""

    _message = v2.AnnotationFilter
    _create_rpc = "PostAnnotationFilters"
    _get_rpc = "GetAnnotationFilter"
    _list_rpc = "ListAnnotationFilters"
    _patch_rpc = "PatchAnnotationFilters"
    _delete_rpc = "DeleteAnnotationFilters"


class AnnotationFilters(AnnotationFilterOperations, Sync): ...


class AsyncAnnotationFilters(AnnotationFilterOperations, Async): ...


class AnnotationOperations(Creates[v2.Annotation]):
    """The annotations of an app."""

    _message = v2.Annotation
    _create_rpc = "PostAnnotations"
    _get_rpc = "GetAnnotation"
    _list_rpc = "ListAnnotations"
    _patch_rpc = "PatchAnnotations"

    @lazy
    def filters(self) -> tuple[type[AnnotationFilters], type[AsyncAnnotationFilters]]:
        """The annotation filters of the app."""
        return AnnotationFilters, AsyncAnnotationFilters

    @nested(AnnotationTracks, AsyncAnnotationTracks)
    def tracks(self, input_id: str) -> Parents:
        """Access the tracks of a video.

        Args:
            input_id: Id of the video.

        Returns:
            Their collection. Nothing is sent yet.

        Raises:
            InvalidArgumentError: The id is empty.
        """
        return {"input_id": input_id}

    @operation
    def get(
        self, input_id: str, annotation_id: str, *, timeout: float | None = None
    ) -> Plan[v2.Annotation]:
        """Fetch one annotation.

        Args:
            input_id: Id of the annotated input.
            annotation_id: Id of the annotation.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The annotation does not exist.
        """
        return (yield from self._fetch(annotation_id, timeout, input_id=input_id))

    @operation
    def patch(
        self,
        item: v2.Annotation | Mapping[str, Any],
        *,
        action: PatchAction = "merge",
        delete_if_empty_data: bool = False,
        timeout: float | None = None,
    ) -> Plan[v2.Annotation]:
        """Change one annotation.

        Args:
            item: A message, or a mapping with the fields of one (as in JSON): ``id``, ``input_id``
                and the fields to change.
            action: How concepts and regions change: ``"merge"`` adds them, replacing those with the
                same id; ``"remove"`` removes them; ``"overwrite"`` replaces all of them.
            delete_if_empty_data: Whether to delete the annotation if no data is left. Default
                False.
            timeout: Seconds. None uses the client's setting.

        Returns:
            The annotation after the change.

        Raises:
            NotFoundError: The annotation does not exist.
            InvalidArgumentError: The service rejects the change (``details`` says why), or the
                mapping has unknown fields.
        """
        (changed,) = yield from self._patch(
            [item],
            timeout,
            True,
            action=action,
            delete_if_empty_data=delete_if_empty_data,
        )
        return changed

    @operation
    def patch_many(
        self,
        items: Iterable[v2.Annotation | Mapping[str, Any]],
        *,
        action: PatchAction = "merge",
        delete_if_empty_data: bool = False,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Annotation]]:
        """Change many annotations, in requests of 128.

        Args:
            items: At least one of what ``patch`` takes.
            action: How concepts and regions change: ``"merge"`` adds them, replacing those with the
                same id; ``"remove"`` removes them; ``"overwrite"`` replaces all of them.
            delete_if_empty_data: Whether to delete annotations that have no data left. Default
                False.
            timeout: Seconds for each request. None uses the client's setting.
            raise_on_partial: Whether a rejected change raises an error. False returns the
                annotation with the others, with its status. None uses the client's setting.

        Returns:
            The annotations after the changes, in the order given.

        Raises:
            PartialFailureError: Some changes were rejected; the others were made.
            InvalidArgumentError: No annotation is given, or a mapping has unknown fields.
        """
        changed = yield from self._patch(
            items,
            timeout,
            raise_on_partial,
            action=action,
            delete_if_empty_data=delete_if_empty_data,
        )
        return changed

    @operation
    def delete(
        self, input_id: str, annotation_id: str, *, timeout: float | None = None
    ) -> Plan[None]:
        """Delete one annotation.

        Args:
            input_id: Id of the annotated input.
            annotation_id: Id of the annotation.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The annotation does not exist.
        """
        yield from self._invoke(
            "DeleteAnnotation", timeout, input_id=input_id, annotation_id=annotation_id
        )

    @operation
    def delete_many(
        self,
        pairs: Iterable[tuple[str, str]] = (),
        *,
        input_ids: str | Iterable[str] = (),
        timeout: float | None = None,
    ) -> Plan[None]:
        """Delete many annotations, in requests of 128.

        Args:
            pairs: ``(input_id, annotation_id)`` of each annotation.
            input_ids: Ids of inputs, one or many; all their annotations are deleted. Instead of
                ``pairs``.
            timeout: Seconds for each request. None uses the client's setting.

        Raises:
            PartialFailureError: Some of the annotations do not exist; the others are deleted.
            InvalidArgumentError: Both ``pairs`` and ``input_ids`` are given, or neither, or an id
                is empty.
            TypeError: A pair is not two ids.
        """
        wanted = [_pair(one) for one in pairs]
        whole = as_ids(input_ids)
        if bool(wanted) == bool(whole):
            raise errors.InvalidArgumentError("delete_many() takes either pairs or input_ids")
        for chunk in chunks(wanted):
            yield from self._invoke(
                "DeleteAnnotations",
                timeout,
                input_ids=[one for one, _ in chunk],
                ids=[one for _, one in chunk],
            )
        for some in chunks(whole):
            yield from self._invoke("DeleteAnnotations", timeout, input_ids=some)

    @iteration
    def workers(
        self, *, trusted_only: bool = False, **options: Unpack[Paging]
    ) -> ItemPlan[v2.Worker]:
        """List who made annotations: users, models and workflows.

        Args:
            trusted_only: Whether to list only workers whose annotations count as correct. Default
                False.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        fields = {"trusted_only": trusted_only, **options}
        return self._pages("ListAnnotationWorkers", "workers", fields)

    @iteration
    def list(self, **options: Unpack[AnnotationListFilters]) -> ItemPlan[v2.Annotation]:
        """List the annotations of the app.

        Every input has an annotation of its own, with what the input was added with
        (``input_level``).

        Args:
            ids: Filter by ids of annotations.
            input_ids: Filter by inputs.
            user_ids: Filter by the users who made them.
            model_version_ids: Filter by the model versions that made them.
            workflow_version_ids: Filter by the workflow versions that made them.
            statuses: Filter by status; only the ``code`` of each counts.
            task_id: Filter by task.
            list_all_annotations: Whether to include annotations made by models and workflows.
                Default False.
            return_model_output: Whether to list the outputs of the app's models instead. Default
                False.
            page: Page number, from 1. None fetches all pages, on demand.
            per_page: Page size. None uses 128.
            timeout: Seconds for each request. None uses the client's setting.
        """
        return self._list(options)

    @streaming
    def stream(
        self, input_id: str, *, timeout: float | None = None, **options: Unpack[FrameOptions]
    ) -> Opening[v2.Annotation]:
        """Stream the annotations of a video, in the order of its frames.

        A broken connection is resumed at the frame where it broke, with nothing lost or doubled, as
        long as annotations carry their frame and an id. Otherwise the failure is raised.

        Args:
            input_id: Id of the video.
            timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.
            track_ids: Filter by tracks.
            frame_number_start: Number of the first frame. Default 0.
            frame_time_start: Time of the first frame in milliseconds; instead of
                ``frame_number_start``.
            annotation_type: Filter by kinds of annotation, the sum of values of
                ``v2.AnnotationDataType``.
            max_frames: Maximum number of frames. Default: to the end of the video.
            max_duration: Maximum length in milliseconds of video. Default: to the end of the video.
            worker: Filter by the user, model or workflow that made them.
            min_prediction_score: Lowest score of predictions to include, 0.0 to 1.0. Default 0.0.

        Returns:
            An iterator of annotations. To end the call, leave its ``with`` block, call its
            ``cancel`` or drop it.

        Raises:
            NotFoundError: The video does not exist; raised by the iterator.
        """
        request = filled(
            "StreamAnnotations",
            v2.StreamAnnotationsRequest,
            user_app_id=self._user_app_id,
            input_id=input_id,
            **options,
        )
        return Opening("StreamAnnotations", FrameSession(request), timeout)

    @streaming
    def stream_live(
        self, input_id: str, *, min_prediction_score: float = 0.0, timeout: float | None = None
    ) -> Opening[v2.Annotation]:
        """Stream the annotations of a live video as they are made.

        There is no cursor: a connection that breaks after the first annotation raises an error.

        Args:
            input_id: Id of the live video.
            min_prediction_score: Lowest score of predictions to include, 0.0 to 1.0.
            timeout: Seconds for the whole stream. None uses the client's ``stream_timeout``.

        Returns:
            An iterator of annotations. To end the call, leave its ``with`` block, call its
            ``cancel`` or drop it.

        Raises:
            ApiError: The call failed; raised by the iterator.
        """
        request = filled(
            "StreamLivestreamAnnotations",
            v2.StreamLivestreamAnnotationsRequest,
            user_app_id=self._user_app_id,
            input_id=input_id,
            min_prediction_score=min_prediction_score,
        )
        return Opening("StreamLivestreamAnnotations", _LiveSession(request), timeout)


def _pair(value: Any) -> tuple[str, str]:
    """The ids of an input and its annotation; a string would be two ids of a letter each."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"a pair is (input_id, annotation_id), not {value!r}")
    input_id, annotation_id = as_ids(value)
    return input_id, annotation_id


class Annotations(AnnotationOperations, Sync): ...


class AsyncAnnotations(AnnotationOperations, Async): ...
