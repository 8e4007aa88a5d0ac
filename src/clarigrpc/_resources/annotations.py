"""The annotations of an app."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from clarigrpc import errors, v2
from clarigrpc._public_names import named_in
from clarigrpc._resources.base import (
    Action,
    Creates,
    Deletes,
    Gets,
    Lists,
    Paging,
    Patches,
    as_ids,
    chunks,
)
from clarigrpc._resources.sync_async import Async, Lazy, Sync, iteration, nested, operation
from clarigrpc._rpc.plan import ItemPlan, Plan
from clarigrpc._streams.response_stream import AsyncStream, Stream, StreamSession


@named_in("clarigrpc.types")
class FrameOptions(TypedDict, total=False):
    """What part of a video's annotations is streamed; everything by default.

    Attributes:
        track_ids: Only of these tracks.
        frame_number_start: Number of the first frame.
        frame_time_start: Time of the first frame in milliseconds, instead of its number.
        annotation_type: Kinds, added up.
        max_frames: End after so many frames.
        max_duration: End after so many milliseconds of the video.
        worker: Only of this user, model or workflow.
        min_prediction_score: Leave out predictions below this score, 0.0 to 1.0.
    """

    track_ids: Sequence[str]
    frame_number_start: int
    frame_time_start: int
    annotation_type: v2.AnnotationDataType.ValueType
    max_frames: int
    max_duration: int
    worker: v2.Worker
    min_prediction_score: float


class TrackFilters(Paging, total=False):
    """Which tracks are listed.

    Attributes:
        ids: Only these.
    """

    ids: Sequence[str]


class AnnotationListFilters(Paging, total=False):
    """Which annotations are listed.

    Attributes:
        ids: Only these.
        input_ids: Only those of these inputs.
        user_ids: Only those of these users.
        model_version_ids: Only those of these versions of models.
        workflow_version_ids: Only those of these versions of workflows.
        statuses: Only those with the code of one of these statuses.
        task_id: Only those of this task.
        list_all_annotations: Those of models and workflows, too.
        return_model_output: The output of the app's models instead.
    """

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
    """Annotations in the order of their frames, taken up again at the frame where they broke off.

    The cursor is the number of the frame, or its time where the request starts or ends by time.
    It holds as long as annotations say their frame and, inside a frame, have an id.
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
        # An end that is told in the other measure cannot be moved along.
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
    """The tracks of a video: one thing followed through its frames."""

    message = v2.AnnotationTrack

    @iteration
    def list(self, **options: Unpack[TrackFilters]) -> ItemPlan[v2.AnnotationTrack]:
        """The tracks of the video.

        Args:
            {options}
            {paging}
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
    """The annotation filters of an app: kept searches that datasets and tasks refer to."""

    message = v2.AnnotationFilter


class AnnotationFilters(AnnotationFilterOperations, Sync): ...


class AsyncAnnotationFilters(AnnotationFilterOperations, Async): ...


class AnnotationOperations(Creates[v2.Annotation]):
    """The annotations of an app."""

    message = v2.Annotation

    filters: Lazy[AnnotationFilters, AsyncAnnotationFilters] = Lazy(
        __name__, "AnnotationFilters", "The annotation filters of the app."
    )
    tracks = nested("input_id", AnnotationTracks, AsyncAnnotationTracks, "The tracks of a video.")

    @operation
    def get(
        self, input_id: str, annotation_id: str, *, timeout: float | None = None
    ) -> Plan[v2.Annotation]:
        """An annotation of an input.

        Args:
            input_id: The input.
            annotation_id: The annotation.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such annotation.
        """
        return (yield from self._fetch(annotation_id, timeout, input_id=input_id))

    @operation
    def patch(
        self,
        item: v2.Annotation | Mapping[str, Any],
        *,
        action: Action = "merge",
        delete_if_empty_data: bool = False,
        timeout: float | None = None,
    ) -> Plan[v2.Annotation]:
        """Change an annotation.

        Args:
            item: ``id``, ``input_id`` and what is to be changed.
            action: ``"merge"`` adds concepts and regions or replaces those of the same id,
                ``"remove"`` takes them away, ``"overwrite"`` replaces all.
            delete_if_empty_data: Whether an annotation that has nothing left is deleted.
            timeout: Seconds; None: the client's.

        Returns:
            The annotation as it is now.

        Raises:
            NotFoundError: There is no such annotation.
        """
        (changed,) = yield from self._write(
            "Patch",
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
        action: Action = "merge",
        delete_if_empty_data: bool = False,
        timeout: float | None = None,
        raise_on_partial: bool | None = None,
    ) -> Plan[builtins.list[v2.Annotation]]:
        """Change annotations, in requests of 128. As ``patch``, for at least one.

        Raises:
            PartialFailureError: Some could not be changed; the others are.
        """
        changed = yield from self._write(
            "Patch",
            items,
            timeout,
            raise_on_partial,
            action=action,
            delete_if_empty_data=delete_if_empty_data,
        )
        return [*changed]

    @operation
    def delete(
        self, input_id: str, annotation_id: str, *, timeout: float | None = None
    ) -> Plan[None]:
        """Delete an annotation of an input.

        Raises:
            NotFoundError: There is no such annotation.
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
        """Delete annotations, in requests of 128.

        Args:
            pairs: ``(input_id, annotation_id)`` of each.
            input_ids: Inputs all of whose annotations are deleted, instead of ``pairs``.
            timeout: Seconds for each request; None: the client's.
        """
        wanted = [*pairs]
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
        """Who has annotated: users, models and workflows.

        Args:
            trusted_only: Only those whose annotations count as right.
            {paging}
        """
        fields = {"trusted_only": trusted_only, **options}
        return self._pages("ListAnnotationWorkers", "workers", fields)

    @iteration
    def list(self, **options: Unpack[AnnotationListFilters]) -> ItemPlan[v2.Annotation]:
        """The annotations of the app.

        Args:
            {options}
            {paging}
        """
        return self._list(options)

    def _frames(self, input_id: str, options: FrameOptions) -> FrameSession:
        return FrameSession(
            v2.StreamAnnotationsRequest(user_app_id=self.user_app_id, input_id=input_id, **options)
        )

    def _live(self, input_id: str, min_prediction_score: float) -> _LiveSession:
        return _LiveSession(
            v2.StreamLivestreamAnnotationsRequest(
                user_app_id=self.user_app_id,
                input_id=input_id,
                min_prediction_score=min_prediction_score,
            )
        )


class Annotations(AnnotationOperations, Sync):
    """The annotations of an app."""

    def stream(
        self, input_id: str, *, timeout: float | None = None, **options: Unpack[FrameOptions]
    ) -> Stream[v2.Annotation]:
        """The annotations of a video in the order of its frames.

        A connection that breaks is taken up again at the frame where it broke; nothing is lost or
        doubled, as long as the annotations say their frame and have ids. Where they do not, the
        failure raises.

        Args:
            input_id: The video.
            timeout: Seconds for the whole stream; None: the client's ``stream_timeout``.
            options: Where to start and to end, and what to leave out, see ``FrameOptions``.

        Returns:
            An iterator of annotations. Leave its ``with`` block, ``cancel`` it or drop it to end
            the call.
        """
        return Stream(self.unary("StreamAnnotations"), self._frames(input_id, options), timeout)

    def stream_live(
        self, input_id: str, *, min_prediction_score: float = 0.0, timeout: float | None = None
    ) -> Stream[v2.Annotation]:
        """The annotations of a live video while they are made.

        There is no cursor: a connection that breaks after the first annotation raises.
        """
        session = self._live(input_id, min_prediction_score)
        return Stream(self.unary("StreamLivestreamAnnotations"), session, timeout)


class AsyncAnnotations(AnnotationOperations, Async):
    """The annotations of an app."""

    def stream(
        self, input_id: str, *, timeout: float | None = None, **options: Unpack[FrameOptions]
    ) -> AsyncStream[v2.Annotation]:
        """As ``Annotations.stream``."""
        return AsyncStream(
            self.unary("StreamAnnotations"), self._frames(input_id, options), timeout
        )

    def stream_live(
        self, input_id: str, *, min_prediction_score: float = 0.0, timeout: float | None = None
    ) -> AsyncStream[v2.Annotation]:
        """As ``Annotations.stream_live``."""
        session = self._live(input_id, min_prediction_score)
        return AsyncStream(self.unary("StreamLivestreamAnnotations"), session, timeout)
